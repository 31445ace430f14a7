//! The mass-loss guard at work: asks the rule before every verdict, keeps the losses that are held back, and lets them
//! go when the rule passes them or an operator confirms them.
//!
//! What is held is written on the Cells, so that whoever leads next knows it too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch};
use serde_json::json;

use crate::api::{ANNOTATION_CONFIRM_LOSS, Cell, CellState};
use crate::client::bounded;
use crate::converge::brake::{Brake, Count, OFF, Ruling};
use crate::converge::cell;
use crate::converge::world::{CellRecord, Version};
use crate::presence::{PresencePhase, RollCall, StoreError};
use crate::sync::locked;

use super::context::Context;
use super::events::reference;
use super::execute::params;
use super::held::{Holds, Why};
use super::ledger;
use super::recovery::{Loss, recover};

/// What is held back is looked at this often.
const LOOK: Duration = Duration::from_millis(250);

/// What is known of presences that are gone, and the losses that are held back.
#[derive(Default)]
pub struct Guard {
    brake: Mutex<Brake>,
    held: Mutex<Holds>,
    /// The last roll call and when it began: those who wait for one share the next.
    roll: tokio::sync::Mutex<Option<(Instant, Arc<RollCall>)>>,
}

/// What the guard says of a loss that was confirmed by a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is believed; `confirmed` when that is an operator's word.
    Believed {
        /// An operator's word.
        confirmed: bool,
    },
    /// The presence is back.
    Back,
    /// It is held back.
    Held(Why),
}

impl Guard {
    /// A Cell's presence is there.
    pub fn heard(&self, cell: &str, phase: PresencePhase) {
        locked(&self.brake).heard(cell, phase == PresencePhase::Released);
        locked(&self.held).returned(cell, Instant::now());
    }

    /// Whether a Cell's loss is held back, or only waits.
    pub fn holds(&self, cell: &str) -> bool {
        locked(&self.held).contains(cell)
    }

    /// A Cell's presence was noticed to be gone.
    pub fn noticed(&self, cell: &str, phase: Option<PresencePhase>) {
        let mut brake = locked(&self.brake);
        match phase {
            Some(PresencePhase::Dead) => brake.proven(cell),
            Some(PresencePhase::Released) => brake.noticed(cell, true),
            Some(PresencePhase::Held | PresencePhase::Draining | PresencePhase::Restarting)
            | None => brake.noticed(cell, false),
        }
    }

    /// A Cell was judged lost.
    pub fn lost(&self, cell: &str) {
        locked(&self.brake).lost(cell, Instant::now());
        locked(&self.held).remove(cell);
    }

    /// There is nothing to judge about a Cell any more.
    pub fn settled(&self, cell: &str) {
        locked(&self.brake).settled(cell);
        locked(&self.held).remove(cell);
    }

    /// A Cell that is gone has no object any more.
    pub fn deleted(&self, cell: &str) {
        locked(&self.brake).deleted(cell, Instant::now());
        locked(&self.held).remove(cell);
    }

    /// A roll call that began at `since` or later.
    async fn roll_call(
        &self,
        context: &Context,
        since: Instant,
    ) -> Result<Arc<RollCall>, StoreError> {
        let mut last = self.roll.lock().await;
        if let Some((began, roll)) = &*last
            && *began >= since
        {
            return Ok(roll.clone());
        }
        let began = Instant::now();
        let roll = Arc::new(context.store.roll_call().await?);
        *last = Some((began, roll.clone()));
        Ok(roll)
    }
}

/// Whether a loss is to be believed whose presence was read as gone at `read`.
///
/// # Errors
/// When the presence store can't be asked: that is no loss either.
pub async fn ask(context: &Context, cell: &str, read: Instant) -> Result<Answer, StoreError> {
    if context.mass_loss_threshold >= OFF {
        return Ok(Answer::Believed { confirmed: false });
    }
    // What was noticed may be enough: while many are held the store is not asked about all of them again and again.
    let (noticed, confirmed) = context.world(|world| {
        let record = world.cells().get(cell);
        let confirmed = record.is_some_and(|record| record.loss_confirmed);
        (ruling(context, world.cells(), None), confirmed)
    });
    if let (Ruling::Hold(count), false) = (noticed, confirmed) {
        return Ok(Answer::Held(Why::Many(count)));
    }
    let roll = context.guard.roll_call(context, read).await?;
    if roll.held.contains(cell) {
        return Ok(Answer::Back);
    }
    let called = context.world(|world| ruling(context, world.cells(), Some(&roll)));
    let now = Instant::now();
    let held = locked(&context.guard.held);
    Ok(match called {
        Ruling::Pass | Ruling::Doubt | Ruling::Hold(_) if confirmed => {
            Answer::Believed { confirmed: true }
        }
        Ruling::Hold(count) => Answer::Held(Why::Many(count)),
        Ruling::Doubt if !held.is_doubted_enough(cell, now) => Answer::Held(Why::Overdue),
        Ruling::Pass | Ruling::Doubt if held.waits(cell, now) => Answer::Held(Why::Returning),
        Ruling::Pass | Ruling::Doubt => Answer::Believed { confirmed: false },
    })
}

fn ruling(
    context: &Context,
    cells: &BTreeMap<String, CellRecord>,
    roll: Option<&RollCall>,
) -> Ruling {
    let brake = locked(&context.guard.brake);
    let now = (Instant::now(), Timestamp::now());
    brake.ruling(cells, roll, context.mass_loss_threshold, now)
}

/// Keeps a loss until it may be believed. Once it is certain that it has to be held back, that is written on the Cell and
/// told; if it can't be written, again later.
pub async fn hold(context: &Arc<Context>, loss: &Loss, why: Why) {
    let (name, guard) = (&loss.cell, &context.guard);
    locked(&guard.held).hold(loss, context.ttl(name), why, Instant::now());
    let zone = context.world(|world| {
        // Before the next look at all of them: no Task is failed meanwhile.
        world.hold_losses(context.leading());
        world.cells().get(name).map(|record| record.zone.clone())
    });
    let count = match why {
        Why::Many(count) => count,
        Why::Overdue => {
            return tracing::info!(
                cell = name,
                "the presence is gone, and others are overdue: waiting to see what becomes of these"
            );
        }
        Why::Returning => {
            return tracing::info!(
                cell = name,
                "others that were held back with this Cell come back: waiting whether it does too"
            );
        }
    };
    if let Some(zone) = zone {
        locked(&guard.brake).held(name, zone);
    }
    let written = ledger::write(context, &context.slow.client, name, |_, record| {
        // It may be back meanwhile.
        let news = guard.holds(name) && record.is_there() && !cell::is_held(&record.status);
        news.then(|| (cell::held(name, record, count, Timestamp::now()), ()))
    });
    let written = written.await;
    if !guard.holds(name) {
        // It came back while that was written: whoever looks at it next takes it off again.
        context.wake_cell(name);
    }
    let written = match written {
        Ok(written) => written,
        Err(error) => {
            return tracing::warn!(
                cell = name,
                %error,
                "the loss is held back, but that could not be written on the Cell; trying again later"
            );
        }
    };
    locked(&guard.held).told(name);
    let Some((record, ())) = written else {
        return;
    };
    let Count { lost, population } = count;
    tracing::warn!(
        cell = name,
        lost,
        population,
        "the presence is gone, but so are too many at once: the loss is held back"
    );
    let note = format!(
        "The presence is gone, but so are those of too many Cells at once ({lost} of {population}): nothing is moved and no Task is failed until Cells come back, or an operator sets the annotation {ANNOTATION_CONFIRM_LOSS}=true on Cells that are really lost."
    );
    let about = reference("Cell", None, name, &record.version.uid);
    context
        .events
        .warning(about, "CellLossHeld", "Recover", note);
}

/// Looks after what is held back, for ever.
pub async fn run(context: Arc<Context>) {
    context.synced().await;
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut held_before = false;
    loop {
        tick.tick().await;
        let held = refresh(&context);
        if std::mem::replace(&mut held_before, held > 0) && held == 0 {
            tracing::info!("no loss is held back any more");
            wake_lost(&context);
        }
        if context.leading() && !locked(&context.guard.held).is_empty() {
            look(&context).await;
        }
    }
}

/// Brings up to date what follows from the losses that are held back. Returns how many these are.
pub fn refresh(context: &Context) -> usize {
    let leads = context.leading() && context.mass_loss_threshold < OFF;
    let count = context.world(|world| {
        let (brake, held) = (locked(&context.guard.brake), locked(&context.guard.held));
        let is_held = |(name, record): &(&String, &_)| match held.is_let_go(name) {
            Some(let_go) => !let_go,
            // Another controller held it, and this one has not looked at it yet.
            None => is_held_by_ledger(record) && brake.is_gone(name, record),
        };
        let count = world.cells().iter().filter(is_held).count();
        let count = if leads { count } else { 0 };
        world.hold_losses(count > 0);
        count
    });
    let metrics = &context.metrics;
    metrics.guard_active.set(i64::from(count > 0));
    metrics
        .losses_held
        .set(i64::try_from(count).unwrap_or(i64::MAX));
    count
}

fn is_held_by_ledger(record: &CellRecord) -> bool {
    record.is_there() && cell::is_held(&record.status)
}

/// Lets go what the rule passes by now, and what an operator has confirmed; and has told what is certain by now.
async fn look(context: &Arc<Context>) {
    let mut now = context.world(|world| ruling(context, world.cells(), None));
    // Only then is it worth a roll call.
    if !matches!(now, Ruling::Hold(_)) {
        now = match context.guard.roll_call(context, Instant::now()).await {
            Ok(roll) => context.world(|world| ruling(context, world.cells(), Some(&roll))),
            Err(error) => {
                tracing::debug!(%error, "no roll call");
                return;
            }
        };
    }
    let due = context.world(|world| {
        let confirmed = |cell: &str| {
            let record = world.cells().get(cell);
            // Without an object there is nothing to hold back: whoever deleted it knew.
            record.is_none_or(|record| record.loss_confirmed)
        };
        locked(&context.guard.held).due(now, Instant::now(), confirmed)
    });
    for loss in due {
        let context = context.clone();
        tokio::spawn(async move { recover(&context, loss).await });
    }
}

/// Tasks of Cells that were lost before were not failed meanwhile.
fn wake_lost(context: &Context) {
    let lost = context.world(|world| {
        let lost = world
            .cells()
            .iter()
            .filter(|(_, cell)| cell.status.state == Some(CellState::Missing));
        lost.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    });
    lost.iter().for_each(|name| context.wake_cell(name));
}

/// Takes an operator's confirmation off a Cell: it was for this loss, and for no later one.
pub async fn consume(context: &Context, name: &str, version: &Version) {
    let patch = json!({ "metadata": {
        "uid": version.uid,
        "annotations": { ANNOTATION_CONFIRM_LOSS: null },
    }});
    let api = Api::<Cell>::all(context.slow.client.clone());
    match bounded(api.patch(name, &params(), &Patch::Merge(&patch))).await {
        Ok(stored) => {
            let record = super::convert::cell(&stored);
            context.world(|world| world.put_cell(name, record));
        }
        Err(error) if error.is_not_found() || error.is_conflict() => {}
        Err(error) => tracing::warn!(
            cell = name,
            %error,
            "the annotation {ANNOTATION_CONFIRM_LOSS} could not be removed; trying again. If this lasts, check the right to patch cells"
        ),
    }
}
