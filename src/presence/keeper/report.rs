//! What a keeper tells of its presence.

use std::time::Duration;

use super::super::StoreError;
use super::super::etcd::ConfigError;
use super::super::ttl::TtlError;
use super::pace::Reason;

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
        /// The lease that holds the key; 0 in a store that does not number them.
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
    /// The store took another TTL, under the same epoch; chosen by [`Ttl::Auto`](super::super::ttl::Ttl::Auto).
    TtlChanged {
        /// The one before.
        from: Duration,
        /// The one that counts now.
        ttl: Duration,
        /// Why it was chosen.
        why: Reason,
    },
    /// A renewal was not answered, or refused for now; the next try follows, on another connection unless it was answered.
    RenewalFailed {
        /// In which way.
        kind: FailureKind,
    },
    /// The presence is gone. Registering anew has begun, which gives another epoch.
    Lost {
        /// How.
        reason: LossReason,
    },
    /// A newer rep of the same machine has taken the presence over: nothing of this Cell was lost. Nothing is done until
    /// that presence is gone, or its holder seems to be; then it is registered again.
    Superseded,
    /// Another rep holds this Cell's key. Retried until its TTL is over: it may be a dead one.
    Refused {
        /// The holder's incarnation, where its value can be read.
        incarnation: Option<String>,
        /// The holder's epoch.
        epoch: i64,
    },
    /// Ended by [`KeeperControl::release`](super::KeeperControl::release).
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
    /// The store does no such TTL.
    #[error(transparent)]
    Ttl(#[from] TtlError),
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
        asked: u64,
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
            StoreError::Etcd(_)
            | StoreError::Kubernetes(_)
            | StoreError::Client(_)
            | StoreError::Credentials { .. } => Self::Error,
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
    pub(super) fn is_routine(&self) -> bool {
        matches!(
            self,
            Self::Renewed { .. } | Self::RenewalFailed { .. } | Self::RegistrationFailed { .. }
        )
    }
}
