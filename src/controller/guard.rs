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
use crate::client::{CallError, bounded};
use crate::converge::brake::{Brake, Count, OFF, Ruling};
use crate::converge::cell;
use crate::converge::world::{CellRecord, Version, World};
use crate::presence::{PresencePhase, RollCall, StoreError};

use super::context::{Context, locked};
use super::events::reference;
use super::execute::params;
use super::ledger;
use super::recovery::{Loss, recover};

/// What is held back is looked at this often.
const LOOK: Duration = Duration::from_millis(250);

/// A loss that was let go and not judged since is let go again after this.
const AGAIN: Duration = Duration::from_secs(2);

/// What is known of presences that are gone, and the losses that are held back.
#[derive(Default)]
pub struct Guard {
    brake: Mutex<Brake>,
    held: Mutex<BTreeMap<String, Held>>,
    /// When a Cell whose loss was held back last came back.
    returned: Mutex<Option<Instant>>,
    /// The last roll call and when it began: those who wait for one share the next.
    roll: tokio::sync::Mutex<Option<(Instant, Arc<RollCall>)>>,
}

struct Held {
    loss: Loss,
    /// It is written on the Cell.
    told: bool,
    /// It is not held any more: its verdict is on the way.
    let_go: bool,
    /// When it was handed over to be looked at again.
    again: Option<Instant>,
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
    /// It is held back; without a count it is not certain yet that it has to be.
    Held(Option<Count>),
}

impl Guard {
    /// A Cell's presence is there.
    pub fn heard(&self, cell: &str, phase: PresencePhase) {
        locked(&self.brake).heard(cell, phase == PresencePhase::Released);
        if locked(&self.held).remove(cell).is_some() {
            *locked(&self.returned) = Some(Instant::now());
        }
    }

    /// Whether a held loss ended by itself within the last `ttl`: what ended it may end the others, one after the other.
    fn others_return(&self, ttl: Duration) -> bool {
        locked(&self.returned).is_some_and(|at| at.elapsed() < ttl)
    }

    /// A Cell's presence was noticed to be gone.
    pub fn noticed(&self, cell: &str, phase: Option<PresencePhase>) {
        locked(&self.brake).noticed(cell, phase == Some(PresencePhase::Released));
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

    fn hold(&self, loss: &Loss) {
        let mut all = locked(&self.held);
        let held = all.entry(loss.cell.clone()).or_insert_with(|| Held {
            loss: loss.clone(),
            told: false,
            let_go: false,
            again: None,
        });
        held.let_go = false;
    }

    fn told(&self, cell: &str) {
        if let Some(held) = locked(&self.held).get_mut(cell) {
            held.told = true;
        }
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
        return Ok(Answer::Held(Some(count)));
    }
    let roll = context.guard.roll_call(context, read).await?;
    if roll.held.contains(cell) {
        return Ok(Answer::Back);
    }
    let called = context.world(|world| ruling(context, world.cells(), Some(&roll)));
    Ok(match called {
        Ruling::Pass if !confirmed && context.guard.others_return(context.ttl(cell)) => {
            Answer::Held(None)
        }
        Ruling::Pass => Answer::Believed { confirmed: false },
        Ruling::Doubt | Ruling::Hold(_) if confirmed => Answer::Believed { confirmed: true },
        Ruling::Doubt => Answer::Held(None),
        Ruling::Hold(count) => Answer::Held(Some(count)),
    })
}

fn ruling(
    context: &Context,
    cells: &BTreeMap<String, CellRecord>,
    roll: Option<&RollCall>,
) -> Ruling {
    let brake = locked(&context.guard.brake);
    brake.ruling(cells, roll, context.mass_loss_threshold, Instant::now())
}

/// Keeps a loss until it may be believed. Once it is certain that it has to be held back, that is written on the Cell and
/// told.
///
/// # Errors
/// When the API server can't be reached or refuses.
pub async fn hold(
    context: &Arc<Context>,
    loss: &Loss,
    count: Option<Count>,
) -> Result<(), CallError> {
    context.guard.hold(loss);
    refresh(context);
    let Some(count) = count else {
        tracing::info!(
            cell = loss.cell,
            "the presence is gone, and others are overdue: waiting to see what becomes of these"
        );
        return Ok(());
    };
    let name = &loss.cell;
    let written = ledger::write(context, &context.slow.client, name, |_, record| {
        let there = matches!(
            record.status.state,
            Some(CellState::Present | CellState::Evacuating)
        );
        let news = there && !cell::is_held(&record.status);
        news.then(|| (cell::held(name, record, count, Timestamp::now()), ()))
    });
    let written = written.await?;
    context.guard.told(name);
    let Some((record, ())) = written else {
        return Ok(());
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
    Ok(())
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
        let is_held = |(name, record): &(&String, &_)| match held.get(*name) {
            Some(held) => !held.let_go,
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
    let there = matches!(
        record.status.state,
        Some(CellState::Present | CellState::Evacuating)
    );
    there && cell::is_held(&record.status)
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
                Ruling::Doubt
            }
        };
    }
    for loss in context.world(|world| due(world, &mut locked(&context.guard.held), now)) {
        let context = context.clone();
        tokio::spawn(async move { recover(&context, loss).await });
    }
}

/// The losses that are to be looked at again after `ruling`.
fn due(world: &World, held: &mut BTreeMap<String, Held>, ruling: Ruling) -> Vec<Loss> {
    let mut due = Vec::new();
    for (name, held) in held.iter_mut() {
        let record = world.cells().get(name);
        // Without an object there is nothing to hold back: whoever deleted it knew.
        let confirmed = record.is_none_or(|record| record.loss_confirmed);
        let let_go = confirmed || ruling == Ruling::Pass;
        let to_tell = !held.told && matches!(ruling, Ruling::Hold(_));
        let waits = held.again.is_some_and(|at| at.elapsed() < AGAIN);
        if (let_go || to_tell) && !waits {
            held.let_go = let_go;
            held.again = Some(Instant::now());
            due.push(held.loss.clone());
        }
    }
    due
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
