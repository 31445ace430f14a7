//! The CRDs' own rules.

use diego_operator::api::{ActualLRPState, ActualLRPStatus, TaskState, TaskStatus};

use crate::store::{Answer, Refused};

/// The CRD's rules for an ActualLRP.
pub fn valid_lrp(status: &ActualLRPStatus) -> Answer<()> {
    let placed = status.cell_name.is_some() && status.instance_guid.is_some();
    let holds = matches!(
        status.state,
        ActualLRPState::Claimed | ActualLRPState::Running
    );
    if holds && !placed {
        return Err(Refused::Invalid("a Claimed or Running instance has a Cell"));
    }
    if status.state == ActualLRPState::Crashed && status.cell_name.is_some() {
        return Err(Refused::Invalid("a Crashed instance has no Cell"));
    }
    if status.state != ActualLRPState::Running && status.address.is_some() {
        return Err(Refused::Invalid("only a Running instance has an address"));
    }
    Ok(())
}

/// The CRD's rules for a Task.
pub fn valid_task(old: &TaskStatus, new: &TaskStatus) -> Answer<()> {
    let ended = |state| matches!(state, TaskState::Completed | TaskState::Resolving);
    if ended(old.state) && !ended(new.state) {
        return Err(Refused::Invalid("a completed Task stays completed"));
    }
    let outcome = |status: &TaskStatus| {
        let TaskStatus {
            failed,
            result,
            failure_reason,
            ..
        } = status;
        (*failed, result.clone(), failure_reason.clone())
    };
    if ended(old.state) && outcome(old) != outcome(new) {
        return Err(Refused::Invalid("an outcome stays"));
    }
    if old.state == TaskState::Running && new.state == TaskState::Pending {
        return Err(Refused::Invalid("a Running Task never goes back"));
    }
    let run = |status: &TaskStatus| (status.cell_name.clone(), status.instance_guid.clone());
    if old.state == TaskState::Running && new.state == TaskState::Running && run(old) != run(new) {
        return Err(Refused::Invalid("a Running Task stays on its Cell"));
    }
    if new.state == TaskState::Running && (new.cell_name.is_none() || new.instance_guid.is_none()) {
        return Err(Refused::Invalid("a Running Task has a Cell"));
    }
    Ok(())
}
