//! What to do about one ActualLRP. What may be done about it at all is [`transition`]'s to say.

pub mod transition;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::{ActualLRPState as State, ActualLRPStatus, MissingCellPolicy};

use super::crash::{self, Restart};
use super::fence::{self, Remains};
use super::life::Life;
use super::world::{Desired, Lrp};

pub use transition::{Instance, Keep};

/// Where work is to run, under which epoch, and the guid of that run.
pub type Place = Instance;

/// A placed instance that its Cell has not claimed for this long is placed again
/// (Diego's `StaleUnclaimedActualLRPDuration`).
pub const STALE_UNCLAIMED: SignedDuration = SignedDuration::from_secs(30);

/// Until when work that a Cell gave back waits: 1 s after the first time, doubling up to [`STALE_UNCLAIMED`], so
/// that a placement which no Cell accepts is not tried in a hot loop. `None` if it was not given back.
pub fn rejected_until(count: Option<i32>, since: Timestamp) -> Option<Timestamp> {
    let count = count.filter(|count| *count > 0)?;
    let wait = SignedDuration::from_secs(1 << (count - 1).min(5));
    Some(add(since, wait.min(STALE_UNCLAIMED)))
}

/// Why an instance is given a place. Diego's words; the label `reason` of its metrics and Events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StartReason {
    /// The index did not exist, or its container is gone.
    MissingInstance,
    /// Its Cell is missing.
    MissingCell,
    /// It crashed and its wait is over.
    CrashedInstance,
    /// It was not claimed in time.
    StaleUnclaimed,
    /// Its Cell is being drained.
    Evacuation,
}

impl StartReason {
    /// Every reason, for metrics that exist from the start.
    pub const ALL: [StartReason; 5] = [
        Self::MissingInstance,
        Self::MissingCell,
        Self::CrashedInstance,
        Self::StaleUnclaimed,
        Self::Evacuation,
    ];

    /// Diego's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            StartReason::MissingInstance => "missing-instance",
            StartReason::MissingCell => "missing-cell",
            StartReason::CrashedInstance => "crashed-instance",
            StartReason::StaleUnclaimed => "stale-unclaimed-lrp",
            StartReason::Evacuation => "evacuation",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// Nothing now; look again at that time, if any.
    Wait(Option<Timestamp>),
    /// Its instance, on a Cell that is lost or drained, is kept as the suspect, and nothing replaces it while it may
    /// still run.
    HoldBack {
        /// Why it will be placed.
        reason: StartReason,
        /// What is waited for, and what to do where that does not come by itself.
        error: String,
        /// When it is over by itself, if it is.
        until: Option<Timestamp>,
    },
    /// Find a Cell for it.
    Place {
        /// Why.
        reason: StartReason,
        /// What of the instance so far is kept.
        keep: Keep,
    },
    /// Start it anew on the Cell it is on, which lost its containers and is back; elsewhere, where that Cell can't take it.
    RestartHere {
        /// The Cell's epoch.
        epoch: i64,
    },
    /// The suspect's Cell is back before the replacement runs: the original is kept, the replacement dropped.
    Promote,
    /// The suspect's Cell is back and is being drained: it is kept as the evacuating instance.
    EvacuateSuspect,
    /// The suspect is not needed, or gone for good.
    DropSuspect,
    /// The evacuating instance is not needed, or gone for good.
    DropEvacuating,
    /// Delete the ActualLRP: nobody wants this index.
    Remove,
}

/// Whether an ActualLRP of its name belongs to the DesiredLRP of this uid: one that was orphaned on purpose belongs to the
/// next of that name.
pub fn belongs(lrp: &Lrp, desired: &str) -> bool {
    lrp.owner.as_deref().is_none_or(|owner| owner == desired)
}

/// Decides about one ActualLRP. `life` tells the fate of work on a Cell under an epoch, and `remains` what may still run
/// on one that is lost.
pub fn decide(
    lrp: &Lrp,
    desired: Option<&Desired>,
    life: &dyn Fn(&str, Option<i64>) -> Life,
    remains: &dyn Fn(&str) -> Remains,
    now: Timestamp,
) -> Act {
    if lrp.version.deleting {
        return Act::Wait(None);
    }
    let Some(desired) = desired else {
        return Act::Remove;
    };
    // Another DesiredLRP of the same name: this slot belongs to one that is gone.
    if !belongs(lrp, &desired.version.uid) {
        return Act::Remove;
    }
    if desired.version.deleting {
        return Act::Wait(None);
    }
    if lrp.index >= desired.instances {
        return Act::Remove;
    }
    if desired.demand.is_err() {
        return Act::Wait(None);
    }
    let status = &lrp.status;
    let strict = desired.policy == MissingCellPolicy::Strict;
    if let Some(act) = settle_others(status, strict, life) {
        return act;
    }
    if strict && let Some(act) = hold_back(status, life, remains, now) {
        return act;
    }
    let here = status
        .cell_name
        .as_deref()
        .map(|cell| life(cell, status.cell_epoch));
    match (status.state, here) {
        (State::Unclaimed, None) => {
            let reason = status.start_reason.as_deref().and_then(StartReason::parse);
            match since(status).and_then(|since| rejected_until(status.rejection_count, since)) {
                Some(due) if now < due => Act::Wait(Some(due)),
                _ => Act::Place {
                    reason: reason.unwrap_or(StartReason::MissingInstance),
                    keep: Keep::Nothing,
                },
            }
        }
        (State::Unclaimed, Some(Life::Alive)) => {
            let due = since(status).map(|since| add(since, STALE_UNCLAIMED));
            match due {
                Some(due) if now < due => Act::Wait(Some(due)),
                _ => Act::Place {
                    reason: StartReason::StaleUnclaimed,
                    keep: Keep::Nothing,
                },
            }
        }
        (State::Unclaimed, Some(Life::Superseded { epoch })) => Act::RestartHere { epoch },
        (State::Unclaimed, Some(Life::Lost)) => Act::Place {
            reason: StartReason::MissingCell,
            keep: Keep::Nothing,
        },
        (State::Unclaimed, Some(Life::Draining | Life::Left)) => Act::Place {
            reason: StartReason::Evacuation,
            keep: Keep::Nothing,
        },
        (State::Claimed | State::Running, Some(Life::Alive)) => Act::Wait(None),
        (State::Claimed | State::Running, Some(Life::Superseded { epoch })) => {
            Act::RestartHere { epoch }
        }
        (State::Claimed | State::Running, Some(Life::Lost)) => {
            let suspect = match (desired.policy, status.state, &status.suspect) {
                // It was not held back, so nothing of it runs.
                (MissingCellPolicy::Strict, _, _) => false,
                (MissingCellPolicy::Suspect, State::Running, _) => true,
                // A replacement that was still starting is not worth more than the suspect it was to replace.
                (MissingCellPolicy::Suspect, _, suspect) => suspect.is_none(),
            };
            let keep = if suspect {
                Keep::Suspect
            } else {
                Keep::Nothing
            };
            Act::Place {
                reason: StartReason::MissingCell,
                keep,
            }
        }
        // Of two that are evacuated the one that serves is kept.
        (State::Running, Some(Life::Draining)) => Act::Place {
            reason: StartReason::Evacuation,
            keep: Keep::Evacuating,
        },
        (State::Claimed, Some(Life::Draining | Life::Left))
        | (State::Running, Some(Life::Left)) => Act::Place {
            reason: StartReason::Evacuation,
            keep: Keep::Nothing,
        },
        (State::Crashed, _) => match crash::next_restart(
            status.crash_count.unwrap_or(1),
            since(status).unwrap_or(now),
        ) {
            Restart::At(due) if now >= due => Act::Place {
                reason: StartReason::CrashedInstance,
                keep: Keep::Nothing,
            },
            Restart::At(due) => Act::Wait(Some(due)),
            Restart::Never => Act::Wait(None),
        },
        (State::Claimed | State::Running, None) => Act::Place {
            reason: StartReason::MissingInstance,
            keep: Keep::Nothing,
        },
        (State::Unclaimed | State::Claimed | State::Running, Some(Life::Unknown)) => {
            Act::Wait(None)
        }
    }
}

/// The suspect and the evacuating instance come first: they decide whether the ordinary one is needed.
fn settle_others(
    status: &ActualLRPStatus,
    strict: bool,
    life: &dyn Fn(&str, Option<i64>) -> Life,
) -> Option<Act> {
    let running_well = status.state == State::Running
        && status
            .cell_name
            .as_deref()
            .is_some_and(|cell| life(cell, status.cell_epoch) == Life::Alive);
    if let Some(suspect) = &status.suspect {
        match life(&suspect.cell_name, Some(suspect.cell_epoch)) {
            _ if running_well => return Some(Act::DropSuspect),
            Life::Alive => return Some(Act::Promote),
            Life::Superseded { .. } | Life::Left => return Some(Act::DropSuspect),
            Life::Draining
                if suspect.state == State::Running && status.evacuating.is_none() && !strict =>
            {
                return Some(Act::EvacuateSuspect);
            }
            Life::Draining | Life::Lost | Life::Unknown => {}
        }
    }
    if let Some(evacuating) = &status.evacuating {
        match life(&evacuating.cell_name, Some(evacuating.cell_epoch)) {
            _ if running_well => return Some(Act::DropEvacuating),
            Life::Superseded { .. } | Life::Left | Life::Lost => return Some(Act::DropEvacuating),
            Life::Alive | Life::Draining | Life::Unknown => {}
        }
    }
    None
}

/// With Strict nothing is placed while the instance on a Cell that is lost or drained may still run: it stays recorded
/// as the suspect until it must be dead, or is known to be gone, or its Cell is back.
fn hold_back(
    status: &ActualLRPStatus,
    life: &dyn Fn(&str, Option<i64>) -> Life,
    remains: &dyn Fn(&str) -> Remains,
    now: Timestamp,
) -> Option<Act> {
    let (cell, epoch, suspect) = match (status.state, &status.cell_name, &status.suspect) {
        (State::Claimed | State::Running, Some(cell), _) => (cell, status.cell_epoch, None),
        (State::Unclaimed, None, Some(suspect)) => {
            (&suspect.cell_name, Some(suspect.cell_epoch), Some(suspect))
        }
        (State::Unclaimed | State::Claimed | State::Running | State::Crashed, _, _) => return None,
    };
    match life(cell, epoch) {
        Life::Lost => {}
        // The Cell is there, or it is not known whether it is: its rep tells when the instance has ended.
        Life::Unknown | Life::Draining if suspect.is_some() => return Some(Act::Wait(None)),
        Life::Draining => {
            return Some(Act::HoldBack {
                reason: StartReason::Evacuation,
                error: fence::waits_for_stop(cell),
                until: None,
            });
        }
        Life::Alive | Life::Superseded { .. } | Life::Left | Life::Unknown => return None,
    }
    let remains = remains(cell);
    let until = match &remains {
        Remains::Nothing => None,
        Remains::Fenced => {
            let since = suspect.map_or(Some(now), |one| one.since.as_ref().map(|since| since.0));
            since.and_then(|since| fence::locked_until(since, now))
        }
        Remains::Unknown { .. } => {
            return Some(Act::HoldBack {
                reason: StartReason::MissingCell,
                error: remains.waits(cell),
                until: None,
            });
        }
    };
    match until {
        Some(until) => Some(Act::HoldBack {
            reason: StartReason::MissingCell,
            error: remains.waits(cell),
            until: Some(until),
        }),
        None => suspect.map(|_| Act::DropSuspect),
    }
}

fn since(status: &ActualLRPStatus) -> Option<Timestamp> {
    status.state_transition_time.as_ref().map(|time| time.0)
}

fn add(time: Timestamp, span: SignedDuration) -> Timestamp {
    time.checked_add(span).unwrap_or(Timestamp::MAX)
}
