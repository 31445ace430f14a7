//! The scheduler's filters, as tables.

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Value, json};

use super::*;

fn needs(spec: Value) -> NodeNeeds {
    let mut spec = spec;
    spec["containers"] = json!([]);
    let pod: PodSpec = serde_json::from_value(spec).expect("a Pod");
    NodeNeeds::read(&pod).expect("needs")
}

fn unread(spec: Value) -> String {
    let mut spec = spec;
    spec["containers"] = json!([]);
    let pod: PodSpec = serde_json::from_value(spec).expect("a Pod");
    NodeNeeds::read(&pod).expect_err("not readable")
}

fn node(labels: &[(&str, &str)], taints: &[(&str, &str, TaintEffect)]) -> NodeRecord {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    NodeRecord {
        labels: labels.iter().map(owned).collect(),
        taints: taints
            .iter()
            .map(|(key, value, effect)| Taint {
                key: (*key).into(),
                value: (*value).into(),
                effect: *effect,
            })
            .collect(),
        ready: true,
        ..NodeRecord::default()
    }
}

fn told(needs: &NodeNeeds, node: &NodeRecord) -> String {
    match fit(needs, "n1", node) {
        Ok(()) => "fits".into(),
        Err(unfit) => unfit.to_string(),
    }
}

fn required(terms: Value) -> Value {
    json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
}

const AFFINITY: &str = "node(s) didn't match Pod's node affinity/selector";

#[test]
fn each_operator_of_a_node_affinity() {
    let node = node(&[("disk", "ssd"), ("cores", "8"), ("name", "x")], &[]);
    for (key, operator, values, fits) in [
        ("disk", "In", json!(["hdd", "ssd"]), true),
        ("disk", "In", json!(["hdd"]), false),
        ("gpu", "In", json!(["a"]), false),
        ("disk", "NotIn", json!(["hdd"]), true),
        ("disk", "NotIn", json!(["ssd", "hdd"]), false),
        ("gpu", "NotIn", json!(["a"]), true),
        ("disk", "Exists", json!([]), true),
        ("gpu", "Exists", json!([]), false),
        ("disk", "DoesNotExist", json!([]), false),
        ("gpu", "DoesNotExist", json!([]), true),
        ("cores", "Gt", json!(["7"]), true),
        ("cores", "Gt", json!(["8"]), false),
        ("cores", "Lt", json!(["9"]), true),
        ("cores", "Lt", json!(["8"]), false),
        ("name", "Gt", json!(["0"]), false),
        ("gpu", "Gt", json!(["0"]), false),
        ("gpu", "Lt", json!(["9"]), false),
    ] {
        let terms =
            json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]);
        let expected = if fits { "fits" } else { AFFINITY };
        assert_eq!(
            told(&needs(required(terms)), &node),
            expected,
            "{key} {operator} {values}"
        );
    }
}

#[test]
fn terms_are_alternatives_and_what_stands_in_one_must_all_hold() {
    let node = node(&[("disk", "ssd"), ("zone", "a")], &[]);
    let is = |key: &str, value: &str| json!({"key": key, "operator": "In", "values": [value]});
    let says = |terms| told(&needs(required(terms)), &node);
    let both = json!([{"matchExpressions": [is("disk", "ssd"), is("zone", "b")]}]);
    assert_eq!(says(both), AFFINITY);
    let either =
        json!([{"matchExpressions": [is("zone", "b")]}, {"matchExpressions": [is("disk", "ssd")]}]);
    assert_eq!(says(either), "fits");
    // A term that asks for nothing, and a list of none, match no node.
    assert_eq!(says(json!([{}])), AFFINITY);
    assert_eq!(says(json!([])), AFFINITY);
    let named = |operator: &str, name: &str| json!([{"matchFields": [{"key": "metadata.name", "operator": operator, "values": [name]}]}]);
    assert_eq!(says(named("In", "n1")), "fits");
    assert_eq!(says(named("In", "n2")), AFFINITY);
    assert_eq!(says(named("NotIn", "n1")), AFFINITY);
    // The selector must hold beside it.
    let mut spec = required(json!([{"matchExpressions": [is("disk", "ssd")]}]));
    spec["nodeSelector"] = json!({"zone": "b"});
    assert_eq!(told(&needs(spec), &node), AFFINITY);
}

#[test]
fn a_node_is_asked_for_by_name() {
    let needs = needs(json!({"nodeName": "n2"}));
    let expected = "node(s) didn't match the requested node name";
    assert_eq!(told(&needs, &node(&[], &[])), expected);
    assert_eq!(fit(&needs, "n2", &node(&[], &[])), Ok(()));
}

#[test]
fn each_way_to_tolerate_a_taint() {
    use TaintEffect::{NoExecute, NoSchedule, PreferNoSchedule};
    let tainted = |effect| node(&[], &[("team", "db", effect)]);
    let told_of = |toleration: Value, effect| {
        told(
            &needs(json!({ "tolerations": [toleration] })),
            &tainted(effect),
        )
    };
    let untolerated = "node(s) had untolerated taint {team: db}";
    let none = NodeNeeds::default();
    assert_eq!(told(&none, &tainted(NoSchedule)), untolerated);
    assert_eq!(told(&none, &tainted(NoExecute)), untolerated);
    assert_eq!(told(&none, &tainted(PreferNoSchedule)), "fits");
    for (toleration, effect, fits) in [
        (json!({"operator": "Exists"}), NoSchedule, true),
        (
            json!({"operator": "Exists", "effect": "NoExecute"}),
            NoSchedule,
            false,
        ),
        (
            json!({"key": "team", "operator": "Exists"}),
            NoExecute,
            true,
        ),
        (
            json!({"key": "other", "operator": "Exists"}),
            NoExecute,
            false,
        ),
        (json!({"key": "team", "value": "db"}), NoSchedule, true),
        (
            json!({"key": "team", "operator": "Equal", "value": "web"}),
            NoSchedule,
            false,
        ),
        (
            json!({"key": "team", "operator": "Equal"}),
            NoSchedule,
            false,
        ),
        (
            json!({"key": "team", "value": "db", "effect": "NoSchedule"}),
            NoSchedule,
            true,
        ),
        (
            json!({"key": "team", "value": "db", "effect": "NoSchedule"}),
            NoExecute,
            false,
        ),
    ] {
        let expected = if fits { "fits" } else { untolerated };
        assert_eq!(
            told_of(toleration.clone(), effect),
            expected,
            "{toleration}"
        );
    }
}

#[test]
fn our_own_taint_keeps_nothing_of_ours_away() {
    let node = node(&[], &[(CELL_MISSING_TAINT, "", TaintEffect::NoExecute)]);
    assert_eq!(told(&NodeNeeds::default(), &node), "fits");
    // With another effect it is somebody else's.
    let theirs = self::node(&[], &[(CELL_MISSING_TAINT, "", TaintEffect::NoSchedule)]);
    assert_ne!(told(&NodeNeeds::default(), &theirs), "fits");
}

#[test]
fn what_can_not_be_read_names_the_field() {
    let affinity = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]";
    let expression = |key: &str, operator: &str, values: Value| json!({"key": key, "operator": operator, "values": values});
    let label = |one: Value| unread(required(json!([{ "matchExpressions": [one] }])));
    assert_eq!(
        label(expression("a", "Near", json!([]))),
        format!("{affinity}.matchExpressions[0].operator (\"Near\" is not known)")
    );
    assert_eq!(
        label(expression("a", "Gt", json!(["many"]))),
        format!("{affinity}.matchExpressions[0].values ([\"many\"] does not go with operator Gt)")
    );
    let field = expression("spec.unschedulable", "In", json!(["true"]));
    assert_eq!(
        unread(required(json!([{ "matchFields": [field] }]))),
        format!(
            "{affinity}.matchFields[0] (only metadata.name with operator In or NotIn can be asked for)"
        )
    );
    assert_eq!(
        unread(json!({"tolerations": [{"value": "x"}]})),
        "spec.tolerations[0].operator (must be Exists where there is no key)"
    );
    assert_eq!(
        unread(json!({"tolerations": [{"operator": "Exists", "effect": "Never"}]})),
        "spec.tolerations[0].effect (\"Never\" is not known)"
    );
}

#[test]
fn a_node_that_is_not_ready_says_so_first() {
    let node = |ready, unschedulable| NodeRecord {
        ready,
        unschedulable,
        ..NodeRecord::default()
    };
    assert_eq!(Standing::of(&node(true, false)), Standing::Open);
    assert_eq!(Standing::of(&node(true, true)), Standing::Unschedulable);
    assert_eq!(Standing::of(&node(false, true)), Standing::NotReady);
}
