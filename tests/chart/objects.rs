//! What holds for every object of every variant.

use serde_json::Value;

use crate::helm::{Failure, NAMESPACE, find, objects, render, text, variant, variants};

#[test]
fn every_object_says_whose_it_is() -> Result<(), Failure> {
    for values in variants() {
        for object in objects(&values)? {
            if text(&object["metadata"]["name"]).ends_with("-extra") {
                continue;
            }
            let labels = &object["metadata"]["labels"];
            for label in ["name", "instance", "version", "part-of", "managed-by"] {
                let label = format!("app.kubernetes.io/{label}");
                assert!(labels[&label].is_string(), "{label} in {object}");
            }
            assert!(labels["helm.sh/chart"].is_string(), "{object}");
            let namespace = &object["metadata"]["namespace"];
            assert!(namespace.is_null() || namespace == NAMESPACE, "{object}");
        }
    }
    Ok(())
}

/// GitOps tools see a difference for ever where an API server leaves out what the chart has.
#[test]
fn nothing_is_rendered_empty_or_at_random() -> Result<(), Failure> {
    for values in variants() {
        let once = render(&values)?;
        assert!(once == render(&values)?, "{} differs", values.display());
        for object in objects(&values)? {
            if object["kind"] == "CustomResourceDefinition" {
                continue;
            }
            let mut path = format!("{}/{}", object["kind"], object["metadata"]["name"]);
            no_empty_map(&object, &mut path);
        }
        let blank = once
            .lines()
            .find(|it| !it.is_empty() && it.trim().is_empty());
        assert!(blank.is_none(), "{} has a line of blanks", values.display());
    }
    Ok(())
}

fn no_empty_map(value: &Value, path: &mut String) {
    let before = path.len();
    match value {
        Value::Object(map) => {
            // An egress rule without limits and a volume without options are written so.
            let meant = path.ends_with(".emptyDir") || path.contains(".egress[");
            assert!(!map.is_empty() || meant, "{path} is an empty map");
            for (key, value) in map {
                path.push('.');
                path.push_str(key);
                no_empty_map(value, path);
                path.truncate(before);
            }
        }
        Value::Array(items) => {
            for (i, value) in items.iter().enumerate() {
                path.push_str(&format!("[{i}]"));
                no_empty_map(value, path);
                path.truncate(before);
            }
        }
        Value::Null => panic!("{path} is null"),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn roles_name_what_they_allow() -> Result<(), Failure> {
    for values in variants() {
        for role in objects(&values)? {
            let kind = text(&role["kind"]);
            if kind != "ClusterRole" && kind != "Role" {
                continue;
            }
            for rule in role["rules"].as_array().into_iter().flatten() {
                let said = rule.to_string();
                assert!(!said.contains('*') && !said.contains("secrets"), "{said}");
                for power in [
                    "impersonate",
                    "escalate",
                    "\"bind\"",
                    "serviceaccounts",
                    "pods/exec",
                ] {
                    assert!(!said.contains(power), "{said}");
                }
            }
        }
    }
    Ok(())
}

/// Only with `nodeTaint.enabled` may the controller change nodes.
#[test]
fn nodes_are_written_only_when_asked_for() -> Result<(), Failure> {
    for (values, patches) in [("default", false), ("everything", true)] {
        let objects = objects(&variant(values))?;
        let role = find(&objects, "ClusterRole", "-controller");
        let rules = role["rules"].as_array().expect("rules");
        let nodes = rules.iter().find(|rule| rule["resources"][0] == "nodes");
        let verbs = nodes.expect("a rule for nodes")["verbs"].to_string();
        assert_eq!(verbs.contains("patch"), patches, "{values}: {verbs}");
    }
    Ok(())
}

/// The Pod Security Standard "restricted", but for what values took away; and what deadlines of seconds ask for.
#[test]
fn pods_are_restricted() -> Result<(), Failure> {
    for values in variants() {
        if values.ends_with("minimal-values.yaml") {
            continue;
        }
        for object in objects(&values)? {
            let pod = match text(&object["kind"]) {
                "Deployment" | "DaemonSet" | "StatefulSet" => &object["spec"]["template"]["spec"],
                "Pod" => &object["spec"],
                _ => continue,
            };
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
            assert_eq!(pod["securityContext"]["runAsUser"], 65532);
            assert_eq!(
                pod["securityContext"]["seccompProfile"]["type"],
                "RuntimeDefault"
            );
            assert_eq!(pod["enableServiceLinks"], false);
            let volumes = pod["volumes"].to_string();
            let fenced = values.ends_with("fencing-values.yaml") && object["kind"] == "DaemonSet";
            assert_eq!(volumes.contains("hostPath"), fenced, "{volumes}");
            let container = &pod["containers"][0];
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false);
            assert_eq!(security["readOnlyRootFilesystem"], true);
            assert_eq!(security["capabilities"]["drop"][0], "ALL");
            let limits = &container["resources"]["limits"];
            assert!(
                limits["memory"].is_string() && limits["cpu"].is_null(),
                "{limits}"
            );
        }
    }
    Ok(())
}
