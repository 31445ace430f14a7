//! DesiredLRP: what the user wants to run, and how many times.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RawTemplate, schema};

/// N instances of a template.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[kube(
    group = "diego.cloudfoundry.org",
    version = "v1alpha1",
    kind = "DesiredLRP",
    plural = "desiredlrps",
    shortname = "dlrp",
    category = "diego",
    namespaced,
    status = "DesiredLRPStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A DesiredLRP is a long-running process the user wants: a number of instances of a template, spread over zones and Cells and kept running.",
    scale(spec_replicas_path = ".spec.instances", status_replicas_path = ".status.instances", label_selector_path = ".status.selector"),
    validation = Rule::new("self.metadata.name.size() <= 52 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS label of at most 52 characters, so that '<name>-<index>' fits into a label"),
    printcolumn(name = "Instances", type_ = "integer", json_path = ".spec.instances"),
    printcolumn(name = "Running", type_ = "integer", json_path = ".status.running"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Domain", type_ = "string", json_path = ".spec.domain", priority = "1"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = "1"),
)]
#[x_kube(validation = Rule::new("has(self.domain) == has(oldSelf.domain) && (!has(self.domain) || self.domain == oldSelf.domain)").message("domain must not change: create a new DesiredLRP instead"))]
#[serde(rename_all = "camelCase")]
pub struct DesiredLRPSpec {
    /// How many instances shall run.
    #[schemars(range(min = 0, max = 10_000))]
    pub instances: i32,
    /// The owner of a group of LRPs, such as one Cloud Foundry; carried through to its ActualLRPs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub domain: Option<String>,
    /// What one instance runs: a core/v1 PodTemplateSpec. It can't be changed, as in Diego: a new version
    /// of the process is a new DesiredLRP.
    #[schemars(schema_with = "schema::template")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("template must not change: create a new DesiredLRP for a new version"))]
    pub template: RawTemplate,
    /// Place instances only on Cells that require no other tag than these and know all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::tags")]
    pub placement_tags: Vec<String>,
    /// How long an instance may take until it is ready, in seconds; then it counts as crashed. 0 is no limit.
    #[serde(default = "default_start_timeout")]
    #[schemars(range(min = 0, max = 86_400))]
    pub start_timeout_seconds: i32,
    /// What becomes of an instance whose Cell is missing. Suspect keeps it running and routable until its replacement
    /// runs. Strict runs it at most once: its Cell stops it when the presence can't be renewed, and nothing replaces it
    /// before it must be dead. It can't be changed: what runs was started under it.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("missingCellPolicy must not change: create a new DesiredLRP"))]
    pub missing_cell_policy: MissingCellPolicy,
    /// Free text for the caller's own use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10_240))]
    pub annotation: Option<String>,
}

/// 60 s, the start time-out Cloud Foundry gives an app by default.
fn default_start_timeout() -> i32 {
    60
}

/// What becomes of an instance whose Cell is missing.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Default)]
pub enum MissingCellPolicy {
    /// It is kept, and routable, until its replacement runs.
    #[default]
    Suspect,
    /// It is stopped by its Cell, and replaced once it must be dead.
    Strict,
}

/// What the controller observed.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DesiredLRPStatus {
    /// How many ActualLRPs exist for this DesiredLRP.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub instances: i32,
    /// How many of them are Running.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub running: i32,
    /// The label selector of its ActualLRPs, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub selector: Option<String>,
    /// The metadata.generation that was last acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Ready is the summary: every desired instance is Running.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
