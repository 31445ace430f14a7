//! Convergence runs: when everything there is was looked at once, and how much time that took.
//!
//! Each object is looked at by itself, when it changes and once per interval. A run begins with all of them, and ends when
//! each has been looked at or is gone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use k8s_openapi::jiff::Timestamp;

use crate::converge::plan::{LrpChange, TaskChange, Write};
use crate::converge::task::DeleteReason;
use crate::converge::world::Key;
use crate::metrics::{CORRECTIONS, ControllerLabel, ControllerMetrics, KindLabel, TriggerLabel};
use crate::sync::locked;

use super::context::Context;
use super::execute::Tally;

/// What is gone is noticed, and the next run begins, so often.
const TICK: Duration = Duration::from_secs(1);

/// Something that is looked at once per interval.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Object {
    /// A Cell.
    Cell(String),
    /// A DesiredLRP with its instances.
    Desired(Key),
    /// A Task.
    Task(Key),
}

/// Why a run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The interval was over.
    Resync,
    /// The controller began, and leads without an election.
    Startup,
    /// The controller began to lead.
    Leader,
}

impl Trigger {
    /// As a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Trigger::Resync => "resync",
            Trigger::Startup => "startup",
            Trigger::Leader => "leader",
        }
    }
}

/// How a look at an object ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Well, and nothing but a change or the interval is a reason for the next one.
    Idle,
    /// Well, and something falls due before.
    Due,
    /// With an error.
    Failed,
}

/// A run that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Why it began.
    pub trigger: Trigger,
    /// The time in which something was looked at.
    pub busy: Duration,
    /// The last look at every object went well.
    pub well: bool,
}

/// The run under way, and what the interval alone will be the reason to look at.
#[derive(Debug, Default)]
pub struct Runs {
    run: Option<Run>,
    began: Option<Instant>,
    /// When the interval of an object is over that nothing else asks to be looked at.
    due: HashMap<Object, Instant>,
    looks: u32,
    /// Since when there was always one look or another.
    busy_since: Option<Instant>,
}

#[derive(Debug)]
struct Run {
    trigger: Trigger,
    waiting: HashSet<Object>,
    failing: HashSet<Object>,
    busy: Duration,
}

impl Runs {
    /// Begins a run over `objects`; one under way is forgotten.
    pub fn begin(&mut self, trigger: Trigger, objects: HashSet<Object>, now: Instant) {
        self.due.retain(|object, _| objects.contains(object));
        self.began = Some(now);
        self.busy_since = (self.looks > 0).then_some(now);
        self.run = Some(Run {
            trigger,
            waiting: objects,
            failing: HashSet::new(),
            busy: Duration::ZERO,
        });
    }

    /// Forgets everything: somebody else leads.
    pub fn stop(&mut self) {
        *self = Runs {
            looks: self.looks,
            ..Runs::default()
        };
    }

    /// Whether a run is to begin because the interval is over.
    pub fn is_due(&self, interval: Duration, now: Instant) -> bool {
        let over = |began: Instant| now.saturating_duration_since(began) >= interval;
        self.run.is_none() && self.began.is_none_or(over)
    }

    /// An object is looked at. Returns whether the interval is the only reason.
    pub fn enter(&mut self, object: &Object, now: Instant) -> bool {
        self.looks += 1;
        self.busy_since.get_or_insert(now);
        self.due.remove(object).is_some_and(|due| due <= now)
    }

    /// It has been looked at. Returns the run if that was the last one of it.
    pub fn leave(
        &mut self,
        object: &Object,
        look: Look,
        interval: Duration,
        now: Instant,
    ) -> Option<Ended> {
        self.looks = self.looks.saturating_sub(1);
        if self.looks == 0
            && let Some(since) = self.busy_since.take()
            && let Some(run) = &mut self.run
        {
            run.busy += now.saturating_duration_since(since);
        }
        if look == Look::Idle {
            self.due.insert(object.clone(), now + interval);
        }
        let run = self.run.as_mut()?;
        run.waiting.remove(object);
        match look {
            Look::Failed => run.failing.insert(object.clone()),
            Look::Idle | Look::Due => run.failing.remove(object),
        };
        self.end(now)
    }

    /// Waits no longer for what is not there any more. Returns the run if nothing else is left of it.
    pub fn forget(&mut self, there: impl Fn(&Object) -> bool, now: Instant) -> Option<Ended> {
        let run = self.run.as_mut()?;
        run.waiting.retain(&there);
        run.failing.retain(&there);
        self.end(now)
    }

    fn end(&mut self, now: Instant) -> Option<Ended> {
        let mut run = self.run.take_if(|run| run.waiting.is_empty())?;
        if let Some(since) = self.busy_since.as_mut() {
            run.busy += now.saturating_duration_since(*since);
            *since = now;
        }
        Some(Ended {
            trigger: run.trigger,
            busy: run.busy,
            well: run.failing.is_empty(),
        })
    }
}

/// Begins a run over everything that is there now.
pub fn begin(context: &Context, trigger: Trigger) {
    let objects = context.world(|world| {
        let cells = world.cells().keys().cloned().map(Object::Cell);
        let desired = world.all_desired().map(|it| Object::Desired(it.0.clone()));
        let tasks = world.all_tasks().map(|it| Object::Task(it.0.clone()));
        cells.chain(desired).chain(tasks).collect()
    });
    locked(&context.runs).begin(trigger, objects, Instant::now());
}

/// Keeps runs going while this controller leads, for ever.
pub async fn run(context: Arc<Context>) {
    context.synced().await;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if !context.leading() {
            locked(&context.runs).stop();
            continue;
        }
        let ended = context.world(|world| {
            let there = |object: &Object| match object {
                Object::Cell(name) => world.cells().contains_key(name),
                Object::Desired(key) => world.desired(key).is_some(),
                Object::Task(key) => world.task(key).is_some(),
            };
            locked(&context.runs).forget(there, Instant::now())
        });
        record(&context.metrics, ended);
        if locked(&context.runs).is_due(context.interval, Instant::now()) {
            begin(&context, Trigger::Resync);
        }
    }
}

/// Enters a run that is over into the metrics.
pub fn record(metrics: &ControllerMetrics, ended: Option<Ended>) {
    let Some(Ended {
        trigger,
        busy,
        well,
    }) = ended
    else {
        return;
    };
    let trigger = trigger.as_str();
    let label = TriggerLabel { trigger };
    metrics.convergence_runs.get_or_create(&label).inc();
    metrics.convergence_duration.observe(busy.as_secs_f64());
    if well {
        let now = Timestamp::now().as_millisecond() as f64 / 1000.0;
        metrics.convergence_success.set(now);
    }
}

/// Counts what a look found that only the interval was the reason for: some event should have told of it.
pub fn corrected(metrics: &ControllerMetrics, tally: &Tally) {
    // The first kind, lost Cells, is counted where they are told.
    for (kind, count) in CORRECTIONS[1..].iter().zip(tally.written) {
        let label = KindLabel { kind };
        let counter = metrics.convergence_corrections.get_or_create(&label);
        counter.inc_by(count.into());
    }
}

/// Which of the [`CORRECTIONS`] after the first a write is, if the interval alone brought it: not what says only that
/// something still waits, and not what time alone brings.
pub fn correction(write: &Write) -> Option<usize> {
    match write {
        Write::CreateLrp { .. } => Some(0),
        Write::LrpStatus { change, .. } => match change {
            LrpChange::Waiting { .. } | LrpChange::Told { .. } => None,
            LrpChange::Placed { .. }
            | LrpChange::RestartedHere { .. }
            | LrpChange::Promoted { .. }
            | LrpChange::SuspectEvacuated { .. }
            | LrpChange::SuspectDropped
            | LrpChange::EvacuatingDropped => Some(1),
        },
        Write::DeleteLrp { .. } => Some(2),
        Write::TaskStatus { change, .. } => match change {
            TaskChange::Waiting { .. } | TaskChange::Demoted | TaskChange::Told { .. } => None,
            TaskChange::Failed { .. }
            | TaskChange::Resolving
            | TaskChange::Settled
            | TaskChange::Placed { .. } => Some(3),
        },
        Write::DeleteTask { reason, .. } => match reason {
            DeleteReason::Expired | DeleteReason::CallbackUndelivered => None,
            DeleteReason::CallbackAnswered => Some(4),
        },
    }
}

/// The result of `reconcile`, or nothing if it panicked: one object that the rules can't cope with must not take
/// everybody's recovery along.
pub async fn guarded<T>(
    metrics: &ControllerMetrics,
    controller: &'static str,
    reconcile: impl Future<Output = T>,
) -> Option<T> {
    // What is shared is behind locks that are taken over after a panic.
    let result = std::panic::AssertUnwindSafe(reconcile).catch_unwind().await;
    if result.is_err() {
        let label = ControllerLabel { controller };
        metrics.reconcile_panics.get_or_create(&label).inc();
        tracing::error!(controller, "a reconcile panicked: please report this");
    }
    result.ok()
}

#[cfg(test)]
mod tests;
