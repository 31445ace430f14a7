//! What is known of one record, and what there is to do about it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;

use super::state::End;
use super::{PodRecord, WorkKey};
use crate::converge::life::Life;
use crate::converge::lrp::transition::{Instance, Verb as LrpVerb};
use crate::converge::task::transition::Verb as TaskVerb;
use crate::converge::world::{Lrp, TaskRecord};

/// The record.
#[derive(Debug, Clone, Copy)]
pub enum Record<'a> {
    /// There is none.
    None,
    /// An ActualLRP.
    Lrp(&'a Lrp),
    /// A Task.
    Task(&'a TaskRecord),
}

/// What is held of an instance that has no Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// Its Pod can be made.
    SetAside,
    /// The API server refused to make its Pod.
    Refused(String),
    /// The slot, which waits for a scheduler, gets no Pod before that time.
    Paused(Timestamp),
    /// It must not run twice and has crashed, as its record will tell once nothing of its Pod runs any more.
    Crashed(String),
}

/// What was read just now, past every cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fresh {
    /// The record.
    pub record: bool,
    /// The Pods of these guids.
    pub pods: BTreeSet<String>,
}

/// What is known of one record.
pub struct Facts<'a> {
    /// Its name.
    pub work: &'a WorkKey,
    /// The record.
    pub record: Record<'a>,
    /// Its Pods.
    pub pods: &'a [&'a PodRecord],
    /// What is held of its instances.
    pub local: &'a BTreeMap<String, Local>,
    /// The fate of work recorded on a Cell under an epoch.
    pub life: &'a dyn Fn(&str, Option<i64>) -> Life,
    /// The epoch of a Cell now; `None` unless its executor is Pods.
    pub epoch: &'a dyn Fn(&str) -> Option<i64>,
    /// How long an instance may take until it is ready, in seconds.
    pub start_timeout: Option<i32>,
    /// Whether an instance must not run twice.
    pub strict: bool,
    /// The scheduler that the placement is left to, while the record is to be placed.
    pub scheduler: Option<&'a str>,
    /// The Cell that a node is, and its epoch now.
    pub cell_of: &'a dyn Fn(&str) -> Option<(String, i64)>,
    /// Whether this Cell is another node than that one.
    pub is_elsewhere: &'a dyn Fn(&str, &str) -> bool,
    /// The guid of the next run, where a scheduler places it.
    pub new_guid: &'a str,
    /// What was read just now.
    pub fresh: &'a Fresh,
    /// The time.
    pub now: Timestamp,
}

/// Why a Pod is deleted. The label `reason` of its metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeleteWhy {
    /// No record names it any more.
    NotAssigned,
    /// Somebody cancelled its Task.
    Cancelled,
    /// Its Cell is drained.
    Evacuation,
    /// It has ended, and that is told.
    Ended,
    /// Its Cell is lost, or came back without it.
    LostCell,
}

impl DeleteWhy {
    /// Every reason, for metrics that exist from the start.
    pub const ALL: [DeleteWhy; 5] = [
        Self::NotAssigned,
        Self::Cancelled,
        Self::Evacuation,
        Self::Ended,
        Self::LostCell,
    ];

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            DeleteWhy::NotAssigned => "not_assigned",
            DeleteWhy::Cancelled => "cancelled",
            DeleteWhy::Evacuation => "evacuation",
            DeleteWhy::Ended => "ended",
            DeleteWhy::LostCell => "lost_cell",
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing, until something changes or that time has come.
    Wait(Option<Timestamp>),
    /// Read the record, past every cache, and look again.
    ReadRecord,
    /// Read the Pod that this guid would have, and look again.
    ReadPod(String),
    /// Note that this instance's Pod can be made.
    SetAside(String),
    /// Ask the API server whether it would make this run's Pod.
    Try(Instance),
    /// Make the Pod.
    Create(Instance),
    /// Make a Pod that a scheduler binds.
    CreateUnbound(String),
    /// Make no such Pod before that time.
    Pause(Timestamp),
    /// Note how this instance has crashed: its Pod is deleted before its record tells.
    NoteCrash {
        /// Its guid.
        guid: String,
        /// Why.
        words: String,
    },
    /// Forget what is held of an instance.
    Forget(String),
    /// Delete a Pod.
    Delete {
        /// Its guid.
        guid: String,
        /// Without grace.
        force: bool,
        /// Why.
        why: DeleteWhy,
    },
    /// Write the ActualLRP.
    Lrp {
        /// What is then done, for the log.
        done: &'static str,
        /// What is said.
        verb: LrpVerb,
        /// How the instance ended, if it did.
        end: Option<End>,
    },
    /// Write the Task.
    Task {
        /// What is then done, for the log.
        done: &'static str,
        /// What is said.
        verb: TaskVerb,
        /// How the run ended, if it did.
        end: Option<End>,
    },
}
