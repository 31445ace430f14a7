//! Who is alive, as far as the store's lists and changes tell: pure, so that it can be tested to the bottom.
//!
//! The view is fed with what a list and a watch deliver and answers with the events that follow from it. A list is
//! treated like the changes that lead to it: what a broken watch did not deliver, the next list makes good.
//!
//! A change that is older than what is known of its Cell is ignored, so that no order of delivery can take the view
//! back. A list that belongs to another store than before says nothing about who is absent from it: see
//! [`PresenceEvent::Synced`].

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Departure, Notice, Presence, PresenceEvent};

/// What is known of every Cell's presence.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Ordered, so that the events of a list come in the same order each time.
    cells: BTreeMap<String, Known>,
    /// Identity of the store that gave the last list; `None` before the first one.
    cluster_id: Option<u64>,
    /// The revision of the last list: it already holds whatever happened until then.
    listed: i64,
    /// The newest revision heard of; a list from before it comes from a store that lost data.
    revision: i64,
}

/// What is known of one Cell.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    /// The revision of the store at which this was so; older news is ignored.
    revision: i64,
    /// `None` once the key is gone: remembered until the next list, so that a late PUT can't revive it.
    presence: Option<Presence>,
}

impl View {
    /// A view that knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everyone who is alive.
    pub fn present(&self) -> impl Iterator<Item = &Presence> {
        self.cells
            .values()
            .filter_map(|known| known.presence.as_ref())
    }

    /// The presence of one Cell.
    pub fn get(&self, cell: &str) -> Option<&Presence> {
        self.cells.get(cell)?.presence.as_ref()
    }

    /// Takes over a complete list, answered at `at` by the store `cluster_id` at its `revision`.
    ///
    /// First everyone that is gone, then everyone that is new or changed, then [`PresenceEvent::Synced`].
    pub fn relist(
        &mut self,
        list: Vec<Presence>,
        revision: i64,
        cluster_id: u64,
        at: Instant,
    ) -> Vec<PresenceEvent> {
        let reset = self.is_another_store(&list, revision, cluster_id);
        let before = std::mem::take(&mut self.cells);
        self.cells = list
            .into_iter()
            .map(|presence| {
                (
                    presence.cell.clone(),
                    Known {
                        revision,
                        presence: Some(presence),
                    },
                )
            })
            .collect();
        self.cluster_id = Some(cluster_id);
        self.listed = revision;
        self.revision = revision;

        let mut events = Vec::new();
        if !reset {
            for last in before.values().filter_map(|known| known.presence.as_ref()) {
                // The same Cell with another epoch died and registered again in between.
                if self
                    .get(&last.cell)
                    .is_none_or(|now| now.epoch != last.epoch)
                {
                    events.push(gone(last.clone(), Notice::Relist, at));
                }
            }
        }
        for now in self.present() {
            let known = before
                .get(&now.cell)
                .and_then(|known| known.presence.as_ref());
            if reset || known != Some(now) {
                events.push(PresenceEvent::Held(now.clone()));
            }
        }
        events.push(PresenceEvent::Synced { at, reset });
        events
    }

    /// Whether a list can't come from the store that was known before: revisions and epochs only grow there.
    fn is_another_store(&self, list: &[Presence], revision: i64, cluster_id: u64) -> bool {
        let Some(known) = self.cluster_id else {
            // Nothing was known, so nothing can be taken away.
            return false;
        };
        known != cluster_id
            || revision < self.revision
            || list.iter().any(|now| {
                self.get(&now.cell)
                    .is_some_and(|last| now.epoch < last.epoch)
            })
    }

    /// Takes over a key that was written at `revision`; learnt at `at`.
    pub fn put(&mut self, now: Presence, revision: i64, at: Instant) -> Vec<PresenceEvent> {
        if self.is_old(&now.cell, revision) {
            return Vec::new();
        }
        let mut events = Vec::new();
        match self.get(&now.cell) {
            Some(last) if *last == now => {}
            last => {
                if let Some(last) = last.filter(|last| !goes_on(last, &now)) {
                    // Its end was not delivered, but a key of a new epoch proves it.
                    events.push(gone(last.clone(), Notice::Watch, at));
                }
                events.push(PresenceEvent::Held(now.clone()));
            }
        }
        self.learn(now.cell.clone(), revision, Some(now));
        events
    }

    /// Takes over a key that was deleted at `revision`, with its last value `prev` if the store sent it along;
    /// learnt at `at`.
    pub fn delete(
        &mut self,
        cell: &str,
        prev: Option<Presence>,
        revision: i64,
        at: Instant,
    ) -> Vec<PresenceEvent> {
        if self.is_old(cell, revision) {
            return Vec::new();
        }
        let mut events = Vec::new();
        let last = self.get(cell).cloned();
        // Where the store tells of another epoch than was known, both lives have ended.
        if let (Some(last), Some(prev)) = (&last, &prev)
            && last.epoch != prev.epoch
        {
            events.push(gone(last.clone(), Notice::Watch, at));
        }
        if let Some(last) = prev.or(last) {
            events.push(gone(last, Notice::Watch, at));
        }
        self.learn(cell.to_owned(), revision, None);
        events
    }

    /// The key is still there, but nobody renews it any more; confirmed at `at`. A later change of it revives it.
    pub fn expire(&mut self, cell: &str, at: Instant) -> Vec<PresenceEvent> {
        let known = self.cells.get_mut(cell);
        let last = known.and_then(|known| known.presence.take());
        last.map(|last| gone(last, Notice::Timer, at))
            .into_iter()
            .collect()
    }

    /// The key is still there, and what was written into it at `revision` says that it is over; learnt at `at`.
    pub fn end(&mut self, last: Presence, revision: i64, at: Instant) -> Vec<PresenceEvent> {
        if self.is_old(&last.cell, revision) {
            return Vec::new();
        }
        let mut events = Vec::new();
        if let Some(known) = self.get(&last.cell) {
            if known.epoch != last.epoch {
                events.push(gone(known.clone(), Notice::Watch, at));
            }
            events.push(gone(last.clone(), Notice::Watch, at));
        }
        self.learn(last.cell, revision, None);
        events
    }

    /// Whether something as new is known of this Cell. A key changes at most once per revision.
    fn is_old(&self, cell: &str, revision: i64) -> bool {
        revision <= self.listed
            || self
                .cells
                .get(cell)
                .is_some_and(|known| revision <= known.revision)
    }

    fn learn(&mut self, cell: String, revision: i64, presence: Option<Presence>) {
        self.revision = self.revision.max(revision);
        self.cells.insert(cell, Known { revision, presence });
    }
}

/// Whether nothing ended between the two: the same registration, or another one of the same life.
fn goes_on(last: &Presence, now: &Presence) -> bool {
    let incarnation = |presence: &Presence| {
        let value = presence.value.as_ref();
        value.map(|value| value.incarnation.clone())
    };
    let life = incarnation(last);
    last.epoch == now.epoch
        || (last.epoch < now.epoch
            && now.first_epoch() <= last.epoch
            && life.is_some()
            && life == incarnation(now))
}

fn gone(last: Presence, notice: Notice, at: Instant) -> PresenceEvent {
    PresenceEvent::Gone(Departure { last, notice, at })
}

#[cfg(test)]
mod tests;
