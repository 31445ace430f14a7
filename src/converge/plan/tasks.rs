//! The part of a plan that is about Tasks.

use k8s_openapi::jiff::Timestamp;

use crate::api::TaskStatus;
use crate::converge::life::Life;
use crate::converge::lrp::{Keep, Place, StartReason};
use crate::converge::placement::Work;
use crate::converge::task;
use crate::converge::world::{Key, Version, World};

use super::batch::Wanted;
use super::{Plan, Rules, TaskChange, Write};

pub(super) fn decide(
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

/// Enters what the auction found for a Task, or why it found nothing.
pub(super) fn place(
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
