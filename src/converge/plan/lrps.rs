//! The part of a plan that is about ActualLRPs.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;

use crate::api::{ActualLRPState, ActualLRPStatus};
use crate::converge::life::Life;
use crate::converge::lrp::{self, Keep, Place, StartReason};
use crate::converge::placement::Work;
use crate::converge::world::{Key, Lrp, Version, World};

use super::batch::Wanted;
use super::{LrpChange, Plan, Write};

/// Index *sets* are compared, not counts: with 3 desired and {0, 1, 5} there, 2 is made and 5 removed.
pub(super) fn missing_indices(world: &World, key: &Key, wanted: &mut Vec<Wanted>) {
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

pub(super) fn decide(
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

/// Enters what the auction found for an instance, or why it found nothing.
pub(super) fn place(
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
