//! The verbs of a rep.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

use super::{
    Instance, Refusal, Role, clip, describe, role, unclaimed, without_evacuating, without_suspect,
};
use crate::api::{ActualLRPState as State, ActualLRPStatus, EvacuatingInstance, PortMapping};
use crate::converge::crash::{self, Restart};
use crate::converge::lrp::StartReason;
use crate::converge::rejection;

pub(super) fn claim(
    status: &ActualLRPStatus,
    instance: &Instance,
    now: Timestamp,
) -> Result<ActualLRPStatus, Refusal> {
    match (role(status, instance)?, status.state) {
        // Claimed once more: the Cell was registered anew since.
        (Role::Ordinary, State::Claimed) => Ok(ActualLRPStatus {
            cell_epoch: Some(instance.epoch),
            ..status.clone()
        }),
        (Role::Ordinary, State::Unclaimed | State::Running) => Ok(ActualLRPStatus {
            state: State::Claimed,
            cell_epoch: Some(instance.epoch),
            state_transition_time: Some(MicroTime(now)),
            address: None,
            ports: Vec::new(),
            placement_error: None,
            ..status.clone()
        }),
        (Role::Suspect, _) => Err(Refusal::Kept("Suspect")),
        (Role::Evacuating, _) => Err(Refusal::Kept("Evacuating")),
        (Role::Ordinary, State::Crashed) | (Role::Stranger, _) => {
            Err(Refusal::CannotBeClaimed(describe(status)))
        }
    }
}

pub(super) fn start(
    status: &ActualLRPStatus,
    instance: &Instance,
    address: &str,
    ports: &[PortMapping],
    now: Timestamp,
) -> Result<ActualLRPStatus, Refusal> {
    match (role(status, instance)?, status.state) {
        (Role::Suspect, _) => return Err(Refusal::Kept("Suspect")),
        (Role::Evacuating, _) => return Err(Refusal::Kept("Evacuating")),
        (Role::Stranger, State::Running) => return Err(Refusal::CannotBeStarted(describe(status))),
        (Role::Ordinary, _)
        | (Role::Stranger, State::Unclaimed | State::Claimed | State::Crashed) => {}
    }
    let told_already = status.state == State::Running
        && status.address.as_deref() == Some(address)
        && status.ports == ports;
    Ok(ActualLRPStatus {
        state: State::Running,
        cell_name: Some(instance.cell.clone()),
        cell_epoch: Some(instance.epoch),
        instance_guid: Some(instance.guid.clone()),
        state_transition_time: match &status.state_transition_time {
            Some(time) if told_already => Some(time.clone()),
            Some(_) | None => Some(MicroTime(now)),
        },
        address: Some(address.to_owned()),
        ports: ports.to_vec(),
        placement_error: None,
        rejection_count: None,
        rejected_by: Vec::new(),
        next_restart_time: None,
        suspect: None,
        evacuating: None,
        ..status.clone()
    })
}

pub(super) fn evacuate(
    status: &ActualLRPStatus,
    instance: &Instance,
    address: &str,
    ports: &[PortMapping],
    now: Timestamp,
) -> Result<ActualLRPStatus, Refusal> {
    match (role(status, instance)?, status.state, &status.evacuating) {
        (Role::Evacuating, _, _) => Ok(status.clone()),
        (Role::Stranger, State::Unclaimed | State::Claimed, None) => Ok(ActualLRPStatus {
            evacuating: Some(EvacuatingInstance {
                cell_name: instance.cell.clone(),
                cell_epoch: instance.epoch,
                instance_guid: instance.guid.clone(),
                since: Some(MicroTime(now)),
                address: Some(address.to_owned()),
                ports: ports.to_vec(),
            }),
            ..status.clone()
        }),
        (Role::Suspect, _, _) => Err(Refusal::Kept("Suspect")),
        (Role::Stranger, State::Running | State::Crashed, _)
        | (Role::Stranger, _, Some(_))
        | (Role::Ordinary, _, _) => Err(Refusal::CannotBeEvacuated(describe(status))),
    }
}

/// Restarted at once it is Unclaimed, and never Crashed: an instance that only waits for the auction is not in the
/// list of those that crash.
pub(super) fn crash(
    status: &ActualLRPStatus,
    instance: &Instance,
    reason: &str,
    now: Timestamp,
) -> Result<ActualLRPStatus, Refusal> {
    match (role(status, instance)?, status.state) {
        (Role::Suspect, _) => return Ok(without_suspect(status)),
        (Role::Evacuating, _) => return Ok(without_evacuating(status)),
        (Role::Stranger, _) | (Role::Ordinary, State::Unclaimed | State::Crashed) => {
            return Err(Refusal::CannotBeCrashed(describe(status)));
        }
        (Role::Ordinary, State::Claimed | State::Running) => {}
    }
    let ran_since = status
        .state_transition_time
        .as_ref()
        .filter(|_| status.state == State::Running)
        .map(|time| time.0);
    let count = crash::count_after(status.crash_count.unwrap_or(0), ran_since, now);
    let (state, next_restart, start_reason) = match crash::next_restart(count, now) {
        Restart::At(time) if time <= now => (
            State::Unclaimed,
            None,
            Some(StartReason::CrashedInstance.as_str().to_owned()),
        ),
        Restart::At(time) => (
            State::Crashed,
            Some(MicroTime(time)),
            status.start_reason.clone(),
        ),
        Restart::Never => (State::Crashed, None, status.start_reason.clone()),
    };
    Ok(ActualLRPStatus {
        state,
        state_transition_time: Some(MicroTime(now)),
        next_restart_time: next_restart,
        crash_count: Some(count),
        crash_reason: Some(clip(reason)),
        last_crash_time: Some(MicroTime(now)),
        start_reason,
        ..unclaimed(status)
    })
}

pub(super) fn stall(
    status: &ActualLRPStatus,
    instance: &Instance,
    error: &str,
) -> Result<ActualLRPStatus, Refusal> {
    match role(status, instance)? {
        Role::Ordinary => Ok(ActualLRPStatus {
            placement_error: Some(clip(error)),
            ..status.clone()
        }),
        Role::Suspect => Err(Refusal::Kept("Suspect")),
        Role::Evacuating => Err(Refusal::Kept("Evacuating")),
        Role::Stranger => Err(Refusal::CannotBeUnclaimed(describe(status))),
    }
}

pub(super) fn give_back(
    status: &ActualLRPStatus,
    instance: &Instance,
    refused: Option<&str>,
    now: Timestamp,
) -> Result<ActualLRPStatus, Refusal> {
    match role(status, instance)? {
        Role::Suspect => Ok(without_suspect(status)),
        Role::Evacuating => Ok(without_evacuating(status)),
        Role::Stranger => Err(Refusal::CannotBeUnclaimed(describe(status))),
        Role::Ordinary => Ok(ActualLRPStatus {
            state_transition_time: Some(MicroTime(now)),
            placement_error: refused.map(clip),
            rejection_count: match refused {
                Some(_) => Some(status.rejection_count.unwrap_or(0).saturating_add(1)),
                None => status.rejection_count,
            },
            rejected_by: match refused {
                Some(_) => rejection::by(&status.rejected_by, &instance.cell),
                None => status.rejected_by.clone(),
            },
            ..unclaimed(status)
        }),
    }
}
