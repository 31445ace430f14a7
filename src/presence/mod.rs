//! Who is alive: the leased presence of each Cell, as the rep keeps it and the controller watches it.
//!
//! The rep's [`keeper`] holds one key per Cell under a lease; the controller's [`watcher`] turns the store's
//! changes into [`PresenceEvent`]s by way of the pure [`view`]. Presence is the only thing heart-beaten, so
//! its TTL can be short ("Faster Missing Cell Recovery": `PRESENCE_TTL` 5 s).
//!
//! There are two stores ([`store::StoreConfig`]): [`etcd`], whose leases run out by themselves, and the API server
//! ([`kubernetes`]), whose Leases are timed by the controller.

pub mod etcd;
pub mod identity;
pub mod keeper;
pub mod kubernetes;
pub mod proof;
pub mod store;
pub mod ttl;
pub mod view;
pub mod watcher;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

/// The longest text in a value, in characters: the CRDs take no longer ones.
const TEXT: usize = 128;

/// Epochs are below this: JSON numbers are exact so far, and no store counts any further.
const EPOCHS: i64 = 1 << 53;

/// What a rep says of itself in its presence key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub enum PresencePhase {
    /// Running normally: the key going away means that the Cell is lost.
    #[default]
    Held,
    /// The rep is shutting down on purpose and empties the Cell; it still runs what it has not handed over. The key
    /// going away now means that the machine died while it drained, unless [`PresencePhase::Released`] came first.
    Draining,
    /// The rep has ended its graceful stop and gives its lease back next: the key going away is no loss.
    Released,
    /// A restarted rep on the same machine is about to register its new incarnation: no loss.
    Restarting,
    /// The rep and all that it ran are dead: its witness on the same machine says so, before the TTL can be over (see
    /// [`proof`]). The last word of that incarnation.
    Dead,
}

/// The JSON value of a presence key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PresenceValue {
    /// The Cell's name.
    pub cell_id: String,
    /// One life of the Cell's containers; everything recorded under another one is gone.
    pub incarnation: String,
    /// The TTL the store granted.
    #[serde(rename = "ttlSeconds", with = "ttl::json")]
    pub ttl: Duration,
    /// Whether the rep is leaving on purpose.
    #[serde(default)]
    pub phase: PresencePhase,
    /// Who owns this key, over restarts: a random token of the rep's work directory, or the machine's boot.
    #[serde(default)]
    pub owner: String,
    /// Random token of the process that holds the key: of two reps with the same owner, the one that does.
    #[serde(default)]
    pub holder: String,
    /// The epoch of this incarnation's first registration; `None` when this registration is the first.
    #[serde(default)]
    pub first_epoch: Option<i64>,
    /// What the store's revisions are counted on from. 0 but after a store lost its data: its revisions begin anew,
    /// epochs must not.
    #[serde(default)]
    pub epoch_base: i64,
    /// The epoch, in a store that does not count registrations itself; `None` in etcd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Whether what must not run twice is killed on this machine before the store can let this presence go.
    #[serde(default)]
    pub fence: bool,
}

impl PresenceValue {
    /// Whether a rep can have written it. Whoever may write one key must do no harm by it beyond that key.
    pub(crate) fn is_credible(&self) -> bool {
        let epochs = [Some(self.epoch_base), self.epoch, self.first_epoch];
        let texts = [&self.incarnation, &self.owner, &self.holder];
        ttl::TTLS.contains(&self.ttl)
            && epochs
                .into_iter()
                .flatten()
                .all(|epoch| (0..EPOCHS).contains(&epoch))
            && texts.iter().all(|text| text.chars().count() <= TEXT)
    }
}

/// A Cell's presence as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// The Cell's name.
    pub cell: String,
    /// Grows with every registration (etcd: create revision of the key, and the value's base).
    pub epoch: i64,
    /// The rep's value; `None` when it can't be read, which means "present, unknown", never "lost".
    pub value: Option<PresenceValue>,
}

impl Presence {
    /// The presence of a key that was created at `revision` of the store.
    pub fn created_at(cell: String, revision: i64, value: Option<PresenceValue>) -> Presence {
        let base = value.as_ref().map_or(0, |value| value.epoch_base);
        Presence {
            cell,
            epoch: base.saturating_add(revision),
            value,
        }
    }

    /// What the store's revisions are counted on from, where the value can be read.
    pub fn epoch_base(&self) -> i64 {
        self.value.as_ref().map_or(0, |value| value.epoch_base)
    }

    /// The TTL that the rep has now, where its value can be read.
    pub fn ttl(&self) -> Option<Duration> {
        self.value.as_ref().map(|value| value.ttl)
    }

    /// The phase the rep last published; an unreadable value counts as [`PresencePhase::Held`].
    pub fn phase(&self) -> PresencePhase {
        self.value
            .as_ref()
            .map(|value| value.phase)
            .unwrap_or_default()
    }

    /// The epoch since which this incarnation's containers may be running: its first registration's. One that is newer
    /// than the registration itself comes from a store that lost its data, and says nothing.
    pub fn first_epoch(&self) -> i64 {
        self.value
            .as_ref()
            .and_then(|value| value.first_epoch)
            .map_or(self.epoch, |first| first.min(self.epoch))
    }
}

/// What the store answered about one Cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The Cell's presence; `None` when there is no key.
    pub presence: Option<Presence>,
    /// The store's revision at which the read was answered: every registration before it has a smaller epoch (or this
    /// one), every later one a larger.
    pub revision: i64,
}

/// How a disappearance was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The watch delivered the DELETE.
    Watch,
    /// A re-list after a broken watch no longer held the key.
    Relist,
    /// It was not renewed for its TTL, by this process's own clock, in a store that does not end leases itself.
    Timer,
}

/// A presence that is gone.
#[derive(Debug, Clone)]
pub struct Departure {
    /// The presence as it was last known.
    pub last: Presence,
    /// How it was noticed.
    pub notice: Notice,
    /// When this process learnt of it.
    pub at: Instant,
}

/// A change of who is alive.
#[derive(Debug, Clone)]
pub enum PresenceEvent {
    /// A Cell registered, or changed its published value.
    Held(Presence),
    /// A Cell's key is gone: expired, or given back (see [`Presence::phase`] of its last value).
    Gone(Departure),
    /// The view was (re-)listed and is complete as of `at`; sent after the events that the re-list caused.
    Synced {
        /// When the list was answered.
        at: Instant,
        /// The store is another one than before (cluster id changed or its revision went back):
        /// what is absent from it says nothing, so no [`PresenceEvent::Gone`] was derived from this list.
        reset: bool,
    },
    /// The store can't be heard any more (absence of news is not death), since `at`.
    Unreachable {
        /// When the last answer came.
        at: Instant,
    },
    /// The watch broke and is begun again, with a re-list; to be counted.
    WatchRestarted {
        /// One of `compacted`, `error`, `closed` and `silent`.
        reason: &'static str,
    },
}

/// A failure to talk to the presence store. Never a loss.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No endpoint answered in time.
    #[error("the presence store did not answer within {0:?}")]
    Timeout(Duration),
    /// The store answered with an error.
    #[error("the presence store refused: {0}{remedy}", remedy = etcd::remedy(.0))]
    Etcd(#[from] etcd_client::Error),
    /// The API server, or the way to it, said no.
    #[error("the presence store refused: {}", crate::client::brief(.0))]
    Kubernetes(#[from] kube::Error),
    /// There is no client of the API server.
    #[error(transparent)]
    Client(#[from] crate::client::ConnectError),
    /// A certificate or key file can't be read.
    #[error("{} can't be read: {source}; check --etcd-ca, --etcd-cert and --etcd-key", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl StoreError {
    /// What the API server answered, where it did: the way to it is well.
    pub(crate) fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Kubernetes(kube::Error::Api(status)) => Some(status),
            Self::Kubernetes(_)
            | Self::Timeout(_)
            | Self::Etcd(_)
            | Self::Client(_)
            | Self::Credentials { .. } => None,
        }
    }

    /// How long the API server asks to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let details = self.status()?.details.as_ref()?;
        let seconds = details.retry_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }

    /// Whether another try may succeed without anybody changing anything.
    pub(crate) fn may_pass(&self) -> bool {
        match (self, self.status()) {
            (Self::Credentials { .. } | Self::Client(_), _) => false,
            (Self::Etcd(error), _) if etcd::is_denied(error) => false,
            (_, Some(status)) => status.code >= 500 || matches!(status.code, 408 | 429),
            (_, None) => true,
        }
    }
}

/// Who answers when all are called: more than a presence that is there or not, since those that die together do not
/// expire together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RollCall {
    /// Cells with a presence.
    pub held: BTreeSet<String>,
    /// Those of them that did not renew it when they should have: one renewal is missing, and the next is due.
    pub overdue: BTreeSet<String>,
}

/// The controller's side of a presence store. Reads are linearizable and bounded in time.
pub trait PresenceStore: Send + Sync + 'static {
    /// The presence of one Cell, read now from the store itself, and when in the store's history that was.
    fn get<'a>(&'a self, cell: &'a str) -> BoxFuture<'a, Result<Reading, StoreError>>;

    /// Every presence, read now from the store itself.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Presence>, StoreError>>;

    /// Every presence, and who is late with its renewal, read now. That nobody is overdue may mean that it can't be told.
    fn roll_call(&self) -> BoxFuture<'_, Result<RollCall, StoreError>>;

    /// Drops what the store keeps of a Cell that is gone for good. Returns whether nothing is left of it; `false` when it
    /// is back.
    fn forget<'a>(&'a self, cell: &'a str) -> BoxFuture<'a, Result<bool, StoreError>>;
}
