//! Which Leases were silent for too long: pure, so that it can be tested to the bottom. Time is an argument.
//!
//! Every *change* of a Lease that is observed moves its deadline to a full TTL from then. A deadline that has passed
//! proves nothing by itself: the Cell may be well and the store not. It counts only up to the last time at which a write
//! of our own (the canary) is known to have been *sent* to the store and to have gone through, with no write of ours
//! failing, and none missing for long, since the deadline was set. When writes go through again after they did not,
//! every deadline is a full TTL away again, and so it is when the view was listed anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::super::Presence;
use super::Sighting;

/// The TTL that is reckoned with while no Cell is known.
const DEFAULT_TTL: Duration = Duration::from_secs(5);

/// The most that may pass between two writes of ours that went through, as a part of the shortest TTL: an outage that
/// fits between them must leave a rep, which tries every third of its TTL, the time to renew before its deadline.
const GAP: f64 = 0.6;

/// The Leases, and when each is over.
#[derive(Debug, Default)]
pub struct Deadlines {
    cells: BTreeMap<String, Entry>,
    /// The deadlines that are still to come, the next one first.
    order: BTreeSet<(Instant, String)>,
    /// When the last write of ours that went through was sent; `None` since one did not.
    proof: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Entry {
    uid: String,
    version: i64,
    ttl: Duration,
    /// The last epoch that could be read; for one that never could, the version it was first seen at. `None` while nothing
    /// is registered.
    epoch: Option<i64>,
    /// `None` once it is certain that it is over: it stays so until the Lease changes.
    deadline: Option<Instant>,
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

    /// Takes over a complete list, answered at `now`: every deadline is a full TTL away, but for those Leases that were
    /// over before and did not change.
    pub fn relisted<'a>(&mut self, list: impl IntoIterator<Item = &'a Sighting>, now: Instant) {
        let before = std::mem::take(&mut self.cells);
        self.order.clear();
        for seen in list {
            match before.get(&seen.cell) {
                Some(known)
                    if known.deadline.is_none()
                        && (known.uid.as_str(), known.version) == (&*seen.uid, seen.version) =>
                {
                    self.cells.insert(seen.cell.clone(), known.clone());
                }
                Some(known) => {
                    // For the epoch of what can't be read.
                    self.cells.insert(seen.cell.clone(), known.clone());
                    self.enter(seen, now);
                }
                None => self.enter(seen, now),
            }
        }
    }

    fn enter(&mut self, seen: &Sighting, now: Instant) {
        let deadline = now + seen.ttl();
        let entry = Entry {
            uid: seen.uid.clone(),
            version: seen.version,
            ttl: seen.ttl(),
            epoch: self.presence(seen).map(|presence| presence.epoch),
            deadline: Some(deadline),
        };
        let former = self.cells.insert(seen.cell.clone(), entry);
        if let Some(former) = former.and_then(|former| former.deadline) {
            self.order.remove(&(former, seen.cell.clone()));
        }
        self.order.insert((deadline, seen.cell.clone()));
    }

    /// The presence that a Lease shows, as far as it is told by the Lease alone.
    pub fn presence(&self, seen: &Sighting) -> Option<Presence> {
        let known = self.cells.get(&seen.cell);
        let known = known.filter(|known| known.uid == seen.uid);
        let epoch = known.and_then(|known| known.epoch);
        seen.presence(epoch.unwrap_or(seen.version))
    }

    /// The Lease of a Cell is gone since `version`.
    pub fn gone(&mut self, cell: &str, version: i64) {
        if self
            .cells
            .get(cell)
            .is_some_and(|known| known.version <= version)
            && let Some(known) = self.cells.remove(cell)
            && let Some(deadline) = known.deadline
        {
            self.order.remove(&(deadline, cell.to_owned()));
        }
    }

    /// A write of ours that was sent at `sent` went through; it was answered at `answered`. Returns whether that ends a
    /// time in which the store is not known to have been well.
    pub fn wrote(&mut self, sent: Instant, answered: Instant) -> bool {
        let limit = self.shortest_ttl().mul_f64(GAP);
        let well = self
            .proof
            .is_some_and(|last| sent.saturating_duration_since(last) <= limit);
        self.proof = self.proof.max(Some(sent));
        if !well {
            self.postpone(answered);
        }
        !well
    }

    /// A write of ours failed, or was not answered in time: nobody is over from now on who was not before.
    pub fn did_not_write(&mut self) {
        self.proof = None;
    }

    /// Every deadline is a full TTL from `now`.
    fn postpone(&mut self, now: Instant) {
        self.order.clear();
        for (cell, entry) in &mut self.cells {
            if let Some(deadline) = &mut entry.deadline {
                *deadline = (*deadline).max(now + entry.ttl);
                self.order.insert((*deadline, cell.clone()));
            }
        }
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
