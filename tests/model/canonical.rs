//! States that differ in nothing that anybody can notice become one.
//!
//! - A guid says no more than which other guids it equals: they are renumbered.
//! - Of a record that a rep read before it changed, only what names that Cell can lead to anything; of one that names
//!   nothing there, where nothing of it is left, nothing at all.
//! - What a controller read of a presence says nothing once the ledger has a later epoch.
//! - A container without a process that no record names is forgotten at once: nobody sees it, and no record will ever
//!   name its guid again.

use diego_operator::api::{ActualLRPState, TaskState};
use diego_operator::converge::cell::Verdict;

use crate::protocol::{Protection, Protocol};
use crate::rep::Doing;
use crate::state::{CellId, Guid, Job, Key, Record, Seen, Slot, State};

impl Protocol {
    pub fn canonical(&self, mut state: State) -> State {
        for cell in 0..self.cells {
            self.forget(&mut state, cell);
        }
        state.rename();
        if self.without.is_none() {
            for cell in 0..self.cells {
                self.outdated(&mut state, cell);
            }
        }
        state
    }

    /// What was read under an epoch before the ledger's says nothing any more, since the ledger's only grows.
    fn outdated(&self, state: &mut State, cell: CellId) {
        let ledger = state.ledgers[cell];
        let matters = |seen: &Seen| {
            let (Seen::Held(Key { epoch, .. }) | Seen::Gone { ledger: epoch, .. }) = *seen;
            epoch >= ledger.epoch || self.judged(state, cell, ledger, *seen).0 != Verdict::Unchanged
        };
        let mut known = state.known[cell].clone();
        known.seen.retain(matters);
        known.believed.retain(matters);
        state.known[cell] = known;
    }

    fn forget(&self, state: &mut State, cell: CellId) {
        let rep = &state.reps[cell];
        if !rep.alive {
            state.reps[cell].seen.fill(None);
            return;
        }
        if !rep.paused {
            let left = rep.containers.iter().copied().filter(|one| {
                let idle = one.has_process() || rep.writes[one.record].is_some();
                let about = || self.doing_about(state, cell, one.record, one.guid);
                idle || about() != Doing::Forget(one.guid)
            });
            state.reps[cell].containers = left.collect();
        }
        if self.lacks(Protection::CompareAndSwap) {
            return;
        }
        let rep = &mut state.reps[cell];
        for (record, seen) in rep.seen.iter_mut().enumerate() {
            let Some(seen) = seen else { continue };
            let here = rep.containers.iter().any(|one| one.record == record);
            *seen = seen_from(cell, *seen, here);
        }
    }

    /// A write on a record takes effect: the others that were decided on the version before it never will.
    pub fn put(&self, state: &mut State, record: usize, to: Record) {
        let before = std::mem::replace(&mut state.records[record], to);
        let swaps = !self.lacks(Protection::CompareAndSwap);
        if !swaps && !state.past[record].contains(&before) {
            state.past[record].push(before);
        }
        for rep in &mut state.reps {
            rep.seen[record].get_or_insert(before);
            if swaps && rep.writes[record].take().is_some() {
                self.reached.note(crate::reached::What::StaleWriteRefused);
            }
        }
    }
}

/// What of a record that has changed since matters to the rep of this Cell; `here`: it has containers of it.
fn seen_from(cell: CellId, seen: Record, here: bool) -> Record {
    match seen {
        Record::Lrp(slot) => {
            let run = slot.run.filter(|run| run.cell == cell);
            let suspect = slot.suspect.filter(|(run, _)| run.cell == cell);
            let matters = here || run.is_some() || suspect.is_some();
            Record::Lrp(Slot {
                state: if matters {
                    slot.state
                } else {
                    ActualLRPState::default()
                },
                run,
                suspect,
                crashes: 0,
                waits: false,
            })
        }
        Record::Task(job) => {
            let run = job.run.filter(|run| run.cell == cell);
            let matters = here || run.is_some();
            Record::Task(Job {
                state: if matters {
                    job.state
                } else {
                    TaskState::default()
                },
                run,
                failed: None,
                lost: false,
                waits: false,
            })
        }
    }
}

impl State {
    fn each_guid(&mut self, mut change: impl FnMut(&mut Guid)) {
        for record in self
            .records
            .iter_mut()
            .chain(self.past.iter_mut().flatten())
        {
            record.each_guid(&mut change);
        }
        for rep in &mut self.reps {
            for record in rep.seen.iter_mut().chain(&mut rep.writes).flatten() {
                record.each_guid(&mut change);
            }
            for container in &mut rep.containers {
                change(&mut container.guid);
            }
        }
    }

    /// A guid that nobody has.
    pub fn new_guid(&mut self) -> Guid {
        let mut greatest = 0;
        self.each_guid(|guid| greatest = greatest.max(*guid));
        greatest + 1
    }

    fn rename(&mut self) {
        let mut names = Names::default();
        for record in self
            .records
            .iter_mut()
            .chain(self.past.iter_mut().flatten())
        {
            record.each_guid(&mut |guid| names.give(guid));
        }
        for rep in &mut self.reps {
            for record in rep.seen.iter_mut().chain(&mut rep.writes).flatten() {
                record.each_guid(&mut |guid| names.give(guid));
            }
        }
        // Those that only containers have come last, by what the containers are.
        for rep in &mut self.reps {
            let place = |guid: Guid| match names.of[usize::from(guid)] {
                0 => Guid::MAX,
                name => name,
            };
            rep.containers
                .sort_by_key(|one| (one.record, place(one.guid), one.state as u8));
        }
        for rep in &mut self.reps {
            for container in &mut rep.containers {
                names.give(&mut container.guid);
            }
        }
    }
}

/// New names of guids, in the order in which they are come by.
struct Names {
    of: [Guid; 64],
    next: Guid,
}

impl Default for Names {
    fn default() -> Self {
        Names {
            of: [0; 64],
            next: 1,
        }
    }
}

impl Names {
    fn give(&mut self, guid: &mut Guid) {
        let name = &mut self.of[usize::from(*guid)];
        if *name == 0 {
            *name = self.next;
            self.next += 1;
        }
        *guid = *name;
    }
}
