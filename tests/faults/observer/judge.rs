//! Whether a log of facts keeps the invariants of the design: a function of the log alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use diego_operator::api::{ActualLRPState, TaskState};

use super::facts::{CellWrite, Entry, Fact, Lrp, Nanos, Run, SECOND, TaskWrite};
use super::known::Known;

/// So many writes one stimulus may cause on one record; a hot loop makes hundreds.
const WRITES: usize = 30;

/// No record is written so often within [`WINDOW`], whatever is done to the installation.
const WRITES_IN_WINDOW: usize = 60;

/// See [`WRITES_IN_WINDOW`].
const WINDOW: Nanos = 15 * SECOND;

/// What must hold, as the design numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// At most one ordinary instance per slot: one record of it, and no guid that runs twice.
    S1,
    /// A Task runs at most once; its end never changes.
    S2,
    /// Nothing is moved or failed for a Cell whose presence was there.
    S3,
    /// Epochs only grow.
    S4,
    /// At most one routable instance per index.
    S5,
    /// With `Strict`, at most one running instance per index.
    S6,
    /// Writes are bounded.
    S7,
    /// In the end all is as desired.
    L1,
    /// A recovery is as quick as promised.
    L2,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Invariant; 9] = [
        Invariant::S1,
        Invariant::S2,
        Invariant::S3,
        Invariant::S4,
        Invariant::S5,
        Invariant::S6,
        Invariant::S7,
        Invariant::L1,
        Invariant::L2,
    ];
}

/// What was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: Invariant,
    /// By what.
    pub text: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}", self.invariant, self.text)
    }
}

/// Everything that `log`, ordered by time, does not keep. `strict` are the DesiredLRPs with that policy.
pub fn judge(log: &[Entry], strict: &BTreeSet<String>) -> Vec<Violation> {
    let mut judge = Judge {
        strict,
        known: Known::of(log),
        found: Vec::new(),
        runs: Vec::new(),
        slots: BTreeMap::new(),
        lrps: BTreeMap::new(),
        tasks: BTreeMap::new(),
        cells: BTreeMap::new(),
        epochs: BTreeMap::new(),
        writes: BTreeMap::new(),
        recent: BTreeMap::new(),
    };
    for entry in log {
        judge.take(entry);
    }
    judge.overlaps();
    judge.found
}

/// A run, and when it ended: `None` while nobody saw that.
struct Seen {
    run: Run,
    from: Nanos,
    alive: Option<Nanos>,
}

struct Judge<'a> {
    strict: &'a BTreeSet<String>,
    known: Known,
    found: Vec<Violation>,
    runs: Vec<Seen>,
    /// The record of each slot.
    slots: BTreeMap<(String, i32), String>,
    lrps: BTreeMap<String, Lrp>,
    tasks: BTreeMap<String, TaskWrite>,
    cells: BTreeMap<String, CellWrite>,
    /// By object and Cell.
    epochs: BTreeMap<(String, String), i64>,
    writes: BTreeMap<String, usize>,
    recent: BTreeMap<String, VecDeque<Nanos>>,
}

impl Judge<'_> {
    fn say(&mut self, invariant: Invariant, text: String) {
        self.found.push(Violation { invariant, text });
    }

    fn take(&mut self, entry: &Entry) {
        match &entry.fact {
            Fact::Stimulus => self.writes.clear(),
            Fact::Started(run) => self.started(run, entry.at),
            Fact::Ended { guid, pid, alive } => {
                let same = |seen: &&mut Seen| seen.run.guid == *guid && seen.run.pid == *pid;
                if let Some(seen) = self.runs.iter_mut().find(same) {
                    seen.alive = Some(*alive);
                }
            }
            Fact::Registered { .. } | Fact::Gone { .. } | Fact::Forged { .. } => {}
            Fact::Lrp(lrp) => {
                self.count(
                    &format!("ActualLRP {}-{}", lrp.process, lrp.index),
                    entry.at,
                );
                self.lrp(lrp, entry.at);
            }
            Fact::Deleted { uid } => self.slots.retain(|_, record| record != uid),
            Fact::Task(task) => {
                self.count(&format!("Task {}", task.name), entry.at);
                self.task(task, entry.at);
            }
            Fact::Cell(cell) => {
                self.count(&format!("Cell {}", cell.name), entry.at);
                self.cell(cell, entry.at);
            }
            Fact::Rest { difference } => {
                if let Some(difference) = difference {
                    self.say(Invariant::L1, difference.clone());
                }
            }
            Fact::Recovered { took, within } => {
                let most = within.promised + within.allowance;
                let took = Duration::from_nanos(*took);
                if took > most {
                    let text = format!("all ran elsewhere after {took:.2?}; promised are {within}");
                    self.say(Invariant::L2, text);
                }
            }
        }
    }

    fn started(&mut self, run: &Run, at: Nanos) {
        if let Some(before) = self.runs.iter().find(|seen| seen.run.guid == run.guid) {
            let text = format!("{run:?} runs under the guid of {:?}", before.run);
            self.say(Invariant::S1, text);
        }
        let is_task = run.index.is_none();
        let same = |seen: &&Seen| seen.run.index.is_none() && seen.run.process == run.process;
        if let Some(before) = self.runs.iter().find(same).filter(|_| is_task) {
            let text = format!("{run:?} is another run of Task {:?}", before.run);
            self.say(Invariant::S2, text);
        }
        self.runs.push(Seen {
            run: run.clone(),
            from: at,
            alive: None,
        });
    }

    fn lrp(&mut self, lrp: &Lrp, at: Nanos) {
        let slot = (lrp.process.clone(), lrp.index);
        let record = self.slots.insert(slot, lrp.uid.clone());
        if record.is_some_and(|record| record != lrp.uid) {
            self.say(Invariant::S1, format!("two records of one slot: {lrp:?}"));
        }
        if lrp.state == ActualLRPState::Running && lrp.suspect.is_some() {
            let text = format!("a routable instance beside a suspect: {lrp:?}");
            self.say(Invariant::S5, text);
        }
        if let Some((cell, epoch)) = &lrp.place {
            self.epoch(&lrp.uid, cell, *epoch);
        }
        let before = self.lrps.insert(lrp.uid.clone(), lrp.clone());
        if let Some(before) = &before {
            self.moved(before, lrp, at);
        }
        let known = before.and_then(|before| before.suspect);
        if let Some((cell, epoch)) = lrp.suspect.as_ref().filter(|it| known.as_ref() != Some(it))
            && !self.leaves(cell)
        {
            self.justified(cell, *epoch, at, &format!("{lrp:?}"));
        }
    }

    /// An instance that was at work, and is another or elsewhere now.
    fn moved(&mut self, before: &Lrp, lrp: &Lrp, at: Nanos) {
        let was_at_work = matches!(
            before.state,
            ActualLRPState::Claimed | ActualLRPState::Running
        );
        let (Some((cell, epoch)), Some(guid)) = (&before.place, &before.guid) else {
            return;
        };
        let stays = lrp.place.as_ref().is_some_and(|(now, _)| now == cell);
        if !was_at_work || (stays && lrp.guid.as_ref() == Some(guid)) {
            return;
        }
        let crashed = lrp.state == ActualLRPState::Crashed || lrp.crashed != before.crashed;
        let refused = lrp.rejections > before.rejections;
        let retired = self.known.ended(guid, at);
        let evacuated = lrp.evacuating.as_ref() == Some(guid) || self.leaves(cell);
        // What the suspect's replacement had begun is dropped when the suspect is back.
        let promoted = before.suspect_guid.is_some() && before.suspect_guid == lrp.guid;
        // As in Diego, a running container beats a claim.
        let runs = |seen: &Seen| Some(&seen.run.guid) == lrp.guid.as_ref() && seen.alive.is_none();
        let beaten = before.state == ActualLRPState::Claimed
            && lrp.state == ActualLRPState::Running
            && self.runs.iter().any(runs);
        let forged = self.known.forged(Some(guid)) || self.known.forged(lrp.guid.as_ref());
        if !(crashed || refused || retired || evacuated || promoted || beaten || forged) {
            self.justified(cell, *epoch, at, &format!("{before:?} became {lrp:?}"));
        }
    }

    /// Whether a Cell was asked to leave.
    fn leaves(&self, cell: &str) -> bool {
        let mut cells = self.cells.values();
        cells.any(|known| known.name == cell && known.leaves)
    }

    fn task(&mut self, task: &TaskWrite, at: Nanos) {
        let ended =
            |task: &TaskWrite| matches!(task.state, TaskState::Completed | TaskState::Resolving);
        if let Some((cell, epoch)) = &task.place {
            self.epoch(&task.uid, cell, *epoch);
        }
        let before = self.tasks.insert(task.uid.clone(), task.clone());
        let had_ended = before.as_ref().is_some_and(ended);
        if let Some(before) = before.filter(ended)
            && (!ended(task) || before.outcome != task.outcome)
        {
            let text = format!("{before:?} had ended, and is {task:?}");
            self.say(Invariant::S2, text);
        }
        if let Some((cell, epoch)) = task.place.as_ref().filter(|_| task.is_lost() && !had_ended) {
            self.justified(cell, *epoch, at, &format!("{task:?}"));
        }
    }

    fn cell(&mut self, cell: &CellWrite, at: Nanos) {
        if let Some(epoch) = cell.epoch {
            self.epoch(&cell.uid, &cell.name, epoch);
        }
        let before = self.cells.insert(cell.uid.clone(), cell.clone());
        let known = before.and_then(|before| before.lost);
        if let Some(lost) = cell.lost.filter(|lost| known != Some(*lost)) {
            self.justified(&cell.name, lost, at, &format!("the verdict {cell:?}"));
        }
    }

    fn epoch(&mut self, uid: &str, cell: &str, epoch: i64) {
        let of = (uid.to_owned(), cell.to_owned());
        let before = self.epochs.insert(of, epoch);
        if let Some(before) = before.filter(|before| epoch < *before) {
            let text =
                format!("the epoch of Cell {cell} went back from {before} to {epoch} in {uid}");
            self.say(Invariant::S4, text);
        }
    }

    /// Whether, at `at`, the registration `epoch` of a Cell had been gone.
    fn justified(&mut self, cell: &str, epoch: i64, at: Nanos, what: &str) {
        if !self.known.gone(cell, epoch, at) {
            let text = format!("the presence of {cell} under epoch {epoch} was there: {what}");
            self.say(Invariant::S3, text);
        }
    }

    fn count(&mut self, record: &str, at: Nanos) {
        let writes = self.writes.entry(record.to_owned()).or_default();
        *writes += 1;
        let many = *writes == WRITES;
        let recent = self.recent.entry(record.to_owned()).or_default();
        recent.push_back(at);
        while recent.front().is_some_and(|first| at - *first > WINDOW) {
            recent.pop_front();
        }
        let fast = recent.len() == WRITES_IN_WINDOW;
        if many {
            let text = format!("{record} was written {WRITES} times after one stimulus");
            self.say(Invariant::S7, text);
        }
        if fast {
            let text = format!("{record} was written {WRITES_IN_WINDOW} times within 15 s");
            self.say(Invariant::S7, text);
        }
    }

    /// S6, over the whole log: the end of a run is known later than its start.
    fn overlaps(&mut self) {
        let mut found = Vec::new();
        for (n, one) in self.runs.iter().enumerate() {
            let strict = self.strict.contains(&one.run.process) && one.run.index.is_some();
            for other in self.runs[n + 1..].iter().filter(|_| strict) {
                let same_slot =
                    (&one.run.process, one.run.index) == (&other.run.process, other.run.index);
                let before = |a: &Seen, b: &Seen| a.alive.is_some_and(|alive| alive < b.from);
                if same_slot && !before(one, other) && !before(other, one) {
                    found.push(format!("{:?} ran while {:?} did", one.run, other.run));
                }
            }
        }
        for text in found {
            self.say(Invariant::S6, text);
        }
    }
}
