//! The part of a plan that is about Tasks.

use k8s_openapi::jiff::Timestamp;

use crate::converge::lrp::{Keep, Place, StartReason};
use crate::converge::placement::Work;
use crate::converge::task::transition::{self, Verb};
use crate::converge::task::{self, Act, DeleteReason, Facts, Limits, Settled, Settlement};
use crate::converge::world::{Key, World};

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
        return plan.wait_for_answer(now);
    }
    let Some(task) = world.task(key) else { return };
    if let Some(cell) = &task.status.cell_name
        && world.is_unknown(cell, task.status.cell_epoch)
    {
        plan.unknown_cells.insert(cell.clone());
    }
    let life = |cell: &str, epoch| world.life(cell, epoch);
    let facts = Facts {
        life: &life,
        kept: (task.status.cell_name.as_deref()).is_some_and(|cell| world.keeps_tasks_of(cell)),
        delivering: world.is_delivering(key),
    };
    match task::decide(task, &facts, &rules.tasks, now) {
        Act::Wait(until) => plan.wait(until),
        Act::Place => {
            if let Ok(demand) = &task.demand {
                wanted.push(Wanted {
                    work: Work::Task(key.clone()),
                    key: key.clone(),
                    demand: demand.clone(),
                    reason: StartReason::MissingInstance,
                    keep: Keep::Nothing,
                    avoid: task.status.rejected_by.clone(),
                });
            }
        }
        Act::Fail { kind, reason } => {
            let verb = Verb::Fail {
                kind,
                reason: reason.clone(),
            };
            let change = TaskChange::Failed { kind, reason };
            write(world, key, &verb, change, now, plan);
        }
        Act::Deliver => {
            plan.callbacks.insert(key.clone());
        }
        Act::Demote => write(world, key, &Verb::Demote, TaskChange::Demoted, now, plan),
        Act::Delete(reason) => plan.writes.extend(delete(world, key, reason)),
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
    let change = match &place {
        Ok(place) => TaskChange::Placed {
            cell: place.cell.clone(),
        },
        Err(error) => TaskChange::Waiting {
            error: error.clone(),
        },
    };
    write(
        world,
        &wanted.key,
        &Verb::Place { place },
        change,
        now,
        plan,
    );
}

/// The write that makes this process the owner of this very Task's callback. `None` when that is not due, or not any
/// more: whoever asks has waited since it was.
pub fn resolve(
    world: &mut World,
    key: &Key,
    uid: &str,
    limits: &Limits,
    now: Timestamp,
) -> Option<Write> {
    let task = world.task(key).filter(|task| task.version.uid == uid)?;
    let life = |cell: &str, epoch| world.life(cell, epoch);
    let facts = Facts {
        life: &life,
        kept: false,
        delivering: false,
    };
    let due = task::decide(task, &facts, limits, now) == Act::Deliver;
    if !due || world.task_in_flight(key) {
        return None;
    }
    let mut plan = Plan::default();
    let change = TaskChange::Resolving;
    write(world, key, &Verb::Resolve, change, now, &mut plan);
    plan.writes.pop()
}

/// The write that says how the callback of this very Task was settled. `None` when there is nothing left to say.
pub fn settle(
    world: &mut World,
    key: &Key,
    uid: &str,
    how: &Settlement,
    now: Timestamp,
) -> Option<Write> {
    let task = world.task(key).filter(|task| task.version.uid == uid)?;
    if task::settled(task, how) == Settled::Delete {
        return delete(world, key, DeleteReason::CallbackAnswered);
    }
    let mut plan = Plan::default();
    let verb = Verb::Settle { how: how.clone() };
    write(world, key, &verb, TaskChange::Settled, now, &mut plan);
    plan.writes.pop()
}

/// The write that deletes this very Task at its age, when its callback was settled and that can't be written.
pub fn expire(world: &mut World, key: &Key, uid: &str) -> Option<Write> {
    world.task(key).filter(|task| task.version.uid == uid)?;
    delete(world, key, DeleteReason::Expired)
}

/// Plans what `verb` makes of the Task, if that is allowed and anything new.
fn write(
    world: &mut World,
    key: &Key,
    verb: &Verb,
    change: TaskChange,
    now: Timestamp,
    plan: &mut Plan,
) {
    let Some(task) = world.task(key) else { return };
    let to = match transition::apply(&task.status, verb, task.version.generation, now) {
        Ok(to) => to,
        Err(refusal) => {
            plan.refused.push((key.clone(), refusal.to_string()));
            return;
        }
    };
    if to == task.status {
        return;
    }
    plan.writes.push(Write::TaskStatus {
        key: key.clone(),
        version: task.version.clone(),
        from: Box::new(task.status.clone()),
        to: Box::new(to.clone()),
        change,
    });
    world.plan_task(key, to);
}

fn delete(world: &mut World, key: &Key, reason: DeleteReason) -> Option<Write> {
    let version = world.task(key)?.version.clone();
    world.plan_task_removal(key);
    Some(Write::DeleteTask {
        key: key.clone(),
        version,
        reason,
    })
}

#[cfg(test)]
mod tests;
