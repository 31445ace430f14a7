//! From the world to a plan: which writes bring what is there closer to what is wanted.
//!
//! A plan enters its writes into the world at once, as if they had succeeded; whoever executes it settles
//! every one with the answer. So plans made meanwhile see each other's placements and never repeat them.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::{ActualLRPState, ActualLRPStatus, TaskStatus};

use super::demand::Demand;
use super::life::Life;
use super::lrp::{self, Keep, Place, StartReason};
use super::placement::{Ask, Auction, Bidder, Work};
use super::task::{self, FailureKind};
use super::world::{CellRecord, Key, Lrp, Version, World};

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything on one Cell: the reaction to its loss, return or evacuation.
    Cell(String),
    /// One DesiredLRP and all its indices.
    Desired(Key),
    /// One Task.
    Task(Key),
    /// Everything.
    All,
}

/// The knobs of the rules.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// A Task that found no Cell for so long fails.
    pub expire_pending_task: SignedDuration,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            expire_pending_task: SignedDuration::from_secs(1800),
        }
    }
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
    /// The suspect is dropped.
    SuspectDropped,
    /// The evacuating instance is dropped.
    EvacuatingDropped,
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
}

/// What to write, in this order, and when to look again.
#[derive(Debug, Default)]
pub struct Plan {
    /// The writes, in the order of the auction.
    pub writes: Vec<Write>,
    /// The earliest time at which something falls due that no event announces.
    pub recheck: Option<Timestamp>,
    /// Cells that records name and that have no object: their presence must be read before anything is done.
    pub unknown_cells: BTreeSet<String>,
}

impl Plan {
    fn wait(&mut self, until: Option<Timestamp>) {
        self.recheck = match (self.recheck, until) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

/// Work that the auction has to find a place for.
struct Wanted {
    work: Work,
    key: Key,
    demand: Arc<Demand>,
    reason: StartReason,
    keep: Keep,
    /// The record it was decided on; `None` for an index that does not exist yet.
    version: Option<Version>,
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
        missing_indices(world, &key, &mut wanted);
    }
    for key in lrps {
        decide_lrp(world, &key, now, new_guid, &mut plan, &mut wanted);
    }
    for key in tasks {
        decide_task(world, &key, rules, now, &mut plan, &mut wanted);
    }
    if !wanted.is_empty() {
        auction(world, wanted, now, new_guid, &mut plan);
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

/// Index *sets* are compared, not counts: with 3 desired and {0, 1, 5} there, 2 is made and 5 removed.
fn missing_indices(world: &World, key: &Key, wanted: &mut Vec<Wanted>) {
    let Some(desired) = world.desired(key) else {
        return;
    };
    let (false, Ok(demand)) = (desired.version.deleting, &desired.demand) else {
        return;
    };
    let empty = BTreeSet::new();
    let slots = world.slots(key).unwrap_or(&empty);
    for index in (0..desired.instances).filter(|index| !slots.contains(index)) {
        wanted.push(Wanted {
            work: Work::Lrp {
                process: key.clone(),
                index,
            },
            key: key.instance(index),
            demand: demand.clone(),
            reason: StartReason::MissingInstance,
            keep: Keep::Nothing,
            version: None,
        });
    }
}

fn decide_lrp(
    world: &mut World,
    key: &Key,
    now: Timestamp,
    new_guid: &mut dyn FnMut() -> String,
    plan: &mut Plan,
    wanted: &mut Vec<Wanted>,
) {
    if world.lrp_in_flight(key) {
        return;
    }
    let Some(lrp) = world.lrp(key) else { return };
    let process = Key::new(&*key.namespace, &*lrp.process);
    let desired = world.desired(&process);
    let act = lrp::decide(lrp, desired, &|cell, epoch| world.life(cell, epoch), now);
    note_unknown_cells(world, &lrp.status, plan);
    let write = |to: ActualLRPStatus, change: LrpChange| Write::LrpStatus {
        key: key.clone(),
        version: lrp.version.clone(),
        from: Box::new(lrp.status.clone()),
        to: Box::new(to),
        change,
    };
    let (write, to) = match act {
        lrp::Act::Wait(until) => return plan.wait(until),
        lrp::Act::Place { reason, keep } => {
            if let Some(demand) = desired.and_then(|desired| desired.demand.as_ref().ok()) {
                wanted.push(Wanted {
                    work: Work::Lrp {
                        process,
                        index: lrp.index,
                    },
                    key: key.clone(),
                    demand: demand.clone(),
                    reason,
                    keep,
                    version: Some(lrp.version.clone()),
                });
            }
            return;
        }
        lrp::Act::Remove => {
            let orphan_of = desired.is_none().then_some(process);
            plan.writes.push(Write::DeleteLrp {
                key: key.clone(),
                version: lrp.version.clone(),
                orphan_of,
            });
            return world.plan_lrp_removal(key);
        }
        lrp::Act::RestartHere { epoch } => {
            let cell = lrp.status.cell_name.clone().unwrap_or_default();
            let place = Place {
                cell: cell.clone(),
                epoch,
                guid: new_guid(),
            };
            let to = lrp::place(
                &lrp.status,
                StartReason::MissingInstance,
                Keep::Nothing,
                Ok(place),
                now,
            );
            (write(to.clone(), LrpChange::RestartedHere { cell }), to)
        }
        lrp::Act::Promote => {
            let cell = lrp
                .status
                .suspect
                .as_ref()
                .map(|suspect| suspect.cell_name.clone())
                .unwrap_or_default();
            let epoch = world
                .cells()
                .get(&cell)
                .and_then(|cell| cell.status.epoch)
                .unwrap_or_default();
            let to = lrp::promote(&lrp.status, epoch, now);
            (write(to.clone(), LrpChange::Promoted { cell }), to)
        }
        lrp::Act::DropSuspect => {
            let to = ActualLRPStatus {
                suspect: None,
                ..lrp.status.clone()
            };
            (write(to.clone(), LrpChange::SuspectDropped), to)
        }
        lrp::Act::DropEvacuating => {
            let to = ActualLRPStatus {
                evacuating: None,
                ..lrp.status.clone()
            };
            (write(to.clone(), LrpChange::EvacuatingDropped), to)
        }
    };
    plan.writes.push(write);
    world.plan_lrp(key, to);
}

fn note_unknown_cells(world: &World, status: &ActualLRPStatus, plan: &mut Plan) {
    let named = [
        status.cell_name.as_deref(),
        status
            .suspect
            .as_ref()
            .map(|suspect| suspect.cell_name.as_str()),
        status
            .evacuating
            .as_ref()
            .map(|evacuating| evacuating.cell_name.as_str()),
    ];
    for cell in named.into_iter().flatten() {
        if !world.cells().contains_key(cell) && world.life(cell, None) == Life::Unknown {
            plan.unknown_cells.insert(cell.to_owned());
        }
    }
}

fn decide_task(
    world: &mut World,
    key: &Key,
    rules: &Rules,
    now: Timestamp,
    plan: &mut Plan,
    wanted: &mut Vec<Wanted>,
) {
    if world.task_in_flight(key) {
        return;
    }
    let Some(task) = world.task(key) else { return };
    if let Some(cell) = &task.status.cell_name
        && !world.cells().contains_key(cell)
        && world.life(cell, None) == Life::Unknown
    {
        plan.unknown_cells.insert(cell.clone());
    }
    match task::decide(
        task,
        &|cell, epoch| world.life(cell, epoch),
        rules.expire_pending_task,
        now,
    ) {
        task::Act::Wait(until) => plan.wait(until),
        task::Act::Place => {
            if let Ok(demand) = &task.demand {
                wanted.push(Wanted {
                    work: Work::Task(key.clone()),
                    key: key.clone(),
                    demand: demand.clone(),
                    reason: StartReason::MissingInstance,
                    keep: Keep::Nothing,
                    version: Some(task.version.clone()),
                });
            }
        }
        task::Act::Fail { kind, reason } => {
            let to = task::fail(&task.status, kind, &reason, task.version.generation, now);
            let change = TaskChange::Failed { kind, reason };
            plan.writes.push(task_write(
                key,
                task.version.clone(),
                &task.status,
                &to,
                change,
            ));
            world.plan_task(key, to);
        }
    }
}

fn task_write(
    key: &Key,
    version: Version,
    from: &TaskStatus,
    to: &TaskStatus,
    change: TaskChange,
) -> Write {
    Write::TaskStatus {
        key: key.clone(),
        version,
        from: Box::new(from.clone()),
        to: Box::new(to.clone()),
        change,
    }
}

/// One batch: everything that needs a place, in the auction's order.
fn auction(
    world: &mut World,
    wanted: Vec<Wanted>,
    now: Timestamp,
    new_guid: &mut dyn FnMut() -> String,
    plan: &mut Plan,
) {
    let mut auction = Auction::new(bidders(world));
    let mut asks: Vec<Ask<'_>> = wanted
        .iter()
        .map(|wanted| Ask {
            work: wanted.work.clone(),
            demand: &wanted.demand,
        })
        .collect();
    super::placement::order(&mut asks);
    let by_key: std::collections::HashMap<(bool, &Key), &Wanted> = wanted
        .iter()
        .map(|wanted| ((matches!(wanted.work, Work::Task(_)), &wanted.key), wanted))
        .collect();
    for ask in &asks {
        let (is_task, key) = match &ask.work {
            Work::Lrp { process, index } => (false, process.instance(*index)),
            Work::Task(key) => (true, key.clone()),
        };
        let wanted = by_key[&(is_task, &key)];
        let place = auction
            .place(ask, || cells_of(world, &ask.work))
            .map(|(cell, epoch)| Place {
                cell,
                epoch,
                guid: new_guid(),
            });
        match &ask.work {
            Work::Task(_) => place_task(world, wanted, place, now, plan),
            Work::Lrp { process, index } => {
                place_lrp(world, wanted, process, *index, place, now, plan)
            }
        }
    }
}

/// Where the ordinary instances of a process are, for the spread.
fn cells_of(world: &World, work: &Work) -> Vec<String> {
    let Work::Lrp {
        process,
        index: own,
    } = work
    else {
        return Vec::new();
    };
    world
        .slots(process)
        .into_iter()
        .flatten()
        .filter(|index| *index != own)
        .filter_map(|index| world.lrp(&process.instance(*index)))
        .filter_map(|lrp| lrp.status.cell_name.clone())
        .collect()
}

fn place_task(
    world: &mut World,
    wanted: &Wanted,
    place: Result<Place, String>,
    now: Timestamp,
    plan: &mut Plan,
) {
    let (Some(task), Some(version)) = (world.task(&wanted.key), &wanted.version) else {
        return;
    };
    let change = match &place {
        Ok(place) => TaskChange::Placed {
            cell: place.cell.clone(),
        },
        Err(error) => TaskChange::Waiting {
            error: error.clone(),
        },
    };
    let to = task::place(&task.status, place, task.version.generation, now);
    if to == task.status {
        return;
    }
    plan.writes.push(task_write(
        &wanted.key,
        version.clone(),
        &task.status,
        &to,
        change,
    ));
    world.plan_task(&wanted.key, to);
}

fn place_lrp(
    world: &mut World,
    wanted: &Wanted,
    process: &Key,
    index: i32,
    place: Result<Place, String>,
    now: Timestamp,
    plan: &mut Plan,
) {
    let change = match &place {
        Ok(place) => LrpChange::Placed {
            reason: wanted.reason,
            cell: place.cell.clone(),
        },
        Err(error) => LrpChange::Waiting {
            reason: wanted.reason,
            error: error.clone(),
        },
    };
    let Some(version) = &wanted.version else {
        let Some(desired) = world.desired(process) else {
            return;
        };
        let status = lrp::place(
            &ActualLRPStatus::default(),
            wanted.reason,
            Keep::Nothing,
            place,
            now,
        );
        let (owner, domain) = (desired.version.uid.clone(), desired.domain.clone());
        plan.writes.push(Write::CreateLrp {
            key: wanted.key.clone(),
            desired: process.clone(),
            owner: owner.clone(),
            index,
            domain,
            status: Box::new(status.clone()),
            change,
        });
        let record = Lrp {
            version: Version::default(),
            process: process.name.clone(),
            index,
            owner: Some(owner),
            status,
        };
        return world.plan_new_lrp(&wanted.key, record);
    };
    let Some(lrp) = world.lrp(&wanted.key) else {
        return;
    };
    // Nothing new to say about an instance that waits already: no write, no hot loop.
    let waits = lrp.status.state == ActualLRPState::Unclaimed && lrp.status.cell_name.is_none();
    let to = lrp::place(&lrp.status, wanted.reason, wanted.keep, place, now);
    if waits && to == lrp.status {
        return;
    }
    plan.writes.push(Write::LrpStatus {
        key: wanted.key.clone(),
        version: version.clone(),
        from: Box::new(lrp.status.clone()),
        to: Box::new(to.clone()),
        change,
    });
    world.plan_lrp(&wanted.key, to);
}

/// The Cells that may be given work, with what they have taken on.
fn bidders(world: &World) -> Vec<Bidder> {
    world
        .cells()
        .iter()
        .filter_map(|(name, cell)| bidder(world, name, cell))
        .collect()
}

fn bidder(world: &World, name: &str, cell: &CellRecord) -> Option<Bidder> {
    let epoch = cell.status.epoch?;
    if cell.unschedulable || cell.version.deleting || world.life(name, Some(epoch)) != Life::Alive {
        return None;
    }
    let idle = super::world::Load::default();
    let load = world.load(name).unwrap_or(&idle);
    Some(Bidder {
        name: name.to_owned(),
        epoch,
        zone: cell.zone.clone(),
        executor: cell.executor,
        required_tags: cell.required_tags.clone(),
        optional_tags: cell.optional_tags.clone(),
        capacity: cell.capacity,
        containers: cell.containers,
        used: load.resources,
        used_containers: load.containers,
        starting: load.starting,
        tasks: i32::try_from(load.tasks.len()).unwrap_or(i32::MAX),
    })
}
