//! What is POSTed: Diego's `TaskCallbackResponse`, and which object it is about.

use kube::ResourceExt;
use serde::Serialize;

use crate::api::Task;

/// The JSON body. The names are Diego's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Body {
    /// The Task's name.
    pub task_guid: String,
    /// The Task's namespace.
    pub namespace: String,
    /// The Task's uid: what a receiver tells a repeated delivery by.
    pub uid: String,
    /// It ended badly.
    pub failed: bool,
    /// Why, or empty.
    pub failure_reason: String,
    /// The content of its result file, or empty.
    pub result: String,
    /// The caller's own text; left out when there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub annotation: String,
    /// When the Task was created, in nanoseconds since 1970.
    pub created_at: i64,
}

impl Body {
    /// The body about a finished Task.
    pub fn of(task: &Task) -> Self {
        let status = task.status.clone().unwrap_or_default();
        let created = task.metadata.creation_timestamp.as_ref();
        let nanoseconds = created.map_or(0, |time| time.0.as_nanosecond());
        Body {
            task_guid: task.name_any(),
            namespace: task.namespace().unwrap_or_default(),
            uid: task.uid().unwrap_or_default(),
            failed: status.failed.unwrap_or_default(),
            failure_reason: status.failure_reason.unwrap_or_default(),
            result: status.result.unwrap_or_default(),
            annotation: task.spec.annotation.clone().unwrap_or_default(),
            created_at: i64::try_from(nanoseconds).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_body_is_diegos_with_the_object_it_is_about() {
        let task: Task = serde_json::from_value(json!({
            "apiVersion": "diego.cloudfoundry.org/v1alpha1",
            "kind": "Task",
            "metadata": {
                "name": "migrate", "namespace": "cf", "uid": "u-1",
                "creationTimestamp": "2026-01-02T03:04:05Z",
            },
            "spec": { "template": { "spec": {} }, "annotation": "app=7" },
            "status": { "state": "Resolving", "failed": false, "result": "42" },
        }))
        .expect("a Task");
        let expected = json!({
            "task_guid": "migrate", "namespace": "cf", "uid": "u-1", "failed": false,
            "failure_reason": "", "result": "42", "annotation": "app=7",
            "created_at": 1_767_323_045_000_000_000_i64,
        });
        assert_eq!(json!(Body::of(&task)), expected);
    }

    #[test]
    fn a_failure_tells_why_and_no_annotation_is_left_out() {
        let mut task = Task::new("t", Default::default());
        task.status = Some(crate::api::TaskStatus {
            failed: Some(true),
            failure_reason: Some("task was cancelled".into()),
            ..Default::default()
        });
        let body = json!(Body::of(&task));
        assert_eq!(body["failed"], true);
        assert_eq!(body["failure_reason"], "task was cancelled");
        assert_eq!(body.get("annotation"), None);
    }
}
