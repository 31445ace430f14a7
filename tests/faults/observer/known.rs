//! What only the whole log tells: when each registration and each run was over.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Entry, Fact, Nanos, SECOND};

/// The observer hears of presences, records and processes by three ways: one may lag behind another so far.
const LAG: Nanos = SECOND / 2;

/// See the module.
pub struct Known {
    /// Of each Cell: its registrations, and when each was first seen to be gone.
    presences: BTreeMap<String, Vec<(i64, Option<Nanos>)>>,
    /// By guid.
    ended: BTreeMap<String, Nanos>,
    forged: BTreeSet<String>,
}

impl Known {
    /// From a log that is ordered by time.
    pub fn of(log: &[Entry]) -> Known {
        let mut known = Known {
            presences: BTreeMap::new(),
            ended: BTreeMap::new(),
            forged: BTreeSet::new(),
        };
        for entry in log {
            match &entry.fact {
                Fact::Registered { cell, epoch } => {
                    let seen = known.presences.entry(cell.clone()).or_default();
                    if !seen.iter().any(|(other, _)| other == epoch) {
                        seen.push((*epoch, None));
                    }
                }
                Fact::Gone { cell, epoch } => {
                    let seen = known.presences.entry(cell.clone()).or_default();
                    if let Some(one) = seen.iter_mut().find(|(other, _)| other == epoch) {
                        one.1.get_or_insert(entry.at);
                    }
                }
                Fact::Ended { guid, .. } => {
                    known.ended.entry(guid.clone()).or_insert(entry.at);
                }
                Fact::Forged { guid } => {
                    known.forged.insert(guid.clone());
                }
                _ => {}
            }
        }
        known
    }

    /// Whether, at `at`, this registration of a Cell had been gone; if nobody saw it, whether a later one had.
    pub fn gone(&self, cell: &str, epoch: i64, at: Nanos) -> bool {
        let Some(seen) = self.presences.get(cell) else {
            return false;
        };
        let was_seen = seen.iter().any(|(other, _)| *other == epoch);
        seen.iter().any(|(other, gone)| {
            let meant = *other == epoch || (!was_seen && *other > epoch);
            meant && gone.is_some_and(|gone| gone <= at + LAG)
        })
    }

    /// Whether, at `at`, the process of this run had ended.
    pub fn ended(&self, guid: &str, at: Nanos) -> bool {
        self.ended.get(guid).is_some_and(|ended| *ended <= at + LAG)
    }

    /// Whether the test itself wrote this guid.
    pub fn forged(&self, guid: Option<&String>) -> bool {
        guid.is_some_and(|guid| self.forged.contains(guid))
    }
}
