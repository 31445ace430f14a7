//! ActualLRP: one instance slot of a DesiredLRP and where it runs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// Which slot this is.
#[derive(
    CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default,
)]
#[kube(
    group = "diego.cloudfoundry.org",
    version = "v1alpha1",
    kind = "ActualLRP",
    plural = "actuallrps",
    shortname = "alrp",
    category = "diego",
    namespaced,
    status = "ActualLRPStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "An ActualLRP is one instance slot of a DesiredLRP and where it runs. The controller creates and places it; the rep of its Cell claims and runs it. One object holds the ordinary, the suspect and the evacuating instance of the slot.",
    selectable = ".status.cellName",
    selectable = ".status.state",
    validation = Rule::new("self.metadata.name.startsWith(self.spec.desiredLRPName + '-') && self.metadata.name.substring(self.spec.desiredLRPName.size() + 1).matches('^(0|[1-9][0-9]{0,3})$') && int(self.metadata.name.substring(self.spec.desiredLRPName.size() + 1)) == self.spec.index").message("metadata.name must be '<desiredLRPName>-<index>'"),
    printcolumn(name = "Process", type_ = "string", json_path = ".spec.desiredLRPName"),
    printcolumn(name = "Index", type_ = "integer", json_path = ".spec.index"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Cell", type_ = "string", json_path = ".status.cellName"),
    printcolumn(name = "Crashes", type_ = "integer", json_path = ".status.crashCount"),
    printcolumn(name = "Since", type_ = "date", json_path = ".status.stateTransitionTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Suspect", type_ = "string", json_path = ".status.suspect.cellName", priority = "1"),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.address", priority = "1"),
    printcolumn(name = "Port", type_ = "integer", json_path = ".status.ports[0].hostPort", priority = "1"),
    printcolumn(name = "Instance", type_ = "string", json_path = ".status.instanceGuid", priority = "1"),
    printcolumn(name = "Next-Restart", type_ = "string", json_path = ".status.nextRestartTime", priority = "1"),
    printcolumn(name = "Placement-Error", type_ = "string", json_path = ".status.placementError", priority = "1"),
)]
#[x_kube(validation = Rule::new("self == oldSelf").message("spec must not change: an ActualLRP is one slot for all its life"))]
#[serde(rename_all = "camelCase")]
pub struct ActualLRPSpec {
    /// The DesiredLRP this is an instance of, in the same namespace.
    #[serde(rename = "desiredLRPName")]
    #[schemars(length(min = 1, max = 52))]
    pub desired_lrp_name: String,
    /// Which instance, counted from 0.
    #[schemars(range(min = 0, max = 9_999))]
    pub index: i32,
    /// The domain of its DesiredLRP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub domain: Option<String>,
}

/// The life cycle of an instance.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Default, Hash)]
pub enum ActualLRPState {
    /// Waiting for a Cell, or, with a cellName, for that Cell to claim it.
    #[default]
    Unclaimed,
    /// Its Cell has taken it and is starting it.
    Claimed,
    /// Running and ready for traffic.
    Running,
    /// It crashed and waits to be restarted.
    Crashed,
}

/// Where the instance runs and how it fares.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[x_kube(validation = Rule::new("!(self.state in ['Claimed', 'Running']) || (has(self.cellName) && has(self.instanceGuid))").message("a Claimed or Running instance must have `cellName` and `instanceGuid`"))]
#[x_kube(validation = Rule::new("self.state != 'Crashed' || !has(self.cellName)").message("a Crashed instance must not have a `cellName`"))]
#[x_kube(validation = Rule::new("self.state == 'Running' || !has(self.address)").message("only a Running instance may have an `address`"))]
#[x_kube(validation = Rule::new("!has(oldSelf.cellName) || !has(self.cellName) || self.cellName != oldSelf.cellName || !has(oldSelf.cellEpoch) || (has(self.cellEpoch) && self.cellEpoch >= oldSelf.cellEpoch)").message("`cellEpoch` must not go back on the same Cell: whoever wrote this speaks for an earlier registration"))]
#[x_kube(validation = Rule::new("!has(oldSelf.suspect) || !has(self.cellName) || self.cellName != oldSelf.suspect.cellName || (has(self.cellEpoch) && self.cellEpoch >= oldSelf.suspect.cellEpoch)").message("`cellEpoch` must not be before that of the suspect on the same Cell: whoever wrote this speaks for an earlier registration"))]
#[x_kube(validation = Rule::new("!has(oldSelf.suspect) || !has(self.suspect) || self.suspect.cellName != oldSelf.suspect.cellName || self.suspect.cellEpoch >= oldSelf.suspect.cellEpoch").message("`suspect.cellEpoch` must not go back on the same Cell"))]
#[x_kube(validation = Rule::new("!has(oldSelf.evacuating) || !has(self.evacuating) || self.evacuating.cellName != oldSelf.evacuating.cellName || self.evacuating.cellEpoch >= oldSelf.evacuating.cellEpoch").message("`evacuating.cellEpoch` must not go back on the same Cell"))]
#[serde(rename_all = "camelCase")]
pub struct ActualLRPStatus {
    /// Unclaimed, Claimed, Running or Crashed. Unclaimed with a cellName is placed and not yet claimed.
    #[serde(default)]
    pub state: ActualLRPState,
    /// The Cell this instance is placed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub cell_name: Option<String>,
    /// The Cell's epoch under which it was placed or last reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cell_epoch: Option<i64>,
    /// Identifies this one run of the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub instance_guid: Option<String>,
    /// When the state last changed, or the instance was last placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_transition_time: Option<MicroTime>,
    /// Where to reach the running instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub address: Option<String>,
    /// Its ports at that address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::ports")]
    pub ports: Vec<PortMapping>,
    /// Why no Cell could be found for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub placement_error: Option<String>,
    /// How often it crashed in a row. The loss of a Cell is no crash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub crash_count: Option<i32>,
    /// How it ended the last time it crashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub crash_reason: Option<String>,
    /// When it last crashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_crash_time: Option<MicroTime>,
    /// How often Cells gave it back since it last ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub rejection_count: Option<i32>,
    /// The Cells that gave it back since it last ran, the latest three, the last one last. It goes to one of them only
    /// when no other Cell has room.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::rejected_by")]
    pub rejected_by: Vec<String>,
    /// When a Crashed instance will be started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_restart_time: Option<MicroTime>,
    /// Why it was last given a place: missing-instance, missing-cell, crashed-instance, stale-unclaimed-lrp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub start_reason: Option<String>,
    /// The instance on a missing Cell, kept and routable until its replacement runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspect: Option<SuspectInstance>,
    /// The instance on a Cell that is being drained, kept until its replacement runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evacuating: Option<EvacuatingInstance>,
}

/// One port of a running instance.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// The port the template declares.
    pub container_port: i32,
    /// The port to connect to at the instance's address.
    pub host_port: i32,
    /// The port's name in the template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// An instance on a missing Cell.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema, Default)]
#[serde(rename_all = "camelCase")]
pub struct SuspectInstance {
    /// The missing Cell.
    #[schemars(length(min = 1, max = 63))]
    pub cell_name: String,
    /// The Cell's epoch under which it ran.
    #[schemars(range(min = 0))]
    pub cell_epoch: i64,
    /// Identifies that run of the instance.
    #[schemars(length(min = 1, max = 64))]
    pub instance_guid: String,
    /// What it was when its Cell went missing: Claimed or Running.
    pub state: ActualLRPState,
    /// When its Cell was found missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<MicroTime>,
    /// Where it could be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub address: Option<String>,
    /// Its ports at that address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::ports")]
    pub ports: Vec<PortMapping>,
}

/// An instance on a Cell that is being drained.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema, Default)]
#[serde(rename_all = "camelCase")]
pub struct EvacuatingInstance {
    /// The Cell that is being drained.
    #[schemars(length(min = 1, max = 63))]
    pub cell_name: String,
    /// The Cell's epoch under which it runs.
    #[schemars(range(min = 0))]
    pub cell_epoch: i64,
    /// Identifies that run of the instance.
    #[schemars(length(min = 1, max = 64))]
    pub instance_guid: String,
    /// When the evacuation began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<MicroTime>,
    /// Where it can be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub address: Option<String>,
    /// Its ports at that address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::ports")]
    pub ports: Vec<PortMapping>,
}

/// One of the instances that a slot names: the ordinary, the suspect or the evacuating one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named<'a> {
    /// The Cell it is on.
    pub cell: &'a str,
    /// The Cell's epoch under which it is recorded.
    pub epoch: Option<i64>,
    /// Its guid.
    pub guid: Option<&'a str>,
}

impl ActualLRPStatus {
    /// The instances that are on a Cell, the ordinary one first.
    pub fn named(&self) -> impl Iterator<Item = Named<'_>> {
        let ordinary = self.cell_name.as_deref().map(|cell| Named {
            cell,
            epoch: self.cell_epoch,
            guid: self.instance_guid.as_deref(),
        });
        let suspect = self.suspect.as_ref().map(|one| Named {
            cell: &one.cell_name,
            epoch: Some(one.cell_epoch),
            guid: Some(&one.instance_guid),
        });
        let evacuating = self.evacuating.as_ref().map(|one| Named {
            cell: &one.cell_name,
            epoch: Some(one.cell_epoch),
            guid: Some(&one.instance_guid),
        });
        [ordinary, suspect, evacuating].into_iter().flatten()
    }
}
