//! The container runtime of a node hangs while its rep, its kubelet and its containers are well.

use super::{Told, field};
use crate::{
    installed::{Installed, NAMESPACE, SOON},
    look::Slot,
    support::{Failure, eventually, http},
};
use local_cluster::NodesOptions;
use serde_json::json;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// Stops the container runtime, or continues it; the containers' own processes are left alone.
const SIGNAL: &str = r#"
for dir in /proc/[0-9]*; do
  case "$(readlink $dir/exe)" in */containerd) kill -$0 "${dir#/proc/}" && echo "$dir";; esac
done 2>/dev/null
true"#;

/// What must not be moved; what is placed while nobody knows yet; and a Task that ends when it is told to.
const WORK: &str = "
apiVersion: diego.cloudfoundry.org/v1alpha1
kind: DesiredLRP
metadata: {name: web}
spec:
  instances: 6
  template:
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: test-app:dev
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
";

const LATE: &str = "
apiVersion: diego.cloudfoundry.org/v1alpha1
kind: DesiredLRP
metadata: {name: late}
spec:
  instances: 3
  startTimeoutSeconds: 60
  template:
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: test-app:dev
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_container_runtime_moves_nothing_and_gets_no_new_work() -> Result<(), Failure> {
    let began = Instant::now();
    let progress = |what: &str| println!("{:6.1} s: {what}", began.elapsed().as_secs_f64());
    let site = Installed::on(nodes(), &[]).await?;
    progress("installed");
    let told = Told::start(&site)?;
    site.apply(WORK).await?;
    let before = site.running("web", 6, |_| true).await?;
    let hung = node_without_controller(&site).await?;
    let there = |slot: &&Slot| slot.cell == hung;
    assert!(before.iter().any(|slot| there(&slot)), "{before:?}");
    let task = json!({
        "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "Task", "metadata": { "name": "patient" },
        "spec": { "ttlSecondsAfterFinished": 3600, "template": { "spec": {
            "terminationGracePeriodSeconds": 1,
            "nodeSelector": { "kubernetes.io/hostname": hung },
            "containers": [{ "name": "work", "image": "test-app:dev",
                "command": ["sh", "-c", "until [ -e /end ]; do sleep 1; done; echo -n done >/dev/termination-log"] }],
        }}},
    });
    site.apply(&task.to_string()).await?;
    let running = format!("Running|{hung}");
    let ask = "get task patient -o jsonpath={.status.state}|{.status.cellName}";
    site.until(ask, SOON, |now| now == running).await?;
    let pod = told.first_pod("patient").await?;
    let ready = format!("get pod {pod} -o jsonpath={{.status.phase}}");
    site.until(&ready, SOON, |phase| phase == "Running").await?;
    let addresses = addresses(&site, &before, &hung).await?;
    let cell = || async { site.json(&format!("get cell {hung}")).await };
    let epoch = field(&cell().await?, "/status/epoch").clone();
    progress("six instances and a Task run");

    let stopped = site
        .node(&hung)?
        .exec(&["/bin/sh", "-c", SIGNAL, "STOP"])
        .await?;
    assert_eq!(stopped.lines().count(), 1, "{stopped}");
    let hangs = Instant::now();
    // Nobody knows it yet: one of these is placed there.
    site.apply(LATE).await?;
    let placed = eventually("one instance is placed on each Cell", SOON, || async {
        let slots = site.slots("late").await.ok()?;
        slots.iter().find(there).cloned()
    });
    let placed = placed.await?;
    let ask = format!(
        r#"get cell {hung} -o jsonpath={{.status.state}}|{{.status.conditions[?(@.type=="Ready")].reason}}"#
    );
    site.until(&ask, SOON, |now| now == "Present|NodeNotReady")
        .await?;
    progress(&format!(
        "the Cell shows it after {:.1} s",
        hangs.elapsed().as_secs_f64()
    ));
    let why = site
        .kubectl(&format!(
            r#"get node {hung} -o jsonpath={{.status.conditions[?(@.type=="Ready")].message}}"#
        ))
        .await?;
    println!("the kubelet says: {why}");

    // New work goes elsewhere, also what was placed there before that was known.
    site.kubectl("scale desiredlrp web --replicas=9").await?;
    let elsewhere = |lrp: &'static str, names: BTreeSet<String>| {
        let (site, hung) = (&site, &hung);
        eventually("it runs elsewhere", SOON, move || {
            let names = names.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let mut slots = site.slots(lrp).await.ok()?;
                slots.retain(|slot| names.contains(&slot.name));
                let well = |slot: &Slot| slot.state == "Running" && slot.cell != *hung;
                (slots.len() == names.len() && slots.iter().all(well)).then_some(())
            }
        })
    };
    let added = ["web-6", "web-7", "web-8"].map(str::to_owned);
    elsewhere("web", added.into()).await?;
    progress("new instances run elsewhere");
    elsewhere("late", [placed.name.clone()].into()).await?;
    progress(&format!(
        "the one that was placed there runs elsewhere after {:.1} s",
        hangs.elapsed().as_secs_f64()
    ));
    let record = site.json(&format!("get actuallrp {}", placed.name)).await?;
    assert_eq!(*field(&record, "/status/crashCount"), json!(1));
    let reason = field(&record, "/status/crashReason");
    assert_eq!(*reason, json!("not ready within 60 s"));
    unmoved(&site, &before).await?;
    for address in &addresses {
        let answer = http::get(address, "/", SOON).await;
        assert!(
            answer.is_some_and(|(status, _)| status == 200),
            "{address} does not answer"
        );
    }
    let now = cell().await?;
    assert_eq!(*field(&now, "/status/state"), json!("Present"));
    assert_eq!(*field(&now, "/status/epoch"), epoch);

    let continued = site
        .node(&hung)?
        .exec(&["/bin/sh", "-c", SIGNAL, "CONT"])
        .await?;
    assert_eq!(continued.lines().count(), 1, "{continued}");
    let goes_on = Instant::now();
    site.cells_ready(3).await?;
    progress(&format!(
        "the Cell is ready {:.1} s after the runtime goes on",
        goes_on.elapsed().as_secs_f64()
    ));
    let after = site.running("web", 9, |_| true).await?;
    site.running("late", 3, |_| true).await?;
    unmoved(&site, &before).await?;
    for old in &before {
        assert!(after.contains(old), "{old:?} is not in {after:?}");
        assert_eq!(told.made(&old.name).len(), 1);
    }
    progress("all Pods are as before");
    // Kubernetes takes its taint off the Node a little later, and the auction honours it until then.
    let taints = format!("get node {hung} -o jsonpath={{.spec.taints}}");
    site.until(&taints, SOON, str::is_empty).await?;
    site.kubectl("scale desiredlrp web --replicas=12").await?;
    let more = site.running("web", 12, |_| true).await?;
    let new_there = more.iter().filter(there).count() > before.iter().filter(there).count();
    assert!(new_there, "{more:?}");
    site.kubectl(&format!("exec {pod} -- touch /end")).await?;
    let ask =
        "get task patient -o jsonpath={.status.state}|{.status.result}|{.status.failureReason}";
    site.until(ask, SOON, |now| now == "Completed|done|")
        .await?;
    let events = site.told(&hung).await?;
    for loss in ["CellPresenceExpired", "CellRecoveryCompleted"] {
        assert!(!events.contains_key(loss), "{events:?}");
    }
    Ok(())
}

/// Three nodes that believe sooner than after two minutes that a runtime does not answer.
fn nodes() -> NodesOptions {
    let mut options = NodesOptions::count(3);
    for node in &mut options.nodes {
        let kubelet = &mut node.kubelet;
        kubelet.insert("runtimeRequestTimeout".into(), json!("15s"));
        kubelet.insert("nodeStatusUpdateFrequency".into(), json!("4s"));
    }
    options
}

/// Of three nodes with two controllers one has none.
async fn node_without_controller(site: &Installed) -> Result<String, Failure> {
    let ask = format!(
        "get pods -n {NAMESPACE} -l app.kubernetes.io/component=controller -o jsonpath={{.items[*].spec.nodeName}}"
    );
    let taken = site.kubectl(&ask).await?;
    let mut nodes = site.nodes.iter().map(|node| node.name().to_owned());
    let free = nodes.find(|node| !taken.split(' ').any(|name| name == node));
    Ok(free.ok_or("a controller on every node")?)
}

/// Where the instances on this Cell answer.
async fn addresses(site: &Installed, slots: &[Slot], cell: &str) -> Result<Vec<String>, Failure> {
    let mut addresses = Vec::new();
    for slot in slots.iter().filter(|slot| slot.cell == cell) {
        let ask = format!(
            "get actuallrp {} -o jsonpath={{.status.address}}:8080",
            slot.name
        );
        addresses.push(site.kubectl(&ask).await?);
    }
    Ok(addresses)
}

/// Each slot has its instance yet, and none has crashed.
async fn unmoved(site: &Installed, before: &[Slot]) -> Result<(), Failure> {
    let now = site.slots("web").await?;
    for old in before {
        assert!(now.contains(old), "{old:?} is not in {now:?}");
    }
    let task = site
        .kubectl("get task patient -o jsonpath={.status.state}")
        .await?;
    assert_eq!(task, "Running");
    Ok(())
}
