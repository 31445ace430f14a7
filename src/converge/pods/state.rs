//! How far the container of an instance is, told by its Pod.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::reason::{ended, failure, rejection, stuck};
use super::{ContainerStage, Phase, PodRecord, Rejection, WorkKind};
use crate::converge::harmony::ContainerState;

/// After its grace the kubelet kills a Pod, and tells so: that takes a while.
const STOP_SLACK: SignedDuration = SignedDuration::from_secs(10);

/// What a Task refers to and does not exist is waited for so long.
const CONFIG_WAIT: SignedDuration = SignedDuration::from_secs(60);

/// What the API server or the kubelet says is not told longer than this, in characters.
const MAX_WORDS: usize = 512;

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// By itself, or it never came up; and why.
    Crashed(String),
    /// A Task's: well, with its result.
    Succeeded(Option<String>),
    /// The node took it away, or did not take it on; and why.
    Rejected(Rejection, String),
    /// Somebody deleted its Pod.
    Deleted,
}

impl End {
    /// The end of an instance that the API server refused to make, in its words.
    pub fn refused(words: &str) -> End {
        End::Rejected(Rejection::Refused, words.chars().take(MAX_WORDS).collect())
    }

    /// The reason as the record tells it.
    pub fn reason(&self) -> String {
        match self {
            End::Crashed(reason) | End::Rejected(_, reason) => reason.clone(),
            End::Succeeded(_) => "exited with status 0".into(),
            End::Deleted => "its Pod was deleted".into(),
        }
    }
}

/// Until when an instance must be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartLimit {
    /// Since when it starts.
    pub since: Timestamp,
    /// How long that may take, in seconds.
    pub seconds: i32,
}

impl StartLimit {
    fn due(self) -> Timestamp {
        add(
            self.since,
            SignedDuration::from_secs(i64::from(self.seconds)),
        )
    }
}

/// What a Pod says about its instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// How far it is.
    pub state: ContainerState,
    /// How it ended, if it has.
    pub end: Option<End>,
    /// When time alone changes that.
    pub due: Option<Timestamp>,
}

impl Seen {
    pub(super) fn now(state: ContainerState) -> Seen {
        Seen {
            state,
            end: None,
            due: None,
        }
    }

    pub(super) fn over(end: End) -> Seen {
        let state = match end {
            End::Crashed(_) | End::Succeeded(_) => ContainerState::CompletedCrashed,
            End::Rejected(..) | End::Deleted => ContainerState::CompletedShutdown,
        };
        Seen {
            state,
            end: Some(end),
            due: None,
        }
    }
}

/// Reads a Pod. `limit` is given while its instance is to become ready.
pub fn observe(pod: &PodRecord, limit: Option<StartLimit>, now: Timestamp) -> Seen {
    let task = pod.work.kind == WorkKind::Task;
    if let Some(deleting) = pod.deleting {
        let overdue = add(deleting.until, STOP_SLACK);
        return match pod.phase {
            Phase::Succeeded if task => Seen::over(End::Succeeded(result(pod))),
            Phase::Succeeded | Phase::Failed => Seen::over(End::Deleted),
            Phase::Pending | Phase::Running if now >= overdue => Seen::over(End::Deleted),
            Phase::Pending | Phase::Running => Seen {
                due: Some(overdue),
                ..Seen::now(ContainerState::Stopping)
            },
        };
    }
    match pod.phase {
        Phase::Succeeded if task => Seen::over(End::Succeeded(result(pod))),
        Phase::Succeeded => Seen::over(End::Crashed("exited with status 0".into())),
        Phase::Failed => Seen::over(match rejection(pod) {
            Some((kind, words)) => End::Rejected(kind, words),
            None => End::Crashed(failure(pod)),
        }),
        Phase::Pending | Phase::Running => match task {
            true => alive_task(pod, now),
            false => alive_lrp(pod, limit, now),
        },
    }
}

fn alive_lrp(pod: &PodRecord, limit: Option<StartLimit>, now: Timestamp) -> Seen {
    // One instance is all its containers together, as in Diego: when one ends, it has ended.
    let dead = pod.containers.iter().find_map(|one| ended(pod, one));
    if let Some((_, words)) = dead {
        return Seen::over(End::Crashed(words));
    }
    let stuck = stuck(pod);
    if let Some(stuck) = stuck.as_ref().filter(|stuck| stuck.for_good) {
        return Seen::over(End::Crashed(stuck.words.clone()));
    }
    if pod.ready && pod.ip.is_some() {
        return Seen::now(ContainerState::Running);
    }
    let Some(limit) = limit.filter(|limit| limit.seconds > 0) else {
        return Seen::now(ContainerState::Starting);
    };
    if now >= limit.due() {
        let words = format!("not ready within {} s", limit.seconds);
        return Seen::over(End::Crashed(match stuck {
            Some(stuck) => format!("{words}: {}", stuck.words),
            None => words,
        }));
    }
    Seen {
        due: Some(limit.due()),
        ..Seen::now(ContainerState::Starting)
    }
}

/// A Task takes as long as it takes, unless it can't even start.
fn alive_task(pod: &PodRecord, now: Timestamp) -> Seen {
    let state = match pod.phase {
        Phase::Running => ContainerState::Running,
        Phase::Pending | Phase::Succeeded | Phase::Failed => ContainerState::Starting,
    };
    let Some(stuck) = stuck(pod) else {
        return Seen::now(state);
    };
    let due = add(pod.created, CONFIG_WAIT);
    if stuck.for_good || now >= due {
        return Seen::over(End::Crashed(stuck.words));
    }
    Seen {
        due: Some(due),
        ..Seen::now(state)
    }
}

/// The termination message of the Task's container; `None` if it left none.
fn result(pod: &PodRecord) -> Option<String> {
    let mut all = pod.containers.iter();
    let container = all.find(|one| one.name == pod.result_container)?;
    match &container.state {
        ContainerStage::Ended { message, .. } => Some(message.clone()).filter(|it| !it.is_empty()),
        ContainerStage::Waiting { .. } | ContainerStage::Running => None,
    }
}

fn add(time: Timestamp, span: SignedDuration) -> Timestamp {
    time.checked_add(span).unwrap_or(Timestamp::MAX)
}
