//! What a record's status says about one instance, in the words of the table.

use super::{LrpRecord, TaskRecord};
use crate::api::{ActualLRPState, ActualLRPStatus, TaskState, TaskStatus};

/// What the status of an ActualLRP says about the instance `guid` on `cell`.
pub fn lrp(status: &ActualLRPStatus, cell: &str, guid: &str) -> LrpRecord {
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

/// What the status of a Task says about its run `guid` on `cell`.
pub fn task(status: &TaskStatus, cancelled: bool, cell: &str, guid: &str) -> TaskRecord {
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
