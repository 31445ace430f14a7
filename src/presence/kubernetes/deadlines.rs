//! Which Leases were silent for too long: pure, so that it can be tested to the bottom. Time is an argument.
//!
//! Every *change* of a Lease that is observed moves its deadline to a full TTL from then. A deadline that has passed
//! proves nothing by itself: the Cell may be well and the store not. It counts only up to the last time at which a write
//! of our own (the canary) is known to have been *sent* to the store and to have gone through, with none missing for long
//! since the deadline was set. Where one was missing for too long for a Cell's TTL, that Cell's deadline is a full TTL away
//! again; so is every one when the view was listed anew.
//!
//! A Lease that was deleted without a word is silent too: anybody may delete it, and its rep makes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::super::{Presence, PresencePhase};
use super::{Said, Sighting};

/// The TTL that is reckoned with while no Cell is known.
const DEFAULT_TTL: Duration = Duration::from_secs(5);

/// The most that may pass between two writes of ours that went through, as a part of a Cell's TTL: an outage that fits
/// between them must leave a rep, which tries every third of its TTL, the time to renew before its deadline.
const GAP: f64 = 0.6;

/// A rep that did not renew for this part of its TTL is overdue: it renews every third.
const LATE: f64 = 0.6;

/// What is expected of the store is what suits a TTL of this: one Cell with a shorter one must not take it for slow.
pub(super) const FLOOR: Duration = Duration::from_secs(2);

/// The Leases, and when each is over.
#[derive(Debug, Default)]
pub struct Deadlines {
    cells: BTreeMap<String, Entry>,
    /// The deadlines that are still to come, the next one first.
    order: BTreeSet<(Instant, String)>,
    /// When the last write of ours that went through was sent.
    proof: Option<Instant>,
    /// When the watch last delivered anything: it tells of our own writes too.
    watched: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Entry {
    uid: String,
    version: i64,
    ttl: Duration,
    /// As last shown; `None` while nothing is registered.
    presence: Option<Presence>,
    /// The Lease was deleted, which proves nothing.
    missing: bool,
    /// `None` once it is certain that it is over: it stays so until the Lease changes.
    deadline: Option<Instant>,
}

impl Entry {
    /// The presence, where its rep said nothing of leaving: it may live, whatever became of its Lease.
    fn unannounced(&self) -> Option<&Presence> {
        self.deadline?;
        self.presence
            .as_ref()
            .filter(|presence| match presence.phase() {
                PresencePhase::Held | PresencePhase::Draining => true,
                PresencePhase::Released | PresencePhase::Restarting | PresencePhase::Dead => false,
            })
    }
}

impl Deadlines {
    /// Takes over what a Lease shows at `now`. Something older than what is known says nothing.
    pub fn observe(&mut self, seen: &Sighting, now: Instant) {
        let known = self.cells.get(&seen.cell);
        if known.is_some_and(|known| seen.version <= known.version) {
            return;
        }
        self.enter(seen, now);
    }

    /// Takes over a complete list of `version`, answered at `now`: every deadline is a full TTL away, but for those Leases
    /// that were over before and did not change.
    pub fn relisted<'a>(
        &mut self,
        list: impl IntoIterator<Item = &'a Sighting>,
        version: i64,
        now: Instant,
    ) {
        let mut before = std::mem::take(&mut self.cells);
        self.order.clear();
        for seen in list {
            let Some(mut known) = before.remove(&seen.cell) else {
                self.enter(seen, now);
                continue;
            };
            let same = (known.uid.as_str(), known.version) == (&*seen.uid, seen.version);
            if known.deadline.is_some() {
                self.push(&seen.cell, &mut known, now);
            }
            let ended = known.deadline.is_none();
            // What is known of it is for the epoch of what can't be read.
            self.cells.insert(seen.cell.clone(), known);
            if !(ended && same) {
                self.enter(seen, now);
            }
        }
        for (cell, mut known) in before {
            if known.unannounced().is_some() {
                (known.missing, known.version) = (true, version);
                self.push(&cell, &mut known, now);
                self.cells.insert(cell, known);
            }
        }
    }

    fn push(&mut self, cell: &str, known: &mut Entry, now: Instant) {
        let deadline = now + known.ttl;
        if let Some(former) = known.deadline.replace(deadline) {
            self.order.remove(&(former, cell.to_owned()));
        }
        self.order.insert((deadline, cell.to_owned()));
    }

    fn enter(&mut self, seen: &Sighting, now: Instant) {
        if let Some(known) = self.cells.get_mut(&seen.cell)
            && seen.said == Said::Nothing
            && seen.uid != known.uid
            && known.unannounced().is_some()
        {
            // Made by whoever registers next, which is no sign of life of the one before.
            (known.missing, known.version) = (true, seen.version);
            return;
        }
        // What is proven to be dead is over at once, and stays so until another registers.
        let deadline = (!seen.is_dead()).then(|| now + seen.ttl());
        let entry = Entry {
            uid: seen.uid.clone(),
            version: seen.version,
            ttl: seen.ttl(),
            presence: self.presence(seen),
            missing: false,
            deadline,
        };
        let former = self.cells.insert(seen.cell.clone(), entry);
        if let Some(former) = former.and_then(|former| former.deadline) {
            self.order.remove(&(former, seen.cell.clone()));
        }
        if let Some(deadline) = deadline {
            self.order.insert((deadline, seen.cell.clone()));
        }
    }

    /// The presence that a Lease shows, as far as it is told by the Lease and what is known of its Cell.
    pub fn presence(&self, seen: &Sighting) -> Option<Presence> {
        let known = self.cells.get(&seen.cell);
        let same = known.filter(|known| known.uid == seen.uid);
        let epoch = same.and_then(|known| known.presence.as_ref().map(|known| known.epoch));
        match (&seen.said, epoch) {
            // Somebody took its value away: it can't be read.
            (Said::Nothing, Some(epoch)) => Some(Presence {
                cell: seen.cell.clone(),
                epoch,
                value: None,
            }),
            (Said::Nothing, None) => known.and_then(Entry::unannounced).cloned(),
            (Said::Unreadable | Said::Value(..), epoch) => {
                seen.presence(epoch.unwrap_or(seen.version))
            }
        }
    }

    /// A watch told that a Lease was deleted, with what it showed last. Returns whether that ends the presence: one whose
    /// rep did not say that it leaves is silent only, and its deadline runs on.
    pub fn deleted(&mut self, seen: &Sighting, now: Instant) -> bool {
        if !self.cells.contains_key(&seen.cell) {
            self.enter(seen, now);
        }
        let last = self.presence(seen);
        let Some(known) = self.cells.get_mut(&seen.cell) else {
            return true;
        };
        if known.version > seen.version {
            // An earlier life of it, or what was seen missing already.
            return known.unannounced().is_none();
        }
        if known.deadline.is_some() {
            known.presence = last;
        }
        if known.unannounced().is_some() {
            (known.missing, known.version) = (true, seen.version);
            return false;
        }
        if let Some(known) = self.cells.remove(&seen.cell)
            && let Some(deadline) = known.deadline
        {
            self.order.remove(&(deadline, seen.cell.clone()));
        }
        true
    }

    /// A live read found no Lease. Where the watch has not told that yet, it is waited for: it knows what was said last.
    pub fn not_found(&mut self, cell: &str, now: Instant) {
        if let Some(mut known) = self.cells.remove(cell) {
            if known.deadline.is_some() && !std::mem::replace(&mut known.missing, true) {
                self.push(cell, &mut known, now);
            }
            self.cells.insert(cell.to_owned(), known);
        }
    }

    /// The presence of a Cell without a Lease: nobody said that it ended, and it was not silent for long enough.
    pub fn unannounced(&self, cell: &str) -> Option<Presence> {
        let known = self.cells.get(cell).filter(|_| !self.is_over(cell));
        known.and_then(Entry::unannounced).cloned()
    }

    /// The watch delivered something, or began with a list, at `now`.
    pub fn watched(&mut self, now: Instant) {
        self.watched = Some(now);
    }

    /// Whether the watch is known to have told of everything up to just now: what it told says who is late.
    pub fn is_fresh(&self, now: Instant) -> bool {
        let fresh = self.shortest_ttl().max(FLOOR) / 2;
        let watched = self.watched;
        watched.is_some_and(|at| now.saturating_duration_since(at) <= fresh)
    }

    /// Everybody who is not over, with a Lease or without.
    pub fn live(&self) -> impl Iterator<Item = Presence> {
        let live = self.cells.iter().filter(|(cell, _)| !self.is_over(cell));
        live.filter_map(|(_, known)| known.presence.clone())
    }

    /// Everybody who is not over at `now`, and did not renew for longer than reps ever leave it be.
    pub fn overdue(&self, now: Instant) -> impl Iterator<Item = &str> {
        let late = move |entry: &Entry| {
            let deadline = entry.deadline.filter(|_| entry.presence.is_some());
            deadline.is_some_and(|deadline| deadline < now + entry.ttl.mul_f64(1.0 - LATE))
        };
        self.cells
            .iter()
            .filter(move |(cell, entry)| late(entry) && !self.is_over(cell))
            .map(|(cell, _)| cell.as_str())
    }

    /// A write of ours that was sent at `sent` went through; it was answered at `answered`. Whoever's TTL is too short for
    /// the time since the one before it has a full TTL again. Returns whether there is anybody.
    pub fn wrote(&mut self, sent: Instant, answered: Instant) -> bool {
        let before = self.proof;
        self.proof = before.max(Some(sent));
        let gap = before.map(|before| sent.saturating_duration_since(before));
        let missed = |ttl: Duration| gap.is_none_or(|gap| gap > ttl.mul_f64(GAP));
        let mut any = false;
        for (cell, entry) in &mut self.cells {
            if let Some(deadline) = &mut entry.deadline
                && missed(entry.ttl)
            {
                any = true;
                self.order.remove(&(*deadline, cell.clone()));
                *deadline = (*deadline).max(answered + entry.ttl);
                self.order.insert((*deadline, cell.clone()));
            }
        }
        any
    }

    /// When to look at [`Deadlines::due`] next; `None` while silence proves nothing.
    pub fn next(&self) -> Option<Instant> {
        self.proof?;
        self.order.first().map(|(deadline, _)| *deadline)
    }

    /// The Cells whose deadlines have passed at `now`: to be confirmed.
    pub fn due(&self, now: Instant) -> Vec<String> {
        let passed = |(deadline, _): &&(Instant, String)| *deadline <= now;
        self.order
            .iter()
            .take_while(passed)
            .map(|(_, cell)| cell.clone())
            .collect()
    }

    /// Whether the Cell's Lease, seen unchanged by a live read just now, is over.
    pub fn is_over(&self, cell: &str) -> bool {
        self.cells.get(cell).is_some_and(|entry| {
            entry
                .deadline
                .is_none_or(|deadline| self.proof.is_some_and(|proof| deadline <= proof))
        })
    }

    /// The Cell is over, if [`Deadlines::is_over`] says so, and stays so until its Lease changes. Returns whether that is
    /// news.
    pub fn end(&mut self, cell: &str) -> bool {
        if !self.is_over(cell) {
            return false;
        }
        let entry = self.cells.get_mut(cell);
        match entry.and_then(|entry| entry.deadline.take()) {
            Some(deadline) => self.order.remove(&(deadline, cell.to_owned())),
            None => false,
        }
    }

    /// Whether the Cell was told to be over.
    pub fn has_ended(&self, cell: &str) -> bool {
        self.cells
            .get(cell)
            .is_some_and(|entry| entry.deadline.is_none())
    }

    /// The shortest TTL of all Cells that are not over: how often the store has to be tried depends on it.
    pub fn shortest_ttl(&self) -> Duration {
        let live = self.cells.values().filter(|entry| entry.deadline.is_some());
        let ttls = live.map(|entry| entry.ttl);
        ttls.min().unwrap_or(DEFAULT_TTL)
    }
}

#[cfg(test)]
mod tests;
