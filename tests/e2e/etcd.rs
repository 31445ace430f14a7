//! The chart's own etcd for the presence: three members with volumes and mutual TLS. A member or its node may go; no other Cell does.

use crate::{
    installed::{Installed, NAMESPACE, RELEASE, SOON, import_image},
    look::{Watching, items, text},
    site::Site,
    support::{Failure, eventually},
};
use local_cluster::{NodesOptions, image};
use std::{fs, path::Path, process::Command};

const MEMBERS: &str = "app.kubernetes.io/component=etcd";

/// Volumes that stay on their nodes, as machines without a storage system have them.
const STORAGE: &str = "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: local}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
";

const WEB: &str = "
apiVersion: diego.cloudfoundry.org/v1alpha1
kind: DesiredLRP
metadata: {name: web}
spec:
  instances: 6
  template:
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: web, image: test-app:dev, readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}}]
";

/// An authority, and what it signs: the members' certificate and the clients', by the names that docs/install.md tells.
const CERTIFICATES: &str = r#"
new="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
openssl req -x509 $new -days 2 -subj /CN=etcd-ca -keyout ca.key -out ca.crt
sign() {
	openssl req $new -subj "/CN=$1" -keyout $1.key -out $1.csr
	printf '%s\n' "$2" >$1.ext
	openssl x509 -req -days 2 -in $1.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile $1.ext -out $1.crt
}
sign members "extendedKeyUsage=serverAuth,clientAuth
subjectAltName=DNS:*.diego-operator-etcd-members.diego-system.svc.cluster.local"
sign clients extendedKeyUsage=clientAuth
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_presence_outlives_a_member_and_its_node() -> Result<(), Failure> {
    let options = NodesOptions {
        dns: true,
        ..NodesOptions::count(3)
    };
    let site = Site::start(options).await?;
    import_image(&site).await?;
    site.nodes.import(&image("etcd")?).await?;
    volumes(&site).await?;
    site.kubectl(&format!("create namespace {NAMESPACE}"))
        .await?;
    certificates(&site).await?;
    let site = Installed { site };
    let install = [
        "install",
        "--wait",
        "--timeout=3m",
        "--set=presence.store=etcd",
        "--set=presence.etcd.tls.secretName=clients",
        "--set=presence.etcd.bundled.enabled=true",
        "--set=presence.etcd.bundled.tls.secretName=members",
        "--set=presence.etcd.bundled.image.registry=",
        "--set=presence.etcd.bundled.image.repository=etcd",
        "--set=presence.etcd.bundled.image.tag=dev",
        "--set=presence.etcd.bundled.persistence.storageClassName=local",
    ];
    site.helm_release(&install).await?;
    site.cells_ready(3).await?;
    only_with_a_certificate(&site).await?;
    let leases = "get leases -A -l diego.cloudfoundry.org/presence=cell -o name";
    assert_eq!(site.kubectl(leases).await?, "");
    site.apply(WEB).await?;
    let before = site.running("web", 6, |_| true).await?;
    let watching = site.watch("get cells -w")?;
    eventually("kubectl watches", SOON, || async {
        (watching.lines().ok()?.len() > 3).then_some(())
    })
    .await?;

    // The member that leads is replaced: it comes back with its data, and meanwhile no Cell is missed.
    let (leader, _) = leader(&site).await?;
    let uid = format!("get pod {leader} -n {NAMESPACE} -o jsonpath={{.metadata.uid}}");
    let old = site.kubectl(&uid).await?;
    site.kubectl(&format!("delete pod {leader} -n {NAMESPACE}"))
        .await?;
    site.until(&uid, SOON, |new| new != old && !new.contains("not found"))
        .await?;
    members_ready(&site, 3).await?;
    assert_eq!(missed(&watching)?, [""; 0]);
    assert_eq!(site.running("web", 6, |_| true).await?, before);

    // The node of the member that leads now dies with it: its work moves, and no other.
    let (_, dead) = self::leader(&site).await?;
    site.node(&dead)?.kill().await?;
    let after = site.running("web", 6, |slot| slot.cell != dead).await?;
    for (old, new) in before.iter().zip(&after) {
        assert_eq!(
            old.cell != dead,
            old.guid == new.guid,
            "{old:?} became {new:?}"
        );
    }
    site.node(&dead)?.start().await?;
    site.cells_ready(3).await?;
    members_ready(&site, 3).await?;
    assert_eq!(missed(&watching)?, [dead]);

    // Uninstalled: what users made stays and runs on, and so do the members' volumes.
    site.helm(&format!("uninstall {RELEASE} -n {NAMESPACE} --wait"))
        .await?;
    let left = "get pods -n diego-system -o name";
    site.until(left, SOON, |pods| pods.is_empty()).await?;
    assert_eq!(site.running("web", 6, |_| true).await?, after);
    let cells = site.kubectl("get cells -o name").await?;
    assert_eq!(cells.lines().count(), 3, "{cells}");
    let claims = format!("get pvc -n {NAMESPACE} -l {MEMBERS} -o name");
    let claims = site.kubectl(&claims).await?;
    assert_eq!(claims.lines().count(), 3, "{claims}");

    // Installed again, on the same volumes: it takes over.
    site.helm_release(&install).await?;
    site.kubectl("scale desiredlrp web --replicas=7").await?;
    let mut slots = site.running("web", 7, |_| true).await?;
    slots.retain(|slot| slot.name != "web-6");
    assert_eq!(slots, after);
    Ok(())
}

/// A volume on each node.
async fn volumes(site: &Site) -> Result<(), Failure> {
    let mut manifest = STORAGE.to_owned();
    for node in site.nodes.iter() {
        let (name, path) = (node.name(), "/var/lib/etcd-volume");
        node.exec(&["mkdir", "-p", path]).await?;
        manifest += &format!(
            "---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec:
  capacity: {{storage: 1Gi}}
  accessModes: [ReadWriteOnce]
  storageClassName: local
  local: {{path: {path}}}
  nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [{name}]}}]}}]}}}}
"
        );
    }
    site.apply(&manifest).await
}

/// The Secrets `members` and `clients`.
async fn certificates(site: &Site) -> Result<(), Failure> {
    let dir = site.dir().join("certificates");
    fs::create_dir(&dir)?;
    let made = Command::new("bash")
        .args(["-euc", CERTIFICATES])
        .current_dir(&dir)
        .output()?;
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "openssl: {said}");
    let file = |name: &str| Path::new(&dir).join(name).display().to_string();
    for who in ["members", "clients"] {
        let (ca, cert, key) = (
            file("ca.crt"),
            file(&format!("{who}.crt")),
            file(&format!("{who}.key")),
        );
        site.kubectl(&format!("create secret generic {who} -n {NAMESPACE} --from-file=ca.crt={ca} --from-file=tls.crt={cert} --from-file=tls.key={key}"))
            .await?;
    }
    Ok(())
}

/// The members answer those who have a certificate, and nobody else.
async fn only_with_a_certificate(site: &Site) -> Result<(), Failure> {
    let member = format!("{RELEASE}-etcd-0");
    let ask = format!("get pod {member} -n {NAMESPACE} -o jsonpath={{.status.podIP}}");
    let address = site.kubectl(&ask).await?;
    let name = format!("{member}.{RELEASE}-etcd-members.{NAMESPACE}.svc.cluster.local:2379");
    let (url, at) = (
        format!("https://{name}/health"),
        format!("{name}:{address}"),
    );
    let file = |name: &str| {
        site.dir()
            .join("certificates")
            .join(name)
            .display()
            .to_string()
    };
    let (ca, cert, key) = (file("ca.crt"), file("clients.crt"), file("clients.key"));
    let stranger = ["curl", "-sS", "--resolve", &at, "--cacert", &ca, &url];
    let node = site.node("node-1")?;
    let client = [&stranger[..], &["--cert", &cert, "--key", &key]].concat();
    let healthy = node.exec(&client).await?;
    assert!(healthy.contains(r#""health":"true""#), "{healthy}");
    // The member says no after the client's half of the handshake, so curl hears its alert or sees it hang up.
    let refusal = node.exec(&stranger).await.unwrap_err().to_string();
    let refused = ["35", "52", "55", "56"].map(|code| format!("exit status: {code}"));
    assert!(
        refused.iter().any(|status| refusal.contains(status)),
        "{refusal}"
    );
    Ok(())
}

/// The Pod of the member that leads, and its node.
async fn leader(site: &Site) -> Result<(String, String), Failure> {
    eventually("a member leads", SOON, || async {
        let list = site
            .json(&format!("get pods -n {NAMESPACE} -l {MEMBERS}"))
            .await
            .ok()?;
        for pod in items(&list) {
            let (address, node) = (
                text(&pod["status"]["podIP"]),
                text(&pod["spec"]["nodeName"]),
            );
            let url = format!("http://{address}:2381/metrics");
            let ask = ["curl", "-sS", "--max-time", "2", &url];
            let metrics = site.node(&node).ok()?.exec(&ask).await.ok()?;
            if metrics.contains("\netcd_server_is_leader 1\n") {
                return Some((text(&pod["metadata"]["name"]), node));
            }
        }
        None
    })
    .await
}

/// Waits until so many members are ready.
async fn members_ready(site: &Site, count: usize) -> Result<(), Failure> {
    let ask = format!(
        "get statefulset {RELEASE}-etcd -n {NAMESPACE} -o jsonpath={{.status.readyReplicas}}"
    );
    site.until(&ask, SOON, |ready| ready == count.to_string())
        .await
        .map(drop)
}

/// The Cells that were missed, each once.
fn missed(watching: &Watching) -> Result<Vec<String>, Failure> {
    let mut cells: Vec<String> = watching
        .lines()?
        .into_iter()
        .filter(|words| words.contains(&"PresenceExpired".to_owned()))
        .map(|words| words[0].clone())
        .collect();
    cells.sort();
    cells.dedup();
    Ok(cells)
}
