//! What to do about one Task.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::conditions::{self, SUCCEEDED, Truth};
use crate::api::{TaskState as State, TaskStatus};

use super::life::Life;
use super::lrp::{self, Place, STALE_UNCLAIMED};
use super::world::TaskRecord;

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
}

/// Decides about one Task. It never goes back from Running: a Task runs at most once.
pub fn decide(
    task: &TaskRecord,
    life: &dyn Fn(&str, Option<i64>) -> Life,
    expire_pending: SignedDuration,
    now: Timestamp,
) -> Act {
    if task.version.deleting {
        return Act::Wait(None);
    }
    let status = &task.status;
    let here = status
        .cell_name
        .as_deref()
        .map(|cell| life(cell, status.cell_epoch));
    let fail = |kind: FailureKind, reason: &str| Act::Fail {
        kind,
        reason: reason.into(),
    };
    match (status.state, here) {
        (State::Completed | State::Resolving, _) => Act::Wait(None),
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
            let expires = add(task.created, expire_pending);
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

/// The status after [`Act::Place`].
pub fn place(
    status: &TaskStatus,
    place: Result<Place, String>,
    generation: i64,
    now: Timestamp,
) -> TaskStatus {
    let mut next = status.clone();
    let waits_already = next.cell_name.is_none() && next.state_transition_time.is_some();
    let (reason, message) = match place {
        Ok(place) => {
            next.cell_name = Some(place.cell);
            next.cell_epoch = Some(place.epoch);
            next.instance_guid = Some(place.guid);
            next.state_transition_time = Some(MicroTime(now));
            next.rejection_reason = None;
            (
                "Placed",
                "The Task waits for its Cell to start it.".to_owned(),
            )
        }
        Err(error) => {
            if !waits_already {
                next.state_transition_time = Some(MicroTime(now));
            }
            next.cell_name = None;
            next.cell_epoch = None;
            next.instance_guid = None;
            next.rejection_reason = Some(error.chars().take(1024).collect());
            (
                "WaitingForCell",
                format!("No Cell can run the Task now: {error}."),
            )
        }
    };
    conditions::set(
        &mut next.conditions,
        SUCCEEDED,
        Truth::Unknown,
        reason,
        &message,
        Some(generation),
        now,
    );
    next
}

/// The status after [`Act::Fail`].
pub fn fail(
    status: &TaskStatus,
    kind: FailureKind,
    reason: &str,
    generation: i64,
    now: Timestamp,
) -> TaskStatus {
    let mut next = status.clone();
    next.state = State::Completed;
    next.failed = Some(true);
    next.failure_reason = Some(reason.chars().take(1024).collect());
    next.state_transition_time = Some(MicroTime(now));
    next.first_completed_time.get_or_insert(MicroTime(now));
    conditions::set(
        &mut next.conditions,
        SUCCEEDED,
        Truth::False,
        kind.as_str(),
        reason,
        Some(generation),
        now,
    );
    next
}

fn add(time: Timestamp, span: SignedDuration) -> Timestamp {
    time.checked_add(span).unwrap_or(Timestamp::MAX)
}
