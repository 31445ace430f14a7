//! Changes of a status as merge patches that are bound to the version they were decided on.

use serde_json::{Value, json};

use crate::converge::world::Version;

/// A merge patch of the status subresource that applies to this very version of this very object.
pub fn status_patch<S: serde::Serialize>(version: &Version, from: &S, to: &S) -> Value {
    json!({
        "metadata": { "uid": version.uid, "resourceVersion": version.revision.to_string() },
        "status": between(from, to),
    })
}

/// A change of the status of this version of this object, and of no other.
pub fn bound(uid: Option<&str>, resource_version: Option<&str>, status: Value) -> Value {
    json!({ "metadata": { "uid": uid, "resourceVersion": resource_version }, "status": status })
}

/// What turns `from` into `to`, as a merge patch.
pub fn between<S: serde::Serialize>(from: &S, to: &S) -> Value {
    replacing(&json!(from), &json!(to))
}

/// `to` as a merge patch that leaves nothing of `from` behind.
fn replacing(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else {
        return to.clone();
    };
    let mut patch = serde_json::Map::new();
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in to {
        patch.insert(
            key.clone(),
            replacing(from.get(key).unwrap_or(&Value::Null), value),
        );
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_of_a_rep_is_bound_to_object_and_version() {
        let body = bound(
            Some("u"),
            Some("7"),
            json!({"state": "Running", "cellEpoch": 3}),
        );
        let about = json!({"uid": "u", "resourceVersion": "7"});
        assert_eq!(
            (&body["metadata"], &body["status"]["cellEpoch"]),
            (&about, &json!(3))
        );
    }

    #[test]
    fn a_patch_leaves_nothing_of_the_old_value_behind() {
        let from = json!({"a": 1, "b": {"x": 1, "y": 2}, "c": [1]});
        let to = json!({"b": {"y": 3}, "c": [2, 3], "d": {"z": 1}});
        assert_eq!(
            replacing(&from, &to),
            json!({"a": null, "b": {"x": null, "y": 3}, "c": [2, 3], "d": {"z": 1}})
        );
    }
}
