//! What to do about one Task. What it is then is told by [`transition::apply`].

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::TaskState as State;

use super::life::Life;
use super::lrp::{self, STALE_UNCLAIMED};
use super::world::TaskRecord;

mod callback;
pub mod transition;

pub use callback::{DeleteReason, Settled, Settlement, expires, keep, settled};

/// Diego's words for a Task whose Cell was lost.
pub const CELL_DISAPPEARED: &str = "cell disappeared before completion";

/// Diego's words for a Task that found no Cell for too long.
pub const NOT_STARTED: &str = "not started within time limit";

/// Diego's words for a Task the user ended.
pub const CANCELLED: &str = "task was cancelled";

/// A Task that Cells gave back more often than this is failed (Diego's `tasks.max_retries`).
pub const MAX_REJECTIONS: i32 = 3;

/// Why a Task is failed without having run to its end: the condition's reason and the label of its metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureKind {
    /// Its Cell was lost.
    CellMissing,
    /// It found no Cell for too long.
    NotStarted,
    /// The user ended it.
    Cancelled,
    /// Its template can't be used.
    InvalidTemplate,
    /// Cells gave it back too often.
    Rejected,
}

impl FailureKind {
    /// Every kind, for metrics that exist from the start.
    pub const ALL: [FailureKind; 5] = [
        Self::CellMissing,
        Self::NotStarted,
        Self::Cancelled,
        Self::InvalidTemplate,
        Self::Rejected,
    ];

    /// The condition's reason.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureKind::CellMissing => "CellMissing",
            FailureKind::NotStarted => "NotStarted",
            FailureKind::Cancelled => "Cancelled",
            FailureKind::InvalidTemplate => "InvalidTemplate",
            FailureKind::Rejected => "Rejected",
        }
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// Nothing now; look again at that time, if any.
    Wait(Option<Timestamp>),
    /// Find a Cell for it.
    Place,
    /// It has ended badly.
    Fail {
        /// What kind of failure.
        kind: FailureKind,
        /// The failure reason in words.
        reason: String,
    },
    /// Its completion callback is due: whoever moves it to Resolving delivers it.
    Deliver,
    /// Whoever was to deliver its callback has not, for too long: somebody else may.
    Demote,
    /// It is finished and of no more use.
    Delete(DeleteReason),
}

/// How long a Task may take for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Without a Cell it fails after this.
    pub expire_pending: SignedDuration,
    /// Finished, it is deleted after this, if it does not say otherwise itself.
    pub expire_completed: SignedDuration,
    /// Resolving for so long, it is demoted.
    pub kick: SignedDuration,
}

impl Default for Limits {
    /// Diego's.
    fn default() -> Self {
        Limits {
            expire_pending: SignedDuration::from_secs(1800),
            expire_completed: SignedDuration::from_secs(120),
            kick: SignedDuration::from_secs(30),
        }
    }
}

/// What is known beside the Task's record.
pub struct Facts<'a> {
    /// The fate of what is recorded on a Cell under an epoch.
    pub life: &'a dyn Fn(&str, Option<i64>) -> Life,
    /// Losses of Cells are held back: it must not be failed because of one.
    pub kept: bool,
    /// This very process is delivering its callback.
    pub delivering: bool,
}

/// Decides about one Task. It never goes back from Running: a Task runs at most once.
pub fn decide(task: &TaskRecord, facts: &Facts<'_>, limits: &Limits, now: Timestamp) -> Act {
    if task.version.deleting {
        return Act::Wait(None);
    }
    let status = &task.status;
    let here = status
        .cell_name
        .as_deref()
        .map(|cell| (facts.life)(cell, status.cell_epoch));
    let fail = |kind: FailureKind, reason: &str| Act::Fail {
        kind,
        reason: reason.into(),
    };
    match (status.state, here) {
        (State::Completed | State::Resolving, _) => {
            callback::decide(task, facts.delivering, limits, now)
        }
        (State::Running, Some(Life::Lost)) if facts.kept => Act::Wait(None),
        (State::Running, Some(Life::Lost | Life::Left | Life::Superseded { .. })) => {
            fail(FailureKind::CellMissing, CELL_DISAPPEARED)
        }
        (State::Running, Some(Life::Alive | Life::Draining | Life::Unknown) | None) => {
            Act::Wait(None)
        }
        (State::Pending, _) if task.cancelled => fail(FailureKind::Cancelled, CANCELLED),
        (State::Pending, here) => {
            if let Err(problem) = &task.demand {
                return fail(FailureKind::InvalidTemplate, problem);
            }
            let expires = add(task.created, limits.expire_pending);
            if now >= expires {
                return fail(FailureKind::NotStarted, NOT_STARTED);
            }
            let rejections = status.rejection_count.unwrap_or(0);
            if rejections > MAX_REJECTIONS {
                let reason = status
                    .rejection_reason
                    .as_deref()
                    .unwrap_or("rejected too often");
                return fail(FailureKind::Rejected, reason);
            }
            let stale = status
                .state_transition_time
                .as_ref()
                .map(|time| add(time.0, STALE_UNCLAIMED));
            match here {
                Some(Life::Alive) if stale.is_some_and(|stale| now < stale) => {
                    Act::Wait(stale.min(Some(expires)))
                }
                Some(Life::Unknown) => Act::Wait(Some(expires)),
                // Given back by a Cell: not at once again.
                None => match status
                    .state_transition_time
                    .as_ref()
                    .and_then(|time| lrp::rejected_until(status.rejection_count, time.0))
                {
                    Some(due) if now < due => Act::Wait(Some(due.min(expires))),
                    _ => Act::Place,
                },
                // Not started anywhere yet, so it may go elsewhere: a late start there fails on the version.
                Some(_) => Act::Place,
            }
        }
    }
}

fn add(time: Timestamp, span: SignedDuration) -> Timestamp {
    time.checked_add(span).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
