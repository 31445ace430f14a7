//! The `pods` executor's rules, pure: what a Pod says about its instance, and the one next step for a record and its Pods.
//!
//! A Cell with executor Pods is a Kubernetes node. The controller runs the harmonisation table
//! ([`harmony`](super::harmony)) there in the rep's place: the container is a Pod that the kubelet runs.

pub mod build;
mod decide;
mod index;
mod read;
mod reason;
mod scheduled;
mod state;
mod step;
mod table;

use k8s_openapi::jiff::Timestamp;

use super::world::Key;
use crate::api::PortMapping;

pub use decide::decide;
pub use index::PodIndex;
pub use read::is_controlled_by;
pub use read::owner;
pub use reason::{Rejection, refusal};
pub use state::{End, Seen, StartLimit, observe};
pub use step::{DeleteWhy, Facts, Fresh, Local, Record, Step};

/// Label on every Pod of ours: the guid of the instance or run it is.
pub const LABEL_GUID: &str = "diego.cloudfoundry.org/instance-guid";

/// Label on the Pod of a Task: the Task's name.
pub const LABEL_TASK: &str = "diego.cloudfoundry.org/task";

/// Label on every Pod of ours: the Cell it was made for.
pub const LABEL_CELL: &str = "diego.cloudfoundry.org/cell";

/// Label on the Pod of an instance with `missingCellPolicy: Strict`, for the fencer of its node.
pub const LABEL_POLICY: &str = "diego.cloudfoundry.org/missing-cell-policy";

/// The value of [`LABEL_POLICY`]; no other is given.
pub const STRICT: &str = "Strict";

/// Annotation on every Pod of ours: the epoch of that Cell when it was made.
pub const ANNOTATION_EPOCH: &str = "diego.cloudfoundry.org/cell-epoch";

/// The two kinds of work that Pods run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WorkKind {
    /// An instance of an ActualLRP.
    Lrp,
    /// The run of a Task.
    Task,
}

impl WorkKind {
    /// The kind of the record.
    pub fn as_str(self) -> &'static str {
        match self {
            WorkKind::Lrp => "ActualLRP",
            WorkKind::Task => "Task",
        }
    }
}

/// Names one record.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkKey {
    /// Which kind.
    pub kind: WorkKind,
    /// Its namespace and name.
    pub key: Key,
}

impl WorkKey {
    /// An ActualLRP.
    pub fn lrp(key: Key) -> Self {
        WorkKey {
            kind: WorkKind::Lrp,
            key,
        }
    }

    /// A Task.
    pub fn task(key: Key) -> Self {
        WorkKey {
            kind: WorkKind::Task,
            key,
        }
    }
}

impl std::fmt::Display for WorkKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.key)
    }
}

/// One of our Pods, with what the rules look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRecord {
    /// Namespace and name.
    pub key: Key,
    /// What tells it from another one that had or takes its name.
    pub uid: String,
    /// Its resourceVersion.
    pub revision: u64,
    /// The record it runs.
    pub work: WorkKey,
    /// The uid of that record.
    pub owner: String,
    /// The guid of this run.
    pub guid: String,
    /// The Cell it was made for; `None` where a scheduler chooses.
    pub cell: Option<String>,
    /// The Cell's epoch at that time.
    pub epoch: Option<i64>,
    /// The node it is bound to.
    pub node: Option<String>,
    /// When it was made, by the API server's clock.
    pub created: Timestamp,
    /// Somebody deleted it.
    pub deleting: Option<Deleting>,
    /// How far it is.
    pub phase: Phase,
    /// Why it is there, where the kubelet says so of the whole Pod.
    pub reason: Option<String>,
    /// The same in words.
    pub message: Option<String>,
    /// Its containers are ready for traffic.
    pub ready: bool,
    /// Its address.
    pub ip: Option<String>,
    /// Why Kubernetes ended it on purpose (condition DisruptionTarget).
    pub disruption: Option<String>,
    /// Why no node was found (condition PodScheduled).
    pub unscheduled: Option<String>,
    /// Its init containers.
    pub init: Vec<ContainerRecord>,
    /// Its containers.
    pub containers: Vec<ContainerRecord>,
    /// The ports it declares.
    pub ports: Vec<PortMapping>,
    /// The container whose termination message is the result of a Task.
    pub result_container: String,
}

/// A Pod's deletion is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleting {
    /// When its grace is over.
    pub until: Timestamp,
    /// The grace it was given, in seconds.
    pub grace: i64,
}

/// How far a Pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not all containers were started, or it is not known.
    Pending,
    /// All containers were started and one at least still runs.
    Running,
    /// All containers exited with status 0.
    Succeeded,
    /// All containers ended, one of them badly; or the kubelet did not take the Pod.
    Failed,
}

impl Phase {
    /// Whether nothing of it runs any more.
    pub fn is_over(self) -> bool {
        match self {
            Phase::Succeeded | Phase::Failed => true,
            Phase::Pending | Phase::Running => false,
        }
    }
}

/// One container of a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRecord {
    /// Its name.
    pub name: String,
    /// How far it is.
    pub state: ContainerStage,
}

/// How far a container of a Pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerStage {
    /// It has not started.
    Waiting {
        /// Why, in one word.
        reason: String,
        /// Why, in the kubelet's words.
        message: String,
    },
    /// It runs.
    Running,
    /// It has ended.
    Ended {
        /// Its exit status.
        status: i32,
        /// The signal that killed it, where the runtime tells.
        signal: Option<i32>,
        /// How, in one word.
        reason: String,
        /// Its termination message.
        message: String,
    },
}

#[cfg(test)]
mod tests;
