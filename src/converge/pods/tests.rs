//! Tables and properties of the executor's rules.

mod building;
mod fixpoint;
mod index;
mod model;
mod reading;
mod scheduled;
mod strict;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::PodRecord;

/// The Pod of instance `guid` of web-0 on node n1, with this status.
fn pod(guid: &str, status: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": super::build::name("web-0", guid), "namespace": "default",
            "uid": format!("pod-{guid}"), "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": { super::LABEL_GUID: guid, super::LABEL_CELL: "a" },
            "annotations": { super::ANNOTATION_EPOCH: "10" },
            "ownerReferences": [{
                "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "ActualLRP", "name": "web-0", "uid": "lrp-1",
                "controller": true,
            }],
        },
        "spec": {
            "nodeName": "n1",
            "containers": [{ "name": "main", "image": "web", "ports": [{ "name": "http", "containerPort": 8080 }] }],
        },
        "status": status,
    }))
    .expect("a Pod")
}

fn read(status: Value) -> PodRecord {
    PodRecord::read(&pod("g1", status)).expect("one of ours")
}

/// The same Pod, of a Task.
fn read_task(status: Value) -> PodRecord {
    let mut pod = pod("g1", status);
    for owner in pod.metadata.owner_references.iter_mut().flatten() {
        owner.kind = "Task".into();
    }
    PodRecord::read(&pod).expect("one of ours")
}

/// So many seconds after the Pod was made.
fn at(seconds: i64) -> Timestamp {
    let made: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
    made + k8s_openapi::jiff::SignedDuration::from_secs(seconds)
}

fn ready() -> Value {
    json!({
        "phase": "Running", "podIP": "10.0.0.7",
        "conditions": [{ "type": "Ready", "status": "True" }],
        "containerStatuses": [status(json!({ "running": {} }))],
    })
}

fn status(state: Value) -> Value {
    json!({ "name": "main", "ready": true, "restartCount": 0, "image": "web", "imageID": "", "state": state })
}

/// Its Pod still runs, of which one container has ended.
fn half_ended(exit_code: i32) -> Value {
    let mut helper = status(json!({ "running": {} }));
    helper["name"] = json!("helper");
    let main = status(json!({ "terminated": { "exitCode": exit_code, "reason": "Error" } }));
    json!({ "phase": "Running", "containerStatuses": [main, helper] })
}

fn failed(terminated: Value) -> Value {
    json!({ "phase": "Failed", "containerStatuses": [status(json!({ "terminated": terminated }))] })
}

fn waiting(reason: &str, message: &str) -> Value {
    let state = json!({ "waiting": { "reason": reason, "message": message } });
    json!({ "phase": "Pending", "containerStatuses": [status(state)] })
}
