//! The rep's side of presence: registers the Cell, renews its lease, and says so when either can't be done.
//!
//! It runs on a thread of its own, with a runtime of its own: a rep whose other threads are all busy with containers
//! must not lose its Cell by it. A lease alone excludes nobody (a rep may not know yet that it lost it), so
//! [`Keeping::last_renewal_sent`] tells the fence since when the store may count.
//!
//! ```text
//!              found own key, or none                    answer says "no such lease", or the key is gone
//! Registering ───────────────────────> Keeping ─────────────────────────────────────────> Registering (new epoch)
//!     │ found another's, for its TTL      │ release()
//!     v                                   v
//!   Failed                             Released
//! ```
//!
//! A rep whose identity is its machine's boot may have a successor on the same machine. That one takes the key over at
//! once, under the same epoch; the older one is *superseded*: it stays in Registering, and says nothing to the store
//! until the key is gone, or, where renewals show, was silent for so long that its successor must be dead.

mod backend;
mod decide;
mod etcd;
mod kubernetes;
mod pace;
mod report;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::PresencePhase;
use super::identity::{Identity, Owner};
use super::store::StoreConfig;
use super::ttl::Ttl;
use crate::boottime;
use crate::converge::fence::{self, BootTime};
use decide::BOOT;
use worker::{Identified, Wires, Worker};

pub(super) use etcd::revoke;

pub use decide::epoch_base;
pub use pace::Reason;
pub use report::{FailureKind, KeeperError, KeeperReport, LossReason};

/// The shortest pause between tries; the longest is the renewal interval.
const RETRY_MIN: Duration = Duration::from_millis(100);

/// What is registered.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The Cell's name.
    pub cell_id: String,
    /// The life of the Cell's containers that now begins, or goes on.
    pub incarnation: String,
    /// How long the store keeps the presence without a renewal; `--presence-ttl-seconds`.
    pub ttl: Ttl,
    /// How many Cells there are, for a TTL that is chosen here.
    pub cells: CellCount,
    /// The greatest epoch that the ledger has of this Cell: the next one must be greater, also in a store that lost
    /// its data.
    pub known_epoch: KnownEpoch,
    /// The greatest epoch under which the ledger has this Cell lost or gone: it lives on only under a greater one.
    pub dead_epoch: KnownEpoch,
    /// Whether what must not run twice is killed here at [`Keeping::fence_deadline`].
    pub fence: bool,
}

/// The greatest epoch that was ever heard of; shared between who hears and who registers.
#[derive(Debug, Clone, Default)]
pub struct KnownEpoch(Arc<AtomicI64>);

impl KnownEpoch {
    /// Takes on what was heard, if it is greater.
    pub fn hear(&self, epoch: i64) {
        self.0.fetch_max(epoch, Ordering::Relaxed);
    }

    /// The greatest so far; 0 for none.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many Cells there are; shared between who counts them and who chooses a TTL by it.
#[derive(Debug, Clone, Default)]
pub struct CellCount(Arc<AtomicU32>);

impl CellCount {
    /// So many were counted.
    pub fn set(&self, cells: u32) {
        self.0.store(cells, Ordering::Relaxed);
    }

    /// As last counted; 0 when that is not known.
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The state of a Cell's presence, as far as its keeper knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keeping {
    /// The key is held; stays `true` while renewals go unanswered, until the store says that it is gone.
    pub held: bool,
    /// The epoch held, or last held.
    pub epoch: Option<i64>,
    /// Taken just before the last renewal (or grant) was sent that the store answered with a TTL above 0: it can't
    /// expire the key earlier than this plus the TTL, and can any time after.
    pub last_renewal_sent: Option<Sent>,
    /// The TTL that the store granted, or a shorter one that it is told next: nothing is promised beyond that any more.
    pub ttl: Duration,
    /// The shortest TTL that there may be.
    pub least: Duration,
    /// A newer rep of the same machine holds the presence: what runs here is under its fence.
    pub superseded: bool,
}

impl Keeping {
    /// When what must not run twice has to be killed, unless another renewal is answered before. It moves on with each
    /// answered renewal, also under another epoch, and never back; `None` before the first registration, and where the
    /// TTL is too short for it. Whoever keeps it must act on it by the clock alone: this value is the last that is heard
    /// of a keeper that hangs.
    pub fn fence_deadline(&self) -> Option<BootTime> {
        fence::reach(self.least).ok()?;
        fence::deadline(self.last_renewal_sent?.boot, self.ttl).ok()
    }
}

/// The moment before something is sent, on both clocks of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sent {
    /// On the clock that timers use, which stands still while the machine sleeps.
    pub at: Instant,
    /// On the clock that goes on: what the store counts by goes on, too.
    pub boot: BootTime,
}

impl Sent {
    /// Now, before anything is sent.
    pub(super) fn now() -> Self {
        // The one that matters is taken first: the earlier, the safer.
        let boot = boottime::now();
        Self {
            at: Instant::now(),
            boot,
        }
    }
}

/// A running keeper: its reports, and the control over it.
///
/// When this and every [`KeeperControl`] is dropped, the keeper ends like a rep that died: it stops renewing and gives
/// nothing back.
#[derive(Debug)]
pub struct Keeper {
    /// What happened, in order. [`KeeperReport::Renewed`] and the failures are left out when nobody reads; ends after
    /// [`KeeperReport::Released`] or [`KeeperReport::Failed`].
    pub reports: mpsc::Receiver<KeeperReport>,
    /// The control; may be cloned.
    pub control: KeeperControl,
    /// The random token that marks whatever this keeper registers, and nothing else.
    pub holder: String,
}

/// Control over a running keeper.
#[derive(Debug, Clone)]
pub struct KeeperControl {
    commands: mpsc::Sender<Command>,
    keeping: watch::Receiver<Keeping>,
}

/// What the control asks the keeper's thread to do.
#[derive(Debug)]
enum Command {
    SetPhase(PresencePhase, oneshot::Sender<Result<(), KeeperError>>),
    SetFence(bool, oneshot::Sender<Result<(), KeeperError>>),
    Release(oneshot::Sender<bool>),
    Renew(oneshot::Sender<bool>),
}

/// Holds some minutes of renewals; one that is never read must not stop the keeper.
const REPORTS: usize = 256;

impl Keeper {
    /// Starts to register and renew. What is registered is marked as `owner` says.
    ///
    /// # Errors
    /// When the options can't work, or there is no thread.
    pub fn start(
        store: StoreConfig,
        registration: Registration,
        owner: Owner,
    ) -> Result<Self, KeeperError> {
        Self::start_in(PresencePhase::Held, store, registration, owner)
    }

    /// The same, registering in this phase: one that goes on with an evacuation must not seem to be back in between.
    ///
    /// # Errors
    /// As [`Keeper::start`].
    pub fn start_in(
        phase: PresencePhase,
        store: StoreConfig,
        registration: Registration,
        owner: Owner,
    ) -> Result<Self, KeeperError> {
        store.validate()?;
        let whole = matches!(store, StoreConfig::Etcd(_));
        registration.ttl.check(whole)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(thread_error)?;
        let me = identify(owner, &registration)?;
        let (reports_in, reports) = mpsc::channel(REPORTS);
        let (commands, commands_out) = mpsc::channel(8);
        let (keeping_in, keeping) = watch::channel(Keeping::default());
        let wires = Wires {
            reports: reports_in,
            commands: commands_out,
            keeping: keeping_in,
        };
        let (cell, holder) = (registration.cell_id.clone(), me.holder.clone());
        let work = move || match store {
            StoreConfig::Etcd(config) => {
                let backend = etcd::EtcdBackend::new(config, &cell);
                let worker = Worker::new(backend, registration, me, wires);
                runtime.block_on(worker.begins_in(phase).run());
            }
            StoreConfig::Kubernetes(config) => {
                let backend = kubernetes::LeaseBackend::new(*config, &cell);
                let worker = Worker::new(backend, registration, me, wires);
                runtime.block_on(worker.begins_in(phase).run());
            }
        };
        std::thread::Builder::new()
            .name("presence-keeper".into())
            .spawn(work)
            .map_err(thread_error)?;
        Ok(Self {
            reports,
            control: KeeperControl { commands, keeping },
            holder,
        })
    }
}

fn identify(owner: Owner, registration: &Registration) -> Result<Identified, KeeperError> {
    let Registration {
        cell_id,
        incarnation,
        ..
    } = registration;
    // Each has a random token; what else is in them is of no interest here.
    let random = || Identity::new(cell_id, incarnation).map(|identity| identity.owner);
    let unproven = random().map_err(thread_error)?;
    let (owner, proof, machine) = match owner {
        Owner::WorkDir(identity) if identity.cell_id == *cell_id => (identity.owner, true, false),
        Owner::WorkDir(_) | Owner::Unproven => (unproven, false, false),
        Owner::Boot(id) => (format!("{BOOT}{id}"), true, true),
    };
    Ok(Identified {
        owner,
        holder: random().map_err(thread_error)?,
        proof,
        machine,
    })
}

fn thread_error(error: std::io::Error) -> KeeperError {
    KeeperError::Thread(error.to_string())
}

impl KeeperControl {
    /// The state of the presence, to be read or awaited at any time. The channel closes when the keeper ends.
    pub fn keeping(&self) -> watch::Receiver<Keeping> {
        self.keeping.clone()
    }

    /// Publishes another phase under the same lease and epoch. It lasts over a loss: the next registration has it too.
    pub async fn set_phase(&self, phase: PresencePhase) -> Result<(), KeeperError> {
        let (done, answer) = oneshot::channel();
        self.ask(Command::SetPhase(phase, done), answer).await?
    }

    /// Publishes whether what must not run twice is killed here in time, as [`Registration::fence`] did. It lasts over a
    /// loss.
    pub async fn set_fence(&self, fence: bool) -> Result<(), KeeperError> {
        let (done, answer) = oneshot::channel();
        self.ask(Command::SetFence(fence, done), answer).await?
    }

    /// Gives the presence back: publishes [`PresencePhase::Released`], so that it isn't taken for a loss, and then
    /// revokes the lease. Takes a few seconds at most; `false` when the store did not confirm it, and the presence
    /// ends with its TTL.
    pub async fn release(&self) -> Result<bool, KeeperError> {
        let (done, answer) = oneshot::channel();
        self.ask(Command::Release(done), answer).await
    }

    /// Renews now, out of turn: whoever takes the presence over has a full TTL to do so. `false` when it is not held, or the store
    /// did not confirm it.
    pub async fn renew(&self) -> Result<bool, KeeperError> {
        let (done, answer) = oneshot::channel();
        self.ask(Command::Renew(done), answer).await
    }

    async fn ask<T>(
        &self,
        command: Command,
        answer: oneshot::Receiver<T>,
    ) -> Result<T, KeeperError> {
        self.commands
            .send(command)
            .await
            .map_err(|_| KeeperError::Ended)?;
        answer.await.map_err(|_| KeeperError::Ended)
    }
}
