//! A session with etcd: one endpoint, one list at revision R, one watch from R on the same connection.

use std::time::{Duration, Instant};

use etcd_client::{
    EventType, GetOptions, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream,
};
use futures::FutureExt;

use super::super::etcd::{Credentials, EtcdConfig, MAX_MESSAGE, PREFIX, cell_of, decode, within};
use super::super::{PresenceEvent, StoreError};
use super::{End, Feed, Line, OPEN_TIMEOUT, SILENCE};

/// The watch is asked for a sign of life this often. A healthy member answers in a millisecond, and it costs it
/// nothing; HTTP/2 pings as often as this would make etcd end the connection.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// The sessions with etcd. The configuration must have passed [`EtcdConfig::validate`].
pub(in crate::presence) struct EtcdFeed {
    config: EtcdConfig,
}

impl EtcdFeed {
    pub(in crate::presence) fn new(config: EtcdConfig) -> Self {
        Self { config }
    }
}

impl Feed for EtcdFeed {
    fn first_turn(&self) -> usize {
        self.config.first_turn()
    }

    fn endpoint(&self, turn: usize) -> String {
        self.config.endpoint(turn).to_owned()
    }

    async fn session(&mut self, turn: usize, line: &mut Line) -> End {
        let opened = within(OPEN_TIMEOUT, async {
            let credentials = Credentials::read(&self.config).await?;
            let client = self.config.connect_with(turn, &credentials).await?;
            let mut kv = client.kv_client().max_decoding_message_size(MAX_MESSAGE);
            let list = kv
                .get(PREFIX, Some(GetOptions::new().with_prefix()))
                .await?;
            Ok::<_, StoreError>((credentials, client, list))
        });
        let (credentials, client, list) = match opened.await {
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
        let events = line.view.relist(presences, revision, cluster, at);
        if !line.listed(events, at, self.config.endpoint(turn)).await {
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
                // Whoever may list may watch.
                let renewed = credentials.replaced(&self.config, turn, |client| {
                    async move {
                        let count = GetOptions::new().with_prefix().with_count_only();
                        client.kv_client().get(PREFIX, Some(count)).await?;
                        Ok(())
                    }
                    .boxed()
                });
                tokio::select! {
                    end = follow(line, requests, responses) => end,
                    _ = renewed => End::Back,
                }
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
}

/// Passes on what the watch delivers.
async fn follow(
    line: &mut Line,
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
                    line.heard = Instant::now();
                    if message.canceled() {
                        let reason = if message.compact_revision() > 0 { "compacted" } else { "error" };
                        let detail = format!("cancelled by the store: {}", message.cancel_reason());
                        return End::Broken { reason, detail };
                    }
                    if !message.created() {
                        // Beyond the bare beginning: this endpoint serves a watch.
                        line.served(begun);
                    }
                    let events = apply(line, &message);
                    if !line.tell(events).await {
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
            () = line.events.closed() => return End::Stopped,
        }
    }
}

fn apply(line: &mut Line, message: &WatchResponse) -> Vec<PresenceEvent> {
    let at = line.heard;
    let mut events = Vec::new();
    for event in message.events() {
        let Some(kv) = event.kv() else { continue };
        match event.event_type() {
            EventType::Put => {
                if let Some(now) = decode(kv) {
                    events.extend(line.view.put(now, kv.mod_revision(), at));
                }
            }
            EventType::Delete => {
                if let Some(cell) = cell_of(kv.key()) {
                    let prev = event.prev_kv().and_then(decode);
                    events.extend(line.view.delete(cell, prev, kv.mod_revision(), at));
                }
            }
        }
    }
    events
}
