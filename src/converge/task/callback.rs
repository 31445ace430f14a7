//! The end of a Task's life: how its completion callback is settled, and when and why it is deleted.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::conditions::{self, CALLBACK_DELIVERED, Truth};
use crate::api::{TaskState as State, TaskStatus};
use crate::converge::world::TaskRecord;

use super::{Act, Limits, add};

/// Why a finished Task is deleted: the label of its metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeleteReason {
    /// Its completion callback was answered.
    CallbackAnswered,
    /// It was kept long enough.
    Expired,
    /// It was kept long enough, and its completion callback was never answered.
    CallbackUndelivered,
}

impl DeleteReason {
    /// Every reason, for metrics that exist from the start.
    pub const ALL: [DeleteReason; 3] = [
        Self::CallbackAnswered,
        Self::Expired,
        Self::CallbackUndelivered,
    ];

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            DeleteReason::CallbackAnswered => "CallbackAnswered",
            DeleteReason::Expired => "Expired",
            DeleteReason::CallbackUndelivered => "CallbackUndelivered",
        }
    }
}

/// How a completion callback is settled for good. What is not settled is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// The receiver gave an answer other than 503 and 504.
    Answered {
        /// The HTTP status.
        status: u16,
    },
    /// It may not be sent there.
    HostNotAllowed {
        /// Why.
        problem: String,
    },
    /// It can't be sent there.
    InvalidUrl {
        /// Why.
        problem: String,
    },
}

impl Settlement {
    /// The condition `CallbackDelivered`.
    pub fn condition(&self) -> (Truth, &'static str, String) {
        match self {
            Settlement::Answered { status } if (200..300).contains(status) => (
                Truth::True,
                "Delivered",
                format!("The receiver answered {status}."),
            ),
            Settlement::Answered { status } => (
                Truth::False,
                "Refused",
                format!("The receiver answered {status}."),
            ),
            Settlement::HostNotAllowed { problem } => {
                (Truth::False, "HostNotAllowed", problem.clone())
            }
            Settlement::InvalidUrl { problem } => (Truth::False, "InvalidURL", problem.clone()),
        }
    }

    /// The reason of a Warning Event, if there is something to warn of.
    pub fn warning(&self) -> Option<&'static str> {
        match self {
            Settlement::Answered { status } if (200..300).contains(status) => None,
            Settlement::Answered { .. } => Some("TaskCallbackRefused"),
            Settlement::HostNotAllowed { .. } => Some("TaskCallbackHostNotAllowed"),
            Settlement::InvalidUrl { .. } => Some("TaskCallbackInvalidURL"),
        }
    }
}

/// What becomes of a Task whose callback is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It has told its outcome: deleted at once, as in Diego.
    Delete,
    /// It stays for a time and tells what became of its callback.
    Keep,
}

/// What becomes of a Task whose callback is settled so. One that was never sent stays, so that somebody can see why.
pub fn settled(task: &TaskRecord, how: &Settlement) -> Settled {
    match how {
        Settlement::Answered { .. } if task.keep.is_none() => Settled::Delete,
        Settlement::Answered { .. }
        | Settlement::HostNotAllowed { .. }
        | Settlement::InvalidUrl { .. } => Settled::Keep,
    }
}

/// Decides about a Task that is Completed or Resolving.
pub(super) fn decide(task: &TaskRecord, delivering: bool, limits: &Limits, now: Timestamp) -> Act {
    let status = &task.status;
    // Whoever delivers ends with a write or with a look at the Task.
    if delivering {
        return Act::Wait(None);
    }
    let changed = changed(task);
    let expires = expires(task, limits);
    if status.state == State::Resolving {
        let kick = add(changed, limits.kick);
        return if now < kick {
            Act::Wait(Some(kick))
        } else if now < expires {
            Act::Demote
        } else {
            Act::Delete(DeleteReason::CallbackUndelivered)
        };
    }
    if task.callback.is_none() || is_settled(status) {
        return if now < expires {
            Act::Wait(Some(expires))
        } else {
            Act::Delete(DeleteReason::Expired)
        };
    }
    // However late it is: every callback is tried at least once. It has moved since it completed when it was.
    if now >= expires && changed > completed(task) {
        return Act::Delete(DeleteReason::CallbackUndelivered);
    }
    Act::Deliver
}

/// When a finished Task has been kept for long enough. The Cell's clock, which says when it ended, may be behind: no
/// Task is kept for less than its time after this controller saw it finished.
pub fn expires(task: &TaskRecord, limits: &Limits) -> Timestamp {
    let completed = completed(task);
    let since = task.seen_finished.unwrap_or(completed).max(completed);
    add(since, task.keep.unwrap_or(limits.expire_completed))
}

/// Whether what became of its completion callback is told already.
pub(super) fn is_settled(status: &TaskStatus) -> bool {
    conditions::get(&status.conditions, CALLBACK_DELIVERED).is_some()
}

fn completed(task: &TaskRecord) -> Timestamp {
    let time = task.status.first_completed_time.as_ref();
    time.map_or_else(|| changed(task), |time| time.0)
}

fn changed(task: &TaskRecord) -> Timestamp {
    let time = task.status.state_transition_time.as_ref();
    time.map_or(task.created, |time| time.0)
}

/// The seconds of `ttlSecondsAfterFinished`.
pub fn keep(seconds: Option<i32>) -> Option<SignedDuration> {
    seconds.map(|seconds| SignedDuration::from_secs(i64::from(seconds)))
}
