//! The chart's rights are enough: controller and rep do their work with the tokens of their accounts, on a real API server with
//! RBAC on, and are refused nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use local_cluster::{LocalCluster, ServerProcess};
use serde_json::{Value, json};

use crate::api_server::{apply, kubectl, token, with_chart};
use crate::flags::{NODE, arguments};
use crate::flow::canaries_share_the_flow_of_renewals;
use crate::helm::{Failure, NAMESPACE, find, parse, root, run, template, text};

const WITHIN: Duration = Duration::from_secs(60);

/// A program of the chart with its account's token, and where its metrics are.
struct Running {
    process: ServerProcess,
    metrics: String,
}

/// The administrator's kubeconfig with another token.
fn kubeconfig(cluster: &LocalCluster, name: &str, token: &str) -> Result<String, Failure> {
    let admin = std::fs::read_to_string(cluster.kubeconfig())?;
    let lines = admin.lines().map(|line| match line.find("token:") {
        Some(at) => format!("{}token: {token}\n", &line[..at]),
        None => format!("{line}\n"),
    });
    let file = cluster.dir().join(format!("kubeconfig-{name}"));
    std::fs::write(&file, lines.collect::<String>())?;
    Ok(file.display().to_string())
}

fn start(
    cluster: &LocalCluster,
    object: &Value,
    name: &str,
    token: &str,
) -> Result<Running, Failure> {
    let metrics = format!("127.0.0.1:{}", local_cluster::free_port()?);
    let mut args: Vec<String> = arguments(object)
        .iter()
        .map(|arg| {
            arg.replace("0.0.0.0:8080", &metrics)
                .replace("0.0.0.0:8081", "127.0.0.1:0")
        })
        .collect();
    args.push(format!(
        "--kubeconfig={}",
        kubeconfig(cluster, name, token)?
    ));
    let diego = Path::new(env!("CARGO_BIN_EXE_diego"));
    let log = cluster.dir().join(format!("{name}.log"));
    let process = ServerProcess::start(name, diego, &args, &[], &log)?;
    Ok(Running { process, metrics })
}

impl Running {
    fn metrics(&self) -> Result<String, Failure> {
        let url = format!("http://{}/metrics", self.metrics);
        run(std::process::Command::new("curl").args(["-sSf", &url]))
    }

    /// Its memory in MiB.
    fn memory(&self) -> Result<f64, Failure> {
        let metrics = self.metrics()?;
        let mut lines = metrics.lines();
        let bytes = lines.find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
        Ok(bytes.ok_or("no memory in the metrics")?.parse::<f64>()? / 1024.0 / 1024.0)
    }

    /// What the API server has refused it, and what it says of that.
    fn refusals(&self) -> Result<Vec<String>, Failure> {
        let metrics = self.metrics()?;
        let log = std::fs::read_to_string(self.process.log())?;
        let refused = metrics.lines().filter(|line| line.contains("code=\"403\""));
        let said = log
            .lines()
            .filter(|line| line.to_lowercase().contains("forbidden"));
        Ok(refused.chain(said).map(str::to_owned).collect())
    }
}

/// The metrics of a program that has worked, as promtool judges them.
fn lint_metrics(running: &Running) -> Result<(), Failure> {
    let mut page = std::process::Command::new("curl")
        .args(["-sSf", &format!("http://{}/metrics", running.metrics)])
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let stdout = page.stdout.take().ok_or("no output")?;
    let mut promtool = std::process::Command::new(local_cluster::binary("promtool")?);
    let said = run(promtool.args(["check", "metrics"]).stdin(stdout))?;
    assert!(said.is_empty(), "{said}");
    assert!(page.wait()?.success());
    Ok(())
}

/// Asks kubectl until it says this.
async fn until(
    cluster: &LocalCluster,
    args: &[&str],
    wanted: impl Fn(&str) -> bool,
    running: &[&Running],
) -> Result<String, Failure> {
    let began = Instant::now();
    loop {
        let said = kubectl(cluster, args).await;
        match said {
            Ok(said) if wanted(&said) => return Ok(said),
            said if began.elapsed() > WITHIN || !running[0].process.is_running() => {
                let logs: String = running.iter().map(|it| it.process.log_tail()).collect();
                return Err(format!("kubectl {}: {said:?}\n{logs}", args.join(" ")).into());
            }
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

fn node() -> String {
    format!(
        r#"{{"apiVersion": "v1", "kind": "Node", "metadata": {{"name": "{NODE}", "labels": {{"topology.kubernetes.io/zone": "z7"}}}},
        "status": {{"allocatable": {{"cpu": "4", "memory": "8Gi", "ephemeral-storage": "10Gi", "pods": "110"}},
        "conditions": [{{"type": "Ready", "status": "True"}}]}}}}"#
    )
}

const WEB: &str = r#"{"apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "DesiredLRP", "metadata": {"name": "web", "namespace": "default"},
  "spec": {"instances": 2, "template": {"spec": {"containers": [{"name": "web", "image": "example.com/web"}]}}}}"#;

/// Every right of a rep, with either store, and where it is to ask who reads its metrics: a broken node has no more.
#[test]
fn a_rep_has_these_rights_and_no_others() -> Result<(), Failure> {
    let etcd = [
        "--set",
        "presence.store=etcd",
        "--set",
        "presence.etcd.endpoints={http://e:2379}",
    ];
    let secure = [
        "--set",
        "metrics.secure.enabled=true",
        "--set",
        "metrics.secure.secretName=metrics-tls",
    ];
    let cells = json!([
        {"apiGroups": ["diego.cloudfoundry.org"], "resources": ["cells"],
         "verbs": ["get", "list", "watch", "create", "patch"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
    ]);
    let own = json!([
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
         "verbs": ["get", "create", "update", "patch", "delete"]},
    ]);
    let review = json!([
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"],
         "verbs": ["create"]},
    ]);
    for (flags, asks) in [(&[][..], false), (&etcd, false), (&secure, true)] {
        let objects = parse(&template(flags)?)?;
        let mut rights = vec![
            (
                "ClusterRoleBinding",
                "ClusterRole",
                "diego-operator-rep",
                &cells,
            ),
            ("RoleBinding", "Role", "diego-operator-rep", &own),
        ];
        if asks {
            let role = "diego-operator-token-review";
            rights.push(("ClusterRoleBinding", "ClusterRole", role, &review));
        }
        let mut bound: Vec<_> = objects
            .iter()
            .filter(|object| text(&object["kind"]).ends_with("Binding"))
            .filter(|object| {
                let subjects = object["subjects"].as_array().into_iter().flatten();
                let mut names = subjects.map(|subject| text(&subject["name"]));
                names.any(|name| name == "diego-operator-rep")
            })
            .map(|object| {
                let role = &object["roleRef"];
                (
                    text(&object["kind"]),
                    text(&role["kind"]),
                    text(&role["name"]),
                    &find(&objects, text(&role["kind"]), text(&role["name"]))["rules"],
                )
            })
            .collect();
        bound.sort_by_key(|(kind, _, name, _)| (kind.to_string(), name.to_string()));
        rights.sort_by_key(|(kind, _, name, _)| (kind.to_string(), name.to_string()));
        assert_eq!(bound, rights, "{flags:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn chart_rbac_is_enough_for_the_programs() -> Result<(), Failure> {
    let chart = template(&[
        "--set",
        "nodeTaint.enabled=true",
        "--set",
        "presence.ttlSeconds=3",
        "--set",
        "helmTest.waitSeconds=30",
    ])?;
    let objects = parse(&chart)?;
    let cluster = with_chart(&chart).await?;
    apply(&cluster, &node()).await?;
    let file = cluster.dir().join("node.json");
    std::fs::write(&file, node())?;
    let status = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--subresource=status",
        "-f",
        &file.display().to_string(),
    ];
    kubectl(&cluster, &status).await?;
    // A new Node is tainted until its kubelet says that it is ready.
    let untainted = [
        "patch",
        "node",
        NODE,
        "--type=merge",
        "-p",
        r#"{"spec": {"taints": null}}"#,
    ];
    kubectl(&cluster, &untainted).await?;
    let pod = format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "rep", "namespace": "{NAMESPACE}"}},
        "spec": {{"serviceAccountName": "diego-operator-rep", "nodeName": "{NODE}", "containers": [{{"name": "a", "image": "a"}}]}}}}"#
    );
    apply(&cluster, &pod).await?;

    let account = token(&cluster, "diego-operator-controller", &[]).await?;
    let controllers = account.clone();
    let controller = start(
        &cluster,
        find(&objects, "Deployment", "-controller"),
        "controller",
        &account,
    )?;
    let account = token(
        &cluster,
        "diego-operator-rep",
        &["--bound-object-kind=Pod", "--bound-object-name=rep"],
    )
    .await?;
    let rep = start(
        &cluster,
        find(&objects, "DaemonSet", "-rep"),
        "rep",
        &account,
    )?;
    let both = [&controller, &rep];

    let ready = [
        "get",
        "cell",
        NODE,
        "-o",
        r#"jsonpath={.spec.zone} {.status.conditions[?(@.type=="Ready")].status}"#,
    ];
    until(&cluster, &ready, |said| said == "z7 True", &both).await?;
    let lease = format!("cell-{NODE}");
    kubectl(
        &cluster,
        &["get", "lease", &lease, "diego-controller", "-n", NAMESPACE],
    )
    .await?;

    canaries_share_the_flow_of_renewals(&cluster, &controllers, &account).await?;

    // `helm test` with the rights that it has.
    let account = token(&cluster, "diego-operator-test", &[]).await?;
    let check = find(&objects, "Pod", "-test");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_diego"));
    command.args(arguments(check)).arg(format!(
        "--kubeconfig={}",
        kubeconfig(&cluster, "test", &account)?
    ));
    let said = run(&mut command)?;
    assert!(!said.to_lowercase().contains("forbidden"), "{said}");

    // Pods are made and deleted.
    apply(&cluster, WEB).await?;
    let pods = ["get", "pods", "-n", "default", "-o", "name"];
    until(&cluster, &pods, |said| said.lines().count() == 2, &both).await?;
    kubectl(
        &cluster,
        &[
            "patch",
            "desiredlrp",
            "web",
            "--type=merge",
            "-p",
            r#"{"spec": {"instances": 1}}"#,
        ],
    )
    .await?;
    until(
        &cluster,
        &["get", "actuallrps", "-o", "name"],
        |said| said.lines().count() == 1,
        &both,
    )
    .await?;

    lint_metrics(&controller)?;
    lint_metrics(&rep)?;
    // The rep stays far below its limit of 96 MiB.
    let memory = rep.memory()?;
    assert!(memory < 80.0, "{memory} MiB");

    // A loss: verdict, taint, Event.
    rep.process.kill();
    until(
        &cluster,
        &["get", "cell", NODE, "-o", "jsonpath={.status.state}"],
        |said| said == "Missing",
        &both,
    )
    .await?;
    let taints = ["get", "node", NODE, "-o", "jsonpath={.spec.taints[*].key}"];
    until(
        &cluster,
        &taints,
        |said| said.contains("diego.cloudfoundry.org/cell-missing"),
        &both,
    )
    .await?;
    let events = [
        "get",
        "events.events.k8s.io",
        "-A",
        "-o",
        "jsonpath={.items[*].reason}",
    ];
    until(
        &cluster,
        &events,
        |said| said.contains("CellPresenceExpired"),
        &both,
    )
    .await?;

    let refusals = controller.refusals()?;
    assert!(
        refusals.is_empty(),
        "the controller lacks rights: {refusals:#?}"
    );
    let log = std::fs::read_to_string(rep.process.log())?;
    assert!(
        !log.to_lowercase().contains("forbidden"),
        "the rep lacks rights: {log}"
    );
    assert!(
        text(&find(&objects, "ValidatingAdmissionPolicy", "-own-node")["spec"]["failurePolicy"])
            == "Fail"
    );

    // Without the controller, or its flag, the taint stays; the documented command takes it from all nodes, whoever has it.
    drop(controller);
    apply(
        &cluster,
        r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "another"}}"#,
    )
    .await?;
    assert!(kubectl(&cluster, &taints).await?.contains("cell-missing"));
    let command = "taint nodes --all diego.cloudfoundry.org/cell-missing-";
    for page in ["docs/install.md", "docs/nodes.md"] {
        assert!(
            std::fs::read_to_string(root().join(page))?.contains(command),
            "{page}"
        );
    }
    let words: Vec<&str> = command.split(' ').collect();
    let said = crate::helm::said(&cluster.kubectl(&words).await?);
    assert!(!kubectl(&cluster, &taints).await?.contains("cell-missing"));
    assert!(said.contains("not found"), "{said}");
    Ok(())
}
