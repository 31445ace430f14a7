//! The fast lane: what happens when a Cell's presence is gone.
//!
//! Confirm by a linearizable read, write the verdict on the Cell first, then place its instances and fail its
//! Tasks in one batch, tell it in one Event. The resync comes the same way when the watch missed a loss.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

use crate::api::{ActualLRPState, LastRecovery};
use crate::converge::cell::{self, LossTimes, Observation, Source, Verdict};
use crate::converge::life::Life;
use crate::converge::plan::Scope;
use crate::converge::status;
use crate::converge::world::Key;
use crate::metrics::{OutcomeLabel, ReasonLabel, SourceLabel};
use crate::presence::{Departure, Presence, PresenceEvent, PresencePhase};

use super::context::{Context, DEFAULT_TTL, Heard};
use super::events::reference;
use super::execute::{Tally, converge};
use super::ledger;

/// A presence that was noticed to be gone.
#[derive(Debug, Clone)]
pub struct Loss {
    /// The Cell.
    pub cell: String,
    /// The epoch that is gone, where it is known.
    pub epoch: Option<i64>,
    /// What its rep had last said of itself.
    pub phase: PresencePhase,
    /// What noticed it.
    pub source: Source,
    /// When it was noticed, on the monotonic clock.
    pub noticed: Instant,
    /// The same on the wall clock, for people.
    pub noticed_time: Timestamp,
}

impl Loss {
    /// A loss noticed now.
    pub fn now(cell: &str, epoch: Option<i64>, phase: PresencePhase, source: Source) -> Self {
        Loss {
            cell: cell.to_owned(),
            epoch,
            phase,
            source,
            noticed: Instant::now(),
            noticed_time: Timestamp::now(),
        }
    }
}

/// Reacts to every presence event; each lost Cell has a task of its own, so that none waits for another.
pub async fn run(context: Arc<Context>, mut events: mpsc::Receiver<PresenceEvent>) {
    while let Some(event) = events.recv().await {
        match event {
            PresenceEvent::Held(presence) => held(&context, &presence),
            PresenceEvent::Gone(departure) => gone(&context, &departure),
            PresenceEvent::Synced { reset, .. } => {
                context.metrics.store_reachable.set(1);
                context.watch_heard.store(true, Ordering::Relaxed);
                tracing::info!(reset, "the presence of all Cells was listed");
            }
            PresenceEvent::Unreachable { .. } => {
                context.metrics.store_reachable.set(0);
                context.watch_heard.store(false, Ordering::Relaxed);
            }
            PresenceEvent::WatchRestarted { reason } => {
                context
                    .metrics
                    .watch_restarts
                    .get_or_create(&ReasonLabel { reason })
                    .inc();
            }
        }
    }
}

fn held(context: &Arc<Context>, presence: &Presence) {
    let heard = Heard {
        phase: presence.phase(),
        ttl: presence.ttl().unwrap_or(DEFAULT_TTL),
    };
    context.heard(&presence.cell, heard);
    context.wake_cell(&presence.cell);
}

fn gone(context: &Arc<Context>, departure: &Departure) {
    let Presence { cell, epoch, .. } = &departure.last;
    let phase = departure.last.phase();
    let mut loss = Loss::now(cell, Some(*epoch), phase, Source::Watch);
    loss.noticed = departure.at;
    let context = context.clone();
    let ttl = departure.last.ttl().unwrap_or(DEFAULT_TTL);
    tokio::spawn(async move {
        if phase == PresencePhase::Restarting {
            // The next incarnation registers within milliseconds; if it does not, the Cell is lost after all.
            tracing::info!(cell = loss.cell, "the rep is restarting");
            tokio::time::sleep(ttl).await;
            loss.phase = PresencePhase::Held;
        }
        recover(&context, loss).await;
    });
}

/// Handles one presence that is gone. Does nothing if another lane is at it, or if it is back.
pub async fn recover(context: &Arc<Context>, loss: Loss) {
    context.synced().await;
    let Some(_recovering) = context.begin_recovery(&loss.cell) else {
        return;
    };
    if !confirmed(context, &loss).await {
        context.wake_cell(&loss.cell);
        return;
    }
    let detected = Timestamp::now();
    let seen = Observation::Gone {
        epoch: loss.epoch,
        phase: loss.phase,
    };
    let times = LossTimes {
        lost: loss.noticed_time,
        detected,
        source: loss.source,
    };
    let verdict = ledger::write(context, &context.fast.client, &loss.cell, |_, record| {
        let verdict = cell::judge(record, &seen);
        let status = cell::apply(record, &seen, verdict, Some(times), detected);
        (verdict != Verdict::Unchanged).then_some((status, verdict))
    })
    .await;
    match verdict {
        Some((record, Verdict::Lost)) => lost(context, &loss, &record.version.uid).await,
        Some((_, _)) => {
            tracing::info!(
                cell = loss.cell,
                "the Cell was drained and gave its presence back"
            );
            converge(
                context,
                &context.slow,
                &Scope::Cell(loss.cell.clone()),
                None,
            )
            .await;
        }
        None if context.world(|world| !world.cells().contains_key(&loss.cell)) => {
            context.world(|world| world.mark_vanished(&loss.cell));
            converge(
                context,
                &context.fast,
                &Scope::Cell(loss.cell.clone()),
                None,
            )
            .await;
        }
        None => {}
    }
}

/// Whether the key is certainly gone: asks until the store answers. An error is never a loss.
async fn confirmed(context: &Arc<Context>, loss: &Loss) -> bool {
    let mut pause = Duration::from_millis(20);
    let mut warned = false;
    loop {
        match context.store.get(&loss.cell).await {
            Ok(presence) => return presence.is_none(),
            Err(error) => {
                if !warned {
                    tracing::warn!(cell = loss.cell, %error, "the loss of a Cell can't be confirmed; trying again");
                    warned = true;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
}

/// The verdict is written: now its work.
async fn lost(context: &Arc<Context>, loss: &Loss, uid: &str) {
    let source = SourceLabel {
        source: loss.source.as_str(),
    };
    context
        .metrics
        .presence_expired
        .get_or_create(&source)
        .inc();
    tracing::warn!(
        cell = loss.cell,
        epoch = loss.epoch,
        source = source.source,
        "the Cell is lost: its presence expired"
    );
    let ttl = context
        .last_heard(&loss.cell)
        .map_or(DEFAULT_TTL, |heard| heard.ttl);
    // Last certainly alive: one TTL before the store let go of it.
    let alive = loss.noticed.checked_sub(ttl).unwrap_or(loss.noticed);
    context.note_down(running_on(context, &loss.cell), alive);

    let first = OnceLock::new();
    let (tally, _) = converge(
        context,
        &context.fast,
        &Scope::Cell(loss.cell.clone()),
        Some(&first),
    )
    .await;
    let took = loss.noticed.elapsed();
    let start = first.get().map(|first| first.duration_since(loss.noticed));
    if let Some(start) = start {
        context
            .metrics
            .recovery_start_delay
            .get_or_create(&source)
            .observe(start.as_secs_f64());
    }
    report(context, loss, uid, tally, start, took).await;
}

/// The instances that ran on the Cell.
fn running_on(context: &Context, cell: &str) -> Vec<Key> {
    context.world(|world| {
        let on_cell = world
            .load(cell)
            .into_iter()
            .flat_map(|load| load.lrps.iter());
        on_cell
            .filter(|key| {
                world.lrp(key).is_some_and(|lrp| {
                    lrp.status.state == ActualLRPState::Running
                        && lrp.status.cell_name.as_deref() == Some(cell)
                        && world.life(cell, lrp.status.cell_epoch) == Life::Lost
                })
            })
            .cloned()
            .collect()
    })
}

/// Tells what was done: on the Cell, in one Event, in the metrics.
async fn report(
    context: &Arc<Context>,
    loss: &Loss,
    uid: &str,
    tally: Tally,
    start: Option<Duration>,
    took: Duration,
) {
    let Tally {
        placed,
        waiting,
        tasks_failed,
        conflicts,
        unfinished,
    } = tally;
    for (outcome, count) in [
        ("placed", placed),
        ("waiting", waiting),
        ("conflict", conflicts),
        ("error", unfinished),
    ] {
        context
            .metrics
            .recovered
            .get_or_create(&OutcomeLabel { outcome })
            .inc_by(count.into());
    }
    let outcome = if waiting == 0 && unfinished == 0 {
        "complete"
    } else {
        "partial"
    };
    context
        .metrics
        .recovery_duration
        .get_or_create(&OutcomeLabel { outcome })
        .observe(took.as_secs_f64());
    let recovered = loss
        .noticed_time
        .checked_add(SignedDuration::try_from(took).unwrap_or_default());
    let count = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    ledger::write(
        context,
        &context.slow.client,
        &loss.cell,
        |world, record| {
            let mut status = record.status.clone();
            status::cell_load(world, &loss.cell, &mut status);
            let last: &mut LastRecovery = status.last_recovery.as_mut()?;
            last.recovered_time = recovered.as_ref().ok().map(|time| MicroTime(*time));
            last.actual_lrps = count(placed);
            last.waiting_actual_lrps = count(waiting);
            last.tasks = count(tasks_failed);
            Some((status, ()))
        },
    )
    .await;
    let millis = |span: Duration| format!("{} ms", span.as_millis());
    let began = start.map_or_else(String::new, |start| {
        format!(", the first {} after it", millis(start))
    });
    let note = format!(
        "The presence expired: {placed} ActualLRPs were placed on other Cells, {waiting} wait for room, {tasks_failed} Tasks were failed, all within {} of the expiry{began} (noticed by {}).",
        millis(took),
        loss.source.as_str(),
    );
    let about = || reference("Cell", None, &loss.cell, uid);
    context
        .events
        .warning(about(), "CellPresenceExpired", "Recover", note.clone());
    if loss.source == Source::Resync {
        let note =
            "The presence watch did not tell of this loss; the periodic pass found it.".to_owned();
        context
            .events
            .warning(about(), "CellMissedByWatch", "Recover", note);
    }
    let (first_ms, took_ms) = (start.map(|start| start.as_millis()), took.as_millis());
    tracing::info!(
        cell = loss.cell,
        placed,
        waiting,
        tasks_failed,
        conflicts,
        unfinished,
        first_ms,
        took_ms,
        "recovered the lost Cell's work"
    );
}
