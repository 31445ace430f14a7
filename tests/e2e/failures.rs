//! Nodes that die, are cut off and reboot, and a control plane that is away: what becomes of LRPs, Tasks and Deployments.
//!
//! One cluster goes through all of it, one failure after the other; each begins and ends with everything well.

mod dead_node;
mod messenger;
mod partition;
mod reboot;

use crate::{
    installed::{Installed, SOON},
    support::Failure,
};
use serde_json::json;
use std::time::Instant;

/// The LRP of all failures, and its Service.
const WEB: &str = "
apiVersion: diego.cloudfoundry.org/v1alpha1
kind: DesiredLRP
metadata: {name: web}
spec:
  instances: 12
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: test-app:dev
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_outlives_nodes_and_control_planes() -> Result<(), Failure> {
    let began = Instant::now();
    let told = |what: &str| println!("{:6.1} s: {what}", began.elapsed().as_secs_f64());
    let mut installed = Installed::start(3, &["--set=nodeTaint.enabled=true"]).await?;
    told("installed");
    installed.apply(WEB).await?;
    installed.running("web", 12, |_| true).await?;
    told("twelve instances run");
    dead_node::a_node_and_the_leader_die_at_once(&installed).await?;
    told("a dead node: done");
    partition::a_node_is_cut_off_and_comes_back(&installed).await?;
    told("a partition: done");
    placed_by_the_scheduler(&installed).await?;
    told("placed by the scheduler: done");
    messenger::the_reps_are_replaced(&installed).await?;
    told("the reps replaced: done");
    messenger::the_api_server_is_away(&mut installed).await?;
    told("the API server away: done");
    reboot::a_node_reboots_within_the_ttl(&installed).await?;
    told("a reboot: done");
    Ok(())
}

/// A Task that runs until somebody ends it, on this node.
async fn long_task(site: &Installed, name: &str, node: &str) -> Result<(), Failure> {
    let task = json!({
        "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "Task", "metadata": { "name": name },
        "spec": { "ttlSecondsAfterFinished": 3600, "template": { "spec": {
            "terminationGracePeriodSeconds": 1,
            "nodeSelector": { "kubernetes.io/hostname": node },
            "containers": [{ "name": "work", "image": "test-app:dev", "command": ["sleep", "100000"] }],
        }}},
    });
    site.apply(&task.to_string()).await?;
    task_is(site, name, &format!("Running/{node}/")).await
}

/// Waits until a Task has this state, Cell and reason of failure.
async fn task_is(site: &Installed, name: &str, wanted: &str) -> Result<(), Failure> {
    let ask = format!(
        "get task {name} -o jsonpath={{.status.state}}/{{.status.cellName}}/{{.status.failureReason}}"
    );
    site.until(&ask, SOON, |now| now == wanted).await.map(drop)
}

/// Placement that is left to kube-scheduler: the record goes where the Pod went.
async fn placed_by_the_scheduler(site: &Installed) -> Result<(), Failure> {
    let lrp = json!({
        "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "DesiredLRP", "metadata": { "name": "scheduled" },
        "spec": { "instances": 3, "template": { "spec": {
            "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "web", "image": "test-app:dev" }],
        }}},
    });
    site.apply(&lrp.to_string()).await?;
    // That each Pod is on its record's Cell is part of it.
    site.running("scheduled", 3, |_| true).await?;
    let bound = site
        .kubectl("get events --field-selector=reason=Scheduled -o name")
        .await?;
    assert!(bound.lines().count() >= 3, "{bound}");
    site.kubectl("delete desiredlrp scheduled --wait=true")
        .await?;
    site.until(
        "get pods -l diego.cloudfoundry.org/desired-lrp=scheduled -o name",
        SOON,
        str::is_empty,
    )
    .await
    .map(drop)
}
