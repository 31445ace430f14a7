//! The records of a rep's work: ActualLRPs and Tasks, by name, and as they were last read.

mod views;

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::{ActualLRP, ActualLRPStatus, Task, TaskState};

pub use views::{Instance, differ, lrp_view, owner_of, task_view};

/// The two kinds of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An ActualLRP.
    Lrp,
    /// A Task.
    Task,
}

/// Names one record.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Which kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Lrp => "actuallrp",
            Kind::Task => "task",
        };
        write!(f, "{kind} {}/{}", self.namespace, self.name)
    }
}

/// A record as it was last read.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// An ActualLRP.
    Lrp(Box<ActualLRP>),
    /// A Task.
    Task(Box<Task>),
}

impl From<ActualLRP> for Record {
    fn from(lrp: ActualLRP) -> Self {
        Record::Lrp(Box::new(lrp))
    }
}

impl From<Task> for Record {
    fn from(task: Task) -> Self {
        Record::Task(Box::new(task))
    }
}

impl Record {
    fn metadata(&self) -> &ObjectMeta {
        match self {
            Record::Lrp(lrp) => &lrp.metadata,
            Record::Task(task) => &task.metadata,
        }
    }

    /// Its name among all records.
    pub fn key(&self) -> Key {
        let metadata = self.metadata();
        let kind = match self {
            Record::Lrp(_) => Kind::Lrp,
            Record::Task(_) => Kind::Task,
        };
        Key {
            kind,
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }

    /// What tells it from another one that had or takes its name.
    pub fn uid(&self) -> Option<&str> {
        self.metadata().uid.as_deref()
    }

    /// The version that a write is bound to.
    pub fn version(&self) -> Option<&str> {
        self.metadata().resource_version.as_deref()
    }

    /// Whether `other` is an older state of the same object. Versions are numbers that grow (Kubernetes 1.35 and
    /// later promises it); one that can't be read as a number is taken for news.
    pub fn is_newer_than(&self, other: &Record) -> bool {
        let number = |record: &Record| {
            record
                .version()
                .and_then(|version| version.parse::<u64>().ok())
        };
        self.metadata().uid == other.metadata().uid
            && matches!((number(self), number(other)), (Some(ours), Some(theirs)) if ours > theirs)
    }

    /// The Cell's epoch under which an instance is recorded.
    pub fn epoch_of(&self, guid: &str) -> Option<i64> {
        match self {
            Record::Lrp(lrp) => {
                let status = lrp.status.as_ref()?;
                let one = status.named().find(|one| one.guid == Some(guid))?;
                one.epoch
            }
            Record::Task(task) => {
                let status = task.status.as_ref()?;
                status
                    .cell_epoch
                    .filter(|_| status.instance_guid.as_deref() == Some(guid))
            }
        }
    }

    /// The instance guids this record has on a Cell, ordinary, suspect and evacuating.
    pub fn guids_on(&self, cell: &str) -> Vec<String> {
        match self {
            Record::Lrp(lrp) => {
                let named = lrp.status.iter().flat_map(ActualLRPStatus::named);
                let here = named.filter(|one| one.cell == cell);
                here.filter_map(|one| one.guid.map(ToOwned::to_owned))
                    .collect()
            }
            Record::Task(task) => {
                let status = task.status.iter();
                let here = status.filter(|status| status.cell_name.as_deref() == Some(cell));
                here.filter_map(|status| status.instance_guid.clone())
                    .collect()
            }
        }
    }

    /// Whether there is still something to do about it: a Task that has ended stays for its reader only.
    pub fn is_unfinished(&self) -> bool {
        match self {
            Record::Lrp(_) => true,
            Record::Task(task) => task.status.as_ref().is_none_or(|status| {
                matches!(status.state, TaskState::Pending | TaskState::Running)
            }),
        }
    }

    /// Whether the watch of this Cell's assignments shows this record.
    pub fn is_assigned_to(&self, cell: &str) -> bool {
        let name = match self {
            Record::Lrp(lrp) => lrp
                .status
                .as_ref()
                .and_then(|status| status.cell_name.as_deref()),
            Record::Task(task) => task
                .status
                .as_ref()
                .and_then(|status| status.cell_name.as_deref()),
        };
        name == Some(cell)
    }
}

#[cfg(test)]
mod tests;
