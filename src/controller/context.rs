//! What the controller's lanes share.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::channel::mpsc::UnboundedSender;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::watch;

use crate::api::{Cell, DesiredLRP, Task};
use crate::client::gate::Gate;
use crate::converge::plan::{self, Plan, Rules, Scope};
use crate::converge::world::{Key, Waiting, World};
use crate::metrics::ControllerMetrics;
use crate::presence::{Presence, PresencePhase, PresenceStore};
use crate::sync::locked;

use super::callbacks::Callbacks;
use super::events::{EventSink, Hold};
use super::guard::Guard;
use super::leader::Kept;
use super::pods::{Pods, Wake};
use super::recovery::Loss;
use super::runs::Runs;
use super::taint::Taints;
use super::turns::Turns;

/// Assumed for a Cell whose presence was never seen: the TTL the design gives ("Faster Missing Cell Recovery").
pub const DEFAULT_TTL: Duration = Duration::from_secs(5);

/// A client and how many writes may be under way on it.
pub struct Lane {
    /// The client, with connections of its own.
    pub client: Client,
    /// One turn per write.
    pub turns: Turns,
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
    /// What the store's revisions are counted on from to its epochs.
    pub epoch_base: i64,
    /// Whether it said that there is a fence, where that could be read.
    pub fence: Option<bool>,
    /// When its presence was last seen.
    pub at: Instant,
}

/// Shared by all lanes.
pub struct Context {
    world: Mutex<World>,
    /// What it was given.
    parts: Parts,
    /// The presence watch is heard.
    pub watch_heard: AtomicBool,
    /// Losses seen while this controller did not lead.
    pub kept: Kept,
    /// Holds back losses of too many Cells at once.
    pub guard: Guard,
    /// The convergence run under way.
    pub runs: Mutex<Runs>,
    room: AtomicBool,
    started: Instant,
    trusted_since: Mutex<Instant>,
    /// Cells whose recovery is under way, with the loss that was noticed meanwhile.
    recovering: Mutex<HashMap<String, Option<Loss>>>,
    heard: Mutex<HashMap<String, Heard>>,
    /// Instances of lost Cells that do not run again yet, the Cell, and when it was last certainly alive.
    down: Mutex<HashMap<Key, (String, Instant)>>,
}

/// What a [`Context`] is given; read as if it were its own.
pub struct Parts {
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
    /// Delivers the outcomes of Tasks.
    pub callbacks: Callbacks,
    /// Runs work on the Cells that are nodes.
    pub pods: Pods,
    /// Wakes whoever taints the Nodes of lost Cells.
    pub taints: Taints,
    /// How long the object of a Cell outlives it.
    pub retention: Duration,
    /// The part of all Cells, in percent, whose loss at once is ordinary.
    pub mass_loss_threshold: u32,
    /// Open while this controller leads. Every write of the lanes passes it; nothing is planned while it is shut.
    pub gate: Gate,
}

impl Deref for Context {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Context {
    /// A context with an empty world.
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Context {
            world: Mutex::default(),
            parts,
            started: Instant::now(),
            trusted_since: Mutex::new(Instant::now()),
            watch_heard: AtomicBool::new(false),
            kept: Kept::default(),
            guard: Guard::default(),
            runs: Mutex::default(),
            room: AtomicBool::new(false),
            recovering: Mutex::default(),
            heard: Mutex::default(),
            down: Mutex::default(),
        })
    }

    /// Looks at, or changes, the world. Never held across an await.
    pub fn world<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        let mut world = locked(&self.world);
        let result = f(&mut world);
        let touched = world.take_touched();
        drop(world);
        for work in touched.iter().flat_map(|touched| &touched.works) {
            self.pods.wake(Wake::Work(work.clone()));
        }
        for cell in touched.iter().flat_map(|touched| &touched.cells) {
            self.pods.wake(Wake::Cell(cell.clone()));
        }
        result
    }

    /// Plans what to do in `scope`, and enters it into the world.
    pub fn plan(&self, scope: &Scope) -> Plan {
        let mut new_guid = || uuid::Uuid::new_v4().to_string();
        self.world(|world| plan::plan(world, scope, &self.rules, Timestamp::now(), &mut new_guid))
    }

    /// Whether this controller leads now.
    pub fn leading(&self) -> bool {
        self.gate.is_open()
    }

    /// Waits until all kinds were listed.
    pub async fn synced(&self) {
        let mut synced = self.synced.clone();
        // The sender lives as long as the controller; without it there is nothing left to wait for.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// Notes what a Cell's presence says.
    pub fn heard(&self, presence: &Presence) {
        let heard = Heard {
            phase: presence.phase(),
            ttl: presence.ttl().unwrap_or(DEFAULT_TTL),
            epoch_base: presence.epoch_base(),
            fence: presence.value.as_ref().map(|value| value.fence),
            at: Instant::now(),
        };
        locked(&self.heard).insert(presence.cell.clone(), heard);
        self.guard.heard(&presence.cell, heard.phase);
        let was_gone = self.world(|world| {
            let was_gone = world.seems_gone(&presence.cell);
            world.mark_alive(&presence.cell);
            was_gone
        });
        if was_gone {
            // What was not placed there meanwhile may be now.
            self.note_room();
        }
    }

    /// What was last heard of a Cell.
    pub fn last_heard(&self, cell: &str) -> Option<Heard> {
        locked(&self.heard).get(cell).copied()
    }

    /// The Cell's TTL, or the default where it was never heard.
    pub fn ttl(&self, cell: &str) -> Duration {
        self.last_heard(cell).map_or(DEFAULT_TTL, |heard| heard.ttl)
    }

    /// How long absence must still not be believed: one TTL after the start, and after a store that lost its
    /// data, every Cell that lives must first have had the time to show itself.
    pub fn grace(&self, cell: &str) -> Duration {
        self.ttl(cell)
            .saturating_sub(locked(&self.trusted_since).elapsed())
    }

    /// From now on absence is believed only after another TTL.
    pub fn distrust(&self) {
        *locked(&self.trusted_since) = Instant::now();
    }

    /// Whether the presence watch is up and would tell of a loss by itself.
    pub fn watch_is_heard(&self) -> bool {
        self.watch_heard.load(Ordering::Relaxed)
    }

    /// Claims the recovery of a Cell. `None` while another lane is at it: then that one looks at `loss` next.
    pub fn begin_recovery(self: &Arc<Self>, loss: Loss) -> Option<Recovering> {
        match locked(&self.recovering).entry(loss.cell.clone()) {
            Entry::Occupied(mut entry) => {
                entry.insert(Some(loss));
                None
            }
            Entry::Vacant(entry) => {
                entry.insert(None);
                Some(Recovering {
                    context: self.clone(),
                    cell: loss.cell,
                    ended: false,
                    _hold: self.events.hold(),
                })
            }
        }
    }

    /// Notes that the instances in `keys` are down: they ran on `cell`, which was last alive at `alive`.
    pub fn note_down(&self, keys: impl IntoIterator<Item = Key>, cell: &str, alive: Instant) {
        let mut down = locked(&self.down);
        down.extend(keys.into_iter().map(|key| (key, (cell.to_owned(), alive))));
    }

    /// An instance runs on `cell`; returns how long it was down, if it was lost with another Cell.
    pub fn note_up(&self, key: &Key, cell: &str) -> Option<Duration> {
        let mut down = locked(&self.down);
        let (lost_with, alive) = down.get(key)?;
        if lost_with == cell {
            return None;
        }
        let downtime = alive.elapsed();
        down.remove(key);
        Some(downtime)
    }

    /// An instance is gone.
    pub fn note_gone(&self, key: &Key) {
        locked(&self.down).remove(key);
    }

    /// Room may have come free: what waits for it is placed in one batch, soon.
    pub fn note_room(&self) {
        self.room.store(true, Ordering::Relaxed);
    }

    /// Whether room was noted since the last call.
    pub fn take_room(&self) -> bool {
        self.room.swap(false, Ordering::Relaxed)
    }

    /// Looks again at everything that waits for room, one by one.
    pub fn wake_waiting(&self) {
        for waiting in self.world(|world| world.waiting()) {
            match waiting {
                Waiting::Lrp(key) => self.wake_desired(&key),
                Waiting::Task(key) => self.wake_task(&key),
            }
        }
    }

    /// Whether a loss that the resync finds is one that the watch missed: not in the first interval, in which
    /// Cells are found that died before this controller began.
    pub fn watch_should_have_told(&self) -> bool {
        self.started.elapsed() > self.interval
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

/// A recovery under way; the claim ends with the value.
pub struct Recovering {
    context: Arc<Context>,
    cell: String,
    ended: bool,
    /// The Events of a recovery are told after it.
    _hold: Hold,
}

impl Recovering {
    /// The loss that was noticed meanwhile. With none the claim ends, in the same instant.
    pub fn noticed_meanwhile(&mut self) -> Option<Loss> {
        let mut recovering = locked(&self.context.recovering);
        let loss = recovering.get_mut(&self.cell)?.take();
        if loss.is_none() {
            recovering.remove(&self.cell);
            self.ended = true;
        }
        loss
    }
}

impl Drop for Recovering {
    fn drop(&mut self) {
        if !self.ended {
            locked(&self.context.recovering).remove(&self.cell);
        }
    }
}
