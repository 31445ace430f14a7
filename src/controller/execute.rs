//! Carrying out a plan: one compare-and-swap per write, bounded in number and time, no choices of its own.

pub(super) mod tell;
mod write;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::jiff::Timestamp;

use crate::api::Task;
use crate::client::CallError;
use crate::converge::plan::{Plan, Scope, Write};
use crate::metrics::OutcomeLabel;

use super::callbacks;
use super::context::{Context, Lane};
use super::runs;
use super::turns::Rank;

pub use write::params;

/// How often a scope is planned anew because a write met a newer version or failed; then the requeue has it.
const ATTEMPTS: u32 = 8;

/// What came of the writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Instances that got a place.
    pub placed: u32,
    /// Instances that no Cell could take.
    pub waiting: u32,
    /// Tasks failed.
    pub tasks_failed: u32,
    /// Writes that met a newer version; they were decided anew.
    pub conflicts: u32,
    /// Writes that failed in the last attempt: left to the resync.
    pub unfinished: u32,
    /// Writes that succeeded and that some event is the reason for, in the order of
    /// [`CORRECTIONS`](crate::metrics::CORRECTIONS) without the first.
    pub written: [u32; 5],
}

/// Plans and writes until nothing in `scope` is left to do, or this controller does not lead any more. Returns what was
/// done, and when to look again. `first` is set when the first write has succeeded.
pub async fn converge(
    context: &Arc<Context>,
    lane: &Lane,
    scope: &Scope,
    first: Option<&OnceLock<Instant>>,
) -> (Tally, Option<Timestamp>) {
    let mut tally = Tally::default();
    let mut recheck = None;
    for attempt in 0..ATTEMPTS {
        if !context.leading() {
            break;
        }
        let mut plan = context.plan(scope);
        for (key, refusal) in &plan.refused {
            tracing::error!(record = %key, refusal, "a change was decided that may not be: please report this");
        }
        for key in &plan.callbacks {
            callbacks::begin(context, key);
        }
        let nothing = plan.writes.is_empty();
        let writes = std::mem::take(&mut plan.writes);
        let outcome = execute(context, lane, writes, first).await;
        let vanished = vanished_cells(context, &mut plan).await;
        recheck = plan.recheck;
        if nothing && !vanished {
            tally.unfinished = 0;
            return (tally, recheck);
        }
        tally.placed += outcome.placed;
        tally.waiting += outcome.waiting;
        tally.tasks_failed += outcome.tasks_failed;
        tally.conflicts += outcome.conflicts;
        for (sum, count) in tally.written.iter_mut().zip(outcome.written) {
            *sum += count;
        }
        tally.unfinished = outcome.conflicts + outcome.unfinished;
        if tally.unfinished == 0 && !vanished {
            return (tally, recheck);
        }
        // A conflict is decided anew at once; only a server in trouble is given time.
        let pause = if outcome.unfinished > 0 {
            Duration::from_millis(50) * 2u32.pow(attempt)
        } else {
            Duration::ZERO
        };
        tokio::time::sleep(pause).await;
    }
    (tally, recheck)
}

/// Records name Cells that have no object: when these have no presence either, they are lost. Returns whether any is;
/// those that can't be judged yet are looked at again.
async fn vanished_cells(context: &Arc<Context>, plan: &mut Plan) -> bool {
    let mut found = false;
    for cell in &std::mem::take(&mut plan.unknown_cells) {
        let grace = context.grace(cell);
        if !grace.is_zero() {
            plan.wait(Some(Timestamp::now() + grace));
            continue;
        }
        let recorded = context.world(|world| world.recorded_epoch(cell, i64::MAX));
        match context.store.get(cell).await {
            Ok(reading) if reading.presence.is_none() => {
                tracing::warn!(
                    cell,
                    "work is recorded on a Cell that has neither an object nor a presence"
                );
                context.world(|world| world.mark_vanished(cell, recorded));
                found = true;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(cell, %error, "the presence of an unknown Cell could not be read");
                plan.wait(Some(Timestamp::now() + context.ttl(cell)));
            }
        }
    }
    found
}

async fn execute(
    context: &Arc<Context>,
    lane: &Lane,
    writes: Vec<Write>,
    first: Option<&OnceLock<Instant>>,
) -> Tally {
    // Bound already by the lane's turns; this only keeps a big plan from making as many futures at once.
    let at_once = 256;
    let outcomes = stream::iter(writes)
        .map(|write| async move {
            let turn = lane.turns.take(rank(context, &write)).await;
            let result = write::perform(context, lane, &write).await;
            drop(turn);
            if result.is_ok()
                && let Some(first) = first
            {
                let _ = first.set(Instant::now());
            }
            (write, result)
        })
        .buffer_unordered(at_once);
    futures::pin_mut!(outcomes);
    let mut tally = Tally::default();
    while let Some((write, result)) = outcomes.next().await {
        account(context, &write, result.as_ref().copied(), &mut tally);
    }
    tally
}

/// Sends one write, counts it, and settles it in the world.
pub async fn write_one(
    context: &Arc<Context>,
    lane: &Lane,
    write: &Write,
) -> Result<(), CallError> {
    let turn = lane.turns.take(rank(context, write)).await;
    let result = write::perform(context, lane, write).await;
    drop(turn);
    let outcome = result.as_ref().copied();
    account(context, write, outcome, &mut Tally::default());
    result
}

/// Sends one write about a Task, and tells it. Returns the Task, unless it is gone.
pub async fn write_task(
    context: &Arc<Context>,
    lane: &Lane,
    write: &Write,
) -> Result<Option<Task>, CallError> {
    let turn = lane.turns.take(rank(context, write)).await;
    let result = write::task(context, lane, write).await;
    drop(turn);
    let outcome = result.as_ref().map(|_| ());
    account(context, write, outcome, &mut Tally::default());
    result
}

fn rank(context: &Context, write: &Write) -> Rank {
    match write {
        Write::CreateLrp { index, .. } => Rank::of_instance(*index),
        Write::LrpStatus { key, .. } | Write::DeleteLrp { key, .. } => {
            context.world(|world| Rank::of_lrp(world, key))
        }
        Write::TaskStatus { .. } | Write::DeleteTask { .. } => Rank::Task,
    }
}

fn account(context: &Context, write: &Write, result: Result<(), &CallError>, tally: &mut Tally) {
    let outcome = match result {
        Ok(()) => "written",
        Err(error) => error.outcome(),
    };
    context
        .metrics
        .writes
        .get_or_create(&OutcomeLabel { outcome })
        .inc();
    match result {
        Err(error) if error.is_conflict() || error.is_already_exists() || error.is_not_found() => {
            tally.conflicts += 1
        }
        Err(error) => {
            tracing::debug!(%error, what = write.what(), record = %write.key(), "a write failed");
            tally.unfinished += 1;
        }
        Ok(()) => {
            if let Some(kind) = runs::correction(write) {
                tally.written[kind] += 1;
            }
            tell::written(context, write, tally);
        }
    }
}
