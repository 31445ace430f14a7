//! Which Pods a term means, as tables.

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Value, json};

use super::*;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

fn read(term: Value) -> Result<PodTerm, String> {
    let mut whole = json!({ "topologyKey": "zone", "labelSelector": {} });
    if let (Value::Object(whole), Value::Object(term)) = (&mut whole, term) {
        whole.extend(term);
    }
    let spec =
        json!({ "containers": [], "affinity": { "podAntiAffinity": { REQUIRED: [whole] } } });
    let pod: PodSpec = serde_json::from_value(spec).expect("a Pod");
    PodNeeds::read(&pod).map(|needs| needs.apart[0].clone())
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn means(term: Value, namespace: &str, pod: &[(&str, &str)]) -> bool {
    let labels = labels(pod);
    let other = Likeness {
        namespace,
        labels: &labels,
        of: None,
    };
    read(term).expect("a term").means("own", &other)
}

#[test]
fn each_operator_of_a_selector() {
    for (operator, values, label, meant) in [
        ("In", json!(["a", "b"]), Some("b"), true),
        ("In", json!(["a"]), Some("b"), false),
        ("In", json!(["a"]), None, false),
        ("NotIn", json!(["a"]), Some("a"), false),
        ("NotIn", json!(["a"]), None, true),
        ("Exists", json!([]), Some("x"), true),
        ("Exists", json!([]), None, false),
        ("DoesNotExist", json!([]), Some("x"), false),
        ("DoesNotExist", json!([]), None, true),
    ] {
        let one = json!({ "key": "app", "operator": operator, "values": values });
        let term = json!({ "labelSelector": { "matchExpressions": [one] } });
        let pod: Vec<_> = label.map(|value| ("app", value)).into_iter().collect();
        assert_eq!(
            means(term, "own", &pod),
            meant,
            "{operator} {values} {label:?}"
        );
    }
}

#[test]
fn an_empty_selector_means_all_and_none_means_none() {
    assert!(means(json!({ "labelSelector": {} }), "own", &[]));
    assert!(!means(json!({ "labelSelector": null }), "own", &[]));
    let both = json!({ "labelSelector": { "matchLabels": { "a": "1", "b": "2" } } });
    assert!(!means(both, "own", &[("a", "1")]), "all of it must hold");
}

#[test]
fn the_namespaces_of_a_term() {
    for (term, own, other) in [
        (json!({}), true, false),
        (json!({ "namespaces": ["other"] }), false, true),
        (json!({ "namespaces": ["own", "other"] }), true, true),
        (json!({ "namespaceSelector": {} }), true, true),
    ] {
        assert_eq!(means(term.clone(), "own", &[]), own, "{term}");
        assert_eq!(means(term.clone(), "other", &[]), other, "{term}");
    }
}

#[test]
fn what_can_not_be_honoured_names_its_field() {
    let path = format!("spec.affinity.podAntiAffinity.{REQUIRED}[0]");
    let team = json!({ "matchLabels": { "team": "db" } });
    let index = json!({ "matchLabels": { LABEL_INDEX: "0" } });
    let near = json!({ "matchExpressions": [{ "key": "a", "operator": "Gt", "values": ["1"] }] });
    let bare = json!({ "matchExpressions": [{ "key": "a", "operator": "In" }] });
    for (term, told) in [
        (json!({ "matchLabelKeys": ["hash"] }), "matchLabelKeys"),
        (
            json!({ "mismatchLabelKeys": ["hash"] }),
            "mismatchLabelKeys",
        ),
        (
            json!({ "topologyKey": "" }),
            "topologyKey (must not be empty)",
        ),
        (
            json!({ "namespaceSelector": team }),
            "namespaceSelector (only {} is known, for all namespaces)",
        ),
        (
            json!({ "labelSelector": index }),
            "labelSelector (diego.cloudfoundry.org/index differs from instance to instance)",
        ),
        (
            json!({ "labelSelector": near }),
            "labelSelector.matchExpressions[0].operator (\"Gt\" is not known)",
        ),
        (
            json!({ "labelSelector": bare }),
            "labelSelector.matchExpressions[0].values ([] does not go with operator In)",
        ),
    ] {
        assert_eq!(read(term.clone()), Err(format!("{path}.{told}")), "{term}");
    }
}

#[test]
fn pods_of_ours_have_our_labels_over_those_of_the_template() {
    let template = labels(&[
        ("app", "web"),
        (LABEL_TASK, "forged"),
        (LABEL_DESIRED_LRP, "forged"),
    ]);
    let of = |of| Likeness {
        namespace: "own",
        labels: &template,
        of: Some(of),
    };
    let (process, task) = (of(Of::Process("web")), of(Of::Task("job")));
    assert_eq!(process.label(LABEL_DESIRED_LRP), Some("web"));
    assert_eq!(
        (process.label(LABEL_TASK), process.label("app")),
        (None, Some("web"))
    );
    assert_eq!(
        (task.label(LABEL_TASK), task.label(LABEL_DESIRED_LRP)),
        (Some("job"), None)
    );
    // It is there, whatever it is.
    for key in [LABEL_GUID, LABEL_CELL, LABEL_INDEX] {
        assert_eq!(process.label(key), Some(""), "{key}");
    }
}

#[test]
fn instances_of_one_process_are_alike() {
    let pod = |guid: &str, index: &str| {
        let labels = labels(&[("app", "web"), (LABEL_GUID, guid), (LABEL_INDEX, index)]);
        PodKin::new("own", &labels, Vec::new())
    };
    assert_eq!(pod("g1", "0"), pod("g2", "1"));
    let foreign = |index: &str| PodKin::new("own", &labels(&[(LABEL_INDEX, index)]), Vec::new());
    assert_ne!(foreign("0"), foreign("1"), "none of ours");
}
