//! Holding a registered key: renewed until it is lost, or given back.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};

use super::super::super::{PresencePhase, StoreError};
use super::super::backend::{Answer, Backend, Held};
use super::super::{Command, FailureKind, KeeperError, KeeperReport, LossReason, RETRY_MIN, Sent};
use super::{Ending, RELEASE_BUDGET, Worker};
use crate::backoff::{Backoff, chance};

/// An answer to a renewal that takes longer counts as none, whatever the TTL: a healthy store needs milliseconds.
const MAX_ANSWER: Duration = Duration::from_secs(1);

/// How often a held key is checked to be there still, where renewals don't tell: the Cell would be taken for lost for
/// ever. Rare, so seldom.
const KEY_CHECK: Duration = Duration::from_secs(10);

/// What a phase has to be written in, over all endpoints.
const PHASE_BUDGET: Duration = Duration::from_secs(3);

/// How holding a key ended.
pub(super) enum Outcome {
    Lost(LossReason),
    Ended(Ending),
}

impl<B: Backend> Worker<B> {
    /// Renews until the key is lost or given back.
    pub(super) async fn keep(&mut self, held: &Held) -> Outcome {
        let mut deadline = (held.ttl / 5).min(MAX_ANSWER);
        let mut backoff = Backoff::new(RETRY_MIN, held.ttl / 3);
        let mut next = held.sent.at + interval(held.ttl);
        // When the renewal that is tried was to be sent first.
        let mut due = next;
        let mut check = Instant::now() + KEY_CHECK;
        // Tries in a row without an answer.
        let mut failures = 0;
        let mut held = held.clone();
        let mut writing: Option<JoinHandle<()>> = None;
        loop {
            tokio::select! {
                command = self.wires.commands.recv() => match command {
                    None => return Outcome::Ended(Ending::Abandoned),
                    Some(Command::SetPhase(phase, done)) => {
                        self.phase = phase;
                        self.settle(&mut held, deadline).await;
                        writing = Some(self.publish(&held, writing.take(), done));
                    }
                    Some(Command::SetFence(fence, done)) => {
                        self.registration.fence = fence;
                        held.value.fence = fence;
                        self.settle(&mut held, deadline).await;
                        writing = Some(self.publish(&held, writing.take(), done));
                    }
                    Some(Command::Renew(done)) => {
                        let sent = Sent::now();
                        // What else the answer says is found by the next one.
                        let renewed = matches!(self.backend.renew(&mut held, deadline).await, Ok(Answer::Renewed));
                        if renewed {
                            self.renewed(sent, &mut failures);
                            next = sent.at + interval(self.lasts(&held));
                            due = next;
                        }
                        let _nobody_waits = done.send(renewed);
                    }
                    Some(Command::Release(done)) => {
                        if let Some(writing) = writing.take() {
                            // What arrives after it would hide that the presence was given back.
                            let _either_way = timeout(RELEASE_BUDGET / 2, writing).await;
                        }
                        self.settle(&mut held, deadline).await;
                        let given_back = self.give_back(&held).await;
                        self.released(given_back, done);
                        return Outcome::Ended(Ending::Released);
                    }
                },
                () = sleep_until(next.into()) => {
                    // Whatever the store holds: under this epoch nobody hears us any more.
                    if self.registration.dead_epoch.get() >= held.epoch {
                        return Outcome::Lost(LossReason::LeaseGone);
                    }
                    let sent = Sent::now();
                    // One that came too slow is tried again over a new connection, which takes longer.
                    let limit = match failures {
                        0 => deadline,
                        _ => (self.lasts(&held) / 3).min(MAX_ANSWER),
                    };
                    match self.backend.renew(&mut held, limit).await {
                        Ok(Answer::Renewed) => {
                            self.renewed(sent, &mut failures);
                            let sent = match writing.as_ref().is_none_or(JoinHandle::is_finished) {
                                true => self.adapt(&mut held, due.elapsed()).await.unwrap_or(sent),
                                false => sent,
                            };
                            let ttl = self.lasts(&held);
                            deadline = (ttl / 5).min(MAX_ANSWER);
                            backoff = Backoff::new(RETRY_MIN, ttl / 3);
                            next = sent.at + interval(ttl);
                            due = next;
                        }
                        Ok(Answer::Gone(reason)) => return Outcome::Lost(reason),
                        Err(error) => {
                            failures += 1;
                            self.renewal_failed(&error, failures);
                            next = Instant::now();
                            // Every endpoint has its turn at once; pauses are for a store that is away as a whole, and
                            // for one that answers that it can't.
                            let round = self.backend.endpoints().max(2);
                            if error.status().is_some() || failures % round == 0 {
                                let asked = error.retry_after().unwrap_or_default();
                                next += backoff.pause(chance()).max(asked.min(held.ttl / 3));
                            }
                        }
                    }
                },
                () = sleep_until(check.into()) => {
                    check = Instant::now() + KEY_CHECK;
                    // Only a clear answer counts: whether the store can be reached is the renewals' business.
                    if self.backend.is_there(&held, deadline).await == Some(false) {
                        self.end(Instant::now() + deadline).await;
                        return Outcome::Lost(LossReason::KeyGone);
                    }
                },
            }
        }
    }

    /// Writes the value as it is to be now, beside the renewals, which must not wait for it, and after what is being written.
    fn publish(
        &self,
        held: &Held,
        earlier: Option<JoinHandle<()>>,
        done: oneshot::Sender<Result<(), KeeperError>>,
    ) -> JoinHandle<()> {
        let until = Instant::now() + PHASE_BUDGET;
        let write = self.backend.write_phase(held, self.phase, until);
        tokio::spawn(async move {
            if let Some(earlier) = earlier {
                let _it_told_whom_it_had_to = earlier.await;
            }
            let _nobody_waits = done.send(write.await);
        })
    }

    fn renewed(&mut self, sent: Sent, failures: &mut usize) {
        if std::mem::take(failures) > 0 {
            tracing::info!(
                cell = self.registration.cell_id,
                endpoint = self.backend.endpoint(),
                "presence renewals are answered again"
            );
        }
        self.wires
            .keeping
            .send_modify(|keeping| keeping.last_renewal_sent = Some(sent));
        self.note_promise();
        self.say(KeeperReport::Renewed {
            took: sent.at.elapsed(),
        });
    }

    fn renewal_failed(&mut self, error: &StoreError, failures: usize) {
        if failures == 1 {
            let cell = &self.registration.cell_id;
            let endpoint = self.backend.endpoint();
            tracing::warn!(cell, %error, endpoint, "presence renewal was not answered; trying on");
        }
        self.backend.failed(error);
        self.say(KeeperReport::RenewalFailed {
            kind: FailureKind::from(error),
        });
    }

    /// Says that we leave on purpose, then leaves.
    async fn give_back(&mut self, held: &Held) -> bool {
        let until = Instant::now() + RELEASE_BUDGET;
        // Without this the end of the lease looks like a loss; with the store away, that can't be helped.
        let say = until - RELEASE_BUDGET / 2;
        let said = self.backend.write_phase(held, PresencePhase::Released, say);
        if let Err(error) = said.await {
            tracing::warn!(cell = self.registration.cell_id, %error, "presence ends without having said why");
        }
        self.end(until).await
    }

    /// Ends whatever this keeper holds; `false` when the store did not confirm that.
    pub(super) async fn end(&mut self, until: Instant) -> bool {
        let (backend, ask) = self.ask();
        backend.end(&ask, until).await
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
