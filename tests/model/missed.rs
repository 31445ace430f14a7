//! What each protection is for: without it a rule is broken.

use crate::protocol::{Fault, Protection, Protocol};
use crate::{LRP, TASK, guarded, missed, small, strict, unplaced};

#[test]
fn a_loss_that_is_not_confirmed_is_noticed() {
    let model = small(LRP, &[Fault::Cut]);
    missed(Protection::ConfirmingRead, model, &["S3"]);
}

#[test]
fn a_ledger_that_is_read_after_the_presence_is_noticed() {
    let model = small(LRP, &[Fault::Cut]);
    missed(Protection::LedgerBeforePresence, model, &["S3"]);
}

#[test]
fn writes_that_are_bound_to_no_version_are_noticed() {
    let model = small(LRP, &[Fault::Cut]);
    missed(Protection::CompareAndSwap, model, &["S1", "S3", "S4"]);
    let model = unplaced(small(TASK, &[]));
    missed(Protection::CompareAndSwap, model, &["S1", "S2"]);
}

#[test]
fn a_write_under_an_old_epoch_is_noticed() {
    let model = unplaced(small(LRP, &[Fault::Cut]));
    missed(Protection::EpochInWrite, model, &["S4"]);
}

#[test]
fn a_reboot_that_goes_unnoticed_is_noticed() {
    let model = small(LRP, &[Fault::Die]);
    missed(Protection::Incarnation, model, &["L1"]);
}

#[test]
fn a_task_that_runs_before_its_record_says_so_is_noticed() {
    let model = unplaced(small(TASK, &[Fault::Cut]));
    missed(Protection::RecordBeforeProcess, model, &["S2"]);
}

#[test]
fn a_process_that_is_never_stopped_is_noticed() {
    let model = small(LRP, &[Fault::Cut]);
    missed(Protection::StopStrangers, model, &["S1"]);
}

#[test]
fn a_missing_fence_is_noticed() {
    missed(Protection::Fence, strict(true, &[Fault::Cut]), &["S6"]);
}

#[test]
fn a_replacement_that_does_not_wait_is_noticed() {
    missed(Protection::HoldBack, strict(false, &[Fault::Cut]), &["S6"]);
}

/// Whoever knows of the loss and not of the return takes what was claimed before both for stopped by the fence.
#[test]
fn a_claim_from_before_a_return_is_noticed() {
    let model = strict(true, &[Fault::Cut]);
    missed(Protection::ClaimAgain, model, &["S6"]);
}

#[test]
fn a_missing_guard_is_noticed() {
    missed(Protection::Guard, guarded(LRP), &["S7"]);
}

#[test]
fn a_guard_that_does_not_ask_who_is_overdue_is_noticed() {
    missed(Protection::RollCall, guarded(TASK), &["S7"]);
}

#[test]
fn a_loss_that_was_held_and_is_forgotten_is_noticed() {
    missed(Protection::LookAgain, guarded(LRP), &["L1"]);
}

#[test]
fn a_store_that_lost_its_data_and_is_trusted_at_once_is_noticed() {
    let model = small(LRP, &[Fault::Wipe]);
    missed(Protection::Distrust, model, &["S3"]);
}

#[test]
fn epochs_that_begin_anew_with_their_store_are_noticed() {
    let model = unplaced(small(LRP, &[Fault::Wipe]));
    missed(Protection::EpochBase, model, &["L1"]);
}

#[test]
fn a_rep_that_stays_under_the_epoch_it_was_lost_under_is_noticed() {
    let model = Protocol {
        faults: 2,
        ..small(LRP, &[Fault::Wipe, Fault::Cut])
    };
    missed(Protection::DeadEpoch, model, &["S3"]);
}
