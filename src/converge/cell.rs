//! The verdict on a Cell: what its presence, seen now, changes in the ledger (Cell.status).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

use crate::api::conditions::{self, READY, Truth};
use crate::api::{ANNOTATION_CONFIRM_LOSS, CellState, CellStatus, LastRecovery};
use crate::presence::{Presence, PresencePhase};

use super::brake::Count;
use super::hold_down;
use super::node::Standing;
use super::world::CellRecord;

/// Reason of the condition Ready of a Cell whose loss is held back.
pub const MASS_LOSS_HELD: &str = "MassLossHeld";

/// Reason of the condition Ready of a Cell that was lost and came back too often.
pub const HELD_DOWN: &str = "HeldDown";

/// What was read from the presence store about one Cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// The key is there.
    Held(Presence),
    /// The key is gone, certainly: a linearizable read said so after the record was read.
    Gone {
        /// The ledger's epoch before that read: a newer one is of a registration that the read came too early for.
        ledger_epoch: Option<i64>,
        /// The store's revision at that read, counted on as epochs are: every registration up to it is gone.
        revision: i64,
        /// The greatest epoch up to that revision under which any work is recorded on it; 0 for none.
        recorded: i64,
        /// What the rep had last said of itself, if that was heard.
        phase: Option<PresencePhase>,
        /// Whether it had last said that there is a fence, if that was heard.
        fence: Option<bool>,
    },
}

/// How a loss came to be known. The label `source` of its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The presence watch.
    Watch,
    /// The controller's clock, where the presence store does not end leases itself.
    Timer,
    /// The periodic resync: the watch missed it.
    Resync,
    /// The rep's witness: its machine's word that the rep and all that it ran are dead.
    Proof,
}

impl Source {
    /// All of them.
    pub const ALL: [Source; 4] = [Source::Watch, Source::Timer, Source::Resync, Source::Proof];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Watch => "watch",
            Source::Timer => "timer",
            Source::Resync => "resync",
            Source::Proof => "proof",
        }
    }
}

/// What an observation means for the Cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing new.
    Unchanged,
    /// Registered for the first time, or as a new incarnation.
    NewIncarnation,
    /// Registered again with its containers intact.
    Returned,
    /// The rep is draining.
    Evacuating,
    /// The rep gave its presence back.
    Evacuated,
    /// The presence expired: the Cell is lost.
    Lost,
}

/// Judges an observation against the ledger.
///
/// An observation may be older than the ledger, which others write too. So nothing brings a Cell back but a
/// registration newer than the ledger's epoch, and nothing loses it that was read before its last one. A Cell
/// that was never seen present is never lost.
pub fn judge(cell: &CellRecord, seen: &Observation) -> Verdict {
    let ledger = &cell.status;
    let epoch = ledger.epoch.unwrap_or(-1);
    match seen {
        Observation::Held(presence) if presence.epoch < epoch => Verdict::Unchanged,
        Observation::Held(presence) => {
            let leaving = match presence.phase() {
                PresencePhase::Held => false,
                PresencePhase::Draining | PresencePhase::Released => true,
                // The next incarnation registers at once, and that tells all; or the presence ends at once.
                PresencePhase::Restarting | PresencePhase::Dead => return Verdict::Unchanged,
            };
            let incarnation = presence
                .value
                .as_ref()
                .map(|value| value.incarnation.as_str());
            match ledger.state {
                None => Verdict::NewIncarnation,
                Some(CellState::Missing | CellState::Evacuated) if presence.epoch == epoch => {
                    Verdict::Unchanged
                }
                // An unreadable value is present-but-unknown: it changes nothing that is recorded.
                Some(_) if incarnation.is_none() => Verdict::Unchanged,
                Some(_) if incarnation != ledger.incarnation.as_deref() => Verdict::NewIncarnation,
                Some(CellState::Evacuating) if leaving => Verdict::Unchanged,
                Some(_) if leaving => Verdict::Evacuating,
                Some(CellState::Present) if presence.epoch == epoch => Verdict::Unchanged,
                Some(_) => Verdict::Returned,
            }
        }
        Observation::Gone {
            ledger_epoch,
            phase,
            recorded,
            ..
        } => match (ledger.state, phase) {
            (None, _) => Verdict::Unchanged,
            (Some(_), _) if *ledger_epoch != ledger.epoch => Verdict::Unchanged,
            // It was back, took on work, and is gone again, all before anybody wrote that it was back.
            (Some(CellState::Missing | CellState::Evacuated), phase) if *recorded > epoch => {
                match phase {
                    Some(PresencePhase::Released) => Verdict::Evacuated,
                    _ => Verdict::Lost,
                }
            }
            (Some(CellState::Missing | CellState::Evacuated), _) => Verdict::Unchanged,
            (Some(_), Some(PresencePhase::Released)) => Verdict::Evacuated,
            // Nobody heard its last words, but it had begun to leave. One that is held was seen to go with many others.
            (Some(CellState::Evacuating), None) if !is_held(ledger) => Verdict::Evacuated,
            (Some(CellState::Present | CellState::Evacuating), _) => Verdict::Lost,
        },
    }
}

/// When a loss happened and was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LossTimes {
    /// When the store dropped the presence, as far as it could be told.
    pub lost: Timestamp,
    /// When the confirming read had answered.
    pub detected: Timestamp,
    /// How it came to be known.
    pub source: Source,
    /// An operator confirmed it, since it was held back.
    pub confirmed: bool,
}

/// The ledger after `verdict`.
pub fn apply(
    cell: &CellRecord,
    seen: &Observation,
    verdict: Verdict,
    loss: Option<LossTimes>,
    now: Timestamp,
) -> CellStatus {
    let mut next = cell.status.clone();
    if let Observation::Held(Presence {
        epoch,
        value: Some(value),
        ..
    }) = seen
        && Some(*epoch) >= next.epoch
    {
        next.fenced = value.fence.then_some(true);
        next.presence_ttl = Some(format!("{:?}", value.ttl));
    }
    match (seen, verdict) {
        (_, Verdict::Unchanged) => {}
        (Observation::Held(presence), _) => {
            next.epoch = Some(presence.epoch);
            if verdict == Verdict::NewIncarnation {
                next.incarnation = presence
                    .value
                    .as_ref()
                    .map(|value| value.incarnation.clone());
                next.incarnation_epoch = Some(presence.first_epoch());
            }
        }
        // Registrations that nobody told of are gone with it, and so is what was recorded under them.
        (
            Observation::Gone {
                revision, fence, ..
            },
            _,
        ) => {
            next.epoch = next.epoch.max(Some(*revision));
            // It was taken back, and that is not in the ledger yet.
            if *fence == Some(false) {
                next.fenced = None;
            }
        }
    }
    next.state = match verdict {
        Verdict::Unchanged => next.state,
        Verdict::NewIncarnation | Verdict::Returned => match seen {
            Observation::Held(presence) if presence.phase() != PresencePhase::Held => {
                Some(CellState::Evacuating)
            }
            _ => Some(CellState::Present),
        },
        Verdict::Evacuating => Some(CellState::Evacuating),
        Verdict::Evacuated => Some(CellState::Evacuated),
        Verdict::Lost => Some(CellState::Missing),
    };
    if let (Verdict::Lost, Some(loss)) = (verdict, loss) {
        next.last_recovery = Some(LastRecovery {
            epoch: cell.status.epoch.unwrap_or_default(),
            lost_time: Some(MicroTime(loss.lost)),
            detected_time: Some(MicroTime(loss.detected)),
            recovered_time: None,
            actual_lrps: 0,
            waiting_actual_lrps: 0,
            tasks: 0,
            source: Some(loss.source.as_str().into()),
            confirmed: loss.confirmed.then_some(true),
        });
    }
    let back = matches!(verdict, Verdict::NewIncarnation | Verdict::Returned);
    if back && cell.status.state == Some(CellState::Missing) {
        hold_down::returned(&mut next, now);
    }
    hold_down::expire(&mut next, now);
    refresh_ready(cell, &mut next, now);
    next
}

/// The ledger of a Cell whose presence is gone, and whose loss is held back. Its state stays what it was.
pub fn held(name: &str, cell: &CellRecord, count: Count, now: Timestamp) -> CellStatus {
    let Count { lost, population } = count;
    let message = format!(
        "The presence is gone, but so are too many at once to be believed ({lost} of {population} Cells): nothing is moved and no Task is failed. This ends by itself when Cells come back. If this Cell is really lost: kubectl annotate cell {name} {ANNOTATION_CONFIRM_LOSS}=true"
    );
    let mut next = cell.status.clone();
    let ready = (Truth::False, MASS_LOSS_HELD, &*message);
    set_ready(cell, &mut next, ready, now);
    next
}

/// Whether the ledger says that the Cell's loss is held back.
pub fn is_held(status: &CellStatus) -> bool {
    conditions::get(&status.conditions, READY).is_some_and(|ready| ready.reason == MASS_LOSS_HELD)
}

/// Whether what made the Cell Missing is the proof that its rep and all that it ran are dead.
pub fn is_proven_dead(status: &CellStatus) -> bool {
    let last = status.last_recovery.as_ref();
    let source = last.and_then(|last| last.source.as_deref());
    status.state == Some(CellState::Missing) && source == Some(Source::Proof.as_str())
}

/// Whether a Cell whose ledger says that it is there takes no new work all the same.
pub fn rests(cell: &CellRecord, now: Timestamp) -> bool {
    is_held(&cell.status) || hold_down::until(&cell.status, now).is_some()
}

/// Sets the Ready condition from the state and the operator's wishes.
pub fn refresh_ready(cell: &CellRecord, status: &mut CellStatus, now: Timestamp) {
    if let (Some(CellState::Present), false) = (status.state, cell.evacuate)
        && let Some(until) = hold_down::until(status, now)
    {
        let message = format!(
            "The presence is held, but the Cell was lost and came back {} times, each time within ten minutes: no new work comes here until {until:.0}. What runs here stays.",
            status.flaps.unwrap_or_default()
        );
        return set_ready(cell, status, (Truth::False, HELD_DOWN, &message), now);
    }
    let ready = match status.state {
        None => (
            Truth::Unknown,
            "PresenceUnknown",
            "The rep has not registered its presence yet.",
        ),
        Some(CellState::Missing) => (
            Truth::False,
            "PresenceExpired",
            "The presence expired: the Cell's instances are placed on other Cells as far as there is room, its Tasks are failed. It becomes ready by itself when its rep registers again.",
        ),
        Some(CellState::Evacuated) => (
            Truth::False,
            "Evacuated",
            "The Cell moved its work away and gave its presence back.",
        ),
        Some(CellState::Evacuating) => (
            Truth::False,
            "Evacuating",
            "The Cell is moving its work away.",
        ),
        Some(CellState::Present) if cell.evacuate => (
            Truth::False,
            "Evacuating",
            "spec.evacuate is true: the Cell's instances are moved away.",
        ),
        Some(CellState::Present) if cell.unschedulable => (
            Truth::True,
            "Unschedulable",
            "The presence is held. spec.unschedulable keeps new work away.",
        ),
        Some(CellState::Present) => match cell.node.as_ref().map(|node| node.standing) {
            None | Some(Standing::Open) => (Truth::True, "PresenceHeld", "The presence is held."),
            Some(Standing::Unschedulable) => (
                Truth::True,
                "NodeUnschedulable",
                "The presence is held. Its Node is cordoned: no new work comes here.",
            ),
            Some(Standing::NotReady) => (
                Truth::False,
                "NodeNotReady",
                "The presence is held, but its Node is not Ready: no new work comes here.",
            ),
            Some(Standing::NotFound) => (
                Truth::False,
                "NodeNotFound",
                "The presence is held, but there is no Node of the name in spec.nodeName: no new work comes here.",
            ),
            Some(Standing::NotRead) => (
                Truth::False,
                "NodeNotRead",
                "The presence is held, but the controller could not read the Nodes and Pods: no new work comes here. If it may not, let it list and watch nodes and pods.",
            ),
        },
    };
    set_ready(cell, status, ready, now);
}

fn set_ready(
    cell: &CellRecord,
    status: &mut CellStatus,
    (truth, reason, message): (Truth, &str, &str),
    now: Timestamp,
) {
    let generation = Some(cell.generation);
    conditions::set(
        &mut status.conditions,
        READY,
        truth,
        reason,
        message,
        generation,
        now,
    );
}

#[cfg(test)]
#[path = "cell_tests.rs"]
mod tests;
