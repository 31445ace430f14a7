//! The surroundings themselves: nodes carry Pods and Services, and can be cut off, killed, started and rebooted.

use crate::{
    site::Site,
    support::{Failure, eventually},
};
use local_cluster::NodesOptions;
use std::{fs, process, time::Duration};

const SOON: Duration = Duration::from_secs(60);

/// Two Pods on different nodes that answer with their names, and that see their node's boot id.
const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: web}}}
      containers:
      - name: web
        image: test-app:dev
        command: [sh, -c, 'mkdir -p /tmp/w; hostname >/tmp/w/index.html; echo serving; exec httpd -f -p 8080 -h /tmp/w']
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
        volumeMounts: [{name: boot-id, mountPath: /boot-id, readOnly: true}]
      volumes:
      - {name: boot-id, hostPath: {path: /run/diego-test/boot-id, type: File}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_carry_pods_and_fail_as_nodes_do() -> Result<(), Failure> {
    let site = Site::start(NodesOptions::default()).await?;
    let zones = r"get nodes -o jsonpath={.items[*].metadata.labels.topology\.kubernetes\.io/zone}";
    assert_eq!(site.kubectl(zones).await?, "z1 z2 z3");
    assert_eq!(site.helm("list --short").await?, "");

    site.apply(WEB).await?;
    site.kubectl("rollout status deployment/web --timeout=60s")
        .await?;
    let placed = "get pods -l app=web -o jsonpath={range.items[*]}{.metadata.name}/{.spec.nodeName}/{.status.podIP},{end}";
    let placed = site.kubectl(placed).await?;
    let pods: Vec<Vec<&str>> = placed
        .split_terminator(',')
        .map(|pod| pod.split('/').collect())
        .collect();
    let [one, two] = &pods[..] else {
        return Err(format!("not two Pods: {placed}").into());
    };
    let (name, home, address) = (one[0], one[1], one[2]);
    let third = ["node-1", "node-2", "node-3"]
        .into_iter()
        .find(|node| *node != home && *node != two[1])
        .ok_or("both Pods are on one node")?;

    // Services answer from a node without such a Pod, and from inside a Pod; kubectl reaches the containers.
    let service = site
        .kubectl("get service web -o jsonpath={.spec.clusterIP}")
        .await?;
    let url = format!("http://{service}/");
    let names = [name, two[0]];
    let ask = ["curl", "-sS", "--max-time", "10", &url];
    // A node hears of a Service's Pods a moment after they are ready.
    let answers = || async { site.node(third).ok()?.exec(&ask).await.ok() };
    let answer = eventually("the Service answers a node", SOON, answers).await?;
    assert!(names.contains(&answer.trim()), "{answer}");
    for pod in names {
        let ask = format!("exec {pod} -- wget -qO- {url}");
        site.until(&ask, SOON, |answer| names.contains(&answer))
            .await?;
    }
    assert_eq!(site.kubectl(&format!("logs {name}")).await?, "serving");
    let boot_id = site
        .kubectl(&format!("exec {name} -- cat /boot-id"))
        .await?;
    assert_eq!(boot_id, site.node(home)?.boot_id()?);

    // The API server knows Pods by their tokens at its Service, and nodes as nodes.
    let token = site.kubectl("create token default").await?;
    let api = site
        .kubectl("get service kubernetes -o jsonpath={.spec.clusterIP}")
        .await?;
    let ca = site.dir().join("ca.crt");
    let (api, bearer) = (
        format!("https://{api}/api/v1/namespaces/default/pods"),
        format!("Authorization: Bearer {token}"),
    );
    let ca = ca.to_str().ok_or("not UTF-8")?;
    let refusal = site
        .node(third)?
        .exec(&["curl", "-sS", "--cacert", ca, "-H", &bearer, &api])
        .await?;
    assert!(
        refusal.contains(r#"User \"system:serviceaccount:default:default\" cannot list"#),
        "{refusal}"
    );
    let as_node = site
        .nodes
        .cluster()
        .kubeconfig_for(&format!("system:node:{home}"))?;
    let refusal = site
        .kubectl_refused(&format!(
            "--kubeconfig {} annotate node {third} a=b",
            as_node.display()
        ))
        .await?;
    assert!(refusal.contains("only its own Node object"), "{refusal}");

    // Cut off, a node's Pods are silent and alive; healed, they answer as before.
    let pod = format!("http://{address}:8080/");
    let ask = ["curl", "-sS", "--max-time", "2", &pod];
    site.node(home)?.cut().await?;
    let silence = site.node(third)?.exec(&ask).await.unwrap_err().to_string();
    assert!(silence.contains("curl: (28)"), "{silence}");
    let own = site.node(home)?.exec(&ask).await?;
    assert_eq!(own.trim(), name);
    site.node(home)?.heal().await?;
    let answers = || async { site.node(third).ok()?.exec(&ask).await.ok() };
    let answer = eventually("the Pod answers again", SOON, answers).await?;
    assert_eq!(answer.trim(), name);

    // Rebooted, a node has a new boot id, and its Pod a new container.
    site.node(home)?.reboot().await?;
    assert_ne!(boot_id, site.node(home)?.boot_id()?);
    site.nodes.ready(home).await?;
    let restarts = format!(
        "get pod {name} -o jsonpath={{.status.containerStatuses[0].restartCount}}{{.status.containerStatuses[0].ready}}"
    );
    site.until(&restarts, SOON, |now| now == "1true").await?;

    // Killed, a node renews no Lease while the others do; started, it is back with yet another boot id.
    let renewed =
        |node: &str| format!("get lease -n kube-node-lease {node} -o jsonpath={{.spec.renewTime}}");
    for node in [home, third] {
        // A kubelet makes its Lease some seconds after it is Ready.
        site.until(&renewed(node), SOON, |time| time.ends_with('Z'))
            .await?;
    }
    site.node(home)?.kill().await?;
    let last = site.kubectl(&renewed(home)).await?;
    for _ in 0..2 {
        let other = site.kubectl(&renewed(third)).await?;
        site.until(&renewed(third), SOON, |now| now != other)
            .await?;
    }
    assert_eq!(site.kubectl(&renewed(home)).await?, last);
    site.node(home)?.start().await?;
    site.nodes.ready(home).await?;

    // Nothing is left of it all. The next test's cluster would have names like these, so it has to wait.
    let _turn = site.end();
    let mine = format!("lc{}-", process::id());
    let interfaces = || async { left("/sys/class/net", &mine).is_none().then_some(()) };
    eventually("the interface is gone", SOON, interfaces).await?;
    let mine = format!("local-cluster-{}-", process::id());
    assert_eq!(left("/sys/fs/cgroup", &mine), None);
    assert_eq!(left("/sys/fs/cgroup/memory", &mine), None);
    Ok(())
}

/// The first entry of the directory that begins so.
fn left(dir: &str, prefix: &str) -> Option<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .find(|name| name.starts_with(prefix))
}
