//! Objects for tests, as a user would write them.

use diego_operator::api::{DesiredLRP, Task};
use serde_json::{Value, json};

/// A DesiredLRP whose instances do nothing until they are stopped.
pub fn sleepers(name: &str, instances: i32) -> DesiredLRP {
    lrp(
        name,
        instances,
        json!({ "containers": [{ "name": "main", "command": ["sleep", "100000"] }] }),
    )
}

/// A DesiredLRP of HTTP servers on the port they are given.
pub fn servers(name: &str, instances: i32) -> DesiredLRP {
    let command = [
        "sh",
        "-c",
        "exec python3 -m http.server \"$PORT\" --bind 127.0.0.1",
    ];
    let container = json!({ "name": "main", "command": command, "ports": [{ "name": "http", "containerPort": 8080 }] });
    lrp(name, instances, json!({ "containers": [container] }))
}

/// A DesiredLRP of a pod spec.
pub fn lrp(name: &str, instances: i32, spec: Value) -> DesiredLRP {
    object(json!({
        "apiVersion": "diego.cloudfoundry.org/v1alpha1",
        "kind": "DesiredLRP",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "instances": instances, "template": { "spec": spec } },
    }))
}

/// A Task that runs a shell script.
pub fn task(name: &str, script: &str) -> Task {
    object(json!({
        "apiVersion": "diego.cloudfoundry.org/v1alpha1",
        "kind": "Task",
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "template": { "spec": { "containers": [{ "name": "main", "command": ["sh", "-c", script] }] } },
        },
    }))
}

fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("the test's object is valid")
}
