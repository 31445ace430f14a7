//! What can be seen from outside: processes that start and end, records that are written, presences that come and go.

use std::time::Duration;

use diego_operator::api::{ActualLRP, ActualLRPState, Cell, CellState, Task, TaskState};
use diego_operator::converge::task::CELL_DISAPPEARED;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

/// A moment on CLOCK_MONOTONIC, in nanoseconds: the one clock of all that runs on this machine.
pub type Nanos = u64;

/// One second.
pub const SECOND: Nanos = 1_000_000_000;

/// Now.
pub fn now() -> Nanos {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .expect("every Linux has a monotonic clock");
    now.tv_sec().cast_unsigned() * SECOND + now.tv_nsec().cast_unsigned()
}

/// A fact, and when it was so. That of a process is its own; the others' is when the observer heard of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// When.
    pub at: Nanos,
    /// What.
    pub fact: Fact,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// The test did something to the installation: writes are counted anew.
    Stimulus,
    /// A process of an instance or a Task wrote that it runs.
    Started(Run),
    /// It was seen to be gone, having last been seen `alive`.
    Ended {
        /// Which run.
        guid: String,
        /// Its process.
        pid: u32,
        /// When it was certainly still there.
        alive: Nanos,
    },
    /// A presence key is in the store.
    Registered {
        /// The Cell.
        cell: String,
        /// The registration.
        epoch: i64,
    },
    /// It is not there any more.
    Gone {
        /// The Cell.
        cell: String,
        /// The registration.
        epoch: i64,
    },
    /// An ActualLRP was written.
    Lrp(Lrp),
    /// A record was deleted.
    Deleted {
        /// Of which object.
        uid: String,
    },
    /// A Task was written.
    Task(TaskWrite),
    /// A Cell was written.
    Cell(CellWrite),
    /// The row is over, and everything had its time: what is not as it should be, if anything.
    Rest {
        /// The difference between what is wanted and what is.
        difference: Option<String>,
    },
    /// A recovery that was timed.
    Recovered {
        /// How long it took.
        took: Nanos,
        /// How long it may take.
        within: Within,
    },
    /// The test itself wrote this guid into a record.
    Forged {
        /// Which.
        guid: String,
    },
}

/// How long a recovery may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Within {
    /// What the design promises.
    pub promised: Duration,
    /// What is allowed on top on a machine that the whole installation shares with the test.
    pub allowance: Duration,
}

impl Within {
    /// The promise with what this fault adds to it.
    pub const fn later(self, seconds: u64) -> Within {
        Within {
            promised: Duration::from_millis(self.promised.as_millis() as u64 + seconds * 1000),
            allowance: self.allowance,
        }
    }
}

impl std::fmt::Display for Within {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [promised, allowance] = [self.promised, self.allowance].map(|it| it.as_secs_f64());
        write!(f, "{promised:.1} + {allowance:.1} s")
    }
}

/// One run of an instance or a Task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its DesiredLRP or Task.
    pub process: String,
    /// Its index; `None` for a Task.
    pub index: Option<i32>,
    /// The guid it was given.
    pub guid: String,
    /// Its process.
    pub pid: u32,
    /// The Cell it runs on.
    pub cell: String,
}

/// What an ActualLRP says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Lrp {
    /// The object.
    pub uid: String,
    /// Its DesiredLRP.
    pub process: String,
    /// Its index.
    pub index: i32,
    /// Its state.
    pub state: ActualLRPState,
    /// Where its ordinary instance is: Cell and epoch.
    pub place: Option<(String, i64)>,
    /// Which run that is.
    pub guid: Option<String>,
    /// Where its suspect is.
    pub suspect: Option<(String, i64)>,
    /// Which run that is.
    pub suspect_guid: Option<String>,
    /// Which run is evacuated.
    pub evacuating: Option<String>,
    /// When it last crashed.
    pub crashed: Option<MicroTime>,
    /// How often it was given back.
    pub rejections: Option<i32>,
}

/// What a Task says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskWrite {
    /// The object.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: TaskState,
    /// Where it is: Cell and epoch.
    pub place: Option<(String, i64)>,
    /// Failed, why, and its result.
    pub outcome: (Option<bool>, Option<String>, Option<String>),
}

impl TaskWrite {
    /// Whether it failed because its Cell was lost.
    pub fn is_lost(&self) -> bool {
        self.outcome.1.as_deref() == Some(CELL_DISAPPEARED)
    }
}

/// What a Cell says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CellWrite {
    /// The object.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Its epoch.
    pub epoch: Option<i64>,
    /// While it is Missing, the epoch that was lost.
    pub lost: Option<i64>,
    /// Whether its work is to go elsewhere.
    pub leaves: bool,
}

impl From<&ActualLRP> for Lrp {
    fn from(lrp: &ActualLRP) -> Self {
        let status = lrp.status.clone().unwrap_or_default();
        let suspect_guid = status.suspect.as_ref().map(|one| one.instance_guid.clone());
        let suspect = status.suspect.map(|one| (one.cell_name, one.cell_epoch));
        Lrp {
            uid: lrp.uid().unwrap_or_default(),
            process: lrp.spec.desired_lrp_name.clone(),
            index: lrp.spec.index,
            state: status.state,
            place: status.cell_name.zip(status.cell_epoch),
            guid: status.instance_guid,
            suspect,
            suspect_guid,
            evacuating: status.evacuating.map(|one| one.instance_guid),
            crashed: status.last_crash_time,
            rejections: status.rejection_count,
        }
    }
}

impl From<&Task> for TaskWrite {
    fn from(task: &Task) -> Self {
        let status = task.status.clone().unwrap_or_default();
        TaskWrite {
            uid: task.uid().unwrap_or_default(),
            name: task.name_any(),
            state: status.state,
            place: status.cell_name.zip(status.cell_epoch),
            outcome: (status.failed, status.failure_reason, status.result),
        }
    }
}

impl From<&Cell> for CellWrite {
    fn from(cell: &Cell) -> Self {
        let status = cell.status.clone().unwrap_or_default();
        let is_missing = status.state == Some(CellState::Missing);
        let leaves = matches!(
            status.state,
            Some(CellState::Evacuating | CellState::Evacuated)
        );
        let recovery = status.last_recovery.filter(|_| is_missing);
        CellWrite {
            uid: cell.uid().unwrap_or_default(),
            name: cell.name_any(),
            epoch: status.epoch,
            lost: recovery.map(|recovery| recovery.epoch),
            leaves,
        }
    }
}
