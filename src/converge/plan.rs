//! From the world to a plan: which writes bring what is there closer to what is wanted.
//!
//! A plan enters its writes into the world at once, as if they had succeeded; whoever executes it settles
//! every one with the answer. So plans made meanwhile see each other's placements and never repeat them.

use std::collections::BTreeSet;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::{ActualLRPStatus, TaskStatus};

use super::lrp::StartReason;
use super::placement::Knobs;
use super::task::{self, DeleteReason, FailureKind};
use super::world::{Key, Version, World};

mod batch;
mod homes;
mod lrps;
mod tasks;

pub use tasks::{expire, resolve, settle};

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything on one Cell: the reaction to its loss, return or evacuation.
    Cell(String),
    /// One DesiredLRP and all its indices.
    Desired(Key),
    /// One Task.
    Task(Key),
    /// Everything that waits for room, in one batch: index 0 of every process comes first.
    Waiting,
    /// Everything.
    All,
}

/// The knobs of the rules.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// How long a Task may take for what.
    pub tasks: task::Limits,
    /// What operators changed about the auction.
    pub auction: Knobs,
}

/// What a write does to an ActualLRP. The label `change` of its metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LrpChange {
    /// It is assigned to a Cell.
    Placed {
        /// Why.
        reason: StartReason,
        /// The Cell.
        cell: String,
    },
    /// No Cell can take it now.
    Waiting {
        /// Why it is to be placed.
        reason: StartReason,
        /// Why no Cell can.
        error: String,
    },
    /// It is started anew on the Cell it is on.
    RestartedHere {
        /// The Cell.
        cell: String,
    },
    /// The suspect is the ordinary instance again.
    Promoted {
        /// The suspect's Cell.
        cell: String,
    },
    /// The suspect's Cell is back and leaving: it is kept as the evacuating instance.
    SuspectEvacuated {
        /// The suspect's Cell.
        cell: String,
    },
    /// The suspect is dropped.
    SuspectDropped,
    /// The evacuating instance is dropped.
    EvacuatingDropped,
    /// What the `pods` executor says of an instance in a rep's place.
    Told {
        /// In words.
        done: &'static str,
    },
}

/// What a write does to a Task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskChange {
    /// It is assigned to a Cell.
    Placed {
        /// The Cell.
        cell: String,
    },
    /// No Cell can take it now.
    Waiting {
        /// Why.
        error: String,
    },
    /// It has failed.
    Failed {
        /// What kind of failure.
        kind: FailureKind,
        /// In words.
        reason: String,
    },
    /// Whoever writes this delivers its callback.
    Resolving,
    /// Its callback may be delivered by somebody else.
    Demoted,
    /// Its callback is settled.
    Settled,
    /// What the `pods` executor says of its run in a rep's place.
    Told {
        /// In words.
        done: &'static str,
    },
}

/// One write, conditional on the version it was decided on.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Create an ActualLRP and place it.
    CreateLrp {
        /// The ActualLRP.
        key: Key,
        /// Its DesiredLRP.
        desired: Key,
        /// The DesiredLRP's uid, for the owner reference.
        owner: String,
        /// Which instance.
        index: i32,
        /// The DesiredLRP's domain.
        domain: Option<String>,
        /// The status to give it.
        status: Box<ActualLRPStatus>,
        /// What that means.
        change: LrpChange,
    },
    /// Change the status of an ActualLRP.
    LrpStatus {
        /// The ActualLRP.
        key: Key,
        /// The version decided on.
        version: Version,
        /// The status decided on.
        from: Box<ActualLRPStatus>,
        /// The status to give it.
        to: Box<ActualLRPStatus>,
        /// What that means.
        change: LrpChange,
    },
    /// Delete an ActualLRP.
    DeleteLrp {
        /// The ActualLRP.
        key: Key,
        /// The version decided on.
        version: Version,
        /// Its DesiredLRP is not known at all: it must be read once more before anything is deleted.
        orphan_of: Option<Key>,
    },
    /// Change the status of a Task.
    TaskStatus {
        /// The Task.
        key: Key,
        /// The version decided on.
        version: Version,
        /// The status decided on.
        from: Box<TaskStatus>,
        /// The status to give it.
        to: Box<TaskStatus>,
        /// What that means.
        change: TaskChange,
    },
    /// Delete a Task.
    DeleteTask {
        /// The Task.
        key: Key,
        /// The version decided on.
        version: Version,
        /// Why.
        reason: DeleteReason,
    },
}

impl Write {
    /// The object.
    pub fn key(&self) -> &Key {
        match self {
            Write::CreateLrp { key, .. }
            | Write::LrpStatus { key, .. }
            | Write::DeleteLrp { key, .. }
            | Write::TaskStatus { key, .. }
            | Write::DeleteTask { key, .. } => key,
        }
    }

    /// What kind of write it is, for logs: the statuses themselves hold what is not theirs to tell.
    pub fn what(&self) -> &'static str {
        match self {
            Write::CreateLrp { .. } => "create ActualLRP",
            Write::LrpStatus { .. } => "ActualLRP status",
            Write::DeleteLrp { .. } => "delete ActualLRP",
            Write::TaskStatus { .. } => "Task status",
            Write::DeleteTask { .. } => "delete Task",
        }
    }
}

/// A write that is under way is looked at again after so long: its answer wakes no reconciler.
const UNDER_WAY: SignedDuration = SignedDuration::from_secs(1);

/// What to write, in this order, and when to look again.
#[derive(Debug, Default)]
pub struct Plan {
    /// The writes, in the order of the auction.
    pub writes: Vec<Write>,
    /// The earliest time at which something falls due that no event announces.
    pub recheck: Option<Timestamp>,
    /// Cells that records name and that have no ledger: their presence must be read before anything is done.
    pub unknown_cells: BTreeSet<String>,
    /// Changes that were decided and may not be: a fault in the rules, to be told.
    pub refused: Vec<(Key, String)>,
    /// Tasks whose completion callback is due.
    pub callbacks: BTreeSet<Key>,
}

impl Plan {
    /// Something falls due at `until`.
    pub fn wait(&mut self, until: Option<Timestamp>) {
        self.recheck = match (self.recheck, until) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    /// A write is under way, after which something may fall due.
    fn wait_for_answer(&mut self, now: Timestamp) {
        self.wait(now.checked_add(UNDER_WAY).ok());
    }
}

/// Decides about everything in `scope`, auctions what needs a place in one batch, and enters the writes into
/// the world. `new_guid` makes the guids of new runs.
pub fn plan(
    world: &mut World,
    scope: &Scope,
    rules: &Rules,
    now: Timestamp,
    new_guid: &mut dyn FnMut() -> String,
) -> Plan {
    let mut plan = Plan::default();
    let mut wanted = Vec::new();
    let (lrps, tasks, desired) = in_scope(world, scope);
    for key in desired {
        lrps::missing_indices(world, &key, &mut wanted);
    }
    let mut homes = homes::Homes::default();
    for key in lrps {
        let mut found = lrps::Found {
            plan: &mut plan,
            wanted: &mut wanted,
            homes: &mut homes,
        };
        lrps::decide(world, &key, now, new_guid, &mut found);
    }
    for key in tasks {
        tasks::decide(world, &key, rules, now, &mut plan, &mut wanted);
    }
    if !wanted.is_empty() {
        batch::auction(world, wanted, rules.auction, now, new_guid, &mut plan);
    }
    plan
}

fn in_scope(world: &World, scope: &Scope) -> (Vec<Key>, Vec<Key>, Vec<Key>) {
    match scope {
        Scope::Cell(name) => match world.load(name) {
            Some(load) => (
                load.lrps.iter().cloned().collect(),
                load.tasks.iter().cloned().collect(),
                Vec::new(),
            ),
            None => Default::default(),
        },
        Scope::Desired(key) => {
            let slots = world
                .slots(key)
                .into_iter()
                .flatten()
                .map(|index| key.instance(*index))
                .collect();
            (slots, Vec::new(), vec![key.clone()])
        }
        Scope::Task(key) => (Vec::new(), vec![key.clone()], Vec::new()),
        Scope::Waiting => {
            let (lrps, tasks) = world.waiting_work();
            (lrps, tasks, Vec::new())
        }
        Scope::All => {
            let mut lrps: Vec<Key> = world.all_lrps().map(|(key, _)| key.clone()).collect();
            let mut tasks: Vec<Key> = world.all_tasks().map(|(key, _)| key.clone()).collect();
            let mut desired: Vec<Key> = world.all_desired().map(|(key, _)| key.clone()).collect();
            lrps.sort();
            tasks.sort();
            desired.sort();
            (lrps, tasks, desired)
        }
    }
}
