//! Task: one-off work that runs at most once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RawTemplate, schema};

/// What to run, once.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[kube(
    group = "diego.cloudfoundry.org",
    version = "v1alpha1",
    kind = "Task",
    plural = "tasks",
    shortname = "dtask",
    category = "diego",
    namespaced,
    status = "TaskStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A Task is one-off work that runs at most once: when its Cell is lost it is failed, never run again. In scripts use the full name tasks.diego.cloudfoundry.org, since other projects have a kind Task too.",
    selectable = ".status.cellName",
    selectable = ".status.state",
    validation = Rule::new("self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS label of at most 63 characters: lower-case letters, digits and '-'"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Succeeded", type_ = "string", json_path = ".status.conditions[?(@.type==\"Succeeded\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Succeeded\")].reason"),
    printcolumn(name = "Cell", type_ = "string", json_path = ".status.cellName"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Domain", type_ = "string", json_path = ".spec.domain", priority = "1"),
    printcolumn(name = "Result", type_ = "string", json_path = ".status.result", priority = "1"),
    printcolumn(name = "Failure", type_ = "string", json_path = ".status.failureReason", priority = "1"),
)]
#[x_kube(validation = Rule::new("has(self.domain) == has(oldSelf.domain) && (!has(self.domain) || self.domain == oldSelf.domain)").message("domain must not change: a Task is fixed once created"))]
#[x_kube(validation = Rule::new("has(self.placementTags) == has(oldSelf.placementTags) && (!has(self.placementTags) || self.placementTags == oldSelf.placementTags)").message("placementTags must not change: a Task is fixed once created"))]
#[x_kube(validation = Rule::new("has(self.completionCallbackURL) == has(oldSelf.completionCallbackURL) && (!has(self.completionCallbackURL) || self.completionCallbackURL == oldSelf.completionCallbackURL)").message("completionCallbackURL must not change: a Task is fixed once created"))]
#[x_kube(validation = Rule::new("has(self.resultFile) == has(oldSelf.resultFile) && (!has(self.resultFile) || self.resultFile == oldSelf.resultFile)").message("resultFile must not change: a Task is fixed once created"))]
#[x_kube(validation = Rule::new("has(self.ttlSecondsAfterFinished) == has(oldSelf.ttlSecondsAfterFinished) && (!has(self.ttlSecondsAfterFinished) || self.ttlSecondsAfterFinished == oldSelf.ttlSecondsAfterFinished)").message("ttlSecondsAfterFinished must not change: a Task is fixed once created"))]
#[x_kube(validation = Rule::new("has(self.annotation) == has(oldSelf.annotation) && (!has(self.annotation) || self.annotation == oldSelf.annotation)").message("annotation must not change: a Task is fixed once created"))]
#[x_kube(validation = Rule::new("!has(oldSelf.cancelled) || !oldSelf.cancelled || (has(self.cancelled) && self.cancelled)").message("cancelled must not be taken back"))]
#[serde(rename_all = "camelCase")]
pub struct TaskSpec {
    /// The owner of a group of Tasks, such as one Cloud Foundry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub domain: Option<String>,
    /// What to run: a core/v1 PodTemplateSpec.
    #[schemars(schema_with = "schema::template")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("template must not change: a Task is fixed once created"))]
    pub template: RawTemplate,
    /// Place the Task only on Cells that require no other tag than these and know all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::tags")]
    pub placement_tags: Vec<String>,
    /// Where to POST the outcome as JSON when the Task has completed: an http or https URL. User info in it is sent as
    /// basic authentication.
    #[serde(
        default,
        rename = "completionCallbackURL",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(max = 2048), regex(pattern = r"^https?://"))]
    pub completion_callback_url: Option<String>,
    /// The file whose content becomes the result when the Task succeeds; a relative path is below its
    /// working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub result_file: Option<String>,
    /// How long the finished Task is kept, in seconds. Without it the controller's own default holds, and a Task whose
    /// completion callback was answered is deleted at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<i32>,
    /// Free text for the caller's own use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10_240))]
    pub annotation: Option<String>,
    /// True ends the Task as failed with the reason "task was cancelled". It can't be taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<bool>,
}

/// The life cycle of a Task.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Default, Hash)]
pub enum TaskState {
    /// Waiting for a Cell, or, with a cellName, for that Cell to start it.
    #[default]
    Pending,
    /// Its Cell has started it.
    Running,
    /// It has ended, well or not.
    Completed,
    /// Its outcome is being delivered to its completion callback.
    Resolving,
}

/// Where the Task runs and how it ended.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[x_kube(validation = Rule::new("!(oldSelf.state in ['Completed', 'Resolving']) || self.state in ['Completed', 'Resolving']").message("a completed Task must not go back to Pending or Running: a Task runs at most once"))]
#[x_kube(validation = Rule::new("!(oldSelf.state in ['Completed', 'Resolving']) || (has(self.failed) == has(oldSelf.failed) && (!has(self.failed) || self.failed == oldSelf.failed) && has(self.result) == has(oldSelf.result) && (!has(self.result) || self.result == oldSelf.result) && has(self.failureReason) == has(oldSelf.failureReason) && (!has(self.failureReason) || self.failureReason == oldSelf.failureReason))").message("the outcome of a completed Task must not change"))]
#[x_kube(validation = Rule::new("oldSelf.state != 'Running' || self.state != 'Pending'").message("a Running Task must not go back to Pending: a Task runs at most once"))]
#[x_kube(validation = Rule::new("oldSelf.state != 'Running' || self.state != 'Running' || (oldSelf.cellName == self.cellName && oldSelf.instanceGuid == self.instanceGuid)").message("a Running Task must stay on its Cell: a Task runs at most once"))]
#[x_kube(validation = Rule::new("self.state != 'Resolving' || oldSelf.state in ['Completed', 'Resolving']").message("only a Completed Task becomes Resolving"))]
#[x_kube(validation = Rule::new("self.state != 'Running' || (has(self.cellName) && has(self.instanceGuid))").message("a Running Task must have `cellName` and `instanceGuid`"))]
#[x_kube(validation = Rule::new("!has(oldSelf.cellName) || !has(self.cellName) || self.cellName != oldSelf.cellName || !has(oldSelf.cellEpoch) || (has(self.cellEpoch) && self.cellEpoch >= oldSelf.cellEpoch)").message("`cellEpoch` must not go back on the same Cell: whoever wrote this speaks for an earlier registration"))]
#[serde(rename_all = "camelCase")]
pub struct TaskStatus {
    /// Pending, Running, Completed or Resolving. Pending with a cellName is placed and not yet started.
    #[serde(default)]
    pub state: TaskState,
    /// The Cell the Task is placed on, or ran on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub cell_name: Option<String>,
    /// The Cell's epoch under which it was placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cell_epoch: Option<i64>,
    /// Identifies the Task's one run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub instance_guid: Option<String>,
    /// When the state last changed, or the Task was last placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_transition_time: Option<MicroTime>,
    /// True when it ended badly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<bool>,
    /// Why it ended badly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub failure_reason: Option<String>,
    /// The content of the result file, at most 10 KB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10_240))]
    pub result: Option<String>,
    /// How often a Cell gave it back instead of starting it. Not finding a Cell is not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub rejection_count: Option<i32>,
    /// Why a Cell last gave it back, or why no Cell can be found for it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub rejection_reason: Option<String>,
    /// The Cells that gave it back, the latest three, the last one last, until it runs. It goes to one of them only when
    /// no other Cell has room.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::rejected_by")]
    pub rejected_by: Vec<String>,
    /// When it completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_completed_time: Option<MicroTime>,
    /// Succeeded is the summary: Unknown until the Task has ended. CallbackDelivered tells what became of the
    /// completion callback, once that is settled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
