//! The mass-loss guard: when so many Cells are gone at once that the messenger is to be doubted, and not the Cells,
//! no verdict is given on any of them. Pure: time is an argument.
//!
//! A loss is ordinary when it is one Cell's, when all that are lost stand in one zone and another one has Cells, or when
//! they are no more than a given part of all. Anything else is held until it is ordinary, since Cells came back, or until
//! an operator confirms it. See `docs/decisions/0010-mass-loss-guard.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;

use crate::api::CellState;
use crate::presence::RollCall;

use super::cell;
use super::world::CellRecord;

/// A Cell counts among the lost ones for so long after its verdict.
pub const WINDOW: Duration = Duration::from_secs(10);

/// The threshold that holds nothing.
pub const OFF: u32 = 100;

/// How a Cell stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its presence is held, as far as is known.
    Whole,
    /// Its presence is held, and was not renewed when it should have been.
    Overdue,
    /// Its presence is gone, and there is no verdict yet.
    Gone,
    /// It was judged lost within [`WINDOW`].
    Lost,
}

/// One Cell of those that are looked at together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its failure domain.
    pub zone: &'a str,
    /// How it stands.
    pub standing: Standing,
}

/// How many are gone, of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Cells that are gone, or were lost just now.
    pub lost: usize,
    /// All Cells that were there.
    pub population: usize,
}

/// What becomes of the losses there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// They are believed.
    Pass,
    /// They would be, but so many others are overdue that it might be a mass loss that has only begun.
    Doubt,
    /// None of them is believed.
    Hold(Count),
}

/// The rule. `threshold` is the part of all Cells, in percent, whose loss is ordinary wherever they stand.
pub fn rule(members: &[Member<'_>], threshold: u32) -> Ruling {
    let gone = |standing| matches!(standing, Standing::Gone | Standing::Lost);
    let ordinary = |lost: &dyn Fn(Standing) -> bool| is_ordinary(members, lost, threshold);
    if !ordinary(&gone) {
        let lost = members.iter().filter(|member| gone(member.standing));
        return Ruling::Hold(Count {
            lost: lost.count(),
            population: members.len(),
        });
    }
    match ordinary(&|standing| standing != Standing::Whole) {
        true => Ruling::Pass,
        false => Ruling::Doubt,
    }
}

fn is_ordinary(members: &[Member<'_>], is_lost: &dyn Fn(Standing) -> bool, threshold: u32) -> bool {
    let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
    for member in members {
        *zones.entry(member.zone).or_default() += usize::from(is_lost(member.standing));
    }
    let lost: usize = zones.values().sum();
    let hurt = zones.values().filter(|lost| **lost > 0).count();
    let one_zone = hurt == 1 && zones.len() > 1;
    // In whole percent, so that 33 is a third: 3 Cells of 9.
    let few = lost.saturating_mul(100) / members.len().max(1) <= threshold as usize;
    lost <= 1 || one_zone || few
}

/// What is known of presences that are gone.
#[derive(Debug, Default)]
pub struct Brake {
    /// Noticed to be gone, with no verdict yet.
    gone: BTreeSet<String>,
    /// When each was judged lost.
    lost: BTreeMap<String, Instant>,
    /// Seen alive by this process, and not gone since.
    heard: BTreeSet<String>,
    /// Gave their presence back: that is no loss.
    leaving: BTreeSet<String>,
    /// Proven to be dead, with no verdict yet: no messenger was lost there.
    proven: BTreeSet<String>,
    /// The zones of those that were held back, and when they were found to have no object any more.
    held: BTreeMap<String, (String, Option<Instant>)>,
}

impl Brake {
    /// A Cell's presence is there; `leaving` when its rep is about to give it back.
    pub fn heard(&mut self, cell: &str, leaving: bool) {
        self.settled(cell);
        if !self.heard.contains(cell) {
            self.heard.insert(cell.to_owned());
        }
        match leaving {
            true => drop(self.leaving.insert(cell.to_owned())),
            false => drop(self.leaving.remove(cell)),
        }
    }

    /// A Cell's presence was noticed to be gone; `leaving` when its rep gave it back.
    pub fn noticed(&mut self, cell: &str, leaving: bool) {
        self.heard.remove(cell);
        match leaving {
            true => drop(self.leaving.insert(cell.to_owned())),
            false => drop(self.gone.insert(cell.to_owned())),
        }
    }

    /// A Cell's rep and all that it ran were proven to be dead: that is as certain as a loss can be, and says nothing
    /// about the messenger of the others' losses.
    pub fn proven(&mut self, cell: &str) {
        self.heard.remove(cell);
        self.gone.remove(cell);
        self.proven.insert(cell.to_owned());
    }

    /// A Cell was judged lost.
    pub fn lost(&mut self, cell: &str, now: Instant) {
        let proven = self.proven.contains(cell);
        self.settled(cell);
        self.heard.remove(cell);
        if proven {
            self.lost.remove(cell);
            return;
        }
        self.lost
            .retain(|_, at| now.saturating_duration_since(*at) < WINDOW);
        self.lost.insert(cell.to_owned(), now);
    }

    /// There is nothing to judge about a Cell.
    pub fn settled(&mut self, cell: &str) {
        self.gone.remove(cell);
        self.proven.remove(cell);
        self.held.remove(cell);
    }

    /// The loss of a Cell in this zone is held back.
    pub fn held(&mut self, cell: &str, zone: String) {
        self.held.insert(cell.to_owned(), (zone, None));
    }

    /// A Cell that is gone has no object any more. If it was held, it counts as lost: the others are no more to be believed
    /// than before.
    pub fn deleted(&mut self, cell: &str, now: Instant) {
        self.gone.remove(cell);
        self.proven.remove(cell);
        if let Some((_, at)) = self.held.get_mut(cell) {
            at.get_or_insert(now);
        }
        let counts = |at: Instant| now.saturating_duration_since(at) < WINDOW;
        self.held.retain(|_, (_, at)| at.is_none_or(counts));
    }

    /// Whether a Cell's presence was noticed to be gone, or another controller wrote that its loss is held and this one
    /// has not seen it since.
    pub fn is_gone(&self, name: &str, record: &CellRecord) -> bool {
        self.gone.contains(name) || cell::is_held(&record.status) && !self.heard.contains(name)
    }

    /// Rules on all losses there are, at `now` on the monotonic clock and on the wall clock. A roll call, as fresh as the
    /// last of them, knows better than what was noticed so far; without one nobody is overdue.
    pub fn ruling(
        &self,
        cells: &BTreeMap<String, CellRecord>,
        roll: Option<&RollCall>,
        threshold: u32,
        now: (Instant, Timestamp),
    ) -> Ruling {
        let known = cells.iter().filter_map(|(name, record)| {
            Some(Member {
                zone: &record.zone,
                standing: self.standing(name, record, roll, now)?,
            })
        });
        let deleted = (self.held.iter()).filter(|(name, _)| !cells.contains_key(*name));
        let deleted = deleted.filter_map(|(_, (zone, at))| {
            let standing = match at {
                None => Standing::Gone,
                Some(at) if now.0.saturating_duration_since(*at) < WINDOW => Standing::Lost,
                Some(_) => return None,
            };
            Some(Member { zone, standing })
        });
        rule(&known.chain(deleted).collect::<Vec<_>>(), threshold)
    }

    /// How a Cell stands; `None` for one that was not there to be lost.
    fn standing(
        &self,
        name: &str,
        record: &CellRecord,
        roll: Option<&RollCall>,
        (now, wall): (Instant, Timestamp),
    ) -> Option<Standing> {
        if self.proven.contains(name) || cell::is_proven_dead(&record.status) {
            return None;
        }
        let just_lost = || {
            let within = match self.lost.get(name) {
                Some(at) => now.saturating_duration_since(*at) < WINDOW,
                // Another controller's verdict, by its clock.
                None => {
                    let last = record.status.last_recovery.as_ref()?;
                    let age = wall.duration_since(last.detected_time.as_ref()?.0);
                    age.unsigned_abs() < WINDOW
                }
            };
            within.then_some(Standing::Lost)
        };
        let draining = match record.status.state {
            None | Some(CellState::Evacuated) => return None,
            Some(CellState::Missing) => return just_lost(),
            Some(CellState::Present) => false,
            Some(CellState::Evacuating) => true,
        };
        let noticed = self.is_gone(name, record);
        let Some(roll) = roll else {
            return Some(match noticed {
                true => Standing::Gone,
                false => Standing::Whole,
            });
        };
        if roll.overdue.contains(name) {
            return Some(Standing::Overdue);
        }
        if roll.held.contains(name) {
            return Some(Standing::Whole);
        }
        // Nobody may have heard its last words, but it had begun to leave.
        let left = self.leaving.contains(name) || draining && !noticed;
        (!left).then_some(Standing::Gone)
    }
}

#[cfg(test)]
#[path = "brake_tests.rs"]
mod tests;
