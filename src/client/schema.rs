//! Whether a CRD on the API server holds all that this program writes into objects of its kind, and asks of it.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use serde_json::Value;

/// What two CRDs of the same kind don't share.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// What ours has and theirs has not.
    pub missing: BTreeSet<String>,
    /// What theirs has and ours has not.
    pub unknown: BTreeSet<String>,
}

/// So many differences are named.
const NAMED: usize = 5;

/// Compares fields, allowed values, selectable fields and subresources of our version of the API. Descriptions, bounds
/// and columns may differ.
pub fn compare(ours: &CustomResourceDefinition, theirs: &CustomResourceDefinition) -> Difference {
    let served = |crd: &CustomResourceDefinition| {
        let mut versions = crd.spec.versions.iter();
        let version = versions.find(|one| one.served && one.name == crate::api::VERSION);
        version.map(parts).unwrap_or_default()
    };
    let (ours, theirs) = (served(ours), served(theirs));
    Difference {
        missing: ours.beyond(&theirs),
        unknown: theirs.beyond(&ours),
    }
}

/// The first differences, for people.
pub fn shortened(all: &BTreeSet<String>) -> String {
    let named: Vec<&str> = all.iter().take(NAMED).map(String::as_str).collect();
    let mut text = named.join(", ");
    if all.len() > NAMED {
        text.push_str(&format!(" and {} more", all.len() - NAMED));
    }
    text
}

#[derive(Default)]
struct Parts {
    found: BTreeSet<String>,
    /// Where every field is kept, named or not.
    open: Vec<String>,
}

impl Parts {
    /// What is here and not there, without the parts of what is not there itself.
    fn beyond(&self, other: &Parts) -> BTreeSet<String> {
        let kept = |part: &&String| !other.open.iter().any(|open| part.starts_with(open));
        let more: BTreeSet<&String> = self.found.difference(&other.found).filter(kept).collect();
        let is_part_of = |part: &str, whole: &str| {
            let rest = part.strip_prefix(whole);
            rest.is_some_and(|rest| rest.starts_with(['.', '[', '{', '=']))
        };
        let first = more
            .iter()
            .filter(|part| !more.iter().any(|whole| is_part_of(part, whole)));
        first.map(|part| (*part).clone()).collect()
    }
}

fn parts(version: &CustomResourceDefinitionVersion) -> Parts {
    let mut parts = Parts::default();
    let schema = version
        .schema
        .as_ref()
        .and_then(|schema| serde_json::to_value(&schema.open_api_v3_schema).ok())
        .unwrap_or_default();
    // The metadata is the API server's own.
    for part in ["spec", "status"] {
        walk(part, &schema["properties"][part], &mut parts);
    }
    for field in version.selectable_fields.iter().flatten() {
        let path = &field.json_path;
        parts.found.insert(format!("the selectable field {path}"));
    }
    let subresources = serde_json::to_value(&version.subresources).unwrap_or_default();
    for name in subresources
        .as_object()
        .into_iter()
        .flat_map(|it| it.keys())
    {
        parts.found.insert(format!("the subresource {name}"));
    }
    parts
}

fn walk(path: &str, schema: &Value, parts: &mut Parts) {
    if schema.is_null() {
        return;
    }
    parts.found.insert(path.to_owned());
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        parts.open.push(format!("{path}."));
    }
    for value in schema["enum"].as_array().into_iter().flatten() {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        parts.found.insert(format!("{path}={value}"));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, parts);
    }
    if schema["items"].is_object() {
        walk(&format!("{path}[]"), &schema["items"], parts);
    }
    if schema["additionalProperties"].is_object() {
        walk(
            &format!("{path}{{}}"),
            &schema["additionalProperties"],
            parts,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::crds;

    /// The CRD of Cells after `change`.
    fn cells(change: impl FnOnce(&mut Value)) -> CustomResourceDefinition {
        let crd = crds::all()
            .into_iter()
            .find(|file| file.name.contains("cells"));
        let mut value = serde_json::to_value(crd.expect("there are Cells").crd).expect("JSON");
        change(&mut value["spec"]["versions"][0]);
        serde_json::from_value(value).expect("still a CRD")
    }

    fn names(all: &[&str]) -> BTreeSet<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn every_kind_equals_itself() {
        for file in crds::all() {
            assert_eq!(compare(&file.crd, &file.crd), Difference::default());
        }
    }

    #[test]
    fn what_an_older_or_newer_one_lacks_is_named() {
        let ours = cells(|_| {});
        let changed = cells(|version| {
            let status = &mut version["schema"]["openAPIV3Schema"]["properties"]["status"];
            let properties = status["properties"].as_object_mut().expect("a status");
            properties.remove("epoch");
            properties["state"]["enum"] = serde_json::json!(["Present", "Missing", "Evacuating"]);
            version["subresources"] = Value::Null;
        });
        let missing = names(&[
            "status.epoch",
            "status.state=Evacuated",
            "the subresource status",
        ]);
        let older = compare(&ours, &changed);
        assert_eq!(
            (older.missing, older.unknown),
            (missing.clone(), names(&[]))
        );
        let newer = compare(&changed, &ours);
        assert_eq!((newer.missing, newer.unknown), (names(&[]), missing));
    }

    #[test]
    fn words_and_bounds_may_differ_and_open_parts_hold_everything() {
        let ours = cells(|_| {});
        let changed = cells(|version| {
            let spec = &mut version["schema"]["openAPIV3Schema"]["properties"]["spec"];
            spec["properties"]["zone"]["maxLength"] = serde_json::json!(7);
            spec["properties"]["zone"]["description"] = serde_json::json!("else");
            let status = &mut version["schema"]["openAPIV3Schema"]["properties"]["status"];
            *status = serde_json::json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        });
        assert_eq!(compare(&ours, &changed).missing, names(&[]));
    }

    #[test]
    fn a_version_that_is_not_served_is_not_there() {
        let changed = cells(|version| version["served"] = false.into());
        let difference = compare(&cells(|_| {}), &changed);
        let missing = |part| difference.missing.contains(part);
        assert!(missing("spec") && missing("status"), "{difference:?}");
        assert!(!missing("spec.zone"), "without all that is in them");
        assert_eq!(difference.unknown, names(&[]));
    }

    #[test]
    fn only_the_first_differences_are_named() {
        assert_eq!(shortened(&names(&["a", "b"])), "a, b");
        let seven = names(&["a", "b", "c", "d", "e", "f", "g"]);
        assert_eq!(shortened(&seven), "a, b, c, d, e and 2 more");
    }
}
