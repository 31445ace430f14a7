//! Changing the TTL of a presence that is held, where the rep chooses it by itself.
//!
//! A longer one counts here once the store has confirmed it. A shorter one is kept to first, until no deadline that was
//! given out is any later than the store may then let go at the earliest; and only then is the store told.

use std::time::{Duration, Instant};

use super::super::backend::{Backend, Changed, Held};
use super::super::pace::{Change, Reason};
use super::super::{KeeperReport, Sent};
use super::Worker;
use crate::converge::fence;

impl<B: Backend> Worker<B> {
    /// Notes how far into the future the last publication reaches.
    pub(super) fn note_promise(&mut self) {
        let promised = self.wires.keeping.borrow().fence_deadline();
        self.promised = self.promised.max(promised);
    }

    /// How long the presence lasts at least.
    pub(super) fn lasts(&self, held: &Held) -> Duration {
        held.ttl.min(self.wires.keeping.borrow().ttl)
    }

    /// Whatever is to be written next must know what the store holds. What can't be found out now is with the next renewal.
    pub(super) async fn settle(&mut self, held: &mut Held, limit: Duration) {
        if let Err(error) = self.backend.settle(held, limit).await {
            tracing::debug!(%error, "the store does not tell whether it took the last TTL");
        }
    }

    /// A renewal was answered so long after it was due. Changes the TTL, if it is time; gives the moment that the store
    /// counts from then.
    pub(super) async fn adapt(&mut self, held: &mut Held, delay: Duration) -> Option<Sent> {
        let now = Instant::now();
        let cells = self.registration.cells.get();
        let pace = self.pace.as_mut()?;
        if pace.ttl() != held.ttl {
            // A change whose answer was lost, and that has turned out to have been made.
            let from = pace.ttl();
            let why = self.unsure.map_or(Reason::Calm, |change| change.why);
            self.changed(from, held.ttl, why, now);
            self.unsure = None;
            self.count_with(held.ttl);
        }
        let chosen = self.pace.as_mut()?.renewed(delay, cells, now);
        let Some(Change { ttl, why }) = chosen.or(self.unsure) else {
            // A shorter one that was kept to, and is not wanted any more.
            self.count_with(held.ttl);
            return None;
        };
        if ttl < held.ttl {
            self.count_with(ttl);
            if !self.may_let_go_after(ttl) {
                return None;
            }
        } else if self.unsure.is_none() {
            self.count_with(held.ttl);
        }
        let from = held.ttl;
        // After a renewal that was answered just now half of the TTL is left for the next ones. Where it has to be longer,
        // the store is slow.
        let limit = self.lasts(held) / 2;
        match self.backend.change_ttl(held, ttl, limit).await {
            Ok(Changed::Done(sent)) => {
                self.unsure = None;
                self.wires.keeping.send_modify(|keeping| {
                    keeping.last_renewal_sent = Some(sent);
                    keeping.ttl = held.ttl;
                });
                self.note_promise();
                if let Some(pace) = &mut self.pace {
                    // The store may do no shorter one.
                    pace.granted(ttl, held.ttl, now);
                }
                self.changed(from, held.ttl, why, now);
                Some(sent)
            }
            Ok(Changed::No(least)) => {
                if let (Some(least), Some(pace)) = (least, &mut self.pace) {
                    pace.granted(ttl, least, now);
                    self.unsure = None;
                }
                None
            }
            Err(error) => {
                tracing::warn!(
                    cell = self.registration.cell_id,
                    ttl = ttl.as_secs_f64(),
                    %error,
                    "the presence store did not answer whether it took another TTL"
                );
                self.unsure = Some(Change { ttl, why });
                None
            }
        }
    }

    /// Publishes what is counted with from now on.
    fn count_with(&mut self, ttl: Duration) {
        if self.wires.keeping.borrow().ttl != ttl {
            self.wires.keeping.send_modify(|keeping| keeping.ttl = ttl);
            self.note_promise();
        }
    }

    /// Whether a store that is told this TTL now, and lets go after it, keeps every promise that was given.
    fn may_let_go_after(&self, ttl: Duration) -> bool {
        let sent = self.wires.keeping.borrow().last_renewal_sent;
        let Some((promised, sent)) = self.promised.zip(sent) else {
            return true;
        };
        fence::deadline(sent.boot, ttl).is_ok_and(|deadline| deadline >= promised)
    }

    fn changed(&mut self, from: Duration, ttl: Duration, why: Reason, now: Instant) {
        if let Some(pace) = &mut self.pace {
            pace.granted(ttl, ttl, now);
        }
        tracing::info!(
            cell = self.registration.cell_id,
            from = from.as_secs_f64(),
            ttl = ttl.as_secs_f64(),
            reason = %why,
            "presence TTL changed"
        );
        self.say(KeeperReport::TtlChanged { from, ttl, why });
    }
}
