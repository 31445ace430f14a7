//! The verbs of a Task: what each makes of its status, or why it is refused (Diego's `ValidateTransitionTo`).
//!
//! Everybody who writes a Task's status, controller and rep, writes what [`apply`] returns, as a compare-and-swap on
//! the version it was read in. `Pending -> Running -> Completed -> Resolving`, and back to Completed when a delivery
//! is over; never back to Pending from Running, since a Task runs at most once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

use super::callback::is_settled;
use super::{FailureKind, Settlement};
use crate::api::conditions::{self, CALLBACK_DELIVERED, SUCCEEDED, Truth};
use crate::api::{TaskState as State, TaskStatus};
use crate::converge::rejection;

pub use crate::converge::lrp::transition::Instance;

/// Reasons in a record are at most so many characters long.
const MAX_REASON: usize = 1024;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Well, with the content of its result file, if it was to leave one.
    Succeeded(Option<String>),
    /// Badly, and why.
    Failed(String),
}

/// What can be done to a Task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// The controller enters what the auction found, or why it found nothing.
    Place {
        /// The place, or the placement error.
        place: Result<Instance, String>,
    },
    /// A Cell is about to start it. From then on its one run is spent.
    Start {
        /// The run.
        instance: Instance,
    },
    /// Its Cell tells how it ended.
    Complete {
        /// The run.
        instance: Instance,
        /// How it ended.
        outcome: Outcome,
    },
    /// The Cell it is placed on gives it back, not started.
    Reject {
        /// The run that will not be.
        instance: Instance,
        /// Why.
        reason: String,
    },
    /// The controller ends it.
    Fail {
        /// What kind of failure.
        kind: FailureKind,
        /// In words.
        reason: String,
    },
    /// The controller is about to deliver its outcome.
    Resolve,
    /// The delivery came to nothing, or whoever began it is gone.
    Demote,
    /// The completion callback is done with, well or not.
    Settle {
        /// What came of it.
        how: Settlement,
    },
}

impl Verb {
    /// The state it leads to.
    fn target(&self) -> State {
        match self {
            Verb::Place { .. } | Verb::Reject { .. } => State::Pending,
            Verb::Start { .. } => State::Running,
            Verb::Complete { .. } | Verb::Fail { .. } => State::Completed,
            Verb::Demote | Verb::Settle { .. } => State::Completed,
            Verb::Resolve => State::Resolving,
        }
    }
}

/// Why a verb is refused. Diego's words where it has the same refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The state does not allow it.
    #[error("Cannot transition from {from:?} to {to:?}")]
    InvalidStateTransition {
        /// The Task's state.
        from: State,
        /// The state the verb leads to.
        to: State,
    },
    /// It runs on another Cell.
    #[error("Running on cell {on} not {not}")]
    RunningOnDifferentCell {
        /// The Cell it runs on.
        on: String,
        /// The Cell that spoke.
        not: String,
    },
    /// It is not placed on that Cell, or not any more.
    #[error("Not placed on cell {cell}")]
    NotPlacedThere {
        /// The Cell that spoke.
        cell: String,
    },
    /// The same Cell, but another run.
    #[error("Its run is {recorded} not {said}")]
    DifferentRun {
        /// The run's guid in the record.
        recorded: String,
        /// The guid that was spoken of.
        said: String,
    },
    /// Its completion callback is settled: nobody is told twice.
    #[error("its completion callback is settled")]
    Settled,
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

/// The status after `verb`, or why there is none. `generation` is the Task's, for its conditions.
///
/// # Errors
/// A refusal, which tells that the record has moved on: whoever wanted to write decides anew on it.
pub fn apply(
    status: &TaskStatus,
    verb: &Verb,
    generation: i64,
    now: Timestamp,
) -> Result<TaskStatus, Refusal> {
    let change = Change {
        next: status.clone(),
        generation,
        now,
    };
    match (verb, status.state) {
        (Verb::Place { place: Ok(place) }, State::Pending) => {
            not_older(status, &place.cell, place.epoch)?;
            Ok(change.placed(place))
        }
        (Verb::Place { place: Err(error) }, State::Pending) => Ok(change.waiting(error)),
        // A Cell that has its process is not asked where the record would have had it.
        (Verb::Start { instance }, State::Pending) => {
            not_older(status, &instance.cell, instance.epoch)?;
            Ok(change.started(instance))
        }
        (Verb::Start { instance }, State::Running) if is_run(status, instance) => {
            not_older(status, &instance.cell, instance.epoch)?;
            Ok(change.next)
        }
        (Verb::Complete { instance, outcome }, State::Running) => {
            same_run(status, instance, || Refusal::RunningOnDifferentCell {
                on: status.cell_name.clone().unwrap_or_default(),
                not: instance.cell.clone(),
            })?;
            Ok(change.completed(instance, outcome))
        }
        (Verb::Reject { instance, reason }, State::Pending) => {
            same_run(status, instance, || Refusal::NotPlacedThere {
                cell: instance.cell.clone(),
            })?;
            Ok(change.rejected(instance, reason))
        }
        (Verb::Fail { kind, reason }, State::Pending | State::Running) => {
            Ok(change.failed(*kind, reason))
        }
        (Verb::Resolve, State::Completed) if is_settled(status) => Err(Refusal::Settled),
        (Verb::Resolve, State::Completed) => Ok(change.moved(State::Resolving)),
        (Verb::Demote, State::Resolving) => Ok(change.moved(State::Completed)),
        (Verb::Settle { how }, State::Resolving) => Ok(change.settled(how)),
        (Verb::Place { .. }, State::Running | State::Completed | State::Resolving)
        | (Verb::Start { .. }, State::Running | State::Completed | State::Resolving)
        | (Verb::Complete { .. }, State::Pending | State::Completed | State::Resolving)
        | (Verb::Reject { .. }, State::Running | State::Completed | State::Resolving)
        | (Verb::Fail { .. }, State::Completed | State::Resolving)
        | (Verb::Resolve, State::Pending | State::Running | State::Resolving)
        | (
            Verb::Demote | Verb::Settle { .. },
            State::Pending | State::Running | State::Completed,
        ) => Err(Refusal::InvalidStateTransition {
            from: status.state,
            to: verb.target(),
        }),
    }
}

fn is_run(status: &TaskStatus, run: &Instance) -> bool {
    status.cell_name.as_deref() == Some(&run.cell)
        && status.instance_guid.as_deref() == Some(&run.guid)
}

/// Nobody but the recorded run speaks for the Task.
fn same_run(
    status: &TaskStatus,
    run: &Instance,
    elsewhere: impl FnOnce() -> Refusal,
) -> Result<(), Refusal> {
    if status.cell_name.as_deref() != Some(&run.cell) {
        return Err(elsewhere());
    }
    not_older(status, &run.cell, run.epoch)?;
    match &status.instance_guid {
        Some(guid) if *guid == run.guid => Ok(()),
        recorded => Err(Refusal::DifferentRun {
            recorded: recorded.clone().unwrap_or_default(),
            said: run.guid.clone(),
        }),
    }
}

/// Epochs of one Cell only grow.
fn not_older(status: &TaskStatus, cell: &str, said: i64) -> Result<(), Refusal> {
    match (&status.cell_name, status.cell_epoch) {
        (Some(name), Some(recorded)) if name == cell && said < recorded => {
            Err(Refusal::StaleEpoch {
                cell: cell.to_owned(),
                said,
                recorded,
            })
        }
        _ => Ok(()),
    }
}

/// A status on its way to the next.
struct Change {
    next: TaskStatus,
    generation: i64,
    now: Timestamp,
}

impl Change {
    fn moved(mut self, state: State) -> TaskStatus {
        self.next.state = state;
        self.next.state_transition_time = Some(MicroTime(self.now));
        self.next
    }

    fn condition(mut self, kind: &str, truth: Truth, reason: &str, message: &str) -> Self {
        let generation = Some(self.generation);
        let conditions = &mut self.next.conditions;
        conditions::set(
            conditions, kind, truth, reason, message, generation, self.now,
        );
        self
    }

    fn placed(mut self, place: &Instance) -> TaskStatus {
        self.next.cell_name = Some(place.cell.clone());
        self.next.cell_epoch = Some(place.epoch);
        self.next.instance_guid = Some(place.guid.clone());
        self.next.rejection_reason = None;
        let message = "The Task waits for its Cell to start it.";
        self.condition(SUCCEEDED, Truth::Unknown, "Placed", message)
            .moved(State::Pending)
    }

    /// Not finding a Cell is no rejection: nothing is counted, and it waits since it began to.
    fn waiting(mut self, error: &str) -> TaskStatus {
        let since = self.next.state_transition_time.clone();
        let waits_since = since.filter(|_| self.next.cell_name.is_none());
        self.next.cell_name = None;
        self.next.cell_epoch = None;
        self.next.instance_guid = None;
        self.next.rejection_reason = Some(clip(error));
        let message = format!("No Cell can run the Task now: {error}.");
        let mut next = self
            .condition(SUCCEEDED, Truth::Unknown, "WaitingForCell", &message)
            .moved(State::Pending);
        if waits_since.is_some() {
            next.state_transition_time = waits_since;
        }
        next
    }

    fn started(mut self, run: &Instance) -> TaskStatus {
        self.next.cell_name = Some(run.cell.clone());
        self.next.cell_epoch = Some(run.epoch);
        self.next.instance_guid = Some(run.guid.clone());
        self.next.rejection_reason = None;
        self.next.rejected_by.clear();
        let message = format!("The Task runs on Cell {}.", run.cell);
        self.condition(SUCCEEDED, Truth::Unknown, "Running", &message)
            .moved(State::Running)
    }

    fn rejected(mut self, run: &Instance, reason: &str) -> TaskStatus {
        let count = self.next.rejection_count.unwrap_or(0);
        self.next.cell_name = None;
        // Tells under which presence it was written.
        self.next.cell_epoch = Some(run.epoch);
        self.next.instance_guid = None;
        self.next.rejection_count = Some(count.saturating_add(1));
        self.next.rejection_reason = Some(clip(reason));
        self.next.rejected_by = rejection::by(&self.next.rejected_by, &run.cell);
        let message = format!("Cell {} can't run the Task: {}.", run.cell, clip(reason));
        self.condition(SUCCEEDED, Truth::Unknown, "Rejected", &message)
            .moved(State::Pending)
    }

    fn completed(mut self, run: &Instance, outcome: &Outcome) -> TaskStatus {
        self.next.cell_epoch = Some(run.epoch);
        match outcome {
            Outcome::Succeeded(result) => {
                self.next.result = result.clone();
                let message = "The Task exited with status 0.";
                self.condition(SUCCEEDED, Truth::True, "Completed", message)
                    .ended(None)
            }
            Outcome::Failed(reason) => self
                .condition(SUCCEEDED, Truth::False, "Failed", &clip(reason))
                .ended(Some(reason)),
        }
    }

    fn failed(self, kind: FailureKind, reason: &str) -> TaskStatus {
        self.condition(SUCCEEDED, Truth::False, kind.as_str(), &clip(reason))
            .ended(Some(reason))
    }

    fn ended(mut self, failure: Option<&str>) -> TaskStatus {
        self.next.failed = Some(failure.is_some());
        self.next.failure_reason = failure.map(clip);
        let now = MicroTime(self.now);
        self.next.first_completed_time.get_or_insert(now);
        self.moved(State::Completed)
    }

    fn settled(self, how: &Settlement) -> TaskStatus {
        let (truth, reason, message) = how.condition();
        self.condition(CALLBACK_DELIVERED, truth, reason, &clip(&message))
            .moved(State::Completed)
    }
}

fn clip(text: &str) -> String {
    text.chars().take(MAX_REASON).collect()
}

#[cfg(test)]
mod tests;
