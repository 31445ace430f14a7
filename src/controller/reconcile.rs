//! The reconcilers of Cell, DesiredLRP and Task: woken by changes, and for every object once per interval.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, Patch};
use kube::runtime::controller::Action;

use crate::api::{Cell, CellState, DesiredLRP, Task};
use crate::client::{CallError, bounded};
use crate::converge::cell::{self, Observation, Source, Verdict};
use crate::converge::hold_down;
use crate::converge::plan::Scope;
use crate::converge::status;
use crate::converge::world::CellRecord;
use crate::metrics::{ControllerLabel, ResultLabel};
use crate::presence::{Presence, PresencePhase, StoreError};

use super::context::Context;
use super::convert::key;
use super::events::reference;
use super::execute::{Tally, converge, params};
use super::forget::forget;
use super::guard;
use super::ledger;
use super::recovery::{Loss, recover};
use super::runs::{self, Look, Object, guarded};
use crate::patch::status_patch;
use crate::sync::locked;

/// While the watch is heard it gets this long to tell of a loss itself before the resync acts.
const WATCH_FIRST: Duration = Duration::from_secs(1);

/// Why a reconcile is to be done again soon.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The presence store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Some writes did not succeed.
    #[error("{0} writes did not succeed")]
    Unfinished(u32),
    /// The rules can't cope with this object.
    #[error("it panicked")]
    Panicked,
}

/// Runs one reconcile, if this controller leads, and measures it.
pub async fn measured(
    context: &Context,
    controller: &'static str,
    object: Object,
    reconcile: impl Future<Output = Result<(Action, Tally), Error>>,
) -> Result<Action, Error> {
    if !context.leading() {
        // Everything is looked at when this controller begins to lead.
        return Ok(Action::await_change());
    }
    let label = ControllerLabel { controller };
    let workers = context.metrics.active_workers.get_or_create(&label).clone();
    workers.inc();
    let began = Instant::now();
    let by_interval = locked(&context.runs).enter(&object, began);
    let result = guarded(&context.metrics, controller, reconcile).await;
    workers.dec();
    let result = result.unwrap_or(Err(Error::Panicked));
    let look = match &result {
        Ok((action, _)) if *action == Action::requeue(context.interval) => Look::Idle,
        Ok(_) => Look::Due,
        Err(_) => Look::Failed,
    };
    if let (true, Ok((_, tally))) = (by_interval, &result) {
        runs::corrected(&context.metrics, tally);
    }
    let ended = locked(&context.runs).leave(&object, look, context.interval, Instant::now());
    runs::record(&context.metrics, ended);
    let result = result.map(|(action, _)| action);
    context
        .metrics
        .reconcile_time
        .get_or_create(&label)
        .observe(began.elapsed().as_secs_f64());
    let outcome = match &result {
        Ok(_) => "requeue_after",
        Err(error) => {
            tracing::debug!(controller, %error, "a reconcile failed");
            context.metrics.reconcile_errors.get_or_create(&label).inc();
            "error"
        }
    };
    context
        .metrics
        .reconciles
        .get_or_create(&ResultLabel {
            controller,
            result: outcome,
        })
        .inc();
    result
}

/// A Cell: does the ledger agree with the presence store, and does anything recorded on it need a move?
pub async fn reconcile_cell(object: Arc<Cell>, context: Arc<Context>) -> Result<Action, Error> {
    context.synced().await;
    let name = object.name_any();
    let looked_at = Object::Cell(name.clone());
    measured(&context, "cell", looked_at, async {
        let presence = context.store.get(&name).await?.presence;
        let held = presence.is_some();
        let again = match presence {
            Some(presence) => {
                context.heard(&presence);
                tell_of_old_epoch(&context, &name, &presence);
                judge_held(&context, &name, Observation::Held(presence)).await?;
                let now = Timestamp::now();
                until(held_down(&context, &name, now), now, context.interval)
            }
            None => absent(&context, &name).await,
        };
        spend_confirmation(&context, &name, held).await;
        context.wake_taint(&name);
        // Finishes what a recovery, a return or a drain began.
        let scope = Scope::Cell(name.clone());
        let (tally, recheck) = converge(&context, &context.slow, &scope, None).await;
        if tally.unfinished > 0 {
            return Err(Error::Unfinished(tally.unfinished));
        }
        if !held {
            forget(&context, &name).await?;
        }
        // What a lost Cell's work waits for, such as its fence, is due sooner than the interval.
        let again = match held {
            true => again,
            false => again.min(until(recheck, Timestamp::now(), context.interval)),
        };
        Ok((Action::requeue(again), tally))
    })
    .await
}

/// Until when a Cell takes no new work because it was lost too often.
fn held_down(context: &Context, name: &str, now: Timestamp) -> Option<Timestamp> {
    context.world(|world| hold_down::until(&world.cells().get(name)?.status, now))
}

/// An operator's confirmation of a loss is taken off a Cell that is there, or was judged lost: it is not for a later one.
async fn spend_confirmation(context: &Context, name: &str, held: bool) {
    let spent = context.world(|world| {
        let record = world.cells().get(name).filter(|it| it.loss_confirmed)?;
        let settled = match record.status.state {
            Some(CellState::Missing | CellState::Evacuated) => true,
            None | Some(CellState::Present | CellState::Evacuating) => held,
        };
        settled.then(|| record.version.clone())
    });
    if let Some(version) = spent {
        guard::consume(context, name, &version).await;
    }
}

/// A Cell that registered with a store that lost its data: its epoch is smaller than the one it was lost under,
/// so nothing of it can be believed until its record is made anew.
fn tell_of_old_epoch(context: &Context, name: &str, presence: &Presence) {
    let record = context.world(|world| world.cells().get(name).cloned());
    let Some(record) = record else { return };
    let waits = matches!(
        record.status.state,
        Some(CellState::Missing | CellState::Evacuated)
    );
    let known = record.status.epoch.unwrap_or_default();
    if waits && presence.epoch < known {
        let note = format!(
            "The Cell is there under epoch {}, but it was lost under epoch {known}: the presence store lost its data. Delete this Cell object; its rep makes it anew.",
            presence.epoch
        );
        let about = reference("Cell", None, name, &record.version.uid);
        context
            .events
            .warning(about, "CellEpochWentBack", "Register", note);
    }
}

/// The key is there: enters what is new about it into the ledger.
async fn judge_held(context: &Arc<Context>, name: &str, seen: Observation) -> Result<(), Error> {
    let written = ledger::write(context, &context.slow.client, name, |world, record| {
        let now = Timestamp::now();
        let verdict = cell::judge(record, &seen);
        let mut status = cell::apply(record, &seen, verdict, None, now);
        if record.status.actual_lrps.is_none() {
            status::cell_load(world, name, &mut status);
        }
        (status != record.status).then_some((status, (verdict, record.status.state)))
    })
    .await;
    let Some((record, (verdict, before))) = written? else {
        return Ok(());
    };
    let about = reference("Cell", None, name, &record.version.uid);
    let epoch = record.status.epoch;
    match (verdict, before) {
        (Verdict::NewIncarnation, None) => {
            tracing::info!(cell = name, epoch, "a Cell joined");
            context.events.normal(
                about,
                "CellPresenceAcquired",
                "Register",
                "The Cell registered its presence.".into(),
            );
        }
        (Verdict::NewIncarnation, Some(_)) => {
            tracing::info!(
                cell = name,
                epoch,
                "the Cell is back as a new incarnation: what it ran before is gone"
            );
            let note = "The Cell is back without its containers: its instances are started anew.";
            context
                .events
                .normal(about, "CellPresenceReturned", "Register", note.into());
        }
        (Verdict::Returned, _) => {
            tracing::info!(cell = name, epoch, "the Cell is back with its containers");
            let note = "The Cell is back with its containers: what was not replaced yet is kept.";
            context
                .events
                .normal(about, "CellPresenceReturned", "Register", note.into());
        }
        (Verdict::Evacuating, _) => {
            tracing::info!(cell = name, epoch, "the Cell is draining");
            let note = "The Cell's work is moved to other Cells, start before stop.";
            context
                .events
                .normal(about, "CellEvacuationStarted", "Evacuate", note.into());
        }
        // An operator's wish may have changed: cordoned, or not any more.
        (Verdict::Unchanged | Verdict::Evacuated | Verdict::Lost, _) => {}
    }
    // There may be room again for what waits.
    context.note_room();
    Ok(())
}

/// The key is not there. Returns when to look again.
async fn absent(context: &Arc<Context>, name: &str) -> Duration {
    let (may_be_lost, held) = context.world(|world| {
        let record = world.cells().get(name);
        let held = record.is_some_and(|record| cell::is_held(&record.status));
        // It may have been back, and have taken on work, before anybody wrote that.
        let later = |record: &CellRecord| {
            let epoch = record.status.epoch;
            epoch.is_some_and(|epoch| world.recorded_epoch(name, i64::MAX) > epoch)
        };
        let may_be_lost = record.is_some_and(|record| record.is_there() || later(record));
        (may_be_lost, held)
    });
    // What was gone with many others did not leave, though it was about to.
    let held = held || context.guard.holds(name);
    if !may_be_lost {
        return context.interval;
    }
    let grace = context.grace(name);
    if !grace.is_zero() {
        return grace + Duration::from_millis(100);
    }
    let heard = context.last_heard(name);
    if heard.is_some_and(|heard| {
        heard.phase == PresencePhase::Restarting && heard.at.elapsed() < heard.ttl
    }) {
        return context.ttl(name);
    }
    let may_have_left = heard.is_some_and(|heard| heard.phase == PresencePhase::Draining);
    if held || !may_have_left {
        context.guard.noticed(name, heard.map(|heard| heard.phase));
    }
    if context.watch_is_heard() {
        tokio::time::sleep(WATCH_FIRST).await;
    }
    let noticed = Instant::now();
    let loss = Loss {
        cell: name.to_owned(),
        phase: last_words(heard.map(|heard| heard.phase), held),
        source: Source::Resync,
        noticed,
        noticed_time: Timestamp::now(),
        alive: heard.map_or(noticed, |heard| heard.at),
    };
    recover(context, loss).await;
    context.interval
}

/// What the rep of a Cell that the resync finds gone had last said, from what was heard of it.
fn last_words(heard: Option<PresencePhase>, held: bool) -> Option<PresencePhase> {
    match heard {
        Some(phase @ (PresencePhase::Held | PresencePhase::Released | PresencePhase::Dead)) => {
            Some(phase)
        }
        Some(PresencePhase::Restarting) => Some(PresencePhase::Held),
        Some(PresencePhase::Draining) | None if held => Some(PresencePhase::Held),
        // It may have given its presence back since: nobody heard its last words.
        Some(PresencePhase::Draining) | None => None,
    }
}

/// A DesiredLRP: its indices, the instances in them, and what it tells about them.
pub async fn reconcile_desired(
    object: Arc<DesiredLRP>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    context.synced().await;
    let key = key(object.as_ref());
    let looked_at = Object::Desired(key.clone());
    measured(&context, "desiredlrp", looked_at, async {
        let (tally, recheck) =
            converge(&context, &context.slow, &Scope::Desired(key.clone()), None).await;
        let now = Timestamp::now();
        let change = context.world(|world| {
            let next = status::desired(world, &key, now)?;
            let desired = world.desired(&key)?;
            (next != desired.status).then(|| status_patch(&desired.version, &desired.status, &next))
        });
        if let Some(mut patch) = change {
            // Nobody else writes this status: the uid alone says that it is this object.
            if let Some(meta) = patch
                .get_mut("metadata")
                .and_then(|meta| meta.as_object_mut())
            {
                meta.remove("resourceVersion");
            }
            let api = Api::<DesiredLRP>::namespaced(context.slow.client.clone(), &key.namespace);
            match bounded(api.patch_status(&key.name, &params(), &Patch::Merge(&patch))).await {
                Ok(stored) => {
                    context.world(|world| {
                        let record = super::convert::desired(&stored, world);
                        world.put_desired(&key, record);
                    });
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        if tally.unfinished > 0 {
            return Err(Error::Unfinished(tally.unfinished));
        }
        let again = until(recheck, now, context.interval);
        Ok((Action::requeue(again), tally))
    })
    .await
}

/// A Task.
pub async fn reconcile_task(object: Arc<Task>, context: Arc<Context>) -> Result<Action, Error> {
    context.synced().await;
    let key = key(object.as_ref());
    let looked_at = Object::Task(key.clone());
    measured(&context, "task", looked_at, async {
        let (tally, recheck) = converge(&context, &context.slow, &Scope::Task(key), None).await;
        if tally.unfinished > 0 {
            return Err(Error::Unfinished(tally.unfinished));
        }
        let again = until(recheck, Timestamp::now(), context.interval);
        Ok((Action::requeue(again), tally))
    })
    .await
}

/// The time until `recheck`, at most the interval.
fn until(recheck: Option<Timestamp>, now: Timestamp, interval: Duration) -> Duration {
    let Some(recheck) = recheck else {
        return interval;
    };
    let left = Duration::try_from(recheck.duration_since(now)).unwrap_or_default();
    // A few milliseconds later than due, so that it is due on any clock that rounds. What falls due just after the
    // interval is waited for, so that the interval finds nothing but what no event told.
    let wait = left + Duration::from_millis(5);
    match wait < interval + Duration::from_secs(1) {
        true => wait,
        false => interval,
    }
}

#[cfg(test)]
mod tests {
    use super::last_words;
    use crate::presence::PresencePhase::{Draining, Held, Released, Restarting};

    #[test]
    fn a_cell_that_is_held_did_not_leave_unless_it_said_so() {
        for (heard, held, expected) in [
            (None, false, None),
            (Some(Draining), false, None),
            (Some(Restarting), false, Some(Held)),
            (None, true, Some(Held)),
            (Some(Draining), true, Some(Held)),
            (Some(Released), true, Some(Released)),
        ] {
            assert_eq!(last_words(heard, held), expected, "{heard:?} {held}");
        }
    }
}
