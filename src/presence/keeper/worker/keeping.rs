//! Holding a registered key: renewed until it is lost, or given back.

use std::time::{Duration, Instant};

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use tokio::time::sleep_until;

use super::super::super::etcd::{key, within};
use super::super::super::{PresencePhase, StoreError};
use super::super::lane::{Answer, Lane, ours};
use super::super::register::{Held, revoke, value};
use super::super::{Command, FailureKind, KeeperError, KeeperReport, LossReason};
use super::{Ending, RELEASE_BUDGET, RETRY_MIN, Worker};
use crate::backoff::{Backoff, chance};

/// An answer to a renewal that takes longer counts as none, whatever the TTL: a healthy store needs milliseconds.
const MAX_ANSWER: Duration = Duration::from_secs(1);

/// How often a held key is checked to be there still. A lease outlives its key if somebody deletes that by hand; the
/// Cell would then be taken for lost for ever. Rare, so seldom.
const KEY_CHECK: Duration = Duration::from_secs(10);

/// What a phase has to be written in, over all endpoints.
const PHASE_BUDGET: Duration = Duration::from_secs(3);

/// How holding a key ended.
pub(super) enum Outcome {
    Lost(LossReason),
    Ended(Ending),
}

impl Worker {
    /// Renews until the key is lost or given back.
    pub(super) async fn keep(&mut self, held: &Held) -> Outcome {
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
                        && let Ok(false) = Lane::holds(open, &key, held.created, held.lease, deadline).await
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
        let value = |phase| {
            value(
                &self.registration,
                &self.owner,
                phase,
                held.ttl,
                held.epochs,
            )
        };
        let mut still = ours(&key, held.created, held.lease);
        if phase != PresencePhase::Released {
            // One that arrives late must not hide that the presence was given back: its end would be a loss.
            let released = value(PresencePhase::Released);
            still.push(Compare::value(key.as_str(), CompareOp::NotEqual, released));
        }
        let value = value(phase);
        let put = TxnOp::put(
            key.as_str(),
            value,
            Some(PutOptions::new().with_ignore_lease()),
        );
        let txn = Txn::new().when(still).and_then([put]);
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

    /// Says that we leave on purpose, then leaves.
    async fn give_back(&mut self, held: &Held) -> bool {
        let until = Instant::now() + RELEASE_BUDGET;
        // Without this the end of the lease looks like a loss; with the store away, that can't be helped.
        if let Err(error) = self
            .write_phase(held, PresencePhase::Released, until - RELEASE_BUDGET / 2)
            .await
        {
            tracing::warn!(cell = self.registration.cell_id, %error, "presence ends without having said why");
        }
        self.revoke_own(until).await
    }

    /// Revokes every lease granted to this keeper; `false` when the store did not confirm that.
    pub(super) async fn revoke_own(&mut self, until: Instant) -> bool {
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

    pub(super) fn released(&self, given_back: bool, done: tokio::sync::oneshot::Sender<bool>) {
        // First, so that whoever waits for the answer sees the presence given up.
        self.wires
            .keeping
            .send_modify(|keeping| keeping.held = false);
        self.say(KeeperReport::Released { given_back });
        let _nobody_waits = done.send(given_back);
    }
}

/// A third of the TTL, so that two renewals may get lost before the third is too late; a little less by chance, so
/// that reps started together spread.
fn interval(ttl: Duration) -> Duration {
    ttl.mul_f64(0.9 + 0.1 * chance()) / 3
}
