//! What a record says about one instance guid, in the words of the harmonisation table.

use crate::api::{ActualLRP, Task};
use crate::converge::harmony::{LrpRecord, TaskRecord, view};

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
    view::lrp(status, cell, guid)
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
    view::task(status, cancelled, cell, guid)
}
