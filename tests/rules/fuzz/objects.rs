//! What tenants write: the four kinds, their templates and quantities, and the Pods that others may change.

use std::collections::BTreeMap;

use diego_operator::api::quantity;
use diego_operator::api::template::resources;
use diego_operator::api::{ActualLRP, Cell, DesiredLRP, Task};
use diego_operator::callback;
use diego_operator::converge::neighbours::{PodNeeds, keeps_off};
use diego_operator::converge::pods;
use diego_operator::converge::process_spec::{ProcessSpec, expand};
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodTemplateSpec};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{bend, bounded, config};

/// What an instance is started with at most, in bytes: far more than the kernel takes.
const START: usize = 16 << 20;

fn template() -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}, "annotations": {"a": "b"}},
        "spec": {
            "terminationGracePeriodSeconds": 10,
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute", "tolerationSeconds": 3}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "cpu", "operator": "Gt", "values": ["3"]}]},
            ]}}},
            "containers": [{
                "name": "web", "command": ["serve", "$(PORT)"], "args": ["--a=$(A)"], "workingDir": "/srv",
                "env": [
                    {"name": "A", "value": "1$(B)$$(C)"},
                    {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                ],
                "ports": [{"containerPort": 8080, "name": "http", "hostPort": 0, "protocol": "TCP"}],
                "resources": {"requests": {"memory": "64Mi", "cpu": "250m", "ephemeral-storage": "1Gi"}, "limits": {"memory": "1Gi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http", "httpHeaders": [{"name": "X", "value": "y"}]}, "periodSeconds": 3},
                "livenessProbe": {"exec": {"command": ["check", "$(A)"]}, "initialDelaySeconds": 5, "timeoutSeconds": 2},
                "startupProbe": {"tcpSocket": {"port": 8080}, "failureThreshold": 30},
            }],
        },
    })
}

fn metadata(name: &str) -> Value {
    json!({
        "name": name, "namespace": "space", "uid": "u-1", "resourceVersion": "17", "generation": 2,
        "creationTimestamp": "2026-11-23T12:00:00Z",
        "ownerReferences": [{
            "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "ActualLRP", "name": "web-0", "uid": "u-2", "controller": true,
        }],
    })
}

fn kind(kind: &str, spec: &Value, status: &Value) -> Value {
    json!({
        "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": kind,
        "metadata": metadata("web-0"), "spec": spec, "status": status,
    })
}

fn task() -> Value {
    kind(
        "Task",
        &json!({
            "domain": "cf", "template": template(), "placementTags": ["gpu"], "resultFile": "out",
            "completionCallbackURL": "http://user:secret@cc.example.com:8080/done?x=1", "ttlSecondsAfterFinished": 60,
            "annotation": "app", "cancelled": false,
        }),
        &json!({
            "state": "Running", "cellName": "a", "cellEpoch": 7, "instanceGuid": "g", "rejectionCount": 1,
            "firstCompletedTime": "2026-11-23T12:00:00.000000Z",
        }),
    )
}

fn desired() -> Value {
    let spec = json!({
        "instances": 3, "domain": "cf", "template": template(), "placementTags": ["gpu"], "startTimeoutSeconds": 60,
        "missingCellPolicy": "Strict", "annotation": "x",
    });
    let conditions = json!([{
        "type": "Ready", "status": "True", "reason": "A", "message": "b", "lastTransitionTime": "2026-11-23T12:00:00Z",
    }]);
    kind(
        "DesiredLRP",
        &spec,
        &json!({"instances": 3, "running": 1, "conditions": conditions}),
    )
}

fn actual() -> Value {
    kind(
        "ActualLRP",
        &json!({"desiredLRPName": "web", "index": 0, "domain": "cf"}),
        &json!({
            "state": "Running", "cellName": "a", "cellEpoch": 7, "instanceGuid": "g", "crashCount": 3,
            "stateTransitionTime": "2026-11-23T12:00:00.000000Z", "address": "10.0.0.1",
            "ports": [{"containerPort": 8080, "hostPort": 61001}],
            "suspect": {"cellName": "b", "cellEpoch": 3, "instanceGuid": "h"},
        }),
    )
}

fn cell() -> Value {
    kind(
        "Cell",
        &json!({
            "zone": "z1", "executor": "Process", "capacity": {"memory": "8Gi", "disk": "10Gi", "containers": 250},
            "placementTags": [], "optionalPlacementTags": ["x"], "unschedulable": false, "evacuate": false,
        }),
        &json!({"state": "Present", "incarnation": "i", "epoch": 7, "actualLRPs": 1, "tasks": 0}),
    )
}

fn pod() -> Value {
    json!({
        "metadata": {
            "name": "web-0-x", "namespace": "space", "uid": "u-9", "resourceVersion": "3",
            "labels": {"diego.cloudfoundry.org/desired-lrp": "web", "diego.cloudfoundry.org/index": "0"},
            "annotations": {"diego.cloudfoundry.org/cell-epoch": "7", "diego.cloudfoundry.org/instance-guid": "g"},
            "ownerReferences": [{
                "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "ActualLRP", "name": "web-0", "uid": "u-2", "controller": true,
            }],
        },
        "spec": {"nodeName": "a", "containers": [{"name": "web"}]},
        "status": {
            "phase": "Running", "podIP": "10.0.0.1", "startTime": "2026-11-23T12:00:00Z",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-23T12:00:00Z"}],
            "containerStatuses": [{
                "name": "web", "image": "i", "imageID": "", "ready": true, "restartCount": 1,
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-11-23T12:00:00Z"}},
                "state": {"running": {"startedAt": "2026-11-23T12:00:00Z"}},
            }],
        },
    })
}

/// A Pod's wish to be near others, and apart from others.
fn neighbours() -> Value {
    let selector = json!({
        "matchLabels": {"app": "web"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]},
            {"key": "old", "operator": "DoesNotExist"},
        ],
    });
    let term = |topology: &str| {
        json!({
            "labelSelector": selector, "topologyKey": topology, "namespaces": ["space", "other"],
            "namespaceSelector": null, "matchLabelKeys": [], "mismatchLabelKeys": [],
        })
    };
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let preferred = json!([{"weight": 1, "podAffinityTerm": term("zone")}]);
    json!({
        "containers": [{"name": "web", "image": "i"}],
        "affinity": {
            "podAffinity": {required: [term("zone"), {"topologyKey": "zone", "namespaceSelector": {}}]},
            "podAntiAffinity": {
                required: [term("kubernetes.io/hostname")],
                "preferredDuringSchedulingIgnoredDuringExecution": preferred,
            },
        },
    })
}

/// Reads an object, and reads what it would write again.
fn read<K: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(tree: &Value) -> Option<K> {
    let object: K = serde_json::from_value(tree.clone()).ok()?;
    let written = serde_json::to_value(&object).expect("it can be written");
    let again: K = serde_json::from_value(written).expect("it can be read again");
    assert_eq!(again, object);
    Some(object)
}

/// Whatever a template says, it is refused or can be started with.
fn is_startable(template: &PodTemplateSpec) {
    let asked = resources(template).expect("checked already");
    assert!(
        asked.memory >= 0 && asked.disk >= 0 && asked.cpu >= 0,
        "{asked:?}"
    );
    if let Ok(spec) = ProcessSpec::from_template(template) {
        let given = BTreeMap::from([("PORT".to_owned(), "61001".to_owned())]);
        let (argv, env) = spec.expand(&given, |_| "field".into());
        let size: usize = argv.iter().map(String::len).sum();
        let size = size + env.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
        assert!(size <= START, "{size} bytes to start with");
        assert!(!argv.is_empty());
    }
}

/// Each variable is twice the one before: a few lines that would be 2^60 bytes.
#[test]
fn references_that_multiply_are_refused() {
    let mut env = vec![json!({"name": "V0", "value": "x".repeat(64)})];
    env.extend((1..60).map(|i| {
        let before = format!("$(V{})", i - 1);
        json!({"name": format!("V{i}"), "value": before.repeat(2)})
    }));
    let bomb = |command: &str, env: &[Value]| -> PodTemplateSpec {
        let container = json!({"name": "a", "command": [command], "env": env});
        serde_json::from_value(json!({"spec": {"containers": [container]}})).expect("a template")
    };
    bounded(|| {
        let refused = ProcessSpec::from_template(&bomb("true", &env)).expect_err("too large");
        assert!(
            refused.to_string().contains("spec.containers[0].env"),
            "{refused}"
        );
        // Many references to what the Cell gives.
        let many = "$(CF_INSTANCE_PORTS)".repeat(70_000);
        ProcessSpec::from_template(&bomb(&many, &[])).expect_err("too large");
        // What people write is not refused.
        ProcessSpec::from_template(&bomb("true", &env[..8])).expect("small");
        let unknown = "$(not a variable) ".repeat(1000);
        ProcessSpec::from_template(&bomb(&unknown, &[])).expect("small");
    });
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn tasks(tree in bend::tree(vec![task()])) {
        bounded(|| {
            let Some(task) = read::<Task>(&tree) else { return };
            if let Ok(template) = task.spec.template.parse() {
                is_startable(&template);
            }
            if let Some(url) = &task.spec.completion_callback_url {
                let receiver = callback::receiver(url);
                assert!(!receiver.contains("secret"), "{receiver}");
            }
            let body = serde_json::to_vec(&callback::Body::of(&task)).expect("a body");
            assert!(!body.is_empty());
        });
    }

    #[test]
    fn desired_lrps(tree in bend::tree(vec![desired()])) {
        bounded(|| {
            if let Some(desired) = read::<DesiredLRP>(&tree)
                && let Ok(template) = desired.spec.template.parse()
            {
                is_startable(&template);
            }
        });
    }

    #[test]
    fn actual_lrps_and_cells(tree in bend::tree(vec![actual(), cell()])) {
        bounded(|| {
            let _ = read::<ActualLRP>(&tree);
            if let Some(cell) = read::<Cell>(&tree) {
                for text in [&cell.spec.capacity.memory, &cell.spec.capacity.disk] {
                    let _ = quantity::bytes(text);
                }
            }
        });
    }

    #[test]
    fn pods_that_others_changed(tree in bend::tree(vec![pod()])) {
        bounded(|| {
            if let Ok(pod) = serde_json::from_value::<Pod>(tree) {
                let _ = pods::owner(&pod.metadata);
                let _ = pods::PodRecord::read(&pod);
            }
        });
    }

    #[test]
    fn needs_of_neighbours(tree in bend::tree(vec![neighbours()])) {
        bounded(|| {
            let Ok(spec) = serde_json::from_value::<PodSpec>(tree) else { return };
            match PodNeeds::read(&spec) {
                Ok(_) => {}
                Err(problem) => assert!(problem.starts_with("spec.affinity."), "{problem}"),
            }
            let apart = spec.affinity.as_ref().and_then(|all| all.pod_anti_affinity.as_ref());
            if let Some(apart) = apart {
                let terms = apart.required_during_scheduling_ignored_during_execution.iter().flatten();
                assert!(keeps_off(apart).len() <= terms.count());
            }
        });
    }

    #[test]
    fn objects_as_bytes(bytes in bend::bytes(vec![task().to_string().into_bytes(), actual().to_string().into_bytes()])) {
        bounded(|| {
            let _ = serde_json::from_slice::<Task>(&bytes);
            let _ = serde_json::from_slice::<ActualLRP>(&bytes);
        });
    }

    #[test]
    fn quantities(text in bend::text(&["64Mi", "1.5Gi", "250m", "12e6", "0", "100k"])) {
        bounded(|| {
            for read in [quantity::bytes, quantity::millis] {
                if let Ok(number) = read(&text) {
                    assert!(number >= 0, "{text}: {number}");
                    let _ = quantity::format(number);
                }
            }
        });
    }

    #[test]
    fn references(text in bend::text(&["a$(A)b$$(A)$(B", "$(A)$(A)", "$$$$(A"])) {
        bounded(|| {
            let env = BTreeMap::from([("A".to_owned(), "$(A)".to_owned())]);
            let expanded = expand(&text, &env);
            assert!(expanded.len() <= text.len() + 4 * text.len());
        });
    }
}
