//! What the controller's lanes share.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::channel::mpsc::UnboundedSender;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::{Semaphore, watch};

use crate::api::{Cell, DesiredLRP, Task};
use crate::converge::plan::{self, Plan, Rules, Scope};
use crate::converge::world::{Key, Waiting, World};
use crate::metrics::ControllerMetrics;
use crate::presence::{PresencePhase, PresenceStore};

use super::events::EventSink;

/// Assumed for a Cell whose presence was never seen: the TTL the design gives ("Faster Missing Cell Recovery").
pub const DEFAULT_TTL: Duration = Duration::from_secs(5);

/// A client and how many writes may be under way on it.
pub struct Lane {
    /// The client, with connections of its own.
    pub client: Client,
    /// One permit per write; first come, first served.
    pub permits: Semaphore,
}

/// Wakes the reconcilers.
pub struct Triggers {
    /// Of Cells.
    pub cells: UnboundedSender<ObjectRef<Cell>>,
    /// Of DesiredLRPs.
    pub desired: UnboundedSender<ObjectRef<DesiredLRP>>,
    /// Of Tasks.
    pub tasks: UnboundedSender<ObjectRef<Task>>,
}

/// What was last heard of a Cell's presence.
#[derive(Debug, Clone, Copy)]
pub struct Heard {
    /// What the rep said of itself.
    pub phase: PresencePhase,
    /// Its TTL.
    pub ttl: Duration,
}

/// Shared by all lanes.
pub struct Context {
    world: Mutex<World>,
    /// Who is alive.
    pub store: Arc<dyn PresenceStore>,
    /// For lost Cells alone, so that a recovery waits behind nothing else.
    pub fast: Lane,
    /// For everything else.
    pub slow: Lane,
    /// The controller's metrics.
    pub metrics: Arc<ControllerMetrics>,
    /// Publishes Events, off every lane.
    pub events: EventSink,
    /// The rules' knobs.
    pub rules: Rules,
    /// The resync interval.
    pub interval: Duration,
    /// Wakes the reconcilers.
    pub triggers: Triggers,
    /// True once all kinds were listed: before, what is not there says nothing.
    pub synced: watch::Receiver<bool>,
    /// When the controller began; absence is believed only a TTL later.
    pub started: Instant,
    /// The presence watch is heard.
    pub watch_heard: AtomicBool,
    recovering: Mutex<HashSet<String>>,
    heard: Mutex<HashMap<String, Heard>>,
    /// Instances of lost Cells that do not run again yet, and since when their Cell was last certainly alive.
    down_since: Mutex<HashMap<Key, Instant>>,
}

/// Everything a [`Context`] is made of that is not its own.
pub struct Parts {
    /// See [`Context::store`].
    pub store: Arc<dyn PresenceStore>,
    /// See [`Context::fast`].
    pub fast: Lane,
    /// See [`Context::slow`].
    pub slow: Lane,
    /// See [`Context::metrics`].
    pub metrics: Arc<ControllerMetrics>,
    /// See [`Context::events`].
    pub events: EventSink,
    /// See [`Context::rules`].
    pub rules: Rules,
    /// See [`Context::interval`].
    pub interval: Duration,
    /// See [`Context::triggers`].
    pub triggers: Triggers,
    /// See [`Context::synced`].
    pub synced: watch::Receiver<bool>,
}

impl Context {
    /// A context with an empty world.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            store,
            fast,
            slow,
            metrics,
            events,
            rules,
            interval,
            triggers,
            synced,
        } = parts;
        Arc::new(Context {
            world: Mutex::default(),
            store,
            fast,
            slow,
            metrics,
            events,
            rules,
            interval,
            triggers,
            synced,
            started: Instant::now(),
            watch_heard: AtomicBool::new(false),
            recovering: Mutex::default(),
            heard: Mutex::default(),
            down_since: Mutex::default(),
        })
    }

    /// Looks at, or changes, the world. Never held across an await.
    pub fn world<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        f(&mut locked(&self.world))
    }

    /// Plans what to do in `scope`, and enters it into the world.
    pub fn plan(&self, scope: &Scope) -> Plan {
        let mut new_guid = || uuid::Uuid::new_v4().to_string();
        self.world(|world| plan::plan(world, scope, &self.rules, Timestamp::now(), &mut new_guid))
    }

    /// Waits until all kinds were listed.
    pub async fn synced(&self) {
        let mut synced = self.synced.clone();
        // The sender lives as long as the controller; without it there is nothing left to wait for.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// Notes what a Cell's rep said.
    pub fn heard(&self, cell: &str, heard: Heard) {
        locked(&self.heard).insert(cell.to_owned(), heard);
    }

    /// What was last heard of a Cell.
    pub fn last_heard(&self, cell: &str) -> Option<Heard> {
        locked(&self.heard).get(cell).copied()
    }

    /// How long after the start, or after a new store, absence must not be believed: the longest TTL known.
    pub fn grace(&self) -> Duration {
        locked(&self.heard)
            .values()
            .map(|heard| heard.ttl)
            .max()
            .unwrap_or(DEFAULT_TTL)
            .max(DEFAULT_TTL)
    }

    /// Whether the presence watch is up and would tell of a loss by itself.
    pub fn watch_is_heard(&self) -> bool {
        self.watch_heard.load(Ordering::Relaxed)
    }

    /// Claims the recovery of a Cell; `None` while another lane is at it.
    pub fn begin_recovery(self: &Arc<Self>, cell: &str) -> Option<Recovering> {
        let claimed = locked(&self.recovering).insert(cell.to_owned());
        claimed.then(|| Recovering {
            context: self.clone(),
            cell: cell.to_owned(),
        })
    }

    /// Notes that the instances in `keys` are down since `since`.
    pub fn note_down(&self, keys: impl IntoIterator<Item = Key>, since: Instant) {
        let mut down = locked(&self.down_since);
        for key in keys {
            down.entry(key).or_insert(since);
        }
    }

    /// An instance runs, or is gone; returns how long it was down, if it was.
    pub fn note_up(&self, key: &Key) -> Option<Duration> {
        locked(&self.down_since)
            .remove(key)
            .map(|since| since.elapsed())
    }

    /// Room may have come free: looks again at everything that waits for it.
    pub fn wake_waiting(&self) {
        for waiting in self.world(|world| world.waiting()) {
            match waiting {
                Waiting::Lrp(key) => self.wake_desired(&key),
                Waiting::Task(key) => self.wake_task(&key),
            }
        }
    }

    /// Wakes the reconciler of a Cell.
    pub fn wake_cell(&self, name: &str) {
        // Fails only when the controller is ending.
        let _ = self.triggers.cells.unbounded_send(ObjectRef::new(name));
    }

    /// Wakes the reconciler of a DesiredLRP.
    pub fn wake_desired(&self, key: &Key) {
        let _ = self
            .triggers
            .desired
            .unbounded_send(ObjectRef::new(&key.name).within(&key.namespace));
    }

    /// Wakes the reconciler of a Task.
    pub fn wake_task(&self, key: &Key) {
        let _ = self
            .triggers
            .tasks
            .unbounded_send(ObjectRef::new(&key.name).within(&key.namespace));
    }
}

/// A recovery under way; ends with the value.
pub struct Recovering {
    context: Arc<Context>,
    cell: String,
}

impl Drop for Recovering {
    fn drop(&mut self) {
        locked(&self.context.recovering).remove(&self.cell);
    }
}

/// A poisoned lock means that a task panicked between two consistent states: the value is still whole.
pub fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
