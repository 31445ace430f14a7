//! The keeper's thread: registers, hands over to [`keeping`], and begins anew when the key is lost.

mod adapting;
mod keeping;

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

use super::super::PresencePhase;
use super::super::ttl::Ttl;
use super::backend::{Ask, Attempt, Backend, Epochs, Failure, Held};
use super::decide::Found;
use super::pace::{Change, Pace};
use super::{
    Command, FailureKind, KeeperError, KeeperReport, Keeping, LossReason, RETRY_MIN, Registration,
};
use crate::backoff::{Backoff, chance};
use crate::converge::fence::BootTime;
use keeping::Outcome;

/// How often another's key is looked at while waiting for its end: so soon after it ends this Cell is back.
const REFUSED_POLL: Duration = Duration::from_millis(250);

/// How much longer than the holder's TTL its key is waited for: etcd's expiry tick of 0.5 s, one slow commit, and one
/// look.
const REFUSED_MARGIN: Duration = Duration::from_secs(2);

/// The TTL assumed of a holder whose value can't be read.
const UNREADABLE_TTL: Duration = Duration::from_secs(15);

/// How long giving the presence back may take: a shutdown must end, and the TTL ends the presence anyway.
const RELEASE_BUDGET: Duration = Duration::from_secs(3);

/// Room in the report queue that is kept for what must not be left out.
const RESERVED_REPORTS: usize = 64;

/// The connections to the rest of the rep.
pub(super) struct Wires {
    pub reports: mpsc::Sender<KeeperReport>,
    pub commands: mpsc::Receiver<Command>,
    pub keeping: watch::Sender<Keeping>,
}

/// Who this keeper is.
pub(super) struct Identified {
    /// Our mark in the key.
    pub owner: String,
    /// The token of this process.
    pub holder: String,
    /// Whether the mark proves that a key found there is ours: until the first registration.
    pub proof: bool,
    /// Whether the mark is the machine's: another process with the same one is our successor, and not a copy of us.
    pub machine: bool,
}

/// Everything the thread works with.
pub(super) struct Worker<B> {
    backend: B,
    registration: Registration,
    me: Identified,
    /// What to publish, now and at the next registration.
    phase: PresencePhase,
    /// Of the registrations so far: the incarnation's first one, and what epochs are counted on from.
    epochs: Epochs,
    /// The last epoch held.
    last_epoch: i64,
    /// How the key was lost, while that is not told yet.
    lost: Option<LossReason>,
    /// Chooses the TTL, where that is not fixed.
    pace: Option<Pace>,
    /// A TTL that the store may or may not have taken: it did not answer.
    unsure: Option<Change>,
    /// The latest deadline that was published: the store must not let go before it.
    promised: Option<BootTime>,
    wires: Wires,
}

/// The end of a keeper that isn't an error.
enum Ending {
    Released,
    /// Nobody controls it any more.
    Abandoned,
}

impl<B: Backend> Worker<B> {
    pub(super) fn new(
        backend: B,
        registration: Registration,
        me: Identified,
        wires: Wires,
    ) -> Self {
        let pace = match registration.ttl {
            Ttl::Fixed(_) => None,
            Ttl::Auto(bounds) => {
                let first = registration.ttl.first();
                Some(Pace::new(bounds, backend.grain(), first, Instant::now()))
            }
        };
        Self {
            backend,
            pace,
            unsure: None,
            promised: None,
            registration,
            me,
            phase: PresencePhase::Held,
            epochs: Epochs::default(),
            last_epoch: 0,
            lost: None,
            wires,
        }
    }

    /// The first registration is in this phase.
    pub(super) fn begins_in(self, phase: PresencePhase) -> Self {
        Self { phase, ..self }
    }

    /// Until released, abandoned, or failed for good.
    pub(super) async fn run(mut self) {
        let cell = self.registration.cell_id.clone();
        match self.live().await {
            Ok(Ending::Released) => tracing::info!(cell, "presence given back"),
            Ok(Ending::Abandoned) => {
                tracing::warn!(cell, "presence keeper ends; nothing was given back")
            }
            Err(error) => {
                tracing::error!(cell, %error, "presence can't be kept");
                self.say(KeeperReport::Failed { error });
            }
        }
        self.wires
            .keeping
            .send_modify(|keeping| keeping.held = false);
    }

    async fn live(&mut self) -> Result<Ending, KeeperError> {
        loop {
            let held = match self.register().await? {
                ControlFlow::Continue(held) => held,
                ControlFlow::Break(ending) => return Ok(ending),
            };
            match self.keep(&held).await {
                Outcome::Ended(ending) => return Ok(ending),
                Outcome::Lost(reason) => {
                    self.wires
                        .keeping
                        .send_modify(|keeping| keeping.held = false);
                    self.lost = Some(reason);
                    // To whom else, is told once the store says who holds the key now.
                    if !self.me.machine {
                        self.tell_lost();
                    }
                }
            }
        }
    }

    /// Tells that the key was lost, unless that was told.
    fn tell_lost(&mut self) {
        if let Some(reason) = self.lost.take() {
            tracing::warn!(
                cell = self.registration.cell_id,
                epoch = self.last_epoch,
                reason = reason.as_str(),
                "presence lost; registering anew"
            );
            self.say(KeeperReport::Lost { reason });
        }
    }

    /// Whether a newer rep of this machine holds the key.
    fn is_successors(&self, found: &Found) -> bool {
        let value = found.value.as_ref();
        self.me.machine
            && !self.me.proof
            && !found.over
            && value
                .is_some_and(|value| value.owner == self.me.owner && value.holder != self.me.holder)
    }

    fn superseded(&mut self, found: &Found) {
        if self.lost.take().is_none() {
            return;
        }
        tracing::info!(
            cell = self.registration.cell_id,
            epoch = found.epoch(),
            "a newer rep of this machine holds the presence; idle until it is gone"
        );
        // Whose fence there is, the newer one says; what this one had is taken back.
        self.registration.fence = false;
        self.wires
            .keeping
            .send_modify(|keeping| keeping.superseded = true);
        self.say(KeeperReport::Superseded);
    }

    /// The backend, and what it is asked.
    fn ask(&mut self) -> (&mut B, Ask<'_>) {
        let first = self.registration.ttl.first();
        let ask = Ask {
            registration: &self.registration,
            ttl: self.pace.as_ref().map_or(first, Pace::ttl),
            owner: &self.me.owner,
            holder: &self.me.holder,
            phase: self.phase,
            epochs: self.epochs,
            last_epoch: self.last_epoch.max(self.registration.known_epoch.get()),
            proof: self.me.proof,
            machine: self.me.machine,
        };
        (&mut self.backend, ask)
    }

    // === Registering ===

    /// Tries until the key is ours, however long the store is away.
    async fn register(&mut self) -> Result<ControlFlow<Ending, Held>, KeeperError> {
        let ttl = self.ask().1.ttl;
        let mut backoff = Backoff::new(RETRY_MIN, ttl / 3);
        let (mut failing, mut told) = (false, false);
        // When another's key has to be gone.
        let mut until: Option<Instant> = None;
        loop {
            let (backend, ask) = self.ask();
            let pause = match backend.attempt(&ask).await {
                Ok(Attempt::Held(held)) => {
                    self.tell_lost();
                    self.registered(&held);
                    return Ok(ControlFlow::Continue(held));
                }
                Ok(Attempt::Again) => backoff.pause(chance()),
                Ok(Attempt::Refused(found)) if self.is_successors(&found) => {
                    self.superseded(&found);
                    (failing, until) = (false, None);
                    // Often enough to see its silence before the controller has.
                    ttl / 5
                }
                Ok(Attempt::Refused(found)) => {
                    self.tell_lost();
                    failing = false;
                    let now = Instant::now();
                    if now >= *until.get_or_insert_with(|| now + patience(&found)) {
                        return Err(self.held_by(&found));
                    }
                    if !std::mem::replace(&mut told, true) {
                        self.refused(&found);
                    }
                    REFUSED_POLL
                }
                Err(Failure::Fatal(error)) => return Err(error),
                Err(Failure::Store(error)) => {
                    if !std::mem::replace(&mut failing, true) {
                        let cell = &self.registration.cell_id;
                        let endpoint = self.backend.endpoint();
                        tracing::warn!(cell, %error, endpoint, "presence store does not register this Cell; trying on");
                    }
                    self.say(KeeperReport::RegistrationFailed {
                        kind: FailureKind::from(&error),
                    });
                    self.backend.failed(&error);
                    // A store that was away gives every lease its full TTL again.
                    until = None;
                    let asked = error.retry_after().unwrap_or_default();
                    backoff.pause(chance()).max(asked.min(ttl / 3))
                }
            };
            if let ControlFlow::Break(ending) = self.pause(pause).await {
                return Ok(ControlFlow::Break(ending));
            }
        }
    }

    fn registered(&mut self, held: &Held) {
        self.me.proof = false;
        self.unsure = None;
        if let Some(pace) = &mut self.pace {
            pace.granted(pace.ttl(), held.ttl, Instant::now());
        }
        self.epochs = Epochs {
            base: held.value.epoch_base,
            first: Some(held.value.first_epoch.unwrap_or(held.epoch)),
        };
        self.last_epoch = held.epoch;
        tracing::info!(
            cell = self.registration.cell_id,
            epoch = held.epoch,
            ttl = held.ttl.as_secs_f64(),
            took_over = held.took_over,
            endpoint = self.backend.endpoint(),
            "presence registered"
        );
        self.wires.keeping.send_replace(Keeping {
            held: true,
            epoch: Some(held.epoch),
            last_renewal_sent: Some(held.sent),
            ttl: held.ttl,
            least: self.registration.ttl.least(),
            superseded: false,
        });
        self.note_promise();
        self.say(KeeperReport::Registered {
            epoch: held.epoch,
            lease_id: held.lease,
            ttl: held.ttl,
            took_over: held.took_over,
        });
    }

    fn refused(&self, found: &Found) {
        tracing::warn!(
            cell = self.registration.cell_id,
            seconds = patience(found).as_secs(),
            "{}; waiting for it to expire, in case its holder is dead",
            self.held_by(found)
        );
        self.say(KeeperReport::Refused {
            incarnation: incarnation(found),
            epoch: found.epoch(),
        });
    }

    fn held_by(&self, found: &Found) -> KeeperError {
        KeeperError::HeldByAnother {
            cell_id: self.registration.cell_id.clone(),
            incarnation: incarnation(found),
            epoch: found.epoch(),
        }
    }

    /// Waits between tries to register, and does what is asked meanwhile.
    async fn pause(&mut self, pause: Duration) -> ControlFlow<Ending> {
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(until.into()) => return ControlFlow::Continue(()),
                command = self.wires.commands.recv() => match command {
                    None => return ControlFlow::Break(Ending::Abandoned),
                    Some(Command::SetPhase(phase, done)) => {
                        self.phase = phase;
                        let _nobody_waits = done.send(Err(KeeperError::NotHeld));
                    }
                    Some(Command::SetFence(fence, done)) => {
                        // Asked before it was superseded, it holds no more.
                        let superseded = self.wires.keeping.borrow().superseded;
                        self.registration.fence = fence && !superseded;
                        let _nobody_waits = done.send(Err(KeeperError::NotHeld));
                    }
                    Some(Command::Renew(done)) => {
                        let _nobody_waits = done.send(false);
                    }
                    Some(Command::Release(done)) => {
                        // A try whose answer got lost may have registered us.
                        let given_back = self.end(Instant::now() + RELEASE_BUDGET).await;
                        self.released(given_back, done);
                        return ControlFlow::Break(Ending::Released);
                    }
                },
            }
        }
    }

    // === Small things ===

    /// Never waits: a rep that doesn't read must not stop the renewals.
    fn say(&self, report: KeeperReport) {
        let reports = &self.wires.reports;
        if report.is_routine() && reports.capacity() < RESERVED_REPORTS {
            return;
        }
        if let Err(mpsc::error::TrySendError::Full(report)) = reports.try_send(report) {
            tracing::error!(
                ?report,
                "nobody reads the presence reports; this one is left out"
            );
        }
    }
}

/// How long to wait for another's key to expire.
fn patience(found: &Found) -> Duration {
    let ttl = found.value.as_ref().map(|value| value.ttl);
    ttl.unwrap_or(UNREADABLE_TTL) + REFUSED_MARGIN
}

fn incarnation(found: &Found) -> Option<String> {
    found.value.as_ref().map(|value| value.incarnation.clone())
}
