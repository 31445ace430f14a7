//! Pods that a kubelet evicts because they write more than they may.

use super::{PROMPTLY, Told, event, field, task_is};
use crate::{
    installed::{Installed, SOON},
    look::{DESIRED, Slot},
    support::Failure,
};
use serde_json::json;

/// Two instances with a volume of 8 MiB, and a Task that writes more than it may as soon as it runs.
const WRITERS: &str = "
apiVersion: diego.cloudfoundry.org/v1alpha1
kind: DesiredLRP
metadata: {name: writer}
spec:
  instances: 2
  template:
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: test-app:dev
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
        volumeMounts: [{name: scratch, mountPath: /scratch}]
      volumes:
      - {name: scratch, emptyDir: {sizeLimit: 8Mi}}
---
apiVersion: diego.cloudfoundry.org/v1alpha1
kind: Task
metadata: {name: greedy}
spec:
  ttlSecondsAfterFinished: 3600
  template:
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: test-app:dev
        command: [sh, -c, 'dd if=/dev/zero of=/big bs=1M count=64; sleep 100000']
        resources: {limits: {ephemeral-storage: 32Mi}}
";

pub async fn apply(site: &Installed) -> Result<(), Failure> {
    site.apply(WRITERS).await
}

pub async fn an_instance_runs_elsewhere(site: &Installed, told: &Told) -> Result<(), Failure> {
    let before = site.running("writer", 2, |_| true).await?;
    let old = before.first().ok_or("no slot")?;
    let pod = told.first_pod(&old.name).await?;
    site.kubectl(&format!(
        "exec {pod} -- dd if=/dev/zero of=/scratch/big bs=1M count=24"
    ))
    .await?;
    let took = told.replaced(&old.name).await?;
    assert!(took < PROMPTLY, "{took:?}");
    let evicted = |slot: &Slot| slot.name != old.name || slot.guid != old.guid;
    let after = site.running("writer", 2, evicted).await?;
    let new = after.first().ok_or("no slot")?;
    assert_ne!(new.cell, old.cell, "there were others");
    assert_eq!(after.get(1), before.get(1));
    assert_eq!(told.made(&old.name).len(), 2);
    let (reason, message) = told.reason_of(&old.name)?;
    assert_eq!(reason, "Evicted");
    let words = format!("{reason}: {}", message.trim());
    assert!(
        words.contains(r#"EmptyDir volume "scratch" exceeds the limit "8Mi""#),
        "{words}"
    );
    // Else it would be taken for a crash.
    let ended = told.of(&old.name);
    let mut ended = ended
        .iter()
        .filter(|line| line.whole.contains("terminated"));
    assert!(
        ended.all(|line| line.reason == reason),
        "an end without its reason"
    );
    told.given_back(&old.name, &old.cell, &words)?;
    let note = format!("On Cell {}: {words}", old.cell);
    event(site, "ActualLRP", &old.name, "ActualLRPRejected", &note).await?;
    let record = site.json(&format!("get actuallrp {}", old.name)).await?;
    assert!(field(&record, "/status/rejectedBy").is_null(), "{record:#}");
    let left = site.pods(&format!("{DESIRED}=writer")).await?;
    assert_eq!(left.len(), 2, "the evicted Pod is still there");
    Ok(())
}

pub async fn a_task_has_failed(site: &Installed, told: &Told) -> Result<(), Failure> {
    let ask = "get task greedy -o jsonpath={.status.state}";
    site.until(ask, SOON, |state| state == "Completed").await?;
    let (reason, message) = told.reason_of("greedy")?;
    assert_eq!(reason, "Evicted");
    let words = format!("{reason}: {}", message.trim());
    let task = site.json("get task greedy").await?;
    let cell = field(&task, "/status/cellName")
        .as_str()
        .unwrap_or_default();
    task_is(site, "greedy", &format!("Completed|{cell}|{words}")).await?;
    assert_eq!(*field(&task, "/status/failed"), json!(true));
    event(
        site,
        "Task",
        "greedy",
        "TaskRejected",
        &format!("On Cell {cell}: {words}"),
    )
    .await?;
    assert_eq!(told.made("greedy").len(), 1, "it runs at most once");
    Ok(())
}
