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

mod controller;
mod rep;

use k8s_openapi::jiff::Timestamp;

use crate::api::{ActualLRPState as State, ActualLRPStatus, PortMapping};

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
    /// Rep: the instance is being stopped and does not end, and what is waited for. Nothing else changes.
    Stall {
        /// The instance.
        instance: Instance,
        /// What is waited for.
        error: String,
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
        } => controller::place_again(status, *reason, *keep, place.as_ref(), now),
        Verb::Promote { epoch } => controller::promote(status, *epoch, now),
        Verb::EvacuateSuspect => controller::evacuate_suspect(status, now),
        Verb::RemoveSuspect => match &status.suspect {
            Some(_) => Ok(without_suspect(status)),
            None => Err(Refusal::CannotBeSuspect(describe(status))),
        },
        Verb::RemoveEvacuating => match &status.evacuating {
            Some(_) => Ok(without_evacuating(status)),
            None => Err(Refusal::CannotBeRemoved),
        },
        Verb::Claim(instance) => rep::claim(status, instance, now),
        Verb::Start {
            instance,
            address,
            ports,
        } => rep::start(status, instance, address, ports, now),
        Verb::Evacuate {
            instance,
            address,
            ports,
        } => rep::evacuate(status, instance, address, ports, now),
        Verb::Stall { instance, error } => rep::stall(status, instance, error),
        Verb::Crash { instance, reason } => rep::crash(status, instance, reason, now),
        Verb::GiveBack { instance, refused } => {
            rep::give_back(status, instance, refused.as_deref(), now)
        }
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
mod tests;
