//! The observer: it is told everything that is stored, and every process, and knows what must never be.
//!
//! S1 one slot has one record, and a process that its record does not name lives on only where its rep can't know
//! (a cut-off Cell), or for as long as it takes the rep to hear, read and stop: [`HEARS`].
//! S2 the process of a Task (by uid) starts at most once; the store refuses to change an outcome, and that anybody
//! tried is a violation. S3 a verdict that a Cell is gone, and every move or failure for it, comes after the end of
//! the presence that it is about. S4 epochs grow, in the ledger and in every record. S5 of a record a
//! router takes the Running instance, else the suspect, else the evacuating one: a suspect ends with the write that
//! makes its replacement Running. S7 between two things that happen there are at most [`WRITES`] writes per object.

use std::collections::{BTreeMap, HashMap};

use diego_operator::api::{ActualLRPState, ActualLRPStatus, CellState, CellStatus, TaskState};
use diego_operator::converge::plan::Write;
use diego_operator::converge::world::Key;

use crate::presence::PresenceStore;
use crate::rep::Container;
use crate::store::{Change, Kind, Object, Store, StoredLrp, StoredTask, Writer};

/// A rep in touch has heard of a change, read it and acted after this: its own comparison comes every 30 s.
const HEARS: i64 = 60_000;

/// So many writes to one object between two things that happen, for every controller that acts, and one more every
/// 5 s: work that every Cell gives back is placed again after 1, 2, 4, 8, 16 s.
const WRITES: i64 = 12;

/// A process that lives.
#[derive(Debug)]
struct Process {
    rep: usize,
    key: Key,
    is_task: bool,
    /// The uid of its DesiredLRP, or of its Task.
    of: String,
    stopping: bool,
    /// Since when its record does not name it, while its rep could have known.
    unnamed: Option<i64>,
}

/// What was ever stored about a Cell.
#[derive(Debug, Default)]
pub struct Ledger {
    /// What is recorded under an epoch up to this is gone.
    dead_up_to: i64,
    /// State, epoch, first epoch of the incarnation.
    pub versions: Vec<(CellState, i64, i64)>,
    /// It was asked to give its work away, or did.
    drained: bool,
    /// A controller that saw no ledger of it read that it has no presence.
    vanished: bool,
}

#[derive(Debug, Default)]
pub struct Observer {
    processes: BTreeMap<String, Process>,
    task_starts: HashMap<String, u32>,
    attempts: HashMap<Key, (i64, i64)>,
    pub ledgers: BTreeMap<String, Ledger>,
    judging: Option<Write>,
    /// Records with the address of a Running and of an evacuating instance: a router takes the Running one.
    pub beside_running: u64,
    /// Records with the address of a suspect and of an evacuating instance: a router takes the suspect.
    pub beside_suspect: u64,
    /// Writes to ActualLRPs.
    pub lrp_writes: u64,
}

pub type Verdict = Result<(), String>;

impl Observer {
    // Processes

    pub fn process_started(
        &mut self,
        rep: usize,
        guid: &str,
        container: &Container,
        now: i64,
    ) -> Verdict {
        let is_task = container.work.0 == Kind::Task;
        let of = match (is_task, &container.owner) {
            (false, Some(owner)) => owner.clone(),
            (_, _) => container.uid.clone(),
        };
        let process = Process {
            rep,
            key: container.work.1.clone(),
            is_task,
            of: of.clone(),
            stopping: false,
            unnamed: Some(now),
        };
        if self.processes.insert(guid.to_owned(), process).is_some() {
            return Err(format!("S1: the process of instance {guid} started twice"));
        }
        if is_task {
            let starts = self.task_starts.entry(of.clone()).or_insert(0);
            *starts += 1;
            if *starts > 1 {
                let key = &container.work.1;
                return Err(format!(
                    "S2: Task {key} ({of}) started its process {starts} times"
                ));
            }
        }
        Ok(())
    }

    pub fn process_stopping(&mut self, guid: &str) {
        if let Some(process) = self.processes.get_mut(guid) {
            process.stopping = true;
        }
    }

    pub fn process_ended(&mut self, guid: &str) {
        self.processes.remove(guid);
    }

    /// Looks from time to time for processes that no record names. `in_touch` is whether a rep can know.
    pub fn look(&mut self, store: &Store, now: i64, in_touch: impl Fn(usize) -> bool) -> Verdict {
        for (guid, process) in &mut self.processes {
            let named = if process.is_task {
                let task = store.tasks.get(&process.key);
                task.is_some_and(|task| names_task(task, &process.of, guid))
            } else {
                let lrp = store.lrps.get(&process.key);
                lrp.is_some_and(|lrp| names(lrp, &process.of, guid))
            };
            if named || process.stopping {
                process.unnamed = None;
                continue;
            }
            if !in_touch(process.rep) {
                process.unnamed = Some(now);
                continue;
            }
            let since = *process.unnamed.get_or_insert(now);
            if now - since > HEARS {
                let (key, rep) = (&process.key, process.rep);
                return Err(format!(
                    "S1: process {guid} of {key} runs on cell {rep}, and no record has named it for {} s",
                    (now - since) / 1000
                ));
            }
        }
        Ok(())
    }

    /// The processes that live: where, of which record, and which guid.
    pub fn live(&self) -> impl Iterator<Item = (usize, &Key, bool, &str)> {
        self.processes
            .iter()
            .map(|(guid, one)| (one.rep, &one.key, one.is_task, guid.as_str()))
    }

    // Writes

    /// Something happened: the counts begin anew.
    pub fn stimulus(&mut self) {
        self.attempts.clear();
    }

    pub fn attempted(&mut self, key: &Key, now: i64, controllers: i64) -> Verdict {
        let (count, since) = self.attempts.entry(key.clone()).or_insert((0, now));
        *count += 1;
        if *count > WRITES * controllers.max(1) + (now - *since) / 5000 {
            let span = now - *since;
            return Err(format!(
                "S7: {count} writes to {key} within {span} ms, and nothing happened"
            ));
        }
        Ok(())
    }

    /// The next change that is stored comes from this write.
    pub fn judge_next(&mut self, write: &Write) {
        self.judging = Some(write.clone());
    }

    pub fn judging(&mut self) -> Option<Write> {
        self.judging.take()
    }

    pub fn judged(&mut self) {
        self.judging = None;
    }

    /// A controller that knows no ledger of this Cell has read that its presence is gone.
    pub fn read_as_vanished(&mut self, cell: &str) {
        self.ledgers.entry(cell.to_owned()).or_default().vanished = true;
    }

    pub fn stored(&mut self, change: &Change, presence: &PresenceStore) -> Verdict {
        match (&change.old, &change.new) {
            (old, Some(Object::Cell(name, cell))) => {
                let before = match old {
                    Some(Object::Cell(_, cell)) => Some(cell.status.clone()),
                    Some(_) | None => None,
                };
                if cell.evacuate {
                    self.ledgers.entry(name.clone()).or_default().drained = true;
                }
                self.ledger(name, before.unwrap_or_default(), &cell.status, presence)
            }
            (old, Some(Object::Lrp(lrp))) => {
                self.lrp_writes += 1;
                let before = match old {
                    Some(Object::Lrp(lrp)) => lrp.record.status.clone(),
                    Some(_) | None => ActualLRPStatus::default(),
                };
                self.lrp(change.writer, &before, lrp, presence)
            }
            (Some(Object::Lrp(_)), None) => {
                self.lrp_writes += 1;
                Ok(())
            }
            (Some(Object::Task(before)), Some(Object::Task(task))) => {
                self.task(change.writer, before, task, presence)
            }
            (_, _) => Ok(()),
        }
    }

    fn ledger(
        &mut self,
        name: &str,
        before: CellStatus,
        after: &CellStatus,
        presence: &PresenceStore,
    ) -> Verdict {
        let ledger = self.ledgers.entry(name.to_owned()).or_default();
        if after.epoch < before.epoch {
            return Err(format!("S4: the epoch of {name} went back"));
        }
        let Some(state) = after.state else {
            return Ok(());
        };
        let was_here = matches!(
            before.state,
            Some(CellState::Present | CellState::Evacuating)
        );
        let (epoch, first) = (
            after.epoch.unwrap_or_default(),
            after.incarnation_epoch.unwrap_or_default(),
        );
        match state {
            CellState::Missing | CellState::Evacuated => {
                let old = before.epoch.unwrap_or_default();
                if was_here && !presence.has_ended(name, old) {
                    return Err(format!(
                        "S3: {name} is {state:?}, but its presence of epoch {old} is there"
                    ));
                }
                ledger.dead_up_to = ledger.dead_up_to.max(epoch);
                ledger.drained |= state == CellState::Evacuated;
            }
            CellState::Present | CellState::Evacuating => {
                if !presence.has_ended(name, first - 1) {
                    return Err(format!(
                        "S3: {name} has an incarnation since epoch {first}, but a presence from before it is there"
                    ));
                }
                ledger.dead_up_to = ledger.dead_up_to.max(first - 1);
                ledger.drained |= state == CellState::Evacuating;
            }
        }
        ledger.versions.push((state, epoch, first));
        Ok(())
    }

    /// Whether something of that Cell and epoch was found to be gone.
    pub fn gone(&self, cell: &str, epoch: i64, presence: &PresenceStore) -> bool {
        self.ledgers.get(cell).is_some_and(|ledger| {
            epoch <= ledger.dead_up_to || ledger.vanished && presence.has_ended(cell, epoch)
        })
    }

    pub fn drained(&self, cell: &str) -> bool {
        self.ledgers.get(cell).is_some_and(|ledger| ledger.drained)
    }

    fn lrp(
        &mut self,
        writer: Writer,
        before: &ActualLRPStatus,
        lrp: &StoredLrp,
        presence: &PresenceStore,
    ) -> Verdict {
        let (key, after) = (&lrp.key, &lrp.record.status);
        let running = after.state == ActualLRPState::Running && after.address.is_some();
        let suspect = after
            .suspect
            .as_ref()
            .is_some_and(|one| one.address.is_some());
        let evacuating = after
            .evacuating
            .as_ref()
            .is_some_and(|one| one.address.is_some());
        match (running, suspect, evacuating) {
            (true, true, _) => {
                return Err(format!(
                    "S5: {key} is Running, and its suspect would be routed to as well"
                ));
            }
            (true, false, true) => self.beside_running += 1,
            (false, true, true) => self.beside_suspect += 1,
            (_, _, _) => {}
        }
        for (cell, guid, epoch) in instances(before) {
            for (cell_now, guid_now, epoch_now) in instances(after) {
                if (cell, guid) == (cell_now, guid_now) && epoch_now < epoch {
                    return Err(format!(
                        "S4: {key}: epoch {epoch_now} of {cell} took effect after {epoch}"
                    ));
                }
            }
        }
        let Some(Write::LrpStatus {
            change, from, to, ..
        }) = self.judging()
        else {
            return Ok(());
        };
        if writer != Writer::Controller {
            return Ok(());
        }
        self.move_of_lrp(key, &change, &from, &to, presence)
    }
}

/// Every instance in a record: Cell, guid, epoch.
fn instances(status: &ActualLRPStatus) -> impl Iterator<Item = (&str, &str, i64)> {
    let ordinary = match (&status.cell_name, &status.instance_guid) {
        (Some(cell), Some(guid)) => Some((&**cell, &**guid, status.cell_epoch.unwrap_or_default())),
        (_, _) => None,
    };
    let suspect = status.suspect.as_ref();
    let suspect = suspect.map(|one| (&*one.cell_name, &*one.instance_guid, one.cell_epoch));
    let evacuating = status.evacuating.as_ref();
    let evacuating = evacuating.map(|one| (&*one.cell_name, &*one.instance_guid, one.cell_epoch));
    ordinary.into_iter().chain(suspect).chain(evacuating)
}

fn names(lrp: &StoredLrp, owner: &str, guid: &str) -> bool {
    lrp.record.owner.as_deref() == Some(owner)
        && instances(&lrp.record.status).any(|(_, other, _)| other == guid)
}

fn names_task(task: &StoredTask, uid: &str, guid: &str) -> bool {
    task.record.version.uid == uid
        && task.record.status.instance_guid.as_deref() == Some(guid)
        && task.record.status.state == TaskState::Running
}
