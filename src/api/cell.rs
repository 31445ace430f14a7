//! Cell: a machine that runs work.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// What the rep says about its machine, and what an operator asks of it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[kube(
    group = "diego.cloudfoundry.org",
    version = "v1alpha1",
    kind = "Cell",
    plural = "cells",
    shortname = "dcell",
    category = "diego",
    status = "CellStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A Cell is a machine that runs ActualLRPs and Tasks. Its rep registers it, keeps its presence, and is gone with it.",
    selectable = ".status.state",
    selectable = ".spec.zone",
    validation = Rule::new("self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS name of at most 63 characters: lower-case letters, digits, '-' and '.'"),
    printcolumn(name = "Zone", type_ = "string", json_path = ".spec.zone"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "LRPs", type_ = "integer", json_path = ".status.actualLRPs"),
    printcolumn(name = "Tasks", type_ = "integer", json_path = ".status.tasks"),
    printcolumn(name = "Since", type_ = "date", json_path = ".status.conditions[?(@.type==\"Ready\")].lastTransitionTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Executor", type_ = "string", json_path = ".spec.executor", priority = "1"),
    printcolumn(name = "Memory", type_ = "string", json_path = ".spec.capacity.memory", priority = "1"),
    printcolumn(name = "Allocated", type_ = "string", json_path = ".status.allocated.memory", priority = "1"),
    printcolumn(name = "TTL", type_ = "string", json_path = ".status.presenceTTL", priority = "1"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch", priority = "1"),
)]
#[serde(rename_all = "camelCase")]
pub struct CellSpec {
    /// The failure domain the Cell stands in, such as a rack or availability zone. Instances of one
    /// DesiredLRP are spread over zones first, then over Cells.
    #[schemars(length(min = 1, max = 63))]
    pub zone: String,
    /// What turns an assignment into a running container here: Process (child processes of the rep) or
    /// Pods (one Pod per instance on this node).
    #[x_kube(validation = Rule::new("self == oldSelf").message("executor must not change: register the machine under another name"))]
    pub executor: ExecutorKind,
    /// The Kubernetes node this Cell is, where its executor is Pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node_name: Option<String>,
    /// What the machine offers to instances and Tasks.
    pub capacity: Capacity,
    /// Tags a DesiredLRP or Task must carry to be placed here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::tags")]
    pub placement_tags: Vec<String>,
    /// Tags a DesiredLRP or Task may carry to be placed here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::tags")]
    pub optional_placement_tags: Vec<String>,
    /// True keeps new work away from this Cell; what runs there goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unschedulable: Option<bool>,
    /// True asks the Cell to move its work away, start before stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evacuate: Option<bool>,
}

/// What turns an assignment into a running container.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Default)]
pub enum ExecutorKind {
    /// One Pod per instance, made by the controller on this node.
    Pods,
    /// Child processes of the rep.
    #[default]
    Process,
}

/// Resources a Cell offers.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, JsonSchema, Default)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Memory, as a quantity: 16Gi.
    #[schemars(schema_with = "schema::quantity")]
    pub memory: String,
    /// Disk, as a quantity: 100Gi.
    #[schemars(schema_with = "schema::quantity")]
    pub disk: String,
    /// How many instances and Tasks at once.
    #[schemars(range(min = 1, max = 100_000))]
    pub containers: i32,
}

/// Resources taken on a Cell by what is assigned to it.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, JsonSchema, Default)]
#[serde(rename_all = "camelCase")]
pub struct Allocated {
    /// Memory, as a quantity.
    #[schemars(schema_with = "schema::quantity")]
    pub memory: String,
    /// Disk, as a quantity.
    #[schemars(schema_with = "schema::quantity")]
    pub disk: String,
    /// Instances and Tasks.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub containers: i32,
}

/// What the controller observed of the Cell.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[x_kube(validation = Rule::new("!has(oldSelf.epoch) || (has(self.epoch) && self.epoch >= oldSelf.epoch)").message("epoch must never go back"))]
#[serde(rename_all = "camelCase")]
pub struct CellStatus {
    /// Present while the presence is held; Missing once it expired; Evacuating and Evacuated while the
    /// Cell is drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<CellState>,
    /// The life of the Cell's containers that was last seen: a new value means that everything recorded
    /// under the old one is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub incarnation: Option<String>,
    /// The registration of the Cell's presence that was last seen; grows with every registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub epoch: Option<i64>,
    /// The first epoch of this incarnation: work recorded under a smaller epoch died with an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub incarnation_epoch: Option<i64>,
    /// True while instances of DesiredLRPs with missingCellPolicy Strict are stopped here before the presence can end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced: Option<bool>,
    /// How long the Cell may be silent before it counts as lost: the TTL of its presence, such as 5s or 500ms.
    #[serde(
        default,
        rename = "presenceTTL",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(max = 32))]
    pub presence_ttl: Option<String>,
    /// Resources taken by what is assigned to this Cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocated: Option<Allocated>,
    /// ActualLRPs assigned to this Cell.
    #[serde(
        default,
        rename = "actualLRPs",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 0))]
    pub actual_lrps: Option<i32>,
    /// Unfinished Tasks assigned to this Cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub tasks: Option<i32>,
    /// What the last loss of this Cell cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_recovery: Option<LastRecovery>,
    /// How often in a row the Cell was lost and came back, each time within ten minutes of the time before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub flaps: Option<i32>,
    /// When it last came back after it was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_return_time: Option<MicroTime>,
    /// No new work comes to the Cell until then, because it was lost and came back more than once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_down_until: Option<MicroTime>,
    /// Ready is the summary: the presence is held and the Cell can be given work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Whether the Cell is there.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
pub enum CellState {
    /// Its presence is held.
    Present,
    /// Its presence expired: its work is being run elsewhere.
    Missing,
    /// It is moving its work away on purpose.
    Evacuating,
    /// It has moved its work away and given its presence back.
    Evacuated,
}

/// The record of one recovery.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRecovery {
    /// The epoch that was lost.
    #[schemars(range(min = 0))]
    pub epoch: i64,
    /// When the presence was lost: the moment the store dropped it, as far as it could be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_time: Option<MicroTime>,
    /// When the controller knew it for certain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detected_time: Option<MicroTime>,
    /// When the last of its instances was given a new place and the last of its Tasks was failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered_time: Option<MicroTime>,
    /// How many ActualLRPs were given a new place.
    #[serde(default, rename = "actualLRPs")]
    #[schemars(range(min = 0))]
    pub actual_lrps: i32,
    /// How many ActualLRPs had to wait, because no other Cell had room for them.
    #[serde(default, rename = "waitingActualLRPs")]
    #[schemars(range(min = 0))]
    pub waiting_actual_lrps: i32,
    /// How many Tasks were failed.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub tasks: i32,
    /// What noticed the loss: watch, timer, resync where the watch missed it, or proof: its machine told that the rep
    /// and all that it ran are dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub source: Option<String>,
    /// True when the mass-loss guard held the loss back and an operator confirmed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<bool>,
}
