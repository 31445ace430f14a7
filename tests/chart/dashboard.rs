//! The dashboard asks only for metrics that exist, and Prometheus can read its queries.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use crate::helm::{Failure, find, parse, root, run, template, text};

/// Those of every process and of Prometheus itself.
const STANDARD: [&str; 3] = [
    "up",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
];

/// The metrics that docs/operating.md knows, which tests/rules/generated.rs compares with those that are registered.
pub fn documented() -> Result<BTreeSet<String>, Failure> {
    let text = std::fs::read_to_string(root().join("docs/operating.md"))?;
    let text = text
        .split("\n## Metrics\n")
        .nth(1)
        .ok_or("docs/operating.md has no chapter Metrics")?;
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    let known = [
        "diego_",
        "controller_runtime_",
        "rest_client_",
        "leader_election_",
    ];
    let words = words.filter(|word| known.iter().any(|prefix| word.starts_with(prefix)));
    let mut names: BTreeSet<String> = words.map(str::to_owned).collect();
    names.extend(STANDARD.map(str::to_owned));
    Ok(names)
}

/// What looks like a metric and is a function.
const FUNCTIONS: [&str; 2] = ["histogram_quantile", "clamp_max"];

/// The metrics in a query: the words before a selector or a range, without a histogram's suffixes.
pub fn metrics_in(query: &str) -> BTreeSet<String> {
    let mut plain = String::new();
    let (mut quoted, mut depth) = (false, 0);
    for c in query.chars() {
        match c {
            '"' => quoted = !quoted,
            '{' | '[' if !quoted => depth += 1,
            '}' | ']' if !quoted => depth -= 1,
            c if !quoted && depth == 0 => plain.push(c),
            _ => {}
        }
        if quoted || depth > 0 {
            plain.push(' ');
        }
    }
    let words = plain.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let words =
        words.filter(|word| *word == "up" || (word.contains('_') && !FUNCTIONS.contains(word)));
    let bare = |word: &str| {
        let suffix = ["_bucket", "_sum", "_count"]
            .into_iter()
            .find(|suffix| word.ends_with(suffix));
        word.strip_suffix(suffix.unwrap_or_default())
            .unwrap_or(word)
            .to_owned()
    };
    words.map(bare).collect()
}

fn dashboard() -> Result<Value, Failure> {
    let objects = parse(&template(&["--set", "monitoring.dashboard.enabled=true"])?)?;
    let map = find(&objects, "ConfigMap", "-dashboard");
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    Ok(serde_json::from_str(text(&map["data"]["diego.json"]))?)
}

fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push((
                text(&panel["title"]).to_owned(),
                text(&target["expr"]).to_owned(),
            ));
        }
    }
    queries
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist() -> Result<(), Failure> {
    let (dashboard, documented) = (dashboard()?, documented()?);
    let queries = queries(&dashboard);
    assert!(queries.len() > 30, "{}", queries.len());
    let mut asked = BTreeSet::new();
    for (title, query) in queries {
        for metric in metrics_in(&query) {
            assert!(
                documented.contains(&metric),
                "'{title}' asks for {metric}, which docs/operating.md does not know"
            );
            asked.insert(metric);
        }
    }
    for metric in [
        "diego_cells",
        "diego_cell_recovery_start_delay_seconds",
        "diego_cell_recovery_duration_seconds",
        "diego_actuallrp_downtime_seconds",
        "diego_rep_presence_renewals_total",
    ] {
        assert!(asked.contains(metric), "no panel shows {metric}");
    }
    for variable in dashboard["templating"]["list"]
        .as_array()
        .expect("variables")
    {
        if variable["type"] == "query" {
            let query = text(&variable["definition"]).trim_start_matches("label_values");
            assert!(
                metrics_in(query)
                    .iter()
                    .all(|metric| documented.contains(metric)),
                "{query}"
            );
        }
    }
    Ok(())
}

#[test]
fn prometheus_can_read_the_queries() -> Result<(), Failure> {
    let rules: Vec<Value> = queries(&dashboard()?)
        .iter()
        .enumerate()
        .map(|(i, (_, query))| {
            let query = query
                .replace("$__rate_interval", "5m")
                .replace("$__range", "1h");
            json!({ "record": format!("query:{i}"), "expr": query })
        })
        .collect();
    let scratch = tempfile::tempdir()?;
    let file = scratch.path().join("queries.yaml");
    std::fs::write(
        &file,
        json!({ "groups": [{ "name": "dashboard", "rules": rules }] }).to_string(),
    )?;
    let promtool = local_cluster::binary("promtool")?;
    run(Command::new(promtool).args(["check", "rules"]).arg(file)).map(drop)
}

#[test]
fn metrics_are_found_in_queries() {
    let query = r#"histogram_quantile(0.9, sum by (le, job) (rate(a_seconds_bucket{job=~"b_c|d_e"}[5m]))) / up{job="z_z"}"#;
    let found: Vec<String> = metrics_in(query).into_iter().collect();
    assert_eq!(found, ["a_seconds", "up"]);
}
