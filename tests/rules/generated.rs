//! Generated files are committed; a stale one names the command that mends it.

use std::path::Path;

use diego_operator::api::crds;

#[test]
fn the_crds_are_up_to_date() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let mut expected = Vec::new();
    for file in crds::all() {
        let path = directory.join(&file.name);
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        let generated = file.yaml().expect("the CRD can be written as YAML");
        assert!(
            committed == generated,
            "crds/{} differs from the types in src/api: run `make crds` and commit the result",
            file.name
        );
        expected.push(file.name);
    }
    let mut found: Vec<String> = std::fs::read_dir(&directory)
        .expect("crds/ exists")
        .map(|entry| {
            entry
                .expect("crds/ can be read")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    found.sort();
    expected.sort();
    assert_eq!(
        found, expected,
        "crds/ holds exactly the generated files: run `make crds` after removing the others"
    );
}

/// CRDs this small can be applied with `kubectl apply` too, which repeats them in an annotation of at most
/// 262,144 bytes.
#[test]
fn the_crds_stay_small() {
    for file in crds::all() {
        let bytes = serde_json::to_string(&file.crd)
            .expect("the CRD can be written as JSON")
            .len();
        assert!(bytes < 40_000, "{}: {bytes} bytes", file.name);
    }
}

/// `kubectl explain` shows no empty description, and nothing is unbounded.
#[test]
fn every_field_is_documented_and_bounded() {
    let mut problems = Vec::new();
    for file in crds::all() {
        let crd = serde_json::to_value(&file.crd).expect("the CRD can be written as JSON");
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        for part in ["spec", "status"] {
            inspect(
                &format!("{}.{part}", file.crd.spec.names.kind),
                &schema["properties"][part],
                &mut problems,
            );
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

fn inspect(path: &str, schema: &serde_json::Value, problems: &mut Vec<String>) {
    let has = |key: &str| schema.get(key).is_some();
    if !has("description") && !path.ends_with("[]") {
        problems.push(format!("{path}: no description"));
    }
    match schema["type"].as_str() {
        Some("string") if !has("maxLength") && !has("enum") && schema["format"] != "date-time" => {
            problems.push(format!("{path}: no maxLength"));
        }
        Some("integer") if !has("minimum") => problems.push(format!("{path}: no minimum")),
        Some("array") if !has("maxItems") || !has("x-kubernetes-list-type") => {
            problems.push(format!("{path}: no maxItems or list type"));
        }
        Some("object") if has("additionalProperties") && !has("maxProperties") => {
            problems.push(format!("{path}: no maxProperties"));
        }
        Some(_) => {}
        None if schema["x-kubernetes-preserve-unknown-fields"] == true => {}
        None => problems.push(format!("{path}: no type")),
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        inspect(&format!("{path}.{name}"), property, problems);
    }
    if has("items") {
        inspect(&format!("{path}[]"), &schema["items"], problems);
    }
}

/// `docs/operating.md` names every metric there is.
#[test]
fn every_metric_is_documented() {
    let mut registry = prometheus_client::registry::Registry::default();
    let controller = diego_operator::metrics::ControllerMetrics::new(&mut registry);
    let client = diego_operator::metrics::ClientMetrics::new(&mut registry);
    let pods = diego_operator::metrics::PodMetrics::new(&mut registry);
    let rep = diego_operator::rep::metrics::RepMetrics::new(&mut registry);
    diego_operator::metrics::build::register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("metrics are text");
    drop((controller, client, pods, rep));
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md");
    let docs = std::fs::read_to_string(docs).expect("docs/operating.md exists");
    let mut seen = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a name and a type");
        let suffix = if kind == "counter" { "_total" } else { "" };
        assert!(
            docs.contains(&format!("{name}{suffix}")),
            "docs/operating.md does not name {name}{suffix}"
        );
        seen += 1;
    }
    assert!(seen > 25, "only {seen} metrics were looked at");
}
