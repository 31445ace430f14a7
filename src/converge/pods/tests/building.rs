//! The Pod that is made.

use serde_json::{Value, json};

use super::super::build::{Bound, Place, What, name, pod};
use crate::api::{MissingCellPolicy, RawTemplate};

const GUID: &str = "0123abcd-0000-4000-8000-000000000000";

fn bound<'a>(what: What<'a>) -> Bound<'a> {
    Bound {
        namespace: "default",
        record: "web-0",
        uid: "u1",
        guid: GUID,
        place: Place::Cell {
            cell: "cell-a",
            epoch: 10,
            node: "n1.example",
        },
        what,
    }
}

fn made(template: Value, what: What<'_>) -> Result<(Value, Value), String> {
    let template: RawTemplate = serde_json::from_value(template).expect("a template");
    pod(&template, &bound(what)).map(|(meta, spec)| (json!(meta), spec))
}

const LRP: What<'static> = What::Lrp {
    process: "web",
    index: 0,
    policy: MissingCellPolicy::Suspect,
};

#[test]
fn the_template_is_kept_but_for_what_placement_and_policy_need() {
    let template = json!({
        "metadata": {
            "name": "x", "labels": { "app": "web", "diego.cloudfoundry.org/instance-guid": "mine" }, "annotations": { "a": "b" },
            "finalizers": ["example.com/f"],
        },
        "spec": {
            "containers": [{ "name": "main", "image": "web", "aFieldOfTomorrow": 1 }],
            "restartPolicy": "Always", "automountServiceAccountToken": false, "nodeName": "other",
            "tolerations": [{ "key": "own", "operator": "Exists" }],
        },
    });
    let (meta, spec) = made(template, LRP).expect("a Pod");
    assert_eq!(
        meta,
        json!({
            "name": "web-0-0123abcd", "namespace": "default",
            "labels": {
                "app": "web", "diego.cloudfoundry.org/instance-guid": GUID, "diego.cloudfoundry.org/cell": "cell-a",
                "diego.cloudfoundry.org/desired-lrp": "web", "diego.cloudfoundry.org/index": "0",
            },
            "annotations": { "a": "b", "diego.cloudfoundry.org/cell-epoch": "10" },
            "ownerReferences": [{
                "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "ActualLRP", "name": "web-0", "uid": "u1",
                "controller": true, "blockOwnerDeletion": true,
            }],
        })
    );
    assert_eq!(
        spec,
        json!({
            "containers": [{ "name": "main", "image": "web", "aFieldOfTomorrow": 1 }],
            "restartPolicy": "Never", "automountServiceAccountToken": false, "nodeName": "n1.example",
            "tolerations": [
                { "key": "own", "operator": "Exists" },
                { "key": "diego.cloudfoundry.org/cell-missing", "operator": "Exists", "effect": "NoExecute" },
                { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute" },
                { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute" },
            ],
        })
    );
}

#[test]
fn how_long_a_node_may_be_unheard_is_the_templates_to_say() {
    let keys = |tolerations: Value| {
        let template = json!({ "spec": { "containers": [], "tolerations": tolerations } });
        let (_, spec) = made(template, LRP).expect("a Pod");
        let all = spec["tolerations"].as_array().expect("a list").clone();
        let keys = all
            .iter()
            .map(|it| it["key"].as_str().unwrap_or("all").to_owned());
        keys.collect::<Vec<_>>()
    };
    let ours = "diego.cloudfoundry.org/cell-missing";
    let (not_ready, unreachable) = (
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    );
    assert_eq!(keys(Value::Null), [ours, not_ready, unreachable]);
    let minute = json!([{ "key": not_ready, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60 }]);
    assert_eq!(keys(minute), [not_ready, ours, unreachable]);
    assert_eq!(keys(json!([{ "operator": "Exists" }])), ["all", ours]);
    let other = json!([{ "operator": "Exists", "effect": "NoSchedule" }]);
    assert_eq!(keys(other), ["all", ours, not_ready, unreachable]);
}

/// The fencer of a node stops what has this label, and a template must neither ask for that nor get out of it.
#[test]
fn the_label_for_the_fencer_is_that_of_the_policy() {
    let label = "diego.cloudfoundry.org/missing-cell-policy";
    let strict = What::Lrp {
        process: "web",
        index: 0,
        policy: MissingCellPolicy::Strict,
    };
    let task = What::Task { result_file: None };
    for (what, expected) in [
        (strict, json!("Strict")),
        (LRP, Value::Null),
        (task, Value::Null),
    ] {
        for asked in ["Strict", "Suspect", "x"] {
            let template =
                json!({ "metadata": { "labels": { label: asked } }, "spec": { "containers": [] } });
            let (meta, _) = made(template, what).expect("a Pod");
            assert_eq!(meta["labels"][label], expected, "{what:?}, {asked}");
        }
    }
}

#[test]
fn the_result_file_is_where_the_termination_message_is_read() {
    let template = |container: Option<&str>| {
        let mut template = json!({ "spec": { "containers": [{ "name": "a" }, { "name": "b" }] } });
        if let Some(name) = container {
            template["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] =
                json!(name);
        }
        template
    };
    let task = |file| What::Task {
        result_file: Some(file),
    };
    let paths = |container| {
        let (_, spec) = made(template(container), task("/out")).expect("a Pod");
        [0, 1].map(|i| spec["containers"][i]["terminationMessagePath"].clone())
    };
    assert_eq!(paths(None), [json!("/out"), Value::Null]);
    assert_eq!(paths(Some("b")), [Value::Null, json!("/out")]);
    assert_eq!(paths(Some("none")), [json!("/out"), Value::Null]);
    let refused = made(template(None), task("out")).expect_err("relative");
    assert!(
        refused.starts_with("spec.resultFile: \"out\" must be an absolute path"),
        "{refused}"
    );
    let (meta, _) = made(template(None), What::Task { result_file: None }).expect("a Pod");
    assert_eq!(meta["labels"]["diego.cloudfoundry.org/task"], "web-0");
}

#[test]
fn names_fit() {
    assert_eq!(name("web-0", GUID), "web-0-0123abcd");
    let long = format!("{}-{}", "a".repeat(52), 9999);
    let name = name(&long, GUID);
    assert!(name.len() <= 63 && name.ends_with("-0123abcd"), "{name}");
}

#[test]
fn a_scheduler_is_kept_off_nodes_that_take_no_work() {
    let made = |template: Value, closed: &[&str]| {
        let closed: Vec<String> = closed.iter().map(|node| (*node).to_owned()).collect();
        let template: RawTemplate = serde_json::from_value(template).expect("a template");
        let bound = Bound {
            place: Place::Scheduled { closed: &closed },
            ..bound(LRP)
        };
        pod(&template, &bound).map(|(_, spec)| spec)
    };
    let plain = json!({ "spec": { "containers": [], "schedulerName": "volcano" } });
    let spec = made(plain.clone(), &[]).expect("a Pod");
    let expected =
        json!({ "containers": [], "schedulerName": "volcano", "restartPolicy": "Never" });
    assert_eq!(spec, expected, "no toleration of our taint, no requirement");
    let off = |node: &str| json!({ "key": "metadata.name", "operator": "NotIn", "values": [node] });
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let terms =
        |spec: &Value| spec["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"].clone();
    let spec = made(plain.clone(), &["n1", "n2"]).expect("a Pod");
    assert_eq!(
        terms(&spec),
        json!([{ "matchFields": [off("n1"), off("n2")] }])
    );
    let mut own = plain.clone();
    let is = json!({ "key": "a", "operator": "Exists" });
    own["spec"]["affinity"] = json!({ "podAffinity": {}, "nodeAffinity": { required: { "nodeSelectorTerms": [
        { "matchExpressions": [is] }, { "matchFields": [off("n9")] }, {},
    ] } } });
    let spec = made(own.clone(), &["n1"]).expect("a Pod");
    let expected = json!([
        { "matchExpressions": [is], "matchFields": [off("n1")] }, { "matchFields": [off("n9"), off("n1")] }, {},
    ]);
    assert_eq!(terms(&spec), expected, "each term is enough by itself");
    assert_eq!(spec["affinity"]["podAffinity"], json!({}));
    own["spec"]["affinity"] = json!("near");
    let refused = made(own, &["n1"]).expect_err("no object");
    assert!(
        refused.starts_with("spec.template.spec.affinity.nodeAffinity"),
        "{refused}"
    );
    let mut fixed = plain;
    fixed["spec"]["nodeName"] = json!("n1");
    let refused = made(fixed, &[]).expect_err("both");
    let expected = "spec.template.spec.nodeName: \"n1\" can't be together with schedulerName";
    assert!(refused.starts_with(expected), "{refused}");
}
