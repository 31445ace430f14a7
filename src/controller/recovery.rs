//! The fast lane: what happens when a Cell's presence is gone.
//!
//! Confirm by a linearizable read, write the verdict on the Cell first, then place its instances and fail its
//! Tasks in one batch, tell it on the Cell. The resync comes the same way when the watch missed a loss.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;

use crate::api::{ActualLRPState, CellState};
use crate::converge::cell::{self, LossTimes, Observation, Source, Verdict};
use crate::converge::life::Life;
use crate::converge::plan::Scope;
use crate::converge::world::{CellRecord, Key};
use crate::metrics::{SourceLabel, WatchLabel};
use crate::presence::{Departure, Notice, Presence, PresenceEvent, PresencePhase};

use super::context::Context;
use super::events::reference;
use super::execute::converge;
use super::guard::{self, Answer};
use super::ledger;
use super::report::{Recovery, expired, report};

/// A presence that was noticed to be gone.
#[derive(Debug, Clone)]
pub struct Loss {
    /// The Cell.
    pub cell: String,
    /// What its rep had last said of itself, if that was heard.
    pub phase: Option<PresencePhase>,
    /// What noticed it.
    pub source: Source,
    /// When it was noticed, on the monotonic clock.
    pub noticed: Instant,
    /// The same on the wall clock, for people.
    pub noticed_time: Timestamp,
    /// When the Cell was last certainly alive.
    pub alive: Instant,
}

impl Loss {
    /// Whether the machine itself says that the rep and all that it ran are dead: nothing is left to doubt.
    pub fn is_proven(&self) -> bool {
        self.phase == Some(PresencePhase::Dead)
    }
}

/// Reacts to every presence event; each lost Cell has a task of its own, so that none waits for another.
pub async fn run(context: Arc<Context>, mut events: mpsc::Receiver<PresenceEvent>) {
    let mut outage = false;
    while let Some(event) = events.recv().await {
        match event {
            PresenceEvent::Held(presence) => {
                context.kept.forget(&presence.cell);
                context.heard(&presence);
                context.wake_cell(&presence.cell);
            }
            PresenceEvent::Gone(departure) => gone(&context, &departure, outage),
            PresenceEvent::Synced { reset, .. } => {
                context.metrics.store_reachable.set(1);
                context.watch_heard.store(true, Ordering::Relaxed);
                let was_away = std::mem::take(&mut outage);
                if reset || was_away {
                    context.distrust();
                }
                if reset {
                    tracing::warn!(
                        "the presence store lost its data: no absence is believed for one TTL"
                    );
                } else {
                    tracing::info!(was_away, "the presence of all Cells was listed");
                }
            }
            PresenceEvent::Unreachable { .. } => {
                outage = true;
                context.metrics.store_reachable.set(0);
                context.watch_heard.store(false, Ordering::Relaxed);
            }
            PresenceEvent::WatchRestarted { reason } => {
                context
                    .metrics
                    .watch_restarts
                    .get_or_create(&WatchLabel {
                        kind: "Presence",
                        reason,
                    })
                    .inc();
            }
        }
    }
}

/// `outage`: the store was away until now.
fn gone(context: &Arc<Context>, departure: &Departure, outage: bool) {
    let Presence { cell, value, .. } = &departure.last;
    let ttl = departure.last.ttl().unwrap_or_else(|| context.ttl(cell));
    let phase = value.as_ref().map(|value| value.phase);
    let proven = phase == Some(PresencePhase::Dead);
    // One TTL before the store let go of it there was a renewal. A witness speaks up as soon as the rep is dead.
    let alive = departure.at.checked_sub(ttl).filter(|_| !proven);
    let mut loss = Loss {
        cell: cell.clone(),
        phase,
        source: match departure.notice {
            Notice::Watch | Notice::Relist | Notice::Timer if proven => Source::Proof,
            Notice::Watch | Notice::Relist => Source::Watch,
            Notice::Timer => Source::Timer,
        },
        noticed: departure.at,
        noticed_time: Timestamp::now(),
        alive: alive.unwrap_or(departure.at),
    };
    // Before any verdict on those that go with it.
    context.guard.noticed(cell, loss.phase);
    context.world(|world| world.mark_gone(cell));
    let context = context.clone();
    tokio::spawn(async move {
        if outage && !loss.is_proven() {
            // Nobody saw it go: it is absent, and may only be late to show itself again.
            tokio::time::sleep(ttl).await;
        }
        if loss.phase == Some(PresencePhase::Restarting) {
            // The next incarnation registers within milliseconds; if not, the Cell is lost after all.
            tracing::info!(cell = loss.cell, "the rep is restarting");
            tokio::time::sleep(ttl).await;
            loss.phase = Some(PresencePhase::Held);
        }
        recover(&context, loss).await;
    });
}

/// Handles one presence that is gone, and what else is noticed of that Cell meanwhile.
pub async fn recover(context: &Arc<Context>, loss: Loss) {
    context.synced().await;
    if context.kept.keep(&context.gate, &loss) {
        tracing::debug!(
            cell = loss.cell,
            "a presence is gone; the leader acts on it"
        );
        return;
    }
    let Some(mut claim) = context.begin_recovery(loss.clone()) else {
        return;
    };
    let mut next = Some(loss);
    while let Some(loss) = next {
        handle(context, loss).await;
        next = claim.noticed_meanwhile();
    }
}

async fn handle(context: &Arc<Context>, loss: Loss) {
    let cell = loss.cell.clone();
    let outcome = verdict(context, &loss).await;
    match &outcome {
        Outcome::Written(_, Verdict::Lost) => context.guard.lost(&cell),
        Outcome::Written(..) | Outcome::Nothing => context.guard.settled(&cell),
        Outcome::NoObject { .. } => context.guard.deleted(&cell),
        Outcome::Held | Outcome::Kept => {}
    }
    match outcome {
        Outcome::Written(record, Verdict::Lost) => {
            lost(context, loss, &record).await;
            if record.loss_confirmed {
                guard::consume(context, &cell, &record.version).await;
            }
        }
        Outcome::Written(record, _) => {
            tracing::info!(cell, "the Cell gave its presence back");
            let about = reference("Cell", None, &cell, &record.version.uid);
            let note = "The Cell gave its presence back; that is no loss.".to_owned();
            context
                .events
                .normal(about, "CellEvacuated", "Evacuate", note);
            converge(context, &context.slow, &Scope::Cell(cell), None).await;
        }
        Outcome::NoObject { recorded } => {
            context.world(|world| world.mark_vanished(&cell, recorded));
            converge(context, &context.slow, &Scope::Cell(cell), None).await;
        }
        Outcome::Nothing | Outcome::Held | Outcome::Kept => {}
    }
}

/// What came of the verdict.
enum Outcome {
    /// It is written.
    Written(Box<CellRecord>, Verdict),
    /// The presence is back, or the ledger knows already.
    Nothing,
    /// Too many Cells are gone at once.
    Held,
    /// The leader acts on it.
    Kept,
    /// The Cell has no object.
    NoObject {
        /// The greatest epoch of the work recorded on it, before the confirming read.
        recorded: i64,
    },
}

/// Reads the presence, judges, writes; and does all of it again if that does not succeed, since the Cell may be
/// back by then. An error is never a loss.
async fn verdict(context: &Arc<Context>, loss: &Loss) -> Outcome {
    let mut pause = Duration::from_millis(20);
    let mut warned = false;
    loop {
        if context.kept.keep(&context.gate, loss) {
            return Outcome::Kept;
        }
        let problem = match try_verdict(context, loss, warned).await {
            Ok(outcome) => return outcome,
            Err(problem) => problem,
        };
        if !std::mem::replace(&mut warned, true) {
            tracing::warn!(
                cell = loss.cell,
                problem,
                "no verdict on the Cell is possible yet; trying again"
            );
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// One try; `again` when there was one before, whose write may have taken effect without an answer.
async fn try_verdict(context: &Arc<Context>, loss: &Loss, again: bool) -> Result<Outcome, String> {
    // Records before presences: what registers after this is not what the read below misses.
    let (ledger_epoch, recorded) = context.world(|world| {
        let ledger = world.cells().get(&loss.cell);
        let epoch = ledger.and_then(|record| record.status.epoch);
        (epoch, world.recorded_epoch(&loss.cell, i64::MAX))
    });
    let reading = context
        .store
        .get(&loss.cell)
        .await
        .map_err(|error| error.to_string())?;
    if let Some(presence) = reading.presence {
        context.heard(&presence);
        context.wake_cell(&loss.cell);
        return Ok(Outcome::Nothing);
    }
    let heard = context.last_heard(&loss.cell);
    let revision = match &heard {
        Some(heard) => reading.revision.saturating_add(heard.epoch_base),
        // The base that its epochs are counted on from is not known; what is recorded on it was registered before the read.
        None => reading.revision.max(recorded),
    };
    let seen = Observation::Gone {
        ledger_epoch,
        revision,
        recorded: context.world(|world| world.recorded_epoch(&loss.cell, revision)),
        phase: loss.phase,
        fence: heard.and_then(|heard| heard.fence),
    };
    let read = Instant::now();
    let is_loss = context.world(|world| {
        let record = world.cells().get(&loss.cell);
        record.is_some_and(|record| cell::judge(record, &seen) == Verdict::Lost)
    });
    let answer = match is_loss {
        true if !loss.is_proven() => guard::ask(context, &loss.cell, read).await,
        true | false => Ok(Answer::Believed { confirmed: false }),
    };
    let confirmed = match answer.map_err(|error| error.to_string())? {
        Answer::Believed { confirmed } => confirmed,
        Answer::Back => {
            context.wake_cell(&loss.cell);
            return Ok(Outcome::Nothing);
        }
        Answer::Held(why) => {
            guard::hold(context, loss, why).await;
            return Ok(Outcome::Held);
        }
    };
    let now = Timestamp::now();
    let times = LossTimes {
        lost: loss.noticed_time,
        detected: now,
        source: loss.source,
        confirmed,
    };
    let written = ledger::write(context, &context.fast.client, &loss.cell, |_, record| {
        let verdict = cell::judge(record, &seen);
        let status = cell::apply(record, &seen, verdict, Some(times), now);
        (verdict != Verdict::Unchanged).then_some((status, verdict))
    });
    Ok(match written.await.map_err(|error| error.to_string())? {
        Some((record, verdict)) => Outcome::Written(Box::new(record), verdict),
        None => match context.world(|world| world.cells().get(&loss.cell).cloned()) {
            Some(record) if again && is_told(&record, loss) => {
                Outcome::Written(Box::new(record), Verdict::Lost)
            }
            Some(_) => Outcome::Nothing,
            None => Outcome::NoObject { recorded },
        },
    })
}

/// Whether the ledger holds the verdict on this very loss.
fn is_told(record: &CellRecord, loss: &Loss) -> bool {
    let last = record.status.last_recovery.as_ref();
    let lost = last.and_then(|last| last.lost_time.as_ref());
    record.status.state == Some(CellState::Missing)
        && lost.is_some_and(|lost| lost.0.as_microsecond() == loss.noticed_time.as_microsecond())
}

/// The verdict is written: now its work.
async fn lost(context: &Arc<Context>, loss: Loss, record: &CellRecord) {
    let source = SourceLabel {
        source: loss.source.as_str(),
    };
    context
        .metrics
        .presence_expired
        .get_or_create(&source)
        .inc();
    tracing::warn!(cell = loss.cell, source = source.source, "the Cell is lost");
    expired(context, &loss.cell, &record.version.uid, loss.source);
    // Begun now and waited for by nobody.
    context.wake_taint(&loss.cell);
    context.note_down(running_on(context, &loss.cell), &loss.cell, loss.alive);

    let first = OnceLock::new();
    let scope = Scope::Cell(loss.cell.clone());
    let (tally, recheck) = converge(context, &context.fast, &scope, Some(&first)).await;
    let took = loss.noticed.elapsed();
    let start = first.get().map(|first| first.duration_since(loss.noticed));
    if let Some(start) = start {
        context
            .metrics
            .recovery_start_delay
            .get_or_create(&source)
            .observe(start.as_secs_f64());
    }
    // What waits for a time of its own is planned by the reconcile of the Cell, which comes again for it.
    if tally.unfinished > 0 || recheck.is_some() {
        context.wake_cell(&loss.cell);
    }
    let recovery = Recovery {
        loss,
        cell_uid: record.version.uid.clone(),
        tally,
        start,
        took,
    };
    let context = context.clone();
    // Telling it holds up nobody, least of all the next loss of this Cell.
    tokio::spawn(async move { report(&context, recovery).await });
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
