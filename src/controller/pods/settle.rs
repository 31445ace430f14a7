//! One look at a record and its Pods: step after step, until there is nothing to do, a call fails, or somebody else
//! writes the record.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::{Timestamp, Unit};
use kube::runtime::reflector::ObjectRef;

use super::calls::Make;
use super::{Templates, calls, tell};
use crate::api::{ExecutorKind, MissingCellPolicy};
use crate::client::CallError;
use crate::controller::context::Context;
use crate::controller::execute;
use crate::converge::life::Life;
use crate::converge::lrp::{belongs, transition as lrp};
use crate::converge::plan::{LrpChange, TaskChange, Write};
use crate::converge::pods::{Facts, Fresh, Local, Record, Step, WorkKey, WorkKind, decide};
use crate::converge::task::transition as task;
use crate::converge::world::{Key, World};

/// A record needs about six steps from its placement to its end; more in one look is something new all the time.
const STEPS: usize = 20;

/// What came of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All is done that can be; time alone changes that then.
    Settled(Option<Timestamp>),
    /// A call failed on this version of the record: again after a pause.
    Again(Option<u64>),
    /// It came to no end: again after a pause.
    Panicked,
}

/// What a look found.
enum Found {
    Step(Step),
    /// A write that is entered into the world already.
    Write(Box<Write>, Box<Step>),
}

/// Brings a record and its Pods together. `failures` is how many looks before this one failed in a row.
pub(super) async fn settle(
    context: Arc<Context>,
    templates: Templates,
    work: WorkKey,
    failures: u32,
) -> Outcome {
    let mut fresh = Fresh::default();
    for _ in 0..STEPS {
        if !context.leading() {
            return Outcome::Settled(None);
        }
        let (seen, found) = look(&context, &templates, &work, &fresh);
        let result = match found {
            Found::Step(Step::Wait(due)) => return Outcome::Settled(due),
            Found::Step(Step::ReadRecord) => {
                fresh.record = true;
                calls::read_record(&context, &work).await
            }
            Found::Step(Step::ReadPod(guid)) => {
                let result = calls::read_pod(&context, &work, &guid).await;
                fresh.pods.insert(guid);
                result.map(drop)
            }
            Found::Step(step) => {
                fresh = Fresh::default();
                act(&context, &templates, &work, step).await
            }
            Found::Write(write, step) => {
                fresh = Fresh::default();
                let result = execute::write_one(&context, &context.pods.lane, &write).await;
                match result {
                    Ok(()) => {
                        tell::said(&context, &work, &step);
                        Ok(())
                    }
                    // Somebody was faster: what is stored is known by now.
                    Err(error) if error.is_conflict() || error.is_not_found() => Ok(()),
                    Err(error) => Err(error),
                }
            }
        };
        if let Err(error) = result {
            return match tell::failed(&context, &work, &error, failures) {
                true => Outcome::Again(seen),
                false => Outcome::Settled(None),
            };
        }
    }
    // It was this look itself that brought the last version.
    Outcome::Again(context.world(|world| version(world, &work)))
}

/// Which version of the record is known.
pub(super) fn version(world: &World, work: &WorkKey) -> Option<u64> {
    match work.kind {
        WorkKind::Lrp => world.lrp(&work.key).map(|lrp| lrp.version.revision),
        WorkKind::Task => world.task(&work.key).map(|task| task.version.revision),
    }
}

/// Decides, and enters a write into the world in the same instant. Returns also on which version of the record.
fn look(
    context: &Context,
    templates: &Templates,
    work: &WorkKey,
    fresh: &Fresh,
) -> (Option<u64>, Found) {
    let start_timeout = start_timeout(context, templates, work);
    // As precise as what is stored, so that the answer of a write says nothing new.
    let now = Timestamp::now();
    let now = now.round(Unit::Microsecond).unwrap_or(now);
    context.world(|world| {
        let version = version(world, work);
        let in_flight = match work.kind {
            WorkKind::Lrp => world.lrp_in_flight(&work.key),
            WorkKind::Task => world.task_in_flight(&work.key),
        };
        // Its answer wakes.
        if in_flight {
            return (version, Found::Step(Step::Wait(None)));
        }
        let scheduler = scheduler(world, work);
        // A Task has one run, and so one Pod, whoever makes it and however often.
        let new_guid = match (work.kind, world.task(&work.key)) {
            (WorkKind::Task, Some(task)) => task.version.uid.clone(),
            _ => uuid::Uuid::new_v4().to_string(),
        };
        let step = context.pods.index(|index| {
            let none = BTreeMap::new();
            decide(&Facts {
                work,
                record: record(world, work),
                pods: &index.of(work),
                local: index.local(work).unwrap_or(&none),
                life: &|cell, epoch| world.life(cell, epoch),
                epoch: &|cell| {
                    let cell = world.cells().get(cell)?;
                    let epoch = cell.status.epoch?;
                    (cell.executor == ExecutorKind::Pods).then_some(epoch)
                },
                start_timeout,
                strict: is_strict(world, work),
                scheduler,
                cell_of: &|node| cell_of(world, node),
                is_elsewhere: &|cell, node| {
                    let known = world.cells().get(cell).and_then(|cell| cell.node.as_ref());
                    known.is_some_and(|known| known.name != node)
                },
                new_guid: &new_guid,
                fresh,
                now,
            })
        });
        let write = match &step {
            Step::Lrp { verb, done, .. } => plan_lrp(world, work, verb, done, now),
            Step::Task { verb, done, .. } => plan_task(world, work, verb, done, now),
            _ => return (version, Found::Step(step)),
        };
        let found = match write {
            Some(write) => Found::Write(Box::new(write), Box::new(step)),
            None => Found::Step(Step::Wait(None)),
        };
        (version, found)
    })
}

/// The scheduler that the placement of a record is left to, while there is somebody who wants it placed.
fn scheduler<'a>(world: &'a World, work: &WorkKey) -> Option<&'a str> {
    let demand = match work.kind {
        WorkKind::Lrp => {
            let lrp = world.lrp(&work.key)?;
            let process = Key::new(&*work.key.namespace, &*lrp.process);
            let desired = world.desired(&process)?;
            let is_ours = belongs(lrp, &desired.version.uid);
            let wanted = is_ours && !desired.version.deleting && lrp.index < desired.instances;
            desired.demand.as_ref().ok().filter(|_| wanted)
        }
        WorkKind::Task => world.task(&work.key)?.demand.as_ref().ok(),
    };
    demand?.scheduler.as_deref()
}

/// The Cell that a node is, and its epoch; one that is alive before one that has left its name behind.
fn cell_of(world: &World, node: &str) -> Option<(String, i64)> {
    let cells = world.cells_of_node(node);
    let of_pods = cells.filter(|(_, cell)| cell.executor == ExecutorKind::Pods);
    let known = of_pods.filter_map(|(name, cell)| Some((name, cell.status.epoch?)));
    let closed = |(name, epoch): &(&String, i64)| world.life(name, Some(*epoch)) != Life::Alive;
    let (name, epoch) = known.min_by_key(closed)?;
    Some((name.clone(), epoch))
}

fn record<'a>(world: &'a World, work: &WorkKey) -> Record<'a> {
    match work.kind {
        WorkKind::Lrp => world.lrp(&work.key).map_or(Record::None, Record::Lrp),
        WorkKind::Task => world.task(&work.key).map_or(Record::None, Record::Task),
    }
}

/// The status to write; `None` where it is refused, or there already.
fn changed<T: PartialEq>(
    work: &WorkKey,
    from: &T,
    to: Result<T, impl std::fmt::Display>,
) -> Option<T> {
    let told =
        |refusal: &_| tracing::warn!(record = %work, %refusal, "not written: please report this");
    to.inspect_err(told).ok().filter(|to| to != from)
}

fn plan_lrp(
    world: &mut World,
    work: &WorkKey,
    verb: &lrp::Verb,
    done: &'static str,
    now: Timestamp,
) -> Option<Write> {
    let known = world.lrp(&work.key)?;
    let to = changed(work, &known.status, lrp::apply(&known.status, verb, now))?;
    let write = Write::LrpStatus {
        key: work.key.clone(),
        version: known.version.clone(),
        from: Box::new(known.status.clone()),
        to: Box::new(to.clone()),
        change: LrpChange::Told { done },
    };
    world.plan_lrp(&work.key, to);
    Some(write)
}

fn plan_task(
    world: &mut World,
    work: &WorkKey,
    verb: &task::Verb,
    done: &'static str,
    now: Timestamp,
) -> Option<Write> {
    let known = world.task(&work.key)?;
    let to = changed(
        work,
        &known.status,
        task::apply(&known.status, verb, known.version.generation, now),
    )?;
    let write = Write::TaskStatus {
        key: work.key.clone(),
        version: known.version.clone(),
        from: Box::new(known.status.clone()),
        to: Box::new(to.clone()),
        change: TaskChange::Told { done },
    };
    world.plan_task(&work.key, to);
    Some(write)
}

async fn act(
    context: &Arc<Context>,
    templates: &Templates,
    work: &WorkKey,
    step: Step,
) -> Result<(), CallError> {
    let pods = &context.pods;
    match step {
        Step::SetAside(guid) => pods.index(|index| index.hold(work, &guid, Local::SetAside)),
        Step::NoteCrash { guid, words } => {
            pods.index(|index| index.hold(work, &guid, Local::Crashed(words)));
        }
        Step::Forget(guid) => pods.index(|index| index.release(work, &guid)),
        Step::Pause(until) => pods.index(|index| index.hold_slot(work, until)),
        Step::Try(run) => return calls::make(context, templates, work, Make::Try(&run)).await,
        Step::Create(run) => {
            return calls::make(context, templates, work, Make::Create(&run)).await;
        }
        Step::CreateUnbound(guid) => {
            return calls::make(context, templates, work, Make::Unbound(&guid)).await;
        }
        Step::Delete { guid, force, why } => {
            return calls::delete(context, work, &guid, force, why).await;
        }
        Step::Wait(_)
        | Step::ReadRecord
        | Step::ReadPod(_)
        | Step::Lrp { .. }
        | Step::Task { .. } => {}
    }
    Ok(())
}

/// Whether an instance of this record must not run twice.
fn is_strict(world: &World, work: &WorkKey) -> bool {
    let process = match work.kind {
        WorkKind::Lrp => world.lrp(&work.key).map(|lrp| &lrp.process),
        WorkKind::Task => None,
    };
    let desired = process.map(|process| Key::new(&*work.key.namespace, &**process));
    desired
        .and_then(|key| world.desired(&key))
        .is_some_and(|desired| desired.policy == MissingCellPolicy::Strict)
}

/// The start time-out of the DesiredLRP, as far as that is the one the record belongs to.
fn start_timeout(context: &Context, templates: &Templates, work: &WorkKey) -> Option<i32> {
    if work.kind != WorkKind::Lrp {
        return None;
    }
    let process = context.world(|world| {
        let lrp = world.lrp(&work.key)?;
        Some(Key::new(&*work.key.namespace, &*lrp.process))
    })?;
    let name = ObjectRef::new(&process.name).within(&process.namespace);
    let desired = templates.desired.get(&name)?;
    Some(desired.spec.start_timeout_seconds)
}
