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

mod decide;
mod lane;
mod register;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::etcd::{ConfigError, EtcdConfig};
use super::identity::Identity;
use super::{PresencePhase, StoreError};

/// What is registered.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The Cell's name.
    pub cell_id: String,
    /// The life of the Cell's containers that now begins, or goes on.
    pub incarnation: String,
    /// How long the store keeps the presence without a renewal; `--presence-ttl-seconds`.
    pub ttl_seconds: u32,
    /// The greatest epoch that the ledger has of this Cell: the next one must be greater, also in a store that lost
    /// its data.
    pub known_epoch: KnownEpoch,
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

/// The state of a Cell's presence, as far as its keeper knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keeping {
    /// The key is held; stays `true` while renewals go unanswered, until the store says that it is gone.
    pub held: bool,
    /// The epoch held, or last held.
    pub epoch: Option<i64>,
    /// Taken just before the last renewal (or grant) was sent that the store answered with a TTL above 0: it can't
    /// expire the key earlier than this plus the TTL, and can any time after.
    pub last_renewal_sent: Option<Instant>,
}

/// Why an exchange with the store did not do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// No answer within the deadline.
    Timeout,
    /// An error, or a connection that broke.
    Error,
}

/// How a presence was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LossReason {
    /// The store no longer knows the lease: it expired, was revoked, or the store lost its data.
    LeaseGone,
    /// The lease lives, but the key was deleted or is another's.
    KeyGone,
}

/// What the keeper has to tell.
#[derive(Debug, Clone)]
pub enum KeeperReport {
    /// The Cell is registered.
    Registered {
        /// Grows with every registration, unless the former one was taken over.
        epoch: i64,
        /// The lease that holds the key.
        lease_id: i64,
        /// As granted.
        ttl: Duration,
        /// The key of a former life of this rep was still there and goes on: nothing of this Cell was lost.
        took_over: bool,
    },
    /// A try to register got no good answer from the store; the next one follows.
    RegistrationFailed {
        /// In which way.
        kind: FailureKind,
    },
    /// A renewal was answered.
    Renewed {
        /// From before it was sent until its answer.
        took: Duration,
    },
    /// A renewal was not answered; the next try follows on another connection.
    RenewalFailed {
        /// In which way.
        kind: FailureKind,
    },
    /// The presence is gone. Registering anew has begun, which gives another epoch.
    Lost {
        /// How.
        reason: LossReason,
    },
    /// Another rep holds this Cell's key. Retried until its TTL is over: it may be a dead one.
    Refused {
        /// The holder's incarnation, where its value can be read.
        incarnation: Option<String>,
        /// The holder's epoch.
        epoch: i64,
    },
    /// Ended by [`KeeperControl::release`].
    Released {
        /// The store confirmed that the key is gone; otherwise it expires by itself.
        given_back: bool,
    },
    /// Ended by an error that no retry mends.
    Failed {
        /// What to tell the operator.
        error: KeeperError,
    },
}

/// An error that ends the keeper, or that refuses a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeeperError {
    /// The options can't work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The operating system gave no thread.
    #[error("the presence keeper can't be started: {0}")]
    Thread(String),
    /// The store silently makes short TTLs longer; a promise that it won't keep must not be made.
    #[error(
        "--presence-ttl-seconds {asked} is below what the presence store can do: it grants at least {minimum} s \
         (one and a half of etcd's election timeout); set --presence-ttl-seconds to {minimum} or more"
    )]
    TtlBelowMinimum {
        /// As asked for, in seconds.
        asked: u32,
        /// What the store made of it, in seconds.
        minimum: i64,
    },
    /// Another rep holds the key, and its TTL has passed more than once.
    #[error(
        "cell id \"{cell_id}\" is held by another rep (incarnation {}, epoch {epoch}); \
         give this rep another --cell-id, or stop the other one",
        incarnation.as_deref().unwrap_or("unreadable")
    )]
    HeldByAnother {
        /// The name in dispute.
        cell_id: String,
        /// The holder's incarnation, where its value can be read.
        incarnation: Option<String>,
        /// The holder's epoch.
        epoch: i64,
    },
    /// The Cell is not registered at the moment; the phase is published with the next registration.
    #[error("the presence is not held at the moment")]
    NotHeld,
    /// The store did not take the phase in time; it is published with the next registration.
    #[error("the presence store did not take the new phase: {0}")]
    NotWritten(String),
    /// The keeper has ended.
    #[error("the presence keeper has ended")]
    Ended,
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
    Release(oneshot::Sender<bool>),
}

/// Holds some minutes of renewals; one that is never read must not stop the keeper.
const REPORTS: usize = 256;

impl Keeper {
    /// Starts to register and renew.
    ///
    /// `identity` is what [`Identity::prepare`] gave, with the work directory locked. Its token is what the key is
    /// marked with, and the proof that a key found there is our own. Without it, a key found there is another's.
    pub fn start(
        config: EtcdConfig,
        registration: Registration,
        identity: Option<Identity>,
    ) -> Result<Self, KeeperError> {
        config.validate()?;
        let thread_error = |error: std::io::Error| KeeperError::Thread(error.to_string());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(thread_error)?;
        let identity = identity.filter(|identity| identity.cell_id == registration.cell_id);
        let proof = identity.is_some();
        let owner = match identity {
            Some(identity) => identity.owner,
            None => {
                Identity::new(&registration.cell_id, &registration.incarnation)
                    .map_err(thread_error)?
                    .owner
            }
        };

        let (reports_in, reports) = mpsc::channel(REPORTS);
        let (commands, commands_out) = mpsc::channel(8);
        let (keeping_in, keeping) = watch::channel(Keeping::default());
        let worker = worker::Worker::new(
            config,
            registration,
            owner,
            proof,
            worker::Wires {
                reports: reports_in,
                commands: commands_out,
                keeping: keeping_in,
            },
        );
        std::thread::Builder::new()
            .name("presence-keeper".into())
            .spawn(move || runtime.block_on(worker.run()))
            .map_err(thread_error)?;
        Ok(Self {
            reports,
            control: KeeperControl { commands, keeping },
        })
    }
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

    /// Gives the presence back: publishes [`PresencePhase::Released`], so that it isn't taken for a loss, and then
    /// revokes the lease. Takes a few seconds at most; `false` when the store did not confirm it, and the presence
    /// ends with its TTL.
    pub async fn release(&self) -> Result<bool, KeeperError> {
        let (done, answer) = oneshot::channel();
        self.ask(Command::Release(done), answer).await
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

impl FailureKind {
    /// As a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Error => "error",
        }
    }
}

impl From<&StoreError> for FailureKind {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Timeout(_) => Self::Timeout,
            StoreError::Etcd(_) | StoreError::Credentials { .. } => Self::Error,
        }
    }
}

impl LossReason {
    /// As a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LeaseGone => "lease_gone",
            Self::KeyGone => "key_gone",
        }
    }
}

impl KeeperReport {
    /// Whether it may be left out when nobody reads: the next one of its kind tells as much.
    fn is_routine(&self) -> bool {
        matches!(
            self,
            Self::Renewed { .. } | Self::RenewalFailed { .. } | Self::RegistrationFailed { .. }
        )
    }
}
