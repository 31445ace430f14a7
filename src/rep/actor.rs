//! The one task that owns what runs here: it hears of records and processes, and has each pair settled.
//!
//! ```text
//!  watch ─┐                                                   ┌─> one call to the API server per record at a time
//!  sync  ─┼─> records ─┐                                      │       │ answer
//!  calls ─┘            ├─> settle: converge::harmony, step ───┤       v
//!  processes ─> containers                                    └─> start, stop, forget a process
//! ```
//!
//! Nothing here waits for anything: calls and processes run beside it and report by message.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::container::Container;
use super::drain::Draining;
use super::jobs::{Answer, Job};
use super::metrics::{RepMetrics, StopReason};
use super::outcome::End;
use super::process::Event;
use super::records::{Key, Record};
use super::store::Store;
use super::watch::Sighting;
use super::witness::Hold;
use super::workdir::WorkDir;
use crate::client::CallError;
use crate::converge::harmony::Mode;
use crate::presence::keeper::{KeeperControl, Keeping, KnownEpoch};

/// A container whose record the watch does not show is looked after so often, until it is settled.
const UNWATCHED_INTERVAL: Duration = Duration::from_secs(2);

/// What the actor is told.
#[derive(Debug)]
pub(super) enum Message {
    /// A process changed.
    Process(String, Event),
    /// A call was answered.
    Answered(Box<(Key, Job, Answer)>),
    /// A record whose call failed may be tried again.
    Retry(Key),
    /// All assignments were listed; the list was asked for at that time.
    Synced(Result<Vec<Record>, CallError>, Instant),
    /// The store was told, or could not be told, that this rep drains.
    PhaseTold,
}

/// What happened to a record while a call for it was under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Meanwhile {
    /// Nothing.
    Nothing,
    /// Something that is known here: settle it then.
    Changed,
    /// Something that is not known here: read it then, for the answer under way may be older.
    Doubted,
}

/// What never changes while the rep runs.
pub struct Setup {
    /// The Cell.
    pub cell: String,
    /// The epoch of this rep's first registration.
    pub first_epoch: i64,
    /// The greatest epoch under which this Cell was judged lost.
    pub dead_epoch: KnownEpoch,
    /// The address at which instances are reached.
    pub address: String,
    /// The program with the subcommand `supervise`.
    pub supervisor: PathBuf,
    /// What every supervisor has, so that the rep's witness does not speak up before it has ended.
    pub hold: Option<Hold>,
    /// The work directory.
    pub work_dir: WorkDir,
    /// How often everything is compared with all records.
    pub sync_interval: Duration,
    /// How long a graceful stop waits.
    pub evacuation_timeout: Duration,
    /// The calls.
    pub store: Store,
    /// The metrics.
    pub metrics: RepMetrics,
}

/// What runs here, and what is known of its records.
pub struct Actor {
    pub(super) setup: Setup,
    pub(super) keeper: KeeperControl,
    pub(super) keeping: watch::Receiver<Keeping>,
    pub(super) mode: Mode,
    /// As last read. Records without a container and not assigned here are not kept.
    pub(super) records: HashMap<Key, Record>,
    /// The uids of records that left the watch and were not read since.
    pub(super) left: HashMap<Key, String>,
    /// By instance guid.
    pub(super) containers: HashMap<String, Container>,
    /// Records with a call under way, or waiting to be tried again.
    pub(super) busy: HashMap<Key, Meanwhile>,
    /// How many calls in a row failed.
    pub(super) failures: HashMap<Key, u32>,
    pub(super) outbox: mpsc::UnboundedSender<Message>,
    inbox: mpsc::UnboundedReceiver<Message>,
    pub(super) draining: Option<Draining>,
    /// Something must not begin before the presence is renewed again.
    pub(super) waits_for_renewal: bool,
    syncing: bool,
    sync_failed: bool,
}

impl Actor {
    /// Nothing runs yet.
    pub fn new(setup: Setup, keeper: KeeperControl) -> Self {
        // Unbounded, but never long: one call per record, two events per process.
        let (outbox, inbox) = mpsc::unbounded_channel();
        Actor {
            setup,
            keeping: keeper.keeping(),
            keeper,
            mode: Mode::Ordinary,
            records: HashMap::new(),
            left: HashMap::new(),
            containers: HashMap::new(),
            busy: HashMap::new(),
            failures: HashMap::new(),
            outbox,
            inbox,
            draining: None,
            waits_for_renewal: false,
            syncing: false,
            sync_failed: false,
        }
    }

    /// Runs until `shutdown`, and then until nothing is left here. `hurry` cuts that short.
    pub async fn run(
        mut self,
        mut sightings: mpsc::Receiver<Sighting>,
        shutdown: CancellationToken,
        hurry: CancellationToken,
    ) {
        let mut sync = tokio::time::interval(self.setup.sync_interval);
        sync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unwatched = tokio::time::interval(UNWATCHED_INTERVAL);
        unwatched.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut held = self.epoch().is_some();
        let (mut keeper_lives, mut watch_lives) = (true, true);
        loop {
            let deadline = self.draining.map(|draining| draining.deadline().into());
            tokio::select! {
                () = shutdown.cancelled(), if self.draining.is_none() => self.begin_draining(),
                () = hurry.cancelled(), if self.draining.is_some_and(|draining| draining.forced_until.is_none()) => {}
                () = sleep_until(deadline) => {}
                changed = self.keeping.changed(), if keeper_lives => {
                    keeper_lives = changed.is_ok();
                    let now_held = self.epoch().is_some();
                    if now_held && (!held || self.renewed()) {
                        self.settle_all();
                    }
                    held = now_held;
                }
                Some(message) = self.inbox.recv() => self.hear(message),
                sighting = sightings.recv(), if watch_lives => match sighting {
                    Some(sighting) => self.see(sighting),
                    None => watch_lives = false,
                },
                _ = sync.tick() => self.sync(),
                _ = unwatched.tick() => self.look_after_the_unwatched(),
            }
            self.measure();
            if self.drain(hurry.is_cancelled()) {
                return;
            }
        }
    }

    /// The epoch under which writes may be made now; without a presence there are none, nor after the verdict that
    /// the Cell is lost. A rep that the presence store does not answer hears of that verdict only from the API server.
    pub(super) fn epoch(&self) -> Option<i64> {
        let keeping = *self.keeping.borrow();
        keeping
            .epoch
            .filter(|epoch| keeping.held && *epoch > self.setup.dead_epoch.get())
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Process(guid, event) => self.process_changed(&guid, event),
            Message::Answered(answered) => {
                let (key, job, answer) = *answered;
                self.answered(key, job, answer);
            }
            Message::Retry(key) => {
                self.busy.remove(&key);
                self.read(&key);
            }
            Message::Synced(result, asked) => self.synced(result, asked),
            Message::PhaseTold => self.phase_told(),
        }
    }

    fn process_changed(&mut self, guid: &str, event: Event) {
        let Some(container) = self.containers.get_mut(guid) else {
            return;
        };
        let (process, index, key) = (
            container.process.clone(),
            container.index,
            container.key.clone(),
        );
        match event {
            Event::Ready => {
                if container.ready() {
                    tracing::info!(process, index, instance = guid, "ready");
                }
            }
            Event::Ended(end) => {
                let reason = end.reason();
                if end == End::Fenced {
                    self.setup.metrics.stopped(StopReason::Fenced);
                }
                container.ended(end);
                tracing::info!(process, index, instance = guid, reason, "ended");
            }
        }
        self.settle(&key, false);
    }

    fn see(&mut self, sighting: Sighting) {
        match sighting {
            Sighting::Seen(record) => {
                let key = record.key();
                // It is there after all, or again.
                self.left
                    .retain(|left, uid| *left != key || record.uid() != Some(uid));
                self.remember(record);
                self.settle(&key, false);
            }
            Sighting::Left(key, uid) => {
                if let Some(uid) = uid {
                    self.left.insert(key.clone(), uid);
                }
                self.doubt(&key);
            }
            Sighting::Listed(kind, keys) => {
                let listed: BTreeSet<Key> = keys.into_iter().collect();
                self.doubt_all_but(&listed, |key| key.kind == kind);
            }
        }
    }

    /// Keeps a record unless a newer state of it is known.
    pub(super) fn remember(&mut self, record: Record) {
        let key = record.key();
        if !self
            .records
            .get(&key)
            .is_some_and(|known| known.is_newer_than(&record))
        {
            self.records.insert(key, record);
        }
    }

    /// What is known of a record no longer holds: read it, if it matters here.
    fn doubt(&mut self, key: &Key) {
        if self
            .containers
            .values()
            .any(|container| container.key == *key)
        {
            self.read(key);
            return;
        }
        // Nothing runs here that could be retired.
        self.left.remove(key);
        if !self.busy.contains_key(key) {
            self.records.remove(key);
        }
    }

    fn doubt_all_but(&mut self, listed: &BTreeSet<Key>, applies: impl Fn(&Key) -> bool) {
        let held = self.containers.values().map(|container| &container.key);
        let unlisted: BTreeSet<Key> = self
            .records
            .keys()
            .chain(held)
            .filter(|key| applies(key) && !listed.contains(key))
            .cloned()
            .collect();
        for key in unlisted {
            self.doubt(&key);
        }
    }

    /// Asks for all records that are assigned here.
    fn sync(&mut self) {
        if std::mem::replace(&mut self.syncing, true) {
            return;
        }
        let (store, cell, outbox) = (
            self.setup.store.clone(),
            self.setup.cell.clone(),
            self.outbox.clone(),
        );
        tokio::spawn(async move {
            let asked = Instant::now();
            let result = store.assigned(&cell).await;
            // The actor is gone only when the rep ends.
            let _ = outbox.send(Message::Synced(result, asked));
        });
    }

    fn synced(&mut self, result: Result<Vec<Record>, CallError>, asked: Instant) {
        self.syncing = false;
        match result {
            Ok(records) => {
                if std::mem::take(&mut self.sync_failed) {
                    tracing::info!("the API server lists this Cell's assignments again");
                }
                let listed: BTreeSet<Key> = records.iter().map(Record::key).collect();
                for record in records {
                    self.remember(record);
                }
                self.doubt_all_but(&listed, |_| true);
                self.settle_all();
                self.setup.metrics.synced(asked.elapsed());
            }
            Err(error) => {
                if !std::mem::replace(&mut self.sync_failed, true) {
                    tracing::warn!(%error, "this Cell's assignments can't be listed; what runs goes on");
                }
            }
        }
    }

    /// The watch shows only records whose ordinary instance is assigned here. A Suspect or Evacuating instance is
    /// asked after, so that it is stopped soon after its replacement runs.
    fn look_after_the_unwatched(&mut self) {
        let shown = |key: &Key| {
            self.records
                .get(key)
                .is_some_and(|record| record.is_assigned_to(&self.setup.cell))
        };
        let unwatched: BTreeSet<Key> = self
            .containers
            .values()
            .map(|container| &container.key)
            .filter(|key| !shown(key))
            .cloned()
            .collect();
        for key in unwatched {
            self.read(&key);
        }
    }

    pub(super) fn settle_all(&mut self) {
        let held = self.containers.values().map(|container| &container.key);
        let keys: BTreeSet<Key> = self.records.keys().chain(held).cloned().collect();
        for key in keys {
            self.settle(&key, false);
        }
    }

    fn measure(&self) {
        let (mut counts, mut memory, mut disk) = ([0; 5], 0i64, 0i64);
        for container in self.containers.values() {
            counts[container.state_index()] += 1;
            memory = memory.saturating_add(container.resources.memory);
            disk = disk.saturating_add(container.resources.disk);
        }
        self.setup.metrics.set_containers(counts, memory, disk);
    }
}

/// Sleeps until then; without a time, for ever.
async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
