//! Follows the store's changes of who is alive, and begins again by itself whenever it can't hear them any more.
//!
//! One session is: connect to one endpoint, list at revision R, watch from R. Whatever ends it, the next one lists
//! again, and the difference between the lists is told like the changes it consists of. The sessions are the stores'
//! own (`Feed`); what they lead to is the same.

pub(super) mod etcd;
mod health;
pub(super) mod kubernetes;

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::view::View;
use super::{PresenceEvent, StoreError};
use crate::backoff::{Backoff, chance};
use health::Health;

/// A watch without any message for as long as this is dead: three signs of life were not answered. Longer would eat
/// into the time in which a Cell's work has to be elsewhere; shorter would take a leader election for a death.
const SILENCE: Duration = Duration::from_secs(3);

/// An endpoint has this long to answer the list, and again to begin the watch.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);

/// Pauses between sessions grow from the one to the other: a store that breaks every watch must not be asked in a
/// hot loop, and one that was served until now gets a quick retry.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// How a session ended.
pub(super) enum End {
    /// Nobody listens any more, or the caller has had enough.
    Stopped,
    /// No list was answered, so the store was not heard at all.
    Unheard(StoreError),
    /// The watch broke after the list.
    Broken {
        reason: &'static str,
        detail: String,
    },
    /// The store was away and is back, or is to be asked with a new certificate: a new list begins, which is no news of
    /// the watch.
    Back,
}

/// The sessions of one store.
pub(super) trait Feed: Send {
    /// The first endpoint's turn.
    fn first_turn(&self) -> usize;

    /// The endpoint whose turn it is, for the log.
    fn endpoint(&self, turn: usize) -> String;

    /// Lists, then watches until that ends.
    fn session(&mut self, turn: usize, line: &mut Line) -> impl Future<Output = End> + Send;
}

/// What lasts over the sessions: who is known to be alive, and what was told.
pub(super) struct Line {
    events: mpsc::Sender<PresenceEvent>,
    view: View,
    /// When the store was last heard.
    heard: Instant,
    /// Whether [`PresenceEvent::Unreachable`] was sent and nothing was heard since.
    outage: bool,
    backoff: Backoff,
    /// What of it is told in the log.
    health: Health,
}

/// Sends every change of who is alive, until `cancel` is cancelled or the receiver is dropped.
///
/// Never gives up: while the store can't be heard it tries one endpoint after the other.
pub(super) async fn run(
    mut feed: impl Feed,
    events: mpsc::Sender<PresenceEvent>,
    cancel: CancellationToken,
) {
    let mut line = Line {
        events,
        view: View::new(),
        heard: Instant::now(),
        outage: false,
        backoff: Backoff::new(RETRY_MIN, RETRY_MAX),
        health: Health::default(),
    };
    // Dropping a session at any await loses at most events that nobody waits for any more.
    cancel
        .run_until_cancelled(sessions(&mut feed, &mut line))
        .await;
}

async fn sessions(feed: &mut impl Feed, line: &mut Line) {
    let mut turn = feed.first_turn();
    loop {
        match feed.session(turn, line).await {
            End::Stopped => return,
            End::Back => continue,
            End::Broken { reason, detail } => {
                let endpoint = feed.endpoint(turn);
                if line.health.broke() {
                    tracing::warn!(
                        reason,
                        detail,
                        endpoint,
                        "presence watch breaks again and again; changes may be heard late"
                    );
                } else {
                    tracing::debug!(
                        reason,
                        detail,
                        endpoint,
                        "presence watch broke; listing again"
                    );
                }
                let restarted = PresenceEvent::WatchRestarted { reason };
                if line.events.send(restarted).await.is_err() {
                    return;
                }
                // A compaction is no fault of the endpoint, and the next session makes it good; anything else
                // may be, so another endpoint comes next.
                if reason != "compacted" {
                    turn = turn.wrapping_add(1);
                }
            }
            End::Unheard(error) => {
                if !line.unheard(&error.to_string(), &feed.endpoint(turn)).await {
                    return;
                }
                turn = turn.wrapping_add(1);
            }
        }
        tokio::time::sleep(line.backoff.pause(chance())).await;
    }
}

impl Line {
    /// The store can't be heard; told once. `false` when nobody listens any more.
    async fn unheard(&mut self, problem: &str, endpoint: &str) -> bool {
        if std::mem::replace(&mut self.outage, true) {
            return true;
        }
        if self.health.unheard() {
            tracing::warn!(
                problem,
                endpoint,
                "presence store can't be heard; nobody counts as lost by that"
            );
        }
        let at = self.heard;
        let outage = PresenceEvent::Unreachable { at };
        self.events.send(outage).await.is_ok()
    }

    /// A list was answered at `at`, and led to `events`. `false` when nobody listens any more.
    async fn listed(&mut self, events: Vec<PresenceEvent>, at: Instant, endpoint: &str) -> bool {
        if self.outage {
            self.outage = false;
            if self.health.heard() {
                tracing::info!(
                    seconds = (at - self.heard).as_secs_f64(),
                    endpoint,
                    "presence store is heard again"
                );
            }
        }
        self.heard = at;
        self.tell(events).await
    }

    /// A watch that began at `begun` was served.
    fn served(&mut self, begun: Instant) {
        self.backoff.reset();
        if self.health.served(begun.elapsed()) {
            tracing::info!("presence watch is well again");
        }
    }

    /// Sends the events; `false` when nobody listens any more.
    async fn tell(&self, events: Vec<PresenceEvent>) -> bool {
        for event in events {
            if let PresenceEvent::Held(now) = &event
                && now.value.is_none()
            {
                tracing::warn!(
                    cell = now.cell,
                    epoch = now.epoch,
                    "presence value can't be read; the Cell counts as present"
                );
            }
            if self.events.send(event).await.is_err() {
                return false;
            }
        }
        true
    }
}
