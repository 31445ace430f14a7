//! A session with the API server: one connection, one list, watches from there on, and the deadlines of all Leases.
//!
//! The watch delivers every renewal; only what the view makes of it is told. A deadline that passes is confirmed by a
//! write of our own, and then by a live read: what the watch did not deliver in time only moves the deadline.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::{Stream, StreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};

use super::super::etcd::within;
use super::super::kubernetes::{KubernetesStore, MARK, Sighting, is_cells, version};
use super::super::{PresenceEvent, StoreError};
use super::{End, Feed, Line, SILENCE};

/// A new connection and a list of many Leases, or a watch, must be there within this.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

/// A watch that the server ends sooner than this was not served.
const SERVED: Duration = Duration::from_secs(1);

/// The deadlines are looked at this often at least: others move them too.
const LOOK: Duration = Duration::from_millis(500);

/// The pause before a deadline that could not be confirmed is looked at again.
const AGAIN: Duration = Duration::from_millis(200);

/// So many deadlines are confirmed one by one; more by one list.
const ONE_BY_ONE: usize = 16;

/// The API server refuses to go on from where we are: it has forgotten what came next.
const EXPIRED: u16 = 410;

/// The sessions with the API server.
pub(in crate::presence) struct LeaseFeed {
    store: Arc<KubernetesStore>,
}

impl LeaseFeed {
    pub(in crate::presence) fn new(store: Arc<KubernetesStore>) -> Self {
        Self { store }
    }
}

/// How one watch ended, if it did not end the session.
enum Ended {
    /// The server ended it, as it does from time to time: the next one goes on at this version.
    Regularly(String),
    Session(End),
}

impl Feed for LeaseFeed {
    fn first_turn(&self) -> usize {
        0
    }

    fn endpoint(&self, _turn: usize) -> String {
        self.store.config().endpoint()
    }

    async fn session(&mut self, turn: usize, line: &mut Line) -> End {
        if !self.until_well(turn, line).await {
            return End::Stopped;
        }
        let leases = match self.store.config().leases() {
            Ok(leases) => leases,
            Err(error) => return End::Unheard(error),
        };
        // The canaries too: one of them is ours, so that a watch which is served is never silent for long.
        let params = ListParams::default().labels(MARK);
        let list = match within(OPEN_TIMEOUT, leases.list(&params)).await {
            Ok(list) => list,
            Err(error) => return End::Unheard(error),
        };
        let at = Instant::now();
        let mut from = list.metadata.resource_version.clone().unwrap_or_default();
        let seen: Vec<Sighting> = list
            .iter()
            .filter(|lease| is_cells(lease))
            .filter_map(Sighting::of)
            .collect();
        let presences = {
            let mut deadlines = self.store.deadlines();
            deadlines.relisted(&seen, version(Some(&from)), at);
            deadlines.watched(at);
            deadlines.live().collect()
        };
        // A store that lost its data shows by its versions; it has no other name.
        let events = line.view.relist(presences, version(Some(&from)), 0, at);
        if !line.listed(events, at, &self.endpoint(turn)).await {
            return End::Stopped;
        }
        loop {
            let begun = Instant::now();
            match self.watch(&leases, from, turn, line).await {
                Ended::Regularly(next) if begun.elapsed() >= SERVED => from = next,
                Ended::Regularly(_) => {
                    return End::Broken {
                        reason: "closed",
                        detail: "the store ended the watch".into(),
                    };
                }
                Ended::Session(end) => return end,
            }
        }
    }
}

impl LeaseFeed {
    /// Waits until the store takes writes. `false` when nobody listens any more.
    async fn until_well(&self, turn: usize, line: &mut Line) -> bool {
        let mut health = self.store.health();
        if !*health.borrow_and_update() && !self.takes_no_writes(turn, line).await {
            return false;
        }
        tokio::select! {
            // The sender is in the store, which is ours.
            _ = health.wait_for(|well| *well) => true,
            () = line.events.closed() => false,
        }
    }

    async fn takes_no_writes(&self, turn: usize, line: &mut Line) -> bool {
        let problem = "it takes no writes";
        line.unheard(problem, &self.endpoint(turn)).await
    }

    async fn watch(
        &self,
        leases: &Api<Lease>,
        from: String,
        turn: usize,
        line: &mut Line,
    ) -> Ended {
        let params = WatchParams::default().labels(MARK);
        match within(OPEN_TIMEOUT, leases.watch(&params, &from)).await {
            Ok(stream) => self.follow(stream.boxed(), from, turn, line).await,
            Err(StoreError::Kubernetes(kube::Error::Api(status))) if status.code == EXPIRED => {
                Ended::Session(compacted(status.message))
            }
            Err(error) => Ended::Session(broken("error", error.to_string())),
        }
    }

    /// Passes on what the watch delivers, and what the deadlines say.
    async fn follow(
        &self,
        mut stream: impl Stream<Item = kube::Result<WatchEvent<Lease>>> + Unpin,
        mut from: String,
        turn: usize,
        line: &mut Line,
    ) -> Ended {
        let begun = Instant::now();
        let mut listening = Instant::now();
        // Deadlines that could not be confirmed are tried again from then on.
        let mut again = begun;
        let mut health = self.store.health();
        health.mark_changed();
        loop {
            let now = Instant::now();
            let (next, silence) = {
                let deadlines = self.store.deadlines();
                // Between two canaries nothing may happen; the longest pause between them is 5 s.
                let pause = (deadlines.shortest_ttl() / 3).min(Duration::from_secs(5));
                (deadlines.next(), SILENCE + pause)
            };
            let look = next.map_or(now + LOOK, |next| next.max(again).min(now + LOOK));
            tokio::select! {
                biased;
                changed = health.changed() => {
                    let well = changed.is_ok() && *health.borrow_and_update();
                    if well && line.outage {
                        return Ended::Session(End::Back);
                    }
                    if !well && !self.takes_no_writes(turn, line).await {
                        return Ended::Session(End::Stopped);
                    }
                }
                event = stream.next() => match event {
                    Some(Ok(WatchEvent::Error(status))) if status.code == EXPIRED => {
                        return Ended::Session(compacted(status.message));
                    }
                    Some(Ok(WatchEvent::Error(status))) => {
                        return Ended::Session(broken("error", status.message));
                    }
                    Some(Ok(event)) => {
                        line.heard = Instant::now();
                        self.store.deadlines().watched(line.heard);
                        line.served(begun);
                        let events = self.apply(event, &mut from, line);
                        if !line.tell(events).await {
                            return Ended::Session(End::Stopped);
                        }
                        listening = Instant::now();
                    }
                    Some(Err(error)) => return Ended::Session(broken("error", error.to_string())),
                    None => return Ended::Regularly(from),
                },
                () = tokio::time::sleep_until(look.into()) => {
                    let (events, confirmed) = self.look(line).await;
                    if !confirmed {
                        again = Instant::now() + AGAIN;
                    }
                    if !line.tell(events).await {
                        return Ended::Session(End::Stopped);
                    }
                    // Where nothing can be written, nothing can be heard.
                    if !line.outage && listening.elapsed() >= silence {
                        return Ended::Session(broken("silent", format!("nothing heard for {silence:?}")));
                    }
                }
                () = line.events.closed() => return Ended::Session(End::Stopped),
            }
        }
    }

    fn apply(
        &self,
        event: WatchEvent<Lease>,
        from: &mut String,
        line: &mut Line,
    ) -> Vec<PresenceEvent> {
        let (lease, deleted) = match event {
            WatchEvent::Added(lease) | WatchEvent::Modified(lease) => (lease, false),
            WatchEvent::Deleted(lease) => (lease, true),
            WatchEvent::Bookmark(mark) => {
                *from = mark.metadata.resource_version;
                return Vec::new();
            }
            WatchEvent::Error(_) => return Vec::new(),
        };
        if let Some(version) = &lease.metadata.resource_version {
            from.clone_from(version);
        }
        let Some(seen) = Sighting::of(&lease) else {
            return Vec::new();
        };
        // One whose label was taken away is delivered as deleted, with its last labels.
        if !deleted && !is_cells(&lease) {
            return Vec::new();
        }
        let mut deadlines = self.store.deadlines();
        if deleted {
            // What was told to be gone is not told again.
            let told = deadlines.has_ended(&seen.cell);
            let prev = deadlines.presence(&seen).filter(|_| !told);
            return match deadlines.deleted(&seen, line.heard) {
                true => line.view.delete(&seen.cell, prev, seen.version, line.heard),
                false => Vec::new(),
            };
        }
        deadlines.observe(&seen, line.heard);
        match deadlines.presence(&seen) {
            Some(presence) if seen.is_dead() => line.view.end(presence, seen.version, line.heard),
            // A live read may have shown it before the watch did.
            Some(presence) if !deadlines.has_ended(&seen.cell) => {
                line.view.put(presence, seen.version, line.heard)
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// Confirms the deadlines that have passed, and tells who is over; and whether all could be confirmed.
    async fn look(&self, line: &mut Line) -> (Vec<PresenceEvent>, bool) {
        let due = {
            let deadlines = self.store.deadlines();
            match deadlines.next() {
                Some(_) => deadlines.due(Instant::now()),
                None => Vec::new(),
            }
        };
        if due.is_empty() {
            return (Vec::new(), true);
        }
        if !*self.store.health().borrow() || self.store.write().await.is_err() {
            return (Vec::new(), false);
        }
        let answers = self.read(due).await;
        let at = Instant::now();
        let (mut events, mut confirmed) = (Vec::new(), true);
        let mut deadlines = self.store.deadlines();
        for (cell, answer) in answers {
            match answer {
                Ok(Some(seen)) => deadlines.observe(&seen, at),
                Ok(None) => deadlines.not_found(&cell, at),
                Err(error) => {
                    tracing::debug!(cell, error, "a passed deadline can't be confirmed yet");
                    confirmed = false;
                    continue;
                }
            }
            if deadlines.end(&cell) {
                events.extend(line.view.expire(&cell, at));
            }
        }
        (events, confirmed)
    }

    /// The Leases of these Cells, read now.
    async fn read(&self, due: Vec<String>) -> Vec<(String, Result<Option<Sighting>, String>)> {
        if due.len() <= ONE_BY_ONE {
            let read = due.into_iter().map(async |cell| {
                let answer = self.store.get_now(&cell).await;
                let answer = answer.map(Result::ok).map_err(|error| error.to_string());
                (cell, answer)
            });
            return join_all(read).await;
        }
        let list = self.store.list_now().await;
        let list = list.map_err(|error| error.to_string());
        let mut list = list.map(|(list, _)| {
            let named = |seen: Sighting| (seen.cell.clone(), seen);
            list.into_iter().map(named).collect::<HashMap<_, _>>()
        });
        let answer = |cell: String| {
            let answer = match &mut list {
                Ok(list) => Ok(list.remove(&cell)),
                Err(error) => Err(error.clone()),
            };
            (cell, answer)
        };
        due.into_iter().map(answer).collect()
    }
}

fn broken(reason: &'static str, detail: String) -> End {
    End::Broken { reason, detail }
}

fn compacted(detail: String) -> End {
    broken("compacted", detail)
}
