//! The verbs of the controller.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

use super::{Instance, Keep, Refusal, check_epoch, clip, describe, unclaimed, without_suspect};
use crate::api::{ActualLRPState as State, ActualLRPStatus, EvacuatingInstance, SuspectInstance};
use crate::converge::lrp::StartReason;

pub(super) fn place_again(
    status: &ActualLRPStatus,
    reason: StartReason,
    keep: Keep,
    place: Result<&Instance, &String>,
    now: Timestamp,
) -> Result<ActualLRPStatus, Refusal> {
    let (suspect, evacuating) = match (keep, status.state) {
        (Keep::Nothing, State::Unclaimed | State::Claimed | State::Running | State::Crashed) => {
            (status.suspect.clone(), status.evacuating.clone())
        }
        (Keep::Suspect, State::Claimed | State::Running) => {
            (as_suspect(status, now), status.evacuating.clone())
        }
        (Keep::Suspect, State::Unclaimed | State::Crashed) => {
            return Err(Refusal::CannotBeSuspect(describe(status)));
        }
        (Keep::Evacuating, State::Running) => (status.suspect.clone(), as_evacuating(status, now)),
        (Keep::Evacuating, State::Unclaimed | State::Claimed | State::Crashed) => {
            return Err(Refusal::CannotBeEvacuated(describe(status)));
        }
    };
    let waits_already = status.state == State::Unclaimed && status.cell_name.is_none();
    Ok(ActualLRPStatus {
        // An instance that goes on waiting waits since it began to.
        state_transition_time: match &status.state_transition_time {
            Some(time) if waits_already && place.is_err() => Some(time.clone()),
            Some(_) | None => Some(MicroTime(now)),
        },
        cell_name: place.ok().map(|place| place.cell.clone()),
        cell_epoch: place.ok().map(|place| place.epoch),
        instance_guid: place.ok().map(|place| place.guid.clone()),
        placement_error: place.err().map(|error| clip(error)),
        start_reason: Some(reason.as_str().into()),
        suspect,
        evacuating,
        ..unclaimed(status)
    })
}

pub(super) fn promote(
    status: &ActualLRPStatus,
    epoch: i64,
    now: Timestamp,
) -> Result<ActualLRPStatus, Refusal> {
    let Some(suspect) = status.suspect.clone() else {
        return Err(Refusal::CannotBeSuspect(describe(status)));
    };
    check_epoch(&suspect.cell_name, epoch, suspect.cell_epoch)?;
    Ok(ActualLRPStatus {
        state: suspect.state,
        cell_name: Some(suspect.cell_name),
        cell_epoch: Some(epoch),
        instance_guid: Some(suspect.instance_guid),
        address: suspect.address,
        ports: suspect.ports,
        state_transition_time: Some(MicroTime(now)),
        suspect: None,
        rejection_count: None,
        rejected_by: Vec::new(),
        ..unclaimed(status)
    })
}

pub(super) fn evacuate_suspect(
    status: &ActualLRPStatus,
    now: Timestamp,
) -> Result<ActualLRPStatus, Refusal> {
    match (&status.suspect, &status.evacuating) {
        (None, _) => Err(Refusal::CannotBeSuspect(describe(status))),
        // Another Cell evacuates the slot already ("already evacuated by a different cell").
        (Some(_), Some(_)) => Err(Refusal::CannotBeEvacuated(describe(status))),
        (Some(suspect), None) if suspect.state != State::Running => {
            Err(Refusal::CannotBeEvacuated(describe(status)))
        }
        (Some(suspect), None) => Ok(ActualLRPStatus {
            evacuating: Some(EvacuatingInstance {
                cell_name: suspect.cell_name.clone(),
                cell_epoch: suspect.cell_epoch,
                instance_guid: suspect.instance_guid.clone(),
                since: Some(MicroTime(now)),
                address: suspect.address.clone(),
                ports: suspect.ports.clone(),
            }),
            ..without_suspect(status)
        }),
    }
}

fn as_suspect(status: &ActualLRPStatus, now: Timestamp) -> Option<SuspectInstance> {
    Some(SuspectInstance {
        cell_name: status.cell_name.clone()?,
        cell_epoch: status.cell_epoch.unwrap_or(0),
        instance_guid: status.instance_guid.clone()?,
        state: status.state,
        since: Some(MicroTime(now)),
        address: status.address.clone(),
        ports: status.ports.clone(),
    })
}

fn as_evacuating(status: &ActualLRPStatus, now: Timestamp) -> Option<EvacuatingInstance> {
    Some(EvacuatingInstance {
        cell_name: status.cell_name.clone()?,
        cell_epoch: status.cell_epoch.unwrap_or(0),
        instance_guid: status.instance_guid.clone()?,
        since: Some(MicroTime(now)),
        address: status.address.clone(),
        ports: status.ports.clone(),
    })
}
