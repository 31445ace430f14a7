//! A node dies that also runs the leading controller: a Cell and the leader are lost at once.

use super::{long_task, task_is};
use crate::{
    installed::{Installed, SOON},
    look::{Watching, items, text},
    support::{Failure, eventually},
};
use std::collections::BTreeSet;

/// Pods that nobody rewrote: they leave a dead node by the taint alone.
const PLAIN: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: plain}
spec:
  replicas: 6
  selector: {matchLabels: {app: plain}}
  template:
    metadata: {labels: {app: plain}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: ScheduleAnyway
        labelSelector: {matchLabels: {app: plain}}
      containers:
      - name: web
        image: test-app:dev
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
";

pub async fn a_node_and_the_leader_die_at_once(site: &Installed) -> Result<(), Failure> {
    site.apply(PLAIN).await?;
    site.kubectl("rollout status deployment/plain --timeout=90s")
        .await?;
    let (leader, dead) = site.leader().await?;
    long_task(site, "long", &dead).await?;
    let before = site.running("web", 12, |_| true).await?;
    assert!(before.iter().any(|slot| slot.cell == dead), "{before:?}");
    let plain = site.pods("app=plain").await?;
    assert!(plain.iter().any(|pod| pod.node == dead), "{plain:?}");
    let watching = site.watch("get cells -w")?;
    eventually("kubectl watches", SOON, || async {
        (watching.lines().ok()?.len() > 3).then_some(())
    })
    .await?;

    site.node(&dead)?.kill().await?;
    let after = site.running("web", 12, |slot| slot.cell != dead).await?;
    for (old, new) in before.iter().zip(&after) {
        let stayed = old.cell != dead;
        assert_eq!(stayed, old.guid == new.guid, "{old:?} became {new:?}");
    }
    let reason = "cell disappeared before completion";
    task_is(site, "long", &format!("Completed/{dead}/{reason}")).await?;
    assert_ne!(site.leader().await?.0, leader);

    // The taint moves what is not ours; nothing of ours is left in the API.
    eventually("the Deployment is whole elsewhere", SOON, || async {
        let pods = site.pods("app=plain").await.ok()?;
        let live = pods.iter().filter(|pod| pod.ready && pod.node != dead);
        (live.count() == 6).then_some(())
    })
    .await?;
    assert_eq!(taints(site, &dead).await?, OURS);
    let pods = site
        .kubectl(&format!(
            "get pods -l diego.cloudfoundry.org/cell={dead} -o name"
        ))
        .await?;
    assert_eq!(pods, "", "Pods are left on the dead node");
    only_live_endpoints(site).await?;

    // It returns: free of the taint, and a Cell like any other.
    site.node(&dead)?.start().await?;
    site.cells_ready(3).await?;
    eventually("the taints are gone", SOON, || async {
        taints(site, &dead).await.ok()?.is_empty().then_some(())
    })
    .await?;
    site.kubectl("scale desiredlrp web --replicas=15").await?;
    let more = site.running("web", 15, |_| true).await?;
    assert!(more.iter().any(|slot| slot.cell == dead), "{more:?}");
    story(site, &watching, &dead).await
}

/// The keys of a node's taints that keep Pods away, but for those of Kubernetes itself.
const OURS: &str = "diego.cloudfoundry.org/cell-missing:NoExecute";

async fn taints(site: &Installed, node: &str) -> Result<String, Failure> {
    let node = site.json(&format!("get node {node}")).await?;
    let taints = node["spec"]["taints"].as_array().cloned();
    let named = |taint: &serde_json::Value| {
        let (key, effect) = (text(&taint["key"]), text(&taint["effect"]));
        (!key.starts_with("node.kubernetes.io/")).then(|| format!("{key}:{effect}"))
    };
    let named: Vec<_> = taints.iter().flatten().filter_map(named).collect();
    Ok(named.join(","))
}

/// Waits until the Service sends to the Pods of the instances, all of them and no others.
pub async fn only_live_endpoints(site: &Installed) -> Result<(), Failure> {
    eventually("the Service has the live Pods only", SOON, || async {
        let slices = site
            .json("get endpointslices -l kubernetes.io/service-name=web")
            .await
            .ok()?;
        let ready = items(&slices)
            .flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten())
            .filter(|endpoint| endpoint["conditions"]["ready"] == true)
            .map(|endpoint| text(&endpoint["targetRef"]["name"]));
        let ready: BTreeSet<String> = ready.collect();
        let pods = site.pods("app=web").await.ok()?;
        let live: BTreeSet<String> = pods.into_iter().map(|pod| pod.name).collect();
        (ready == live).then_some(())
    })
    .await
}

/// What people see of it: the Cell's lines in `kubectl get cells -w`, and its Events in `kubectl describe`.
async fn story(site: &Installed, watching: &Watching, cell: &str) -> Result<(), Failure> {
    let lines = watching.lines()?;
    let mut seen: Vec<String> = lines
        .iter()
        .filter(|words| words.first().is_some_and(|name| name == cell) && words.len() > 4)
        // READY and REASON.
        .map(|words| words[2..4].join(" "))
        .collect();
    seen.dedup();
    println!("{}", seen.join("\n"));
    let mut rest = seen.iter();
    for chapter in [
        "True PresenceHeld",
        "False PresenceExpired",
        "True PresenceHeld",
    ] {
        assert!(
            rest.any(|line| line == chapter),
            "no {chapter:?} in its place: {seen:?}"
        );
    }
    let described = site.kubectl(&format!("describe cell {cell}")).await?;
    let mut rest = described.as_str();
    for reason in [
        "CellPresenceExpired",
        "CellRecoveryCompleted",
        "CellPresenceReturned",
    ] {
        let at = rest.find(reason);
        let at = at.ok_or_else(|| format!("no {reason} in its place: {described}"))?;
        rest = &rest[at..];
    }
    for reason in ["CellNodeTainted", "CellNodeTaintRemoved"] {
        assert!(described.contains(reason), "{reason}: {described}");
    }
    Ok(())
}
