//! The actor leaves, to stop or because its Cell is evacuated: what [`super::drain`] decides, done.

use std::time::{Duration, Instant};

use super::actor::{Actor, Message};
use super::drain::{self, Draining, Step};
use super::metrics::StopReason;
use crate::converge::harmony::Mode;
use crate::presence::PresencePhase;

/// The phase must reach the store before work is given away; a store that does not take it must not hold up the
/// stop for longer.
const PHASE_TIMEOUT: Duration = Duration::from_secs(5);

impl Actor {
    pub(super) fn begin_draining(&mut self) {
        tracing::info!(
            cell = self.setup.cell,
            containers = self.containers.len(),
            "draining: moving the work away"
        );
        self.mode = Mode::Draining;
        self.draining = Some(Draining {
            since: Instant::now(),
            timeout: self.setup.evacuation_timeout,
            told: false,
            forced_until: None,
        });
        self.setup.metrics.set_evacuating(true);
        let (keeper, outbox) = (self.keeper.clone(), self.outbox.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(PHASE_TIMEOUT, keeper.set_phase(PresencePhase::Draining))
                .await
            {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the presence store was not told that this Cell drains")
                }
                Err(_) => {
                    tracing::warn!("the presence store did not take in time that this Cell drains")
                }
            }
            let _ = outbox.send(Message::PhaseTold);
        });
    }

    /// The store knows that this rep drains, or was given up on: leaving may come to its end, and the controller, which
    /// may have placed work here until now, will not any more.
    pub(super) fn phase_told(&mut self) {
        self.draining = self.draining.map(|draining| Draining {
            told: true,
            ..draining
        });
        self.settle_all();
    }

    /// One step of leaving. Returns whether it is over.
    pub(super) fn drain(&mut self, hurry: bool) -> bool {
        let Some(draining) = self.draining else {
            return false;
        };
        let left = !self.containers.is_empty() || !self.busy.is_empty();
        match draining.next(left, hurry, Instant::now()) {
            Step::Wait => false,
            Step::Done => {
                if left {
                    tracing::warn!(
                        containers = self.containers.len(),
                        "not everything could be told to the API server"
                    );
                    // Nothing runs here without a presence.
                    for container in self.containers.values() {
                        container.kill_after(Duration::ZERO);
                    }
                }
                true
            }
            Step::StopAll => {
                self.stop_all(hurry);
                false
            }
        }
    }

    fn stop_all(&mut self, hurry: bool) {
        if !self.containers.is_empty() {
            tracing::warn!(
                cell = self.setup.cell,
                containers = self.containers.len(),
                hurry,
                "stopping what is still here"
            );
        }
        let mut grace = Duration::ZERO;
        for container in self.containers.values_mut() {
            container.stop_reason.get_or_insert(drain::TIMED_OUT);
            let within = if hurry {
                container.spec.grace.min(drain::HURRY_GRACE)
            } else {
                container.spec.grace
            };
            grace = grace.max(within);
            if container.stop() {
                self.setup.metrics.stopped(StopReason::EvacuationTimeout);
            }
            if hurry {
                container.kill_after(within);
            }
        }
        let until = Instant::now() + grace + drain::LAST_WRITES;
        self.draining = self.draining.map(|draining| Draining {
            forced_until: Some(until),
            ..draining
        });
    }
}
