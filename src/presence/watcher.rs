//! Follows the store's changes of who is alive, and begins again by itself whenever it can't hear them any more.
//!
//! One session is: connect to one endpoint, list at revision R, watch from R on the same connection. Whatever
//! ends it, the next one lists again, and the difference between the lists is told like the changes it consists of.

mod health;

use std::time::{Duration, Instant};

use etcd_client::{
    EventType, GetOptions, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::etcd::{EtcdConfig, MAX_MESSAGE, PREFIX, cell_of, decode, within};
use super::view::View;
use super::{PresenceEvent, StoreError};
use crate::backoff::{Backoff, chance};
use health::Health;

/// The watch is asked for a sign of life this often. A healthy member answers in a millisecond, and it costs it
/// nothing; HTTP/2 pings as often as this would make etcd end the connection.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

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
enum End {
    /// Nobody listens any more, or the caller has had enough.
    Stopped,
    /// No list was answered, so the store was not heard at all.
    Unheard(StoreError),
    /// The watch broke after the list.
    Broken {
        reason: &'static str,
        detail: String,
    },
}

/// What lasts over the sessions.
struct Watcher {
    config: EtcdConfig,
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
/// Never gives up: while the store can't be heard it tries one endpoint after the other. `config` must have passed
/// [`EtcdConfig::validate`].
pub async fn run(
    config: EtcdConfig,
    events: mpsc::Sender<PresenceEvent>,
    cancel: CancellationToken,
) {
    let mut watcher = Watcher {
        events,
        view: View::new(),
        heard: Instant::now(),
        outage: false,
        backoff: Backoff::new(RETRY_MIN, RETRY_MAX),
        health: Health::default(),
        config,
    };
    // Dropping a session at any await loses at most events that nobody waits for any more.
    cancel.run_until_cancelled(watcher.run()).await;
}

impl Watcher {
    async fn run(&mut self) {
        let mut turn = self.config.first_turn();
        loop {
            match self.session(turn).await {
                End::Stopped => return,
                End::Broken { reason, detail } => {
                    let endpoint = self.config.endpoint(turn);
                    if self.health.broke() {
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
                    if self
                        .events
                        .send(PresenceEvent::WatchRestarted { reason })
                        .await
                        .is_err()
                    {
                        return;
                    }
                    // A compaction is no fault of the endpoint, and the next session makes it good; anything else
                    // may be, so another endpoint comes next.
                    if reason != "compacted" {
                        turn = turn.wrapping_add(1);
                    }
                }
                End::Unheard(error) => {
                    if !self.outage {
                        self.outage = true;
                        let endpoint = self.config.endpoint(turn);
                        if self.health.unheard() {
                            tracing::warn!(%error, endpoint, "presence store can't be heard; nobody counts as lost by that");
                        }
                        if self
                            .events
                            .send(PresenceEvent::Unreachable { at: self.heard })
                            .await
                            .is_err()
                        {
                            return;
                        }
                    }
                    turn = turn.wrapping_add(1);
                }
            }
            tokio::time::sleep(self.backoff.pause(chance())).await;
        }
    }

    /// List, then watch until it breaks.
    async fn session(&mut self, turn: usize) -> End {
        let opened = within(OPEN_TIMEOUT, async {
            let client = self.config.connect(turn).await?;
            let mut kv = client.kv_client().max_decoding_message_size(MAX_MESSAGE);
            let list = kv
                .get(PREFIX, Some(GetOptions::new().with_prefix()))
                .await?;
            Ok::<_, StoreError>((client, list))
        });
        let (client, list) = match opened.await {
            Ok(opened) => opened,
            Err(error) => return End::Unheard(error),
        };
        let Some((revision, cluster)) = list
            .header()
            .map(|header| (header.revision(), header.cluster_id()))
        else {
            return End::Unheard(
                etcd_client::Error::Internal("a list without a header".into()).into(),
            );
        };
        let at = Instant::now();
        let presences = list.kvs().iter().filter_map(decode).collect();
        let events = self.view.relist(presences, revision, cluster, at);
        if self.outage {
            self.outage = false;
            if self.health.heard() {
                tracing::info!(
                    seconds = (at - self.heard).as_secs_f64(),
                    endpoint = self.config.endpoint(turn),
                    "presence store is heard again"
                );
            }
        }
        self.heard = at;
        if !self.tell(events).await {
            return End::Stopped;
        }

        // From R, not R + 1: a member answers no request for progress while it has nothing as new as what was asked for,
        // so that in a quiet store a watch from R + 1 looks dead. The view ignores what happened at R a second time.
        let options = WatchOptions::new()
            .with_prefix()
            .with_prev_key()
            .with_fragment()
            .with_start_revision(revision);
        let mut watch = client.watch_client().max_decoding_message_size(MAX_MESSAGE);
        match within(OPEN_TIMEOUT, watch.watch(PREFIX, Some(options))).await {
            Ok(stream) => {
                let (requests, responses) = stream.split();
                self.follow(requests, responses).await
            }
            Err(error) => {
                // The list was answered, but a watch is what counts.
                End::Broken {
                    reason: "error",
                    detail: error.to_string(),
                }
            }
        }
    }

    /// Passes on what the watch delivers.
    async fn follow(
        &mut self,
        mut requests: WatchRequestSender,
        mut responses: WatchResponseStream,
    ) -> End {
        let mut progress = tokio::time::interval(PROGRESS_INTERVAL);
        progress.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let begun = Instant::now();
        // Counted from when we last began to listen, so that a slow receiver isn't taken for a silent store.
        let mut listening = Instant::now();
        loop {
            tokio::select! {
                biased;
                message = responses.message() => match message {
                    Ok(Some(message)) => {
                        self.heard = Instant::now();
                        if message.canceled() {
                            let reason = if message.compact_revision() > 0 { "compacted" } else { "error" };
                            let detail = format!("cancelled by the store: {}", message.cancel_reason());
                            return End::Broken { reason, detail };
                        }
                        if !message.created() {
                            // Beyond the bare beginning: this endpoint serves a watch.
                            self.backoff.reset();
                            if self.health.served(begun.elapsed()) {
                                tracing::info!("presence watch is well again");
                            }
                        }
                        let events = self.apply(&message);
                        if !self.tell(events).await {
                            return End::Stopped;
                        }
                        listening = Instant::now();
                    }
                    Ok(None) => return End::Broken { reason: "closed", detail: "the store ended the watch".into() },
                    Err(error) => return End::Broken { reason: "error", detail: error.to_string() },
                },
                _ = tokio::time::sleep_until((listening + SILENCE).into()) => {
                    return End::Broken { reason: "silent", detail: format!("nothing heard for {SILENCE:?}") };
                }
                _ = progress.tick() => {
                    // Only queued here; what counts is the answer. The queue holds 100, far more than fit in SILENCE.
                    if let Err(error) = requests.request_progress().await {
                        return End::Broken { reason: "closed", detail: error.to_string() };
                    }
                }
                () = self.events.closed() => return End::Stopped,
            }
        }
    }

    fn apply(&mut self, message: &WatchResponse) -> Vec<PresenceEvent> {
        let at = self.heard;
        let mut events = Vec::new();
        for event in message.events() {
            let Some(kv) = event.kv() else { continue };
            match event.event_type() {
                EventType::Put => {
                    if let Some(now) = decode(kv) {
                        events.extend(self.view.put(now, kv.mod_revision(), at));
                    }
                }
                EventType::Delete => {
                    if let Some(cell) = cell_of(kv.key()) {
                        let prev = event.prev_kv().and_then(decode);
                        events.extend(self.view.delete(cell, prev, kv.mod_revision(), at));
                    }
                }
            }
        }
        events
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
