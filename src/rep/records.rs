//! The records as the harmonisation table sees them: what an ActualLRP or a Task says about one instance guid.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::{ActualLRP, ActualLRPState, Task, TaskState};
use crate::converge::harmony::{LrpRecord, TaskRecord};

/// The two kinds of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An ActualLRP.
    Lrp,
    /// A Task.
    Task,
}

/// Names one record.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Which kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Lrp => "actuallrp",
            Kind::Task => "task",
        };
        write!(f, "{kind} {}/{}", self.namespace, self.name)
    }
}

/// A record as it was last read.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// An ActualLRP.
    Lrp(Box<ActualLRP>),
    /// A Task.
    Task(Box<Task>),
}

impl From<ActualLRP> for Record {
    fn from(lrp: ActualLRP) -> Self {
        Record::Lrp(Box::new(lrp))
    }
}

impl From<Task> for Record {
    fn from(task: Task) -> Self {
        Record::Task(Box::new(task))
    }
}

impl Record {
    fn metadata(&self) -> &ObjectMeta {
        match self {
            Record::Lrp(lrp) => &lrp.metadata,
            Record::Task(task) => &task.metadata,
        }
    }

    /// Its name among all records.
    pub fn key(&self) -> Key {
        let metadata = self.metadata();
        let kind = match self {
            Record::Lrp(_) => Kind::Lrp,
            Record::Task(_) => Kind::Task,
        };
        Key {
            kind,
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }

    /// What tells it from another one that had or takes its name.
    pub fn uid(&self) -> Option<&str> {
        self.metadata().uid.as_deref()
    }

    /// The version that a write is bound to.
    pub fn version(&self) -> Option<&str> {
        self.metadata().resource_version.as_deref()
    }

    /// Whether `other` is an older state of the same object. Versions are numbers that grow (Kubernetes 1.35 and
    /// later promises it); one that can't be read as a number is taken for news.
    pub fn is_newer_than(&self, other: &Record) -> bool {
        let number = |record: &Record| {
            record
                .version()
                .and_then(|version| version.parse::<u64>().ok())
        };
        self.metadata().uid == other.metadata().uid
            && matches!((number(self), number(other)), (Some(ours), Some(theirs)) if ours > theirs)
    }

    /// The Cell's epoch under which an instance is recorded.
    pub fn epoch_of(&self, guid: &str) -> Option<i64> {
        match self {
            Record::Lrp(lrp) => {
                let status = lrp.status.as_ref()?;
                let suspect = status
                    .suspect
                    .iter()
                    .map(|one| (&one.instance_guid, one.cell_epoch));
                let evacuating = status
                    .evacuating
                    .iter()
                    .map(|one| (&one.instance_guid, one.cell_epoch));
                let beside = suspect.chain(evacuating).find(|(other, _)| *other == guid);
                match beside {
                    Some((_, epoch)) => Some(epoch),
                    None => status
                        .cell_epoch
                        .filter(|_| status.instance_guid.as_deref() == Some(guid)),
                }
            }
            Record::Task(task) => {
                let status = task.status.as_ref()?;
                status
                    .cell_epoch
                    .filter(|_| status.instance_guid.as_deref() == Some(guid))
            }
        }
    }

    /// The instance guids this record has on a Cell, ordinary, suspect and evacuating.
    pub fn guids_on(&self, cell: &str) -> Vec<String> {
        let named = |name: &Option<String>, guid: &Option<String>| {
            guid.clone().filter(|_| name.as_deref() == Some(cell))
        };
        match self {
            Record::Lrp(lrp) => {
                let Some(status) = &lrp.status else {
                    return Vec::new();
                };
                let ordinary = named(&status.cell_name, &status.instance_guid);
                let suspect = status
                    .suspect
                    .iter()
                    .map(|one| (&one.cell_name, &one.instance_guid));
                let evacuating = status
                    .evacuating
                    .iter()
                    .map(|one| (&one.cell_name, &one.instance_guid));
                let others = suspect.chain(evacuating).filter(|(name, _)| *name == cell);
                ordinary
                    .into_iter()
                    .chain(others.map(|(_, guid)| guid.clone()))
                    .collect()
            }
            Record::Task(task) => {
                let Some(status) = &task.status else {
                    return Vec::new();
                };
                named(&status.cell_name, &status.instance_guid)
                    .into_iter()
                    .collect()
            }
        }
    }

    /// Whether there is still something to do about it: a Task that has ended stays for its reader only.
    pub fn is_unfinished(&self) -> bool {
        match self {
            Record::Lrp(_) => true,
            Record::Task(task) => task.status.as_ref().is_none_or(|status| {
                matches!(status.state, TaskState::Pending | TaskState::Running)
            }),
        }
    }

    /// Whether the watch of this Cell's assignments shows this record.
    pub fn is_assigned_to(&self, cell: &str) -> bool {
        let name = match self {
            Record::Lrp(lrp) => lrp
                .status
                .as_ref()
                .and_then(|status| status.cell_name.as_deref()),
            Record::Task(task) => task
                .status
                .as_ref()
                .and_then(|status| status.cell_name.as_deref()),
        };
        name == Some(cell)
    }
}

/// One instance, as it is compared with a record.
#[derive(Debug, Clone, Copy)]
pub struct Instance<'a> {
    /// The Cell that runs it.
    pub cell: &'a str,
    /// Its guid.
    pub guid: &'a str,
    /// The uid of the DesiredLRP whose template it runs; `None` while there is no container.
    pub owner: Option<&'a str>,
    /// Somebody deleted its record.
    pub retired: bool,
}

/// Whether two uids are those of different objects, of which the one has taken the other's name. Where one of them
/// is not known, nothing can be said.
pub fn differ(one: Option<&str>, other: Option<&str>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one != other)
}

/// The uid of the DesiredLRP that an ActualLRP belongs to; `None` for one that names no owner.
pub fn owner_of(lrp: &ActualLRP) -> Option<&str> {
    lrp.metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true))
        .map(|owner| owner.uid.as_str())
}

/// What an ActualLRP says about an instance. `wanted_by` counts only where there is no record: the uid of the
/// DesiredLRP that wants the index.
///
/// The record of another DesiredLRP is none: a replaced DesiredLRP has another template, so that the former one's
/// instances must not fill its slots.
pub fn lrp_view(
    lrp: Option<&ActualLRP>,
    wanted_by: Option<&str>,
    instance: Instance<'_>,
) -> LrpRecord {
    let Instance {
        cell,
        guid,
        owner,
        retired,
    } = instance;
    if retired {
        return LrpRecord::None { desired: false };
    }
    let Some(lrp) = lrp else {
        return LrpRecord::None {
            desired: wanted_by.is_some() && !differ(owner, wanted_by),
        };
    };
    if lrp.metadata.deletion_timestamp.is_some() || differ(owner, owner_of(lrp)) {
        return LrpRecord::None { desired: false };
    }
    let Some(status) = &lrp.status else {
        return LrpRecord::UnclaimedOther { evacuating: false };
    };
    let mine =
        status.cell_name.as_deref() == Some(cell) && status.instance_guid.as_deref() == Some(guid);
    let is_this = |name: &str, other: &str| name == cell && other == guid;
    let suspect = status
        .suspect
        .as_ref()
        .is_some_and(|one| is_this(&one.cell_name, &one.instance_guid));
    let evacuating_mine = status
        .evacuating
        .as_ref()
        .is_some_and(|one| is_this(&one.cell_name, &one.instance_guid));
    let evacuating = status.evacuating.is_some();
    match (status.state, mine) {
        (ActualLRPState::Unclaimed, true) => LrpRecord::UnclaimedMine,
        (ActualLRPState::Claimed, true) => LrpRecord::ClaimedMine,
        (ActualLRPState::Running, true) => LrpRecord::RunningMine,
        _ if suspect => LrpRecord::SuspectMine,
        _ if evacuating_mine => LrpRecord::EvacuatingMine,
        (ActualLRPState::Unclaimed, false) => LrpRecord::UnclaimedOther { evacuating },
        (ActualLRPState::Claimed, false) => LrpRecord::ClaimedOther { evacuating },
        (ActualLRPState::Running, false) => LrpRecord::RunningOther,
        (ActualLRPState::Crashed, _) => LrpRecord::Crashed,
    }
}

/// What a Task says about its run. `uid` is that of the Task that the container was set aside for, if there is one:
/// another Task of the same name is none of its business.
pub fn task_view(task: Option<&Task>, uid: Option<&str>, cell: &str, guid: &str) -> TaskRecord {
    let Some(task) = task else {
        return TaskRecord::None;
    };
    if task.metadata.deletion_timestamp.is_some() || differ(uid, task.metadata.uid.as_deref()) {
        return TaskRecord::None;
    }
    let cancelled = task.spec.cancelled == Some(true);
    let Some(status) = &task.status else {
        return TaskRecord::PendingOther;
    };
    let mine =
        status.cell_name.as_deref() == Some(cell) && status.instance_guid.as_deref() == Some(guid);
    match (status.state, mine) {
        // A cancelled Task that has not started is the controller's to fail; it must not start here.
        (TaskState::Pending, true) if cancelled => TaskRecord::PendingOther,
        (TaskState::Pending, true) => TaskRecord::PendingMine,
        (TaskState::Pending, false) => TaskRecord::PendingOther,
        (TaskState::Running, true) if cancelled => TaskRecord::CancelledMine,
        (TaskState::Running, true) => TaskRecord::RunningMine,
        (TaskState::Running, false) => TaskRecord::RunningOther,
        (TaskState::Completed | TaskState::Resolving, _) => TaskRecord::Ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::converge::harmony::{self, ContainerState, LrpAction, Mode};
    use serde_json::{Value, json};

    fn lrp(status: Value) -> ActualLRP {
        let object = json!({
            "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "ActualLRP",
            "metadata": {"name": "web-0", "namespace": "ns", "uid": "u", "resourceVersion": "9"},
            "spec": {"desiredLRPName": "web", "index": 0}, "status": status,
        });
        serde_json::from_value(object).expect("an ActualLRP")
    }

    /// An instance of the DesiredLRP with the uid "u".
    fn instance<'a>(cell: &'a str, guid: &'a str) -> Instance<'a> {
        let owner = Some("u");
        Instance {
            cell,
            guid,
            owner,
            retired: false,
        }
    }

    fn owned(mut lrp: ActualLRP, uid: &str) -> ActualLRP {
        let owner = json!([
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "x"},
            {"apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "DesiredLRP", "name": "web", "uid": uid,
             "controller": true},
        ]);
        lrp.metadata.owner_references = serde_json::from_value(owner).expect("owners");
        lrp
    }

    /// The old code must not come back to life under the new DesiredLRP of the same name.
    #[test]
    fn an_instance_of_a_replaced_desired_lrp_stops() {
        let this = instance("a", "g");
        let next = |view, container| harmony::lrp(view, container, Mode::Ordinary);
        for status in [
            json!(null),
            json!({"state": "Unclaimed"}),
            json!({"state": "Unclaimed", "cellName": "a", "instanceGuid": "h"}),
            json!({"state": "Claimed", "cellName": "b", "instanceGuid": "h"}),
            json!({"state": "Crashed"}),
        ] {
            let ours = lrp_view(Some(&owned(lrp(status.clone()), "u")), None, this);
            assert_eq!(
                next(ours, ContainerState::Running),
                LrpAction::ReportRunning,
                "{status}"
            );
            let theirs = lrp_view(Some(&owned(lrp(status.clone()), "new")), None, this);
            assert_eq!(theirs, LrpRecord::None { desired: false }, "{status}");
            for (container, action) in [
                (ContainerState::Reserved, LrpAction::Delete),
                (ContainerState::Starting, LrpAction::Stop),
                (ContainerState::Running, LrpAction::Stop),
                (ContainerState::CompletedShutdown, LrpAction::Delete),
                (ContainerState::CompletedCrashed, LrpAction::Delete),
            ] {
                assert_eq!(next(theirs, container), action, "{status}");
            }
        }
        for (wanted_by, action) in [
            (Some("u"), LrpAction::CreateRecord),
            (Some("new"), LrpAction::Stop),
            (None, LrpAction::Stop),
        ] {
            let view = lrp_view(None, wanted_by, this);
            assert_eq!(
                next(view, ContainerState::Running),
                action,
                "wanted by {wanted_by:?}"
            );
        }
    }

    #[test]
    fn a_record_is_another_desired_lrps_only_where_both_are_known() {
        for (owner, desired, other) in [
            (Some("u"), Some("u"), false),
            (Some("u"), Some("new"), true),
            // Made by hand, or the DesiredLRP is gone: there is nothing to compare.
            (None, Some("u"), false),
            (Some("u"), None, false),
        ] {
            assert_eq!(differ(owner, desired), other, "{owner:?} {desired:?}");
        }
    }

    #[test]
    fn a_placement_of_the_new_desired_lrp_is_taken_beside_the_old_run() {
        let mine = json!({"state": "Unclaimed", "cellName": "a", "instanceGuid": "h"});
        let record = owned(lrp(mine), "new");
        let placed = Instance {
            owner: None,
            ..instance("a", "h")
        };
        assert_eq!(
            lrp_view(Some(&record), None, placed),
            LrpRecord::UnclaimedMine
        );
        assert_eq!(owner_of(&record), Some("new"));
    }

    fn task(spec: Value, status: Value) -> Task {
        let mut object = json!({
            "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "Task",
            "metadata": {"name": "t", "namespace": "ns"},
            "spec": {"template": {"spec": {}}}, "status": status,
        });
        for (name, value) in spec.as_object().expect("an object") {
            object["spec"][name] = value.clone();
        }
        serde_json::from_value(object).expect("a Task")
    }

    #[test]
    fn an_lrp_is_mine_by_cell_and_guid() {
        let view = |status: Value| lrp_view(Some(&lrp(status)), Some("u"), instance("a", "g"));
        for (state, mine, other) in [
            (
                "Unclaimed",
                LrpRecord::UnclaimedMine,
                LrpRecord::UnclaimedOther { evacuating: false },
            ),
            (
                "Claimed",
                LrpRecord::ClaimedMine,
                LrpRecord::ClaimedOther { evacuating: false },
            ),
            ("Running", LrpRecord::RunningMine, LrpRecord::RunningOther),
        ] {
            assert_eq!(
                view(json!({"state": state, "cellName": "a", "instanceGuid": "g"})),
                mine
            );
            assert_eq!(
                view(json!({"state": state, "cellName": "b", "instanceGuid": "g"})),
                other
            );
            assert_eq!(
                view(json!({"state": state, "cellName": "a", "instanceGuid": "h"})),
                other
            );
        }
        assert_eq!(
            view(json!({"state": "Unclaimed"})),
            LrpRecord::UnclaimedOther { evacuating: false }
        );
        assert_eq!(view(json!({"state": "Crashed"})), LrpRecord::Crashed);
        assert_eq!(
            view(json!(null)),
            LrpRecord::UnclaimedOther { evacuating: false }
        );
        assert_eq!(
            lrp_view(None, Some("u"), instance("a", "g")),
            LrpRecord::None { desired: true }
        );
        let mut leaving = lrp(json!({"state": "Running", "cellName": "a", "instanceGuid": "g"}));
        leaving.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
            ));
        assert_eq!(
            lrp_view(Some(&leaving), Some("u"), instance("a", "g")),
            LrpRecord::None { desired: false }
        );
    }

    #[test]
    fn a_kept_instance_is_seen_beside_the_ordinary_one() {
        let one = json!({"cellName": "a", "cellEpoch": 1, "instanceGuid": "g", "state": "Running"});
        let suspect =
            lrp(json!({"state": "Claimed", "cellName": "b", "instanceGuid": "h", "suspect": one}));
        let view = |lrp: &ActualLRP, cell, guid| lrp_view(Some(lrp), None, instance(cell, guid));
        assert_eq!(view(&suspect, "a", "g"), LrpRecord::SuspectMine);
        assert_eq!(view(&suspect, "b", "h"), LrpRecord::ClaimedMine);
        assert_eq!(
            view(&suspect, "a", "x"),
            LrpRecord::ClaimedOther { evacuating: false }
        );
        let evacuating = lrp(json!({"state": "Unclaimed", "evacuating": one}));
        assert_eq!(view(&evacuating, "a", "g"), LrpRecord::EvacuatingMine);
        let record = Record::from(suspect);
        assert_eq!(record.guids_on("a"), ["g"]);
        assert_eq!(record.guids_on("b"), ["h"]);
        assert!(record.is_assigned_to("b") && !record.is_assigned_to("a"));
    }

    #[test]
    fn a_cancelled_task_is_stopped_but_never_started() {
        let view =
            |spec: Value, status: Value| task_view(Some(&task(spec, status)), None, "a", "g");
        let mine = |state: &str| json!({"state": state, "cellName": "a", "instanceGuid": "g"});
        let cancelled = || json!({"cancelled": true});
        assert_eq!(view(json!({}), mine("Pending")), TaskRecord::PendingMine);
        assert_eq!(view(cancelled(), mine("Pending")), TaskRecord::PendingOther);
        assert_eq!(view(json!({}), mine("Running")), TaskRecord::RunningMine);
        assert_eq!(
            view(cancelled(), mine("Running")),
            TaskRecord::CancelledMine
        );
        assert_eq!(
            view(
                json!({}),
                json!({"state": "Running", "cellName": "b", "instanceGuid": "g"})
            ),
            TaskRecord::RunningOther
        );
        for state in ["Completed", "Resolving"] {
            assert_eq!(view(cancelled(), mine(state)), TaskRecord::Ended);
        }
        assert_eq!(view(json!({}), json!(null)), TaskRecord::PendingOther);
        assert_eq!(task_view(None, None, "a", "g"), TaskRecord::None);
    }

    #[test]
    fn an_event_that_arrives_late_is_recognised() {
        let at = |version: &str| {
            let mut lrp = lrp(json!({}));
            lrp.metadata.resource_version = Some(version.into());
            Record::from(lrp)
        };
        assert!(at("10").is_newer_than(&at("9")));
        assert!(!at("9").is_newer_than(&at("10")));
        assert!(!at("x").is_newer_than(&at("9")));
    }
}
