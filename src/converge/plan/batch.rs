//! The part of a plan that needs places: one batch for the auction.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use crate::converge::cell::rests;
use crate::converge::demand::Demand;
use crate::converge::life::{self, Life};
use crate::converge::lrp::{Keep, Place, StartReason};
use crate::converge::placement::{Ask, Auction, Bidder, Ground, Knobs, Room, Work, says_the_same};
use crate::converge::world::{Asking, CellRecord, Foreign, Key, Load, World};

use super::{Plan, lrps, tasks};

/// Work that the auction has to find a place for.
pub(super) struct Wanted {
    pub(super) work: Work,
    pub(super) key: Key,
    pub(super) demand: Arc<Demand>,
    pub(super) reason: StartReason,
    pub(super) keep: Keep,
    /// Cells that gave it back.
    pub(super) avoid: Vec<String>,
}

impl Wanted {
    fn ask(&self) -> Ask<'_> {
        Ask {
            work: &self.work,
            demand: &self.demand,
            avoid: &self.avoid,
        }
    }
}

/// One batch: everything that needs a place, in the auction's order.
pub(super) fn auction(
    world: &mut World,
    mut wanted: Vec<Wanted>,
    knobs: Knobs,
    now: Timestamp,
    new_guid: &mut dyn FnMut() -> String,
    plan: &mut Plan,
) {
    wanted.sort_by(|a, b| a.ask().rank().cmp(&b.ask().rank()));
    let places = places(world, &wanted, knobs, now, new_guid);
    for (wanted, place) in wanted.iter().zip(places) {
        match &wanted.work {
            Work::Task(_) => tasks::place(world, wanted, place, now, plan),
            Work::Lrp { process, index } => {
                lrps::place(world, wanted, process, *index, place, now, plan)
            }
        }
    }
}

/// The place of each, or why there is none.
fn places(
    world: &World,
    wanted: &[Wanted],
    knobs: Knobs,
    now: Timestamp,
    new_guid: &mut dyn FnMut() -> String,
) -> Vec<Result<Place, String>> {
    let (bidders, starting) = bidders(world, now);
    let mut auction = Auction::new(bidders, starting, knobs);
    let asks = |one: &Wanted| !one.demand.pods.is_empty() && one.demand.scheduler.is_none();
    let asks = wanted.iter().any(asks);
    if asks || world.any_keeps_off() {
        let residents = world.residents(&asking(wanted));
        if asks || !residents.is_empty() {
            auction = auction.among(residents);
        }
    }
    wanted
        .iter()
        .map(|wanted| {
            let winner = auction
                .place(&wanted.ask(), || cells_of(world, &wanted.work))
                .map_err(|error| as_told_before(world, wanted, error))?;
            Ok(Place {
                cell: winner.cell.to_owned(),
                epoch: winner.epoch,
                guid: new_guid(),
            })
        })
        .collect()
}

/// What the auction places, as Pods see it, and what it asks of them: a process once, however many of its instances.
fn asking(wanted: &[Wanted]) -> Vec<Asking<'_>> {
    let mut known = HashSet::new();
    let placed = wanted.iter().filter(|one| one.demand.scheduler.is_none());
    let first = placed.filter(|one| match &one.work {
        Work::Lrp { process, .. } => known.insert(process),
        Work::Task(_) => true,
    });
    first
        .map(|one| Asking {
            likeness: one.ask().likeness(),
            needs: &one.demand.pods,
        })
        .collect()
}

/// `error` as the record has it already, where it differs in nothing but numbers: it is not written again for that.
fn as_told_before(world: &World, wanted: &Wanted, error: String) -> String {
    let told = match &wanted.work {
        Work::Lrp { .. } => world
            .lrp(&wanted.key)
            .and_then(|lrp| lrp.status.placement_error.as_ref()),
        Work::Task(_) => world
            .task(&wanted.key)
            .and_then(|task| task.status.rejection_reason.as_ref()),
    };
    match told {
        Some(told) if says_the_same(told, &error) => told.clone(),
        // Whoever follows the scheduler knows better why.
        Some(told) if wanted.demand.scheduler.is_some() => told.clone(),
        _ => error,
    }
}

/// Where the ordinary instances of a process are, for the spread.
fn cells_of<'a>(world: &'a World, work: &Work) -> Vec<&'a str> {
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
        .filter_map(|lrp| lrp.status.cell_name.as_deref())
        .collect()
}

/// The Cells that take part, with what they have taken on, and how many instances are starting on all Cells: on a
/// lost one nothing starts any more.
fn bidders(world: &World, now: Timestamp) -> (Vec<Bidder<'_>>, i64) {
    let idle = Load::default();
    let mut bidders = Vec::with_capacity(world.cells().len());
    let mut starting = 0;
    for (index, (name, cell)) in world.cells().iter().enumerate() {
        let load = world.load(name).unwrap_or(&idle);
        let life = life::of(Some(cell), cell.status.epoch.unwrap_or(0));
        if matches!(life, Life::Alive | Life::Draining) {
            starting += i64::from(load.starting);
        }
        if life == Life::Alive && !cell.version.deleting {
            let node = cell.node.as_ref().map(|node| world.foreign(&node.name));
            let foreign = node.unwrap_or_default();
            let mut bidder = bidder(world, index, name, cell, load, foreign);
            bidder.rests = rests(cell, now) || world.seems_gone(name);
            bidders.push(bidder);
        }
    }
    (bidders, starting)
}

/// A Cell with what is charged to it, and what is taken of its node beside that.
pub(super) fn bidder<'a>(
    world: &'a World,
    index: usize,
    name: &'a str,
    cell: &'a CellRecord,
    load: &Load,
    foreign: Foreign,
) -> Bidder<'a> {
    let node = cell.node.as_ref().map(|node| Ground {
        name: &node.name,
        standing: node.standing,
        record: world.node(&node.name),
    });
    let tasks = i32::try_from(load.tasks.len()).unwrap_or(i32::MAX);
    let mut room = Room {
        capacity: cell.capacity,
        counts_cpu: false,
        containers: cell.containers,
        used: load.resources,
        used_containers: load.containers,
        starting: load.starting,
        tasks,
    };
    if let Some(Ground {
        record: Some(record),
        ..
    }) = node
    {
        room = room.on_node(record, foreign);
    }
    Bidder {
        name,
        index,
        epoch: cell.status.epoch.unwrap_or_default(),
        zone: &cell.zone,
        executor: cell.executor,
        required_tags: &cell.required_tags,
        optional_tags: &cell.optional_tags,
        // Its rep may have begun anew and not said yet that it drains.
        cordoned: cell.unschedulable || cell.evacuate,
        rests: false,
        node,
        room,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;
    use crate::api::{CellState, CellStatus};
    use crate::converge::fixtures;

    #[test]
    fn a_cell_that_is_held_down_or_seems_gone_rests_and_is_not_cordoned() {
        let at = |second| Timestamp::from_second(second).expect("a time in range");
        let cell = CellRecord {
            status: CellStatus {
                state: Some(CellState::Present),
                held_down_until: Some(MicroTime(at(130))),
                ..CellStatus::default()
            },
            ..fixtures::cell()
        };
        let mut world = World::default();
        world.put_cell("a", cell);
        for (now, gone, expected) in [
            (100, false, true),
            (130, false, false),
            (130, true, true),
            (130, false, false),
        ] {
            match gone {
                true => world.mark_gone("a"),
                false => world.mark_alive("a"),
            }
            let (bidders, _) = bidders(&world, at(now));
            let found: Vec<_> = bidders
                .iter()
                .map(|one| (one.rests, one.cordoned))
                .collect();
            assert_eq!(found, [(expected, false)], "{now}");
        }
    }
}
