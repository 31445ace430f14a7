//! `make bench-failover`: how long a dead node's work is away on real kubelets, as LRPs and as a Deployment of the same Pods, with
//! the chart's taint and without.

#[path = "../tests/support/mod.rs"]
mod support;

#[path = "../tests/e2e/installed.rs"]
#[allow(dead_code)]
mod installed;
#[path = "../tests/e2e/look.rs"]
#[allow(dead_code)]
mod look;
#[path = "../tests/e2e/site.rs"]
#[allow(dead_code)]
mod site;

#[path = "failover/measure.rs"]
mod measure;

use installed::Installed;
use measure::{Times, Until, kill};
use serde_json::json;
use std::time::Duration;
use support::{Failure, eventually};

/// Pods of the LRP and of the Deployment.
const PODS: usize = 12;
/// The nodes.
const NODES: usize = 4;
/// The chart's default of presence.ttlSeconds.
const TTL: f64 = 5.0;

#[tokio::main]
async fn main() {
    if let Err(failure) = bench().await {
        eprintln!("error: {failure}");
        std::process::exit(1);
    }
}

async fn bench() -> Result<(), Failure> {
    eprintln!("installing the chart on {NODES} nodes");
    let installed = Installed::start(NODES, &[]).await?;
    let pod = json!({
        "metadata": { "labels": { "app": "web" } },
        "spec": { "containers": [{
            "name": "web", "image": "test-app:dev",
            "readinessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 },
        }]},
    });
    let mut plain = pod.clone();
    plain["metadata"]["labels"]["app"] = json!("plain");
    let lrp = json!({
        "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "DesiredLRP", "metadata": { "name": "web" },
        "spec": { "instances": PODS, "template": pod },
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "plain" },
        "spec": { "replicas": PODS, "selector": { "matchLabels": { "app": "plain" } }, "template": plain },
    });
    let service = |app: &str| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": app },
            "spec": { "selector": { "app": app }, "ports": [{ "port": 80, "targetPort": 8080 }] },
        })
    };
    let all = [lrp, deployment, service("web"), service("plain")];
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    installed.apply(&all.join("\n---\n")).await?;

    let (_, leads) = installed.leader().await?;
    let default = one(&installed, "default Kubernetes", |node| node != leads).await?;

    eprintln!("helm upgrade --set nodeTaint.enabled=true");
    installed
        .helm_release(&[
            "upgrade",
            "--wait",
            "--timeout=3m",
            "--set=nodeTaint.enabled=true",
        ])
        .await?;
    let (_, leads) = installed.leader().await?;
    let tainted = one(&installed, "with the taint", |node| node != leads).await?;
    let (_, leads) = installed.leader().await?;
    let leader = one(&installed, "with the taint, the leader too", |node| {
        node == leads
    })
    .await?;
    match report(&default, &tainted, &leader) {
        true => Ok(()),
        false => Err("an aim was missed".into()),
    }
}

/// One node that runs some of everything dies; then it is started again.
async fn one(
    installed: &Installed,
    what: &str,
    may_die: impl Fn(&str) -> bool,
) -> Result<Times, Failure> {
    installed.cells_ready(NODES).await?;
    installed.running("web", PODS, |_| true).await?;
    installed
        .kubectl("rollout status deployment/plain --timeout=120s")
        .await?;
    let slots = installed.slots("web").await?;
    let plain = installed.pods("app=plain").await?;
    let dies = |node: &&str| {
        may_die(node)
            && slots.iter().any(|slot| slot.cell == **node)
            && plain.iter().any(|pod| pod.node == **node)
    };
    let mut nodes = installed.nodes.iter().map(|node| node.name());
    let dies = nodes.find(dies).ok_or("no node runs some of everything")?;
    let task = json!({
        "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "Task", "metadata": { "name": "long" },
        "spec": { "ttlSecondsAfterFinished": 3600, "template": { "spec": {
            "nodeSelector": { "kubernetes.io/hostname": dies },
            "containers": [{ "name": "work", "image": "test-app:dev", "command": ["sleep", "100000"] }],
        }}},
    });
    installed.apply(&task.to_string()).await?;
    let ask = "get task long -o jsonpath={.status.state}";
    installed
        .until(ask, installed::SOON, |state| state == "Running")
        .await?;
    let on = |cells: usize| format!("{cells} Pods");
    eprintln!(
        "{what}: killing {dies} with {} of the LRP and {} of the Deployment",
        on(slots.iter().filter(|slot| slot.cell == dies).count()),
        on(plain.iter().filter(|pod| pod.node == dies).count()),
    );
    let times = kill(installed, dies, Until { pods: PODS }).await?;
    eprintln!("{what}: {times:.2?}");
    installed.kubectl("delete task long").await?;
    installed.node(dies)?.start().await?;
    installed.nodes.ready(dies).await?;
    installed.cells_ready(NODES).await?;
    eventually("no Pod is stuck", Duration::from_secs(90), || async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let pods = installed.pods("app=plain").await.ok()?;
        (pods.len() == PODS && pods.iter().all(|pod| pod.ready)).then_some(())
    })
    .await?;
    Ok(times)
}

/// Prints the table. Returns whether all aims were met.
fn report(default: &Times, tainted: &Times, leader: &Times) -> bool {
    println!(
        "{NODES} nodes, a DesiredLRP and a Deployment of {PODS} Pods each, presence TTL {TTL} s; seconds from the kill:\n"
    );
    println!(
        "| | LRPs | LRPs, leader lost too | Deployment, nodeTaint.enabled | Deployment, Kubernetes alone |\n| --- | --- | --- | --- | --- |"
    );
    let row = |what: &str, cells: [Option<f64>; 4]| {
        let cell = |seconds: Option<f64>| seconds.map_or("-".to_owned(), |s| format!("{s:.1}"));
        println!("| {what} | {} |", cells.map(cell).join(" | "));
    };
    row(
        "the Cell is judged lost",
        [Some(tainted.verdict), Some(leader.verdict), None, None],
    );
    row(
        "the Task has failed",
        [Some(tainted.task), Some(leader.task), None, None],
    );
    row(
        "all Pods have a new node",
        [
            Some(tainted.lrp.placed),
            Some(leader.lrp.placed),
            Some(tainted.plain.placed),
            Some(default.plain.placed),
        ],
    );
    row(
        "all Pods are ready",
        [
            Some(tainted.lrp.ready),
            Some(leader.lrp.ready),
            Some(tainted.plain.ready),
            Some(default.plain.ready),
        ],
    );
    row(
        "the last request to its Service that failed",
        [
            tainted.lrp.last_failure,
            leader.lrp.last_failure,
            tainted.plain.last_failure,
            default.plain.last_failure,
        ],
    );
    let ratio = |times: f64| Some(times / tainted.lrp.ready);
    row(
        "all ready, in times of the first column",
        [
            ratio(tainted.lrp.ready),
            ratio(leader.lrp.ready),
            ratio(tainted.plain.ready),
            ratio(default.plain.ready),
        ],
    );
    println!(
        "\nLRPs beside the Deployment without the taint: placed {:.1} s, ready {:.1} s, Task failed {:.1} s",
        default.lrp.placed, default.lrp.ready, default.task
    );
    let runs = [default, tainted, leader];
    let placed = runs.iter().all(|run| run.lrp.placed <= TTL + 1.0);
    let ready = runs.iter().all(|run| run.lrp.ready <= TTL + 3.0);
    let mut with_taint = [tainted, leader].into_iter();
    let others = with_taint.all(|run| run.plain.ready <= TTL + 5.0);
    let met = |ok: bool| if ok { "met" } else { "missed" };
    println!(
        "aims, in all three kills: LRPs placed <= TTL + 1 s: {}; ready <= TTL + 3 s: {}; the Deployment with the taint ready <= TTL + 5 s: {}",
        met(placed),
        met(ready),
        met(others),
    );
    placed && ready && others
}
