//! The alerts: checked and tested by promtool as they are rendered, each with its runbook.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::dashboard::{documented, metrics_in};
use crate::helm::{Failure, find, parse, root, run, template, text};

fn promtool(dir: &Path, args: &[&str]) -> Result<String, Failure> {
    let promtool = local_cluster::binary("promtool")?;
    run(Command::new(promtool).args(args).current_dir(dir))
}

/// The groups of the PrometheusRule.
fn groups(sets: &[&str]) -> Result<Value, Failure> {
    let mut args = vec!["--set", "monitoring.prometheusRule.enabled=true"];
    for set in sets {
        args.extend(["--set", set]);
    }
    let objects = parse(&template(&args)?)?;
    Ok(find(&objects, "PrometheusRule", "").clone()["spec"].take())
}

fn alerts(groups: &Value) -> Vec<Value> {
    let groups = groups["groups"].as_array().expect("groups");
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default());
    rules.filter(|rule| rule["alert"].is_string()).collect()
}

#[test]
fn promtool_accepts_the_rules_and_their_tests_pass() -> Result<(), Failure> {
    let scratch = tempfile::tempdir()?;
    let mut spec = groups(&[])?;
    std::fs::write(scratch.path().join("rules.yaml"), spec.to_string())?;
    let said = promtool(scratch.path(), &["check", "rules", "rules.yaml"])?;
    assert!(said.contains("SUCCESS"), "{said}");
    // What is the same in every firing of an alert is looked at below; the tests tell the rest word by word.
    for group in spec["groups"].as_array_mut().expect("groups") {
        for rule in group["rules"].as_array_mut().expect("rules") {
            let annotations = rule["annotations"].as_object_mut().expect("annotations");
            annotations.remove("summary");
            annotations.remove("runbook_url");
        }
    }
    std::fs::write(scratch.path().join("rules.yaml"), spec.to_string())?;
    let mut fired = BTreeSet::new();
    for name in ["alerts_test.yaml", "alerts_month_test.yaml"] {
        let tests = std::fs::read_to_string(root().join("tests/chart").join(name))?;
        std::fs::write(scratch.path().join(name), &tests)?;
        let said = promtool(scratch.path(), &["test", "rules", name])?;
        assert!(said.contains("SUCCESS"), "{said}");
        let tests: Value = serde_saphyr::from_str(&tests)?;
        for test in tests["tests"].as_array().expect("tests") {
            for case in test["alert_rule_test"].as_array().expect("cases") {
                if case["exp_alerts"].is_array() {
                    fired.insert(text(&case["alertname"]).to_owned());
                }
            }
        }
    }
    for alert in alerts(&spec) {
        let name = text(&alert["alert"]);
        assert!(fired.contains(name), "no test lets {name} fire");
    }
    Ok(())
}

#[test]
fn every_alert_says_what_to_do() -> Result<(), Failure> {
    let alerts = alerts(&groups(&[
        "monitoring.prometheusRule.runbookBaseUrl=https://example.com/books/",
    ])?);
    assert!(alerts.len() >= 15, "{}", alerts.len());
    let mut books = BTreeSet::new();
    for alert in &alerts {
        let name = text(&alert["alert"]);
        assert!(name.starts_with("Diego"), "{name}");
        assert!(
            ["critical", "warning", "info"].contains(&text(&alert["labels"]["severity"])),
            "{name}"
        );
        let annotations = &alert["annotations"];
        assert!(
            annotations["summary"].is_string() && annotations["description"].is_string(),
            "{name}"
        );
        assert_eq!(
            text(&annotations["runbook_url"]),
            format!("https://example.com/books/{name}.md")
        );
        let book = root().join(format!("docs/runbooks/{name}.md"));
        let book = std::fs::read_to_string(&book)
            .map_err(|error| format!("{}: {error}", book.display()))?;
        assert!(book.starts_with(&format!("# {name}\n")), "{name}");
        for part in ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"] {
            assert!(
                book.contains(&format!("\n{part}\n")),
                "the runbook of {name} has no {part}"
            );
        }
        books.insert(format!("{name}.md"));
    }
    for entry in std::fs::read_dir(root().join("docs/runbooks"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        assert!(
            name == "README.md" || books.contains(&name),
            "docs/runbooks/{name} is of no alert"
        );
    }
    Ok(())
}

#[test]
fn alerts_ask_for_metrics_that_exist() -> Result<(), Failure> {
    let documented = documented()?;
    for alert in alerts(&groups(&[])?) {
        let metrics = metrics_in(text(&alert["expr"]));
        assert!(!metrics.is_empty(), "{alert}");
        for metric in metrics {
            assert!(
                documented.contains(&metric),
                "{} asks for {metric}, which docs/operating.md does not know",
                alert["alert"]
            );
        }
    }
    Ok(())
}

/// The wanted number comes from the values; without a second controller nobody misses one.
#[test]
fn the_missing_standby_follows_the_replicas() -> Result<(), Failure> {
    let name = "DiegoControllerNoStandby";
    let rule = |replicas: &str| -> Result<Option<Value>, Failure> {
        let all = alerts(&groups(&[&format!("controller.replicas={replicas}")])?);
        Ok(all.into_iter().find(|it| it["alert"] == name))
    };
    let three = rule("3")?.expect(name);
    assert!(text(&three["expr"]).ends_with("== 1) < 3"), "{three}");
    assert!(rule("1")?.is_none() && rule("0")?.is_none());
    // Its name is still known.
    let silenced = format!("monitoring.prometheusRule.overrides.{name}.enabled=false");
    groups(&["controller.replicas=1", &silenced]).map(drop)
}

#[test]
fn single_alerts_can_be_changed() -> Result<(), Failure> {
    let alerts = alerts(&groups(&[
        "monitoring.prometheusRule.overrides.DiegoCellsMissing.for=1h",
        "monitoring.prometheusRule.overrides.DiegoCellsMissing.severity=info",
        "monitoring.prometheusRule.overrides.DiegoRepDown.enabled=false",
        "monitoring.prometheusRule.additionalRuleLabels.team=platform",
    ])?);
    let missing = alerts
        .iter()
        .find(|it| it["alert"] == "DiegoCellsMissing")
        .expect("DiegoCellsMissing");
    assert_eq!(missing["for"], "1h");
    assert_eq!(missing["labels"]["severity"], "info");
    assert!(alerts.iter().all(|it| it["labels"]["team"] == "platform"));
    assert!(alerts.iter().all(|it| it["alert"] != "DiegoRepDown"));
    Ok(())
}
