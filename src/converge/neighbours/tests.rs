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
    let job = json!({ "matchLabels": { "batch.kubernetes.io/job-name": "backup-1" } });
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
            json!({ "labelSelector": job }),
            "labelSelector (batch.kubernetes.io/job-name differs from Pod to Pod: only Exists and DoesNotExist are known)",
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
fn what_is_looked_up_is_what_is_meant() {
    let is = |key: &str, operator: &str, values: &[&str]| json!({ "key": key, "operator": operator, "values": values });
    let selectors = [
        json!(null),
        json!({}),
        json!({ "matchLabels": { "app": "a" } }),
        json!({ "matchLabels": { "app": "a", "tier": "1" } }),
        json!({ "matchLabels": { LABEL_DESIRED_LRP: "p" } }),
        json!({ "matchLabels": { LABEL_TASK: "p" } }),
        json!({ "matchExpressions": [is("app", "In", &["a", "b"])] }),
        json!({ "matchExpressions": [is("app", "NotIn", &["a"]), is("tier", "Exists", &[])] }),
        json!({ "matchExpressions": [is(LABEL_GUID, "Exists", &[])] }),
    ];
    let spaces = [
        json!({}),
        json!({ "namespaces": ["other"] }),
        json!({ "namespaceSelector": {} }),
    ];
    let terms: Vec<PodTerm> = selectors
        .iter()
        .flat_map(|selector| spaces.iter().map(move |space| (selector, space)))
        .filter_map(|(selector, space)| {
            let mut term = space.clone();
            term["labelSelector"] = selector.clone();
            read(term).ok()
        })
        .collect();
    let labels = [
        labels(&[]),
        labels(&[("app", "a")]),
        labels(&[("app", "b"), ("tier", "1")]),
        labels(&[("app", "a"), ("tier", "1"), (LABEL_TASK, "p")]),
    ];
    let of = [None, Some(Of::Process("p")), Some(Of::Task("p"))];
    let all = labels.iter().flat_map(|labels| {
        let of = of.into_iter().flat_map(|of| [("own", of), ("other", of)]);
        of.map(move |(namespace, of)| Likeness {
            namespace,
            labels,
            of,
        })
    });
    let all: Vec<Likeness<'_>> = all.collect();
    let mut meant = 0;
    for term in &terms {
        let (mut one, mut rest) = (Terms::default(), Terms::default());
        one.add("own", term);
        terms.iter().for_each(|term| rest.add("own", term));
        let mut every = Likenesses::default();
        for other in &all {
            let mut only = Likenesses::default();
            only.add(*other);
            every.add(*other);
            let means = term.means("own", other);
            meant += usize::from(means);
            assert_eq!(one.any_means(other), means, "{term:?} {other:?}");
            assert_eq!(only.any_is_meant("own", term), means, "{term:?} {other:?}");
            assert!(!means || rest.any_means(other), "{term:?} {other:?}");
        }
        let any = all.iter().any(|other| term.means("own", other));
        assert_eq!(every.any_is_meant("own", term), any, "{term:?}");
    }
    assert!(meant > 50, "{meant}");
}

#[test]
fn what_a_controller_gives_each_pod_for_itself_tells_none_apart() {
    let kin = |pairs: &[(&str, &str)]| PodKin::new("own", &labels(pairs), Vec::new());
    let of = |name, index| {
        let own = [
            ("statefulset.kubernetes.io/pod-name", name),
            ("apps.kubernetes.io/pod-index", index),
        ];
        kin(&[
            &own[..],
            &[("app", "db"), ("controller-revision-hash", "db-5")],
        ]
        .concat())
    };
    assert_eq!(of("db-0", "0"), of("db-1", "1"));
    let run = |job, uid| {
        let own = ["batch.kubernetes.io/job-name", "job-name"].map(|key| (key, job));
        let uids = ["batch.kubernetes.io/controller-uid", "controller-uid"].map(|key| (key, uid));
        kin(&[own, uids].concat())
    };
    assert_eq!(run("backup-1", "a"), run("backup-2", "b"));
    // All else is told apart, and that they are there.
    assert_ne!(
        kin(&[("pod-template-hash", "1")]),
        kin(&[("pod-template-hash", "2")])
    );
    let exists = json!({ "matchExpressions": [{ "key": "job-name", "operator": "Exists" }] });
    let jobs = read(json!({ "labelSelector": exists })).expect("a term");
    assert!(jobs.means("own", &run("backup-1", "a").likeness()));
    assert!(!jobs.means("own", &of("db-0", "0").likeness()));
}

#[test]
fn who_is_not_placed_by_the_auction_keeps_off_more_rather_than_fewer() {
    let team = json!({ "matchLabels": { "team": "db" } });
    let web = json!({ "matchLabels": { "app": "web" } });
    let keys = json!({ "topologyKey": "zone", "labelSelector": web, "matchLabelKeys": ["hash"] });
    let term = json!({ "topologyKey": "zone", "labelSelector": web, "namespaceSelector": team });
    let anti = json!({ REQUIRED: [term, keys] });
    let terms = keeps_off(&serde_json::from_value(anti.clone()).expect("an anti-affinity"));
    let labels = labels(&[("app", "web")]);
    let meant = |namespace| {
        let other = Likeness {
            namespace,
            labels: &labels,
            of: None,
        };
        let of = |term: &PodTerm| term.means("own", &other);
        terms.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(meant("own"), [true, true]);
    assert_eq!(meant("elsewhere"), [true, false]);
    // A template that can't be read, and is left to a scheduler.
    let mut spec = json!({ "containers": [], "affinity": { "podAntiAffinity": anti } });
    let of = |spec: &Value| {
        let pod: PodSpec = serde_json::from_value(spec.clone()).expect("a Pod");
        PodNeeds::of_scheduled(&pod)
    };
    assert_eq!(of(&spec), PodNeeds::default());
    spec["schedulerName"] = json!("default-scheduler");
    assert_eq!(of(&spec).apart, terms);
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
