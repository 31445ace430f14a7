//! The order of a recovery: the verdict on a Cell is written before anything is moved or failed because of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::observer::facts::{Entry, Fact, Nanos, SECOND};

/// Cells, instances and Tasks are heard of by three watches: one may lag behind another so far.
const LAG: Nanos = SECOND / 4;

/// What was done before its verdict was written.
pub fn violations(log: &[Entry]) -> Vec<String> {
    // Of each Cell: when it was known that everything under an epoch was lost.
    let mut verdicts: BTreeMap<&str, Vec<(Nanos, i64)>> = BTreeMap::new();
    for entry in log {
        if let Fact::Cell(cell) = &entry.fact {
            let older = cell.epoch.map(|epoch| epoch - 1);
            for lost in cell.lost.into_iter().chain(older) {
                verdicts
                    .entry(&cell.name)
                    .or_default()
                    .push((entry.at, lost));
            }
        }
    }
    let told = |cell: &str, epoch: i64, at: Nanos| {
        let known = verdicts.get(cell).into_iter().flatten();
        let mut known = known.filter(|(told, _)| *told <= at + LAG);
        known.any(|(_, lost)| *lost >= epoch)
    };
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for entry in log {
        let (uid, (cell, epoch)) = match &entry.fact {
            Fact::Lrp(lrp) => match &lrp.suspect {
                Some(place) => (&lrp.uid, place),
                None => continue,
            },
            Fact::Task(task) if task.is_lost() => match &task.place {
                Some(place) => (&task.uid, place),
                None => continue,
            },
            _ => continue,
        };
        if seen.insert((uid, cell, epoch)) && !told(cell, *epoch, entry.at) {
            let what = &entry.fact;
            found.push(format!(
                "before any verdict on {cell} under epoch {epoch}: {what:?}"
            ));
        }
    }
    found
}
