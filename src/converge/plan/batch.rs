//! The part of a plan that needs places: one batch for the auction.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use crate::converge::demand::Demand;
use crate::converge::life::Life;
use crate::converge::lrp::{Keep, Place, StartReason};
use crate::converge::placement::{Ask, Auction, Bidder, Work, order};
use crate::converge::world::{CellRecord, Key, Load, Version, World};

use super::{Plan, lrps, tasks};

/// Work that the auction has to find a place for.
pub(super) struct Wanted {
    pub(super) work: Work,
    pub(super) key: Key,
    pub(super) demand: Arc<Demand>,
    pub(super) reason: StartReason,
    pub(super) keep: Keep,
    /// The record it was decided on; `None` for an index that does not exist yet.
    pub(super) version: Option<Version>,
}

/// One batch: everything that needs a place, in the auction's order.
pub(super) fn auction(
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
    order(&mut asks);
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
            Work::Task(_) => tasks::place(world, wanted, place, now, plan),
            Work::Lrp { process, index } => {
                lrps::place(world, wanted, process, *index, place, now, plan)
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
    let idle = Load::default();
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
