//! The keeper's thread: registers, renews, and does what its control asks.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use etcd_client::{PutOptions, Txn, TxnOp};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

use super::super::etcd::{EtcdConfig, key, within};
use super::super::{PresencePhase, StoreError};
use super::decide::Found;
use super::lane::{Answer, Lane, ours};
use super::register::{Attempt, Failure, Held, Try, revoke, value};
use super::{Command, FailureKind, KeeperError, KeeperReport, Keeping, LossReason, Registration};
use crate::backoff::{Backoff, chance};

/// The shortest pause between tries; the longest is the renewal interval.
const RETRY_MIN: Duration = Duration::from_millis(100);

/// How often another's key is looked at while waiting for its end: so soon after it ends this Cell is back.
const REFUSED_POLL: Duration = Duration::from_millis(250);

/// How much longer than the holder's TTL its key is waited for: etcd's expiry tick of 0.5 s, one slow commit, and one
/// look.
const REFUSED_MARGIN: Duration = Duration::from_secs(2);

/// The TTL assumed of a holder whose value can't be read.
const UNREADABLE_TTL: Duration = Duration::from_secs(15);

/// An answer to a renewal that takes longer counts as none, whatever the TTL: a healthy store needs milliseconds.
const MAX_ANSWER: Duration = Duration::from_secs(1);

/// How often a held key is checked to be there still. A lease outlives its key if somebody deletes that by hand; the
/// Cell would then be taken for lost for ever. Rare, so seldom.
const KEY_CHECK: Duration = Duration::from_secs(10);

/// How long giving the presence back may take: a shutdown must end, and the TTL ends the presence anyway.
const RELEASE_BUDGET: Duration = Duration::from_secs(3);

/// What a phase has to be written in, over all endpoints.
const PHASE_BUDGET: Duration = Duration::from_secs(3);

/// Room in the report queue that is kept for what must not be left out.
const RESERVED_REPORTS: usize = 64;

/// The connections to the rest of the rep.
pub(super) struct Wires {
    pub reports: mpsc::Sender<KeeperReport>,
    pub commands: mpsc::Receiver<Command>,
    pub keeping: watch::Sender<Keeping>,
}

/// Everything the thread works with.
pub(super) struct Worker {
    config: EtcdConfig,
    registration: Registration,
    /// Our token in the key.
    owner: String,
    /// Whether the token proves that a key found there is ours: until the first registration.
    proof: bool,
    /// What to publish, now and at the next registration.
    phase: PresencePhase,
    /// Leases granted to this keeper, newest last.
    leases: Vec<i64>,
    /// Whose turn it is among the endpoints.
    turn: usize,
    wires: Wires,
}

/// The end of a keeper that isn't an error.
enum Ending {
    Released,
    /// Nobody controls it any more.
    Abandoned,
}

/// How holding a key ended.
enum Outcome {
    Lost(LossReason),
    Ended(Ending),
}

impl Worker {
    pub(super) fn new(
        config: EtcdConfig,
        registration: Registration,
        owner: String,
        proof: bool,
        wires: Wires,
    ) -> Self {
        let turn = config.first_turn();
        let phase = PresencePhase::Held;
        Self {
            config,
            registration,
            owner,
            proof,
            phase,
            leases: Vec::new(),
            turn,
            wires,
        }
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
                    tracing::warn!(
                        cell = self.registration.cell_id,
                        epoch = held.epoch,
                        reason = reason.as_str(),
                        "presence lost; registering anew"
                    );
                    self.wires
                        .keeping
                        .send_modify(|keeping| keeping.held = false);
                    self.say(KeeperReport::Lost { reason });
                }
            }
        }
    }

    // === Registering ===

    /// Tries until the key is ours, however long the store is away.
    async fn register(&mut self) -> Result<ControlFlow<Ending, Held>, KeeperError> {
        let ttl = Duration::from_secs(self.registration.ttl_seconds.into());
        let mut backoff = Backoff::new(RETRY_MIN, ttl / 3);
        let (mut failing, mut told) = (false, false);
        // When another's key has to be gone.
        let mut until: Option<Instant> = None;
        loop {
            let attempt = Try {
                registration: &self.registration,
                owner: &self.owner,
                phase: self.phase,
                proof: self.proof,
                leases: &mut self.leases,
            };
            let pause = match attempt.run(&self.config, self.turn).await {
                Ok(Attempt::Held(held)) => {
                    self.registered(&held);
                    return Ok(ControlFlow::Continue(held));
                }
                Ok(Attempt::Again) => backoff.pause(chance()),
                Ok(Attempt::Refused(found)) => {
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
                        let endpoint = self.config.endpoint(self.turn);
                        tracing::warn!(cell, %error, endpoint, "presence store does not register this Cell; trying on");
                    }
                    self.say(KeeperReport::RegistrationFailed {
                        kind: FailureKind::from(&error),
                    });
                    self.turn = self.turn.wrapping_add(1);
                    // A store that was away gives every lease its full TTL again.
                    until = None;
                    backoff.pause(chance())
                }
            };
            if let ControlFlow::Break(ending) = self.pause(pause).await {
                return Ok(ControlFlow::Break(ending));
            }
        }
    }

    fn registered(&mut self, held: &Held) {
        self.proof = false;
        self.leases = vec![held.lease];
        tracing::info!(
            cell = self.registration.cell_id,
            epoch = held.epoch,
            ttl = held.ttl.as_secs(),
            took_over = held.took_over,
            endpoint = self.config.endpoint(self.turn),
            "presence registered"
        );
        self.wires.keeping.send_replace(Keeping {
            held: true,
            epoch: Some(held.epoch),
            last_renewal_sent: Some(held.sent),
        });
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
            epoch: found.epoch,
        });
    }

    fn held_by(&self, found: &Found) -> KeeperError {
        KeeperError::HeldByAnother {
            cell_id: self.registration.cell_id.clone(),
            incarnation: incarnation(found),
            epoch: found.epoch,
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
                    Some(Command::Release(done)) => {
                        // A try whose answer got lost may have registered us.
                        let given_back = self.revoke_own(Instant::now() + RELEASE_BUDGET).await;
                        self.released(given_back, done);
                        return ControlFlow::Break(Ending::Released);
                    }
                },
            }
        }
    }

    // === Keeping ===

    /// Renews until the key is lost or given back.
    async fn keep(&mut self, held: &Held) -> Outcome {
        let deadline = (held.ttl / 5).min(MAX_ANSWER);
        let mut backoff = Backoff::new(RETRY_MIN, held.ttl / 3);
        let mut lane = None;
        let mut next = held.sent + interval(held.ttl);
        let mut check = Instant::now() + KEY_CHECK;
        // Tries in a row without an answer.
        let mut failures = 0;
        loop {
            tokio::select! {
                command = self.wires.commands.recv() => match command {
                    None => return Outcome::Ended(Ending::Abandoned),
                    Some(Command::SetPhase(phase, done)) => {
                        self.phase = phase;
                        // Beside the renewals, which must not wait for it.
                        let write = self.write_phase(held, phase, Instant::now() + PHASE_BUDGET);
                        tokio::spawn(async move {
                            let _nobody_waits = done.send(write.await);
                        });
                    }
                    Some(Command::Release(done)) => {
                        let given_back = self.give_back(held).await;
                        self.released(given_back, done);
                        return Outcome::Ended(Ending::Released);
                    }
                },
                () = sleep_until(next.into()) => {
                    let sent = Instant::now();
                    match Lane::renew(&mut lane, &self.config, self.turn, held.lease, deadline).await {
                        Ok(Answer::Renewed) => {
                            self.renewed(sent, &mut failures);
                            backoff.reset();
                            next = sent + interval(held.ttl);
                        }
                        Ok(Answer::Gone) => return Outcome::Lost(LossReason::LeaseGone),
                        Err(error) => {
                            failures += 1;
                            self.renewal_failed(&error, failures);
                            // Every endpoint has its turn at once; pauses are for a store that is away as a whole.
                            let round = self.config.endpoints.len().max(2);
                            next = Instant::now();
                            if failures % round == 0 {
                                next += backoff.pause(chance());
                            }
                        }
                    }
                },
                () = sleep_until(check.into()) => {
                    check = Instant::now() + KEY_CHECK;
                    let key = key(&self.registration.cell_id);
                    // Only a clear answer counts: whether the store can be reached is the renewals' business.
                    if let Some(open) = &lane
                        && let Ok(false) = Lane::holds(open, &key, held.epoch, held.lease, deadline).await
                    {
                        self.revoke_own(Instant::now() + deadline).await;
                        return Outcome::Lost(LossReason::KeyGone);
                    }
                },
            }
        }
    }

    fn renewed(&mut self, sent: Instant, failures: &mut usize) {
        if std::mem::take(failures) > 0 {
            tracing::info!(
                cell = self.registration.cell_id,
                endpoint = self.config.endpoint(self.turn),
                "presence renewals are answered again"
            );
        }
        self.wires
            .keeping
            .send_modify(|keeping| keeping.last_renewal_sent = Some(sent));
        self.say(KeeperReport::Renewed {
            took: sent.elapsed(),
        });
    }

    fn renewal_failed(&mut self, error: &StoreError, failures: usize) {
        if failures == 1 {
            let cell = &self.registration.cell_id;
            let endpoint = self.config.endpoint(self.turn);
            tracing::warn!(cell, %error, endpoint, "presence renewal was not answered; trying on");
        }
        self.turn = self.turn.wrapping_add(1);
        self.say(KeeperReport::RenewalFailed {
            kind: FailureKind::from(error),
        });
    }

    /// Writes a phase, on one endpoint after the other, if the key is still the one we registered.
    fn write_phase(
        &self,
        held: &Held,
        phase: PresencePhase,
        until: Instant,
    ) -> impl Future<Output = Result<(), KeeperError>> + use<> {
        let config = self.config.clone();
        let mut turn = self.turn;
        let key = key(&self.registration.cell_id);
        let value = value(&self.registration, &self.owner, phase, held.ttl);
        let put = TxnOp::put(
            key.as_str(),
            value,
            Some(PutOptions::new().with_ignore_lease()),
        );
        let txn = Txn::new()
            .when(ours(&key, held.epoch, held.lease))
            .and_then([put]);
        async move {
            loop {
                let answer = within(MAX_ANSWER, async {
                    let client = config.connect(turn).await?;
                    Ok::<_, StoreError>(client.kv_client().txn(txn.clone()).await?)
                });
                match answer.await {
                    Ok(answer) if answer.succeeded() => return Ok(()),
                    Ok(_) => return Err(KeeperError::NotHeld),
                    Err(error) if Instant::now() >= until => {
                        return Err(KeeperError::NotWritten(error.to_string()));
                    }
                    Err(_) => {
                        turn = turn.wrapping_add(1);
                        tokio::time::sleep(RETRY_MIN).await;
                    }
                }
            }
        }
    }

    // === Giving back ===

    /// Says that we leave on purpose, then leaves.
    async fn give_back(&mut self, held: &Held) -> bool {
        let until = Instant::now() + RELEASE_BUDGET;
        // Without this the end of the lease looks like a loss; with the store away, that can't be helped.
        if let Err(error) = self
            .write_phase(held, PresencePhase::Draining, until - RELEASE_BUDGET / 2)
            .await
        {
            tracing::warn!(cell = self.registration.cell_id, %error, "presence ends without having said why");
        }
        self.revoke_own(until).await
    }

    /// Revokes every lease granted to this keeper; `false` when the store did not confirm that.
    async fn revoke_own(&mut self, until: Instant) -> bool {
        while let Some(lease) = self.leases.last().copied() {
            let revoked = match self.config.connect(self.turn).await {
                Ok(client) => revoke(&client, lease).await,
                Err(error) => Err(error),
            };
            match revoked {
                Ok(()) => {
                    self.leases.pop();
                }
                Err(_) if Instant::now() >= until => return false,
                Err(_) => {
                    self.turn = self.turn.wrapping_add(1);
                    tokio::time::sleep(RETRY_MIN).await;
                }
            }
        }
        true
    }

    fn released(&self, given_back: bool, done: tokio::sync::oneshot::Sender<bool>) {
        // First, so that whoever waits for the answer sees the presence given up.
        self.wires
            .keeping
            .send_modify(|keeping| keeping.held = false);
        self.say(KeeperReport::Released { given_back });
        let _nobody_waits = done.send(given_back);
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

/// A third of the TTL, so that two renewals may get lost before the third is too late; a little less by chance, so
/// that reps started together spread.
fn interval(ttl: Duration) -> Duration {
    ttl.mul_f64(0.9 + 0.1 * chance()) / 3
}

/// How long to wait for another's key to expire.
fn patience(found: &Found) -> Duration {
    let ttl = found
        .value
        .as_ref()
        .map(|value| Duration::from_secs(value.ttl_seconds.into()));
    ttl.unwrap_or(UNREADABLE_TTL) + REFUSED_MARGIN
}

fn incarnation(found: &Found) -> Option<String> {
    found.value.as_ref().map(|value| value.incarnation.clone())
}
