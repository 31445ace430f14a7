//! Which changes of an ActualLRP are allowed: every verb, what it does, and when it is refused.
//!
//! The verbs are Diego's (`bbs/controllers/actual_lrp_lifecycle_controller.go`, `evacuation_controller.go`) on one
//! record that holds the ordinary, the suspect and the evacuating instance. The controller and the reps change a
//! status by [`apply`] alone, and write what it gives as a compare-and-swap on the version they read.
//!
//! | from \ to | Unclaimed | Claimed | Running | Crashed |
//! | --- | --- | --- | --- | --- |
//! | Unclaimed | yes | the instance that was placed | **any** instance | no |
//! | Claimed | yes, without an instance | the same instance | **any** instance | the same instance |
//! | Running | yes, without an instance | the same instance | the same instance | the same instance |
//! | Crashed | yes, without an instance | no | any instance | no |
//!
//! A running container beats a claim. Diego lets a Crashed record run again "with the same key", which it no longer
//! has; its table for the rep lets any container run it, and so does this.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

use crate::api::{
    ActualLRPState as State, ActualLRPStatus, EvacuatingInstance, PortMapping, SuspectInstance,
};
use crate::converge::crash::{self, Restart};

use super::StartReason;

/// Reasons and errors in a record are at most so long, in characters.
const MAX_REASON: usize = 1024;

/// One instance, as the rep that runs it speaks of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The Cell it runs on.
    pub cell: String,
    /// The epoch of that Cell's presence now.
    pub epoch: i64,
    /// The guid of this run.
    pub guid: String,
}

/// What becomes of the instance that is being replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing is kept of it; a suspect or evacuating instance that is there already stays.
    Nothing,
    /// It is kept as the suspect until its replacement runs.
    Suspect,
    /// It is kept as the evacuating instance until its replacement runs.
    Evacuating,
}

/// A change that somebody asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Verb {
    /// Controller: the instance so far is given up, and the next one is placed, or waits with the auction's error.
    /// Diego's Unclaim, Fail, ChangePresence, EvacuateClaimed and EvacuateRunning, each with its start request.
    Place {
        /// Why it is started.
        reason: StartReason,
        /// What of the instance so far is kept.
        keep: Keep,
        /// Where it is to run, or why nowhere.
        place: Result<Instance, String>,
    },
    /// Controller: the suspect is the ordinary instance again, under this epoch of its Cell; the replacement is
    /// dropped.
    Promote {
        /// The epoch.
        epoch: i64,
    },
    /// Controller: the suspect's Cell is back, and is leaving: it is kept as the evacuating instance.
    EvacuateSuspect,
    /// Controller: the suspect is not needed, or gone for good.
    RemoveSuspect,
    /// Controller: the evacuating instance is not needed, or gone for good.
    RemoveEvacuating,
    /// Rep: the placement is taken on.
    Claim(Instance),
    /// Rep: the instance is ready for traffic. What it replaces is dropped in the same write.
    Start {
        /// The instance.
        instance: Instance,
        /// Where it is reached.
        address: String,
        /// Its ports there.
        ports: Vec<PortMapping>,
    },
    /// Rep: the instance serves on a Cell that is being drained, while the slot is on its way elsewhere: it is kept as
    /// the evacuating one.
    Evacuate {
        /// The instance.
        instance: Instance,
        /// Where it is reached.
        address: String,
        /// Its ports there.
        ports: Vec<PortMapping>,
    },
    /// Rep: the instance ended by itself, or never came up.
    Crash {
        /// The instance.
        instance: Instance,
        /// Why.
        reason: String,
    },
    /// Rep: the instance is not there any more, or can't be. Diego's Remove, EvacuateClaimed and EvacuateStopped; the
    /// slot is Unclaimed at once, so that it is placed again without waiting for a pass.
    GiveBack {
        /// The instance.
        instance: Instance,
        /// Why it can't be there, if that is so: counted, so that a placement that no Cell takes is not tried in a
        /// hot loop.
        refused: Option<String>,
    },
}

/// Why a verb is refused. Diego's errors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not placed there, or is further than that.
    #[error("ActualLRP cannot be claimed: it is {0}")]
    CannotBeClaimed(String),
    /// Another instance runs.
    #[error("ActualLRP cannot be started: it is {0}")]
    CannotBeStarted(String),
    /// That instance is not the one of the record, or was never claimed.
    #[error("ActualLRP cannot be crashed: it is {0}")]
    CannotBeCrashed(String),
    /// That instance is not the one of the record.
    #[error("ActualLRP cannot be unclaimed: it is {0}")]
    CannotBeUnclaimed(String),
    /// There is no such suspect, or nothing that could become one.
    #[error("ActualLRP has no instance to be suspect: it is {0}")]
    CannotBeSuspect(String),
    /// Only a running instance is evacuated start before stop.
    #[error("ActualLRP cannot be evacuated: it is {0}")]
    CannotBeEvacuated(String),
    /// There is no evacuating instance.
    #[error("ActualLRP has no evacuating instance")]
    CannotBeRemoved,
    /// A suspect or evacuating instance stays what it is until its replacement runs.
    #[error("ignored: the instance is kept as {0} until its replacement runs")]
    Kept(&'static str),
    /// It is said under an epoch that is over.
    #[error("epoch {said} of Cell {cell} is over: the record has epoch {recorded}")]
    StaleEpoch {
        /// The Cell.
        cell: String,
        /// The epoch it was said under.
        said: i64,
        /// The epoch in the record.
        recorded: i64,
    },
}

/// Which instance of the record is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Ordinary,
    Suspect,
    Evacuating,
    /// None of them.
    Stranger,
}

/// The status after `verb`.
///
/// # Errors
/// Why the verb is refused; then nothing may be written.
pub fn apply(
    status: &ActualLRPStatus,
    verb: &Verb,
    now: Timestamp,
) -> Result<ActualLRPStatus, Refusal> {
    match verb {
        Verb::Place {
            reason,
            keep,
            place,
        } => place_again(status, *reason, *keep, place.as_ref(), now),
        Verb::Promote { epoch } => promote(status, *epoch, now),
        Verb::EvacuateSuspect => evacuate_suspect(status, now),
        Verb::RemoveSuspect => match &status.suspect {
            Some(_) => Ok(without_suspect(status)),
            None => Err(Refusal::CannotBeSuspect(describe(status))),
        },
        Verb::RemoveEvacuating => match &status.evacuating {
            Some(_) => Ok(without_evacuating(status)),
            None => Err(Refusal::CannotBeRemoved),
        },
        Verb::Claim(instance) => claim(status, instance, now),
        Verb::Start {
            instance,
            address,
            ports,
        } => start(status, instance, address, ports, now),
        Verb::Evacuate {
            instance,
            address,
            ports,
        } => evacuate(status, instance, address, ports, now),
        Verb::Crash { instance, reason } => crash(status, instance, reason, now),
        Verb::GiveBack { instance, refused } => {
            give_back(status, instance, refused.as_deref(), now)
        }
    }
}

fn place_again(
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

fn promote(
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
        ..unclaimed(status)
    })
}

fn evacuate_suspect(status: &ActualLRPStatus, now: Timestamp) -> Result<ActualLRPStatus, Refusal> {
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

fn claim(
    status: &ActualLRPStatus,
    instance: &Instance,
    now: Timestamp,
) -> Result<ActualLRPStatus, Refusal> {
    match (role(status, instance)?, status.state) {
        (Role::Ordinary, State::Claimed) => Ok(status.clone()),
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

fn start(
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
        next_restart_time: None,
        suspect: None,
        evacuating: None,
        ..status.clone()
    })
}

fn evacuate(
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
fn crash(
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

fn give_back(
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
            ..unclaimed(status)
        }),
    }
}

/// The slot without its ordinary instance, Unclaimed. What is kept beside it, and the crashes, stay.
fn unclaimed(status: &ActualLRPStatus) -> ActualLRPStatus {
    ActualLRPStatus {
        state: State::Unclaimed,
        cell_name: None,
        cell_epoch: None,
        instance_guid: None,
        address: None,
        ports: Vec::new(),
        placement_error: None,
        next_restart_time: None,
        ..status.clone()
    }
}

fn without_suspect(status: &ActualLRPStatus) -> ActualLRPStatus {
    ActualLRPStatus {
        suspect: None,
        ..status.clone()
    }
}

fn without_evacuating(status: &ActualLRPStatus) -> ActualLRPStatus {
    ActualLRPStatus {
        evacuating: None,
        ..status.clone()
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

/// Which instance of the record speaks. One that speaks under an epoch before the record's is not listened to.
fn role(status: &ActualLRPStatus, instance: &Instance) -> Result<Role, Refusal> {
    let Instance { cell, epoch, guid } = instance;
    let (role, recorded) = if status.cell_name.as_deref() == Some(cell)
        && status.instance_guid.as_deref() == Some(guid)
    {
        (Role::Ordinary, status.cell_epoch)
    } else if let Some(suspect) = &status.suspect
        && suspect.cell_name == *cell
        && suspect.instance_guid == *guid
    {
        (Role::Suspect, Some(suspect.cell_epoch))
    } else if let Some(evacuating) = &status.evacuating
        && evacuating.cell_name == *cell
        && evacuating.instance_guid == *guid
    {
        (Role::Evacuating, Some(evacuating.cell_epoch))
    } else {
        (Role::Stranger, None)
    };
    check_epoch(cell, *epoch, recorded.unwrap_or(*epoch))?;
    Ok(role)
}

fn check_epoch(cell: &str, said: i64, recorded: i64) -> Result<(), Refusal> {
    if said < recorded {
        return Err(Refusal::StaleEpoch {
            cell: cell.to_owned(),
            said,
            recorded,
        });
    }
    Ok(())
}

fn describe(status: &ActualLRPStatus) -> String {
    match (&status.cell_name, &status.instance_guid) {
        (Some(cell), Some(guid)) => format!("{:?} as instance {guid} on {cell}", status.state),
        (Some(cell), None) => format!("{:?} on {cell}", status.state),
        (None, _) => format!("{:?} on no Cell", status.state),
    }
}

fn clip(text: &str) -> String {
    text.chars().take(MAX_REASON).collect()
}

#[cfg(test)]
#[path = "transition_tests.rs"]
mod tests;
