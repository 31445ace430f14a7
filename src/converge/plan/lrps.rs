//! The part of a plan that is about ActualLRPs.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;

use crate::api::{ActualLRPState, ActualLRPStatus};
use crate::converge::lrp::transition::{self, Verb};
use crate::converge::lrp::{self, Instance, Keep, StartReason};
use crate::converge::placement::Work;
use crate::converge::world::{Key, Lrp, Version, World};

use super::batch::Wanted;
use super::homes::Homes;
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
            avoid: Vec::new(),
        });
    }
}

/// What the plan has so far.
pub(super) struct Found<'a> {
    pub(super) plan: &'a mut Plan,
    pub(super) wanted: &'a mut Vec<Wanted>,
    pub(super) homes: &'a mut Homes,
}

pub(super) fn decide(
    world: &mut World,
    key: &Key,
    now: Timestamp,
    new_guid: &mut dyn FnMut() -> String,
    found: &mut Found<'_>,
) {
    let Found {
        plan,
        wanted,
        homes,
    } = found;
    if world.lrp_in_flight(key) {
        return plan.wait_for_answer(now);
    }
    let Some(lrp) = world.lrp(key) else { return };
    let process = Key::new(&*key.namespace, &*lrp.process);
    let desired = world.desired(&process);
    let life = |cell: &str, epoch: Option<i64>| world.life(cell, epoch);
    let mut act = lrp::decide(
        lrp,
        desired,
        &life,
        &|cell| world.remains_of(key, cell),
        now,
    );
    if let lrp::Act::RestartHere { .. } = act
        && let Some(cell) = &lrp.status.cell_name
        && let Some(Ok(demand)) = desired.map(|desired| &desired.demand)
        && !homes.take_back(world, cell, demand)
    {
        act = lrp::Act::Place {
            reason: StartReason::MissingInstance,
            keep: Keep::Nothing,
        };
    }
    note_unknown_cells(world, &lrp.status, plan);
    let (verb, change) = match act {
        lrp::Act::Wait(until) => return plan.wait(until),
        lrp::Act::HoldBack {
            reason,
            error,
            until,
        } => {
            plan.wait(until);
            let keep = match lrp.status.state {
                ActualLRPState::Claimed | ActualLRPState::Running => Keep::Suspect,
                ActualLRPState::Unclaimed | ActualLRPState::Crashed => Keep::Nothing,
            };
            let verb = Verb::Place {
                reason,
                keep,
                place: Err(error.clone()),
            };
            (verb, LrpChange::Waiting { reason, error })
        }
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
                    avoid: lrp.status.rejected_by.clone(),
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
            let place = Instance {
                cell: cell.clone(),
                epoch,
                guid: new_guid(),
            };
            let verb = Verb::Place {
                reason: StartReason::MissingInstance,
                keep: Keep::Nothing,
                place: Ok(place),
            };
            (verb, LrpChange::RestartedHere { cell })
        }
        lrp::Act::Promote => {
            let cell = suspect_cell(&lrp.status);
            let epoch = world
                .cells()
                .get(&cell)
                .and_then(|cell| cell.status.epoch)
                .unwrap_or_default();
            (Verb::Promote { epoch }, LrpChange::Promoted { cell })
        }
        lrp::Act::EvacuateSuspect => {
            let cell = suspect_cell(&lrp.status);
            (Verb::EvacuateSuspect, LrpChange::SuspectEvacuated { cell })
        }
        lrp::Act::DropSuspect => (Verb::RemoveSuspect, LrpChange::SuspectDropped),
        lrp::Act::DropEvacuating => (Verb::RemoveEvacuating, LrpChange::EvacuatingDropped),
    };
    write(world, key, &verb, change, now, plan);
}

/// Plans one change, unless it is not allowed.
fn write(
    world: &mut World,
    key: &Key,
    verb: &Verb,
    change: LrpChange,
    now: Timestamp,
    plan: &mut Plan,
) {
    let Some(lrp) = world.lrp(key) else { return };
    let to = match transition::apply(&lrp.status, verb, now) {
        Ok(to) => to,
        Err(refusal) => return plan.refused.push((key.clone(), refusal.to_string())),
    };
    // Nothing new to say about an instance that waits already: no write, no hot loop.
    if to == lrp.status {
        return;
    }
    plan.writes.push(Write::LrpStatus {
        key: key.clone(),
        version: lrp.version.clone(),
        from: Box::new(lrp.status.clone()),
        to: Box::new(to.clone()),
        change,
    });
    world.plan_lrp(key, to);
}

fn suspect_cell(status: &ActualLRPStatus) -> String {
    let suspect = status.suspect.as_ref();
    suspect
        .map(|suspect| suspect.cell_name.clone())
        .unwrap_or_default()
}

fn note_unknown_cells(world: &World, status: &ActualLRPStatus, plan: &mut Plan) {
    for one in status
        .named()
        .filter(|one| world.is_unknown(one.cell, one.epoch))
    {
        plan.unknown_cells.insert(one.cell.to_owned());
    }
}

/// Enters what the auction found for an instance, or why it found nothing.
pub(super) fn place(
    world: &mut World,
    wanted: &Wanted,
    process: &Key,
    index: i32,
    place: Result<Instance, String>,
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
    let verb = Verb::Place {
        reason: wanted.reason,
        keep: wanted.keep,
        place,
    };
    if world.lrp(&wanted.key).is_some() {
        return write(world, &wanted.key, &verb, change, now, plan);
    }
    let Some(desired) = world.desired(process) else {
        return;
    };
    let status = match transition::apply(&ActualLRPStatus::default(), &verb, now) {
        Ok(status) => status,
        Err(refusal) => return plan.refused.push((wanted.key.clone(), refusal.to_string())),
    };
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
    world.plan_new_lrp(&wanted.key, record);
}
