//! The configuration of a node's servers, and the script by which a node comes up.

use super::dns;
use serde_json::{Map, Value, json};
use std::{net::Ipv4Addr, path::Path};

/// containerd's socket. Every node has its own /run, so that the usual paths do.
pub(crate) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// The name of the image that holds a Pod's namespaces, as containerd knows it.
const PAUSE_IMAGE: &str = "docker.io/library/pause:dev";
/// Where the network configuration of Pods is.
const CNI_CONFIG: &str = "/run/cni/net.d";

/// What kubelet would write to the machine's own settings. A node has files of its own there, which say so already.
const SYSCTLS: [(&str, &str); 6] = [
    ("kernel/keys/root_maxbytes", "25000000"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
];

/// The node's first process, which lives as long as the node: it gives the node its own /run, /var/lib, /var/log and boot id, and
/// buries the processes that others leave. `dir` is the node's directory.
pub(crate) fn init(dir: &Path, name: &str) -> String {
    let dir = dir.display();
    let mut script = format!(
        "\
set -e
# Mounts of Pods reach the others on this node, and nobody else.
mount --make-rshared /
mount -t tmpfs -o mode=755 run /run
mount --bind '{dir}/lib' /var/lib
mount --bind '{dir}/log' /var/log
mkdir -p /run/lock /run/diego-test {CNI_CONFIG} /var/lib/diego
cp '{dir}/cni.conflist' {CNI_CONFIG}/pods.conflist
: >/run/diego-test/boot-id
mount --bind '{dir}/boot-id' /run/diego-test/boot-id
mount --bind '{dir}/boot-id' /proc/sys/kernel/random/boot_id
echo 1 >/proc/sys/net/ipv4/ip_forward
hostname '{name}'
mkdir -p '{dir}/sysctl'
"
    );
    for (i, (name, value)) in SYSCTLS.iter().enumerate() {
        script.push_str(&format!(
            "echo {value} >'{dir}/sysctl/{i}' && mount --bind '{dir}/sysctl/{i}' /proc/sys/{name}\n"
        ));
    }
    script.push_str(&format!(
        "\
trap '' TERM INT HUP
sleep infinity &
: >'{dir}/up'
# Reaps every child, adopted ones too.
wait
"
    ));
    script
}

/// containerd's configuration: no snapshots by mounts, and no more privilege than the machine gives.
pub(crate) fn containerd(cni_plugins: &Path) -> String {
    let cni_plugins = cni_plugins.display();
    let off = ["aufs", "btrfs", "devmapper", "overlayfs", "zfs"]
        .map(|name| format!("\"io.containerd.snapshotter.v1.{name}\""))
        .join(", ");
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [{off}]

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_plugins}"
    conf_dir = "{CNI_CONFIG}"
"#
    )
}

/// The network of the node's Pods: a bridge of the node, with addresses of the node's range.
pub(crate) fn cni(pods: &str) -> String {
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": "pods",
            "isGateway": true,
            // A Pod may be one of those behind the Service that it calls.
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                // In /run: a reboot frees all addresses.
                "dataDir": "/run/cni/addresses",
                "ranges": [[{ "subnet": pods }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }],
    })
    .to_string()
}

/// kubelet's configuration. What decides how fast a node is missed has its default. `dns` is where Pods ask for names; the
/// fields in `own` are this node's.
pub(crate) fn kubelet(
    ca: &Path,
    cgroup: &str,
    dns: Option<Ipv4Addr>,
    own: &Map<String, Value>,
) -> String {
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": ca },
        },
        "authorization": { "mode": "Webhook" },
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failCgroupV1": false,
        "failSwapOn": false,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": false,
        // The machine's disk and memory are not the node's own: nothing is evicted for their sake.
        "evictionHard": {
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
            "memory.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "pid.available": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        // Nobody resolves other names than the cluster's own.
        "resolvConf": "",
        "clusterDNS": dns.into_iter().collect::<Vec<_>>(),
        "clusterDomain": dns.map(|_| dns::DOMAIN).unwrap_or_default(),
    });
    for (field, value) in own {
        config[field] = value.clone();
    }
    config.to_string()
}

/// kubelet's command line.
pub(crate) fn kubelet_args(
    config: &Path,
    kubeconfig: &Path,
    name: &str,
    address: Ipv4Addr,
    labels: &str,
) -> Vec<String> {
    let mut args = vec![
        format!("--config={}", config.display()),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--hostname-override={name}"),
        format!("--node-ip={address}"),
        "--root-dir=/var/lib/kubelet".to_owned(),
        "--cert-dir=/var/lib/kubelet/pki".to_owned(),
        // Nobody reads the figures about containers, and the processors are few.
        "--housekeeping-interval=60s".to_owned(),
    ];
    if !labels.is_empty() {
        args.push(format!("--node-labels={labels}"));
    }
    args
}

/// kube-proxy's command line. `pods` are the node's Pods: what comes from elsewhere needs the node's address to find back.
pub(crate) fn proxy_args(kubeconfig: &Path, name: &str, pods: &str) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--hostname-override={name}"),
        "--proxy-mode=iptables".to_owned(),
        format!("--cluster-cidr={pods}"),
        // The table of connections is the machine's own: its size is not ours to set.
        "--conntrack-max-per-core=0".to_owned(),
        "--conntrack-min=0".to_owned(),
        "--conntrack-tcp-timeout-established=0s".to_owned(),
        "--conntrack-tcp-timeout-close-wait=0s".to_owned(),
    ]
}
