//! What a keeper asks of a presence store. There are two; the keeper's life is the same with both.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;

use super::super::{PresencePhase, PresenceValue, StoreError};
use super::decide::{Claim, Found};
use super::pace::Grain;
use super::{KeeperError, LossReason, Registration, Sent};

/// What a registration says of those before it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Epochs {
    /// What the store's count is counted on from.
    pub base: i64,
    /// The incarnation's first registration, where that is an earlier one.
    pub first: Option<i64>,
}

/// All that a try to register needs to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    pub registration: &'a Registration,
    /// The TTL to ask for.
    pub ttl: Duration,
    pub owner: &'a str,
    /// The token of this process.
    pub holder: &'a str,
    pub phase: PresencePhase,
    /// Of this keeper's registrations so far.
    pub epochs: Epochs,
    /// The greatest epoch that is known of this Cell.
    pub last_epoch: i64,
    /// Whether `owner` proves that the key is ours.
    pub proof: bool,
    /// Whether `owner` is the machine.
    pub machine: bool,
}

impl<'a> Ask<'a> {
    pub(super) fn claim(&self) -> Claim<'a> {
        Claim {
            incarnation: &self.registration.incarnation,
            proof: self.proof.then_some(self.owner),
            machine: self.machine,
            past: (!self.proof).then_some(self.owner),
            heir: self.heir(),
            last_epoch: self.last_epoch,
            dead_epoch: self.registration.dead_epoch.get(),
        }
    }

    /// A rep that was superseded takes over again before anybody takes its silent successor for dead.
    fn heir(&self) -> Option<&'a str> {
        (self.machine && !self.proof).then_some(self.owner)
    }

    /// The value to publish. `epoch` is for a store that does not count itself.
    pub(super) fn value(&self, ttl: Duration, epochs: Epochs, epoch: Option<i64>) -> PresenceValue {
        PresenceValue {
            cell_id: self.registration.cell_id.clone(),
            incarnation: self.registration.incarnation.clone(),
            ttl,
            phase: self.phase,
            owner: self.owner.to_owned(),
            holder: self.holder.to_owned(),
            first_epoch: epochs.first,
            epoch_base: epochs.base,
            epoch,
            fence: self.registration.fence,
        }
    }
}

/// A registration that the store confirmed.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// As published.
    pub value: PresenceValue,
    pub epoch: i64,
    /// The lease that holds the key, in a store that numbers them; else 0.
    pub lease: i64,
    pub ttl: Duration,
    /// Before the lease was asked for.
    pub sent: Sent,
    pub took_over: bool,
}

/// What a try came to.
#[derive(Debug)]
pub(super) enum Attempt {
    Held(Held),
    /// Another holds the key.
    Refused(Found),
    /// The key changed between look and swap.
    Again,
}

/// Why a try failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The store did not do its part; the next try may work.
    Store(StoreError),
    /// No try will work.
    Fatal(KeeperError),
}

impl<E> From<E> for Failure
where
    StoreError: From<E>,
{
    fn from(error: E) -> Self {
        Self::Store(error.into())
    }
}

/// What asking for another TTL came to.
pub(super) enum Changed {
    /// The presence lasts as long as [`Held::ttl`] says now, counted from this moment.
    Done(Sent),
    /// Everything is as before: the key was written by others meanwhile, or the store does no shorter TTL than this one.
    No(Option<Duration>),
}

/// What a renewal came to.
pub(super) enum Answer {
    /// The lease runs again from about now.
    Renewed,
    /// The key is not ours any more.
    Gone(LossReason),
}

/// A presence store, as one keeper uses it. It remembers what this keeper holds in it.
pub(super) trait Backend: Send + 'static {
    /// How many endpoints there are to try.
    fn endpoints(&self) -> usize;

    /// The endpoint whose turn it is, for the log.
    fn endpoint(&self) -> String;

    /// The store did not do what it was asked. Unless it answered over a connection that is well, another one is used from
    /// now on, to the next endpoint.
    fn failed(&mut self, error: &StoreError);

    /// One try to register: look, decide, and do it in one compare-and-swap.
    async fn attempt(&mut self, ask: &Ask<'_>) -> Result<Attempt, Failure>;

    /// What the store makes of a TTL.
    fn grain(&self) -> Grain;

    /// One renewal, connecting included, within `limit`. First it finds out what is in doubt, as [`Backend::settle`].
    async fn renew(&mut self, held: &mut Held, limit: Duration) -> Result<Answer, StoreError>;

    /// Asks for another TTL of what is held, under the same epoch and without an end in between. After an error it is not
    /// known which one there is.
    async fn change_ttl(
        &mut self,
        held: &mut Held,
        ttl: Duration,
        limit: Duration,
    ) -> Result<Changed, StoreError>;

    /// Finds out what became of a change of the TTL that was not answered.
    async fn settle(&mut self, held: &mut Held, limit: Duration) -> Result<(), StoreError>;

    /// Whether the key is still there, where renewals don't tell. `None` without a clear answer.
    async fn is_there(&mut self, held: &Held, limit: Duration) -> Option<bool>;

    /// Publishes another phase of the registration, if that is still ours, on one endpoint after the other.
    fn write_phase(
        &self,
        held: &Held,
        phase: PresencePhase,
        until: Instant,
    ) -> BoxFuture<'static, Result<(), KeeperError>>;

    /// Ends whatever this keeper holds, or may hold; `false` when the store did not confirm that.
    async fn end(&mut self, ask: &Ask<'_>, until: Instant) -> bool;
}
