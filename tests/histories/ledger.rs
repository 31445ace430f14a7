//! Writing the ledger: a compare-and-swap that is decided anew when somebody was faster.

use diego_operator::converge::cell::{self, LossTimes, Observation, Source, Verdict};
use diego_operator::converge::world::{CellRecord, Key};
use diego_operator::presence::PresencePhase;

use crate::at;
use crate::controller::Target;
use crate::faults::{Fate, Mutation};
use crate::hears::forget_incarnations;
use crate::history::{Event, Sim};
use crate::lanes::{Job, LedgerWrite, Loss, RETRY, Then, Work};
use crate::store::{Bound, Refused};

impl Sim {
    /// Decides on the record in hand what to write.
    pub fn decide_ledger(&mut self, one: usize, job: u64) {
        let now = at(self.now);
        let controller = &mut self.controllers[one];
        let Some(Job {
            work: Work::Ledger { cell, seen, .. },
            ..
        }) = controller.jobs.get(&job)
        else {
            return;
        };
        let Some(record) = controller.world.cells().get(cell) else {
            if let Observation::Gone { revision, .. } = seen {
                let (cell, revision) = (cell.clone(), *revision);
                controller.world.mark_vanished(&cell, revision);
                self.observer.read_as_vanished(&cell);
            }
            return self.after_ledger(one, job, false);
        };
        let verdict = cell::judge(record, seen);
        let times = LossTimes {
            lost: now,
            detected: now,
            source: Source::Watch,
            confirmed: false,
        };
        let gone = matches!(seen, Observation::Gone { .. });
        let mut status = cell::apply(record, seen, verdict, gone.then_some(times), now);
        // No mass-loss guard and no hold-down here: a history kills all its Cells within seconds, and has to come to
        // rest soon after. Both have properties of their own (`converge::brake`, `converge::hold_down`).
        status.held_down_until = None;
        let nothing = if gone {
            verdict == Verdict::Unchanged
        } else {
            status == record.status
        };
        if nothing {
            return self.after_ledger(one, job, gone);
        }
        let write = LedgerWrite {
            uid: record.version.uid.clone(),
            revision: record.version.revision,
            status,
            verdict,
        };
        let (cell, life) = (cell.clone(), controller.life);
        let delay = self.network.call_delay(&mut self.rng);
        self.schedule(
            self.now + delay,
            Event::LedgerWrite(one, life, job, cell, Box::new(write)),
        );
    }

    /// The write arrives; whoever sent it may be dead by now.
    pub fn ledger_write(
        &mut self,
        one: usize,
        life: u64,
        job: u64,
        cell: String,
        mut write: LedgerWrite,
    ) {
        if self.breaks(Mutation::PromoteByName)
            && write.status.incarnation_epoch == Some(0)
            && let Some(stored) = self.store.cells.get(&cell)
        {
            write.status.incarnation_epoch = stored.status.incarnation_epoch;
        }
        let fate = self.network.fate(&mut self.rng, false);
        let mut answer = Err(Refused::Failed);
        if fate != Fate::Lost {
            let bound = Bound {
                uid: &write.uid,
                revision: write.revision,
            };
            let stored = self
                .store
                .write_cell_status(&cell, bound, write.status.clone());
            let key = Key::new("", &*cell);
            self.wrote(&key, stored.as_ref().err());
            if stored.is_ok() {
                self.coverage.add(verdict_name(write.verdict), 1);
            }
            if fate == Fate::Answered {
                answer = stored.map(|record| (*record).clone());
            }
        }
        if fate != Fate::Answered {
            self.stimulus();
        }
        let delay = self.network.call_delay(&mut self.rng);
        let event = Event::LedgerAnswer(one, life, job, Box::new(answer), write.uid);
        self.schedule(self.now + delay, event);
    }

    pub fn ledger_answered(
        &mut self,
        one: usize,
        job: u64,
        answer: Result<CellRecord, Refused>,
        uid: &str,
    ) {
        let Some(Job {
            work: Work::Ledger { cell, seen, pause },
            then,
        }) = self.controllers[one].jobs.get(&job)
        else {
            return;
        };
        let (cell, pause, then) = (cell.clone(), *pause, then.clone());
        let gone = matches!(seen, Observation::Gone { .. });
        match answer {
            Ok(record) => {
                self.put_cell(one, &cell, record);
                if !gone {
                    self.wake_waiting(one);
                }
                self.after_ledger(one, job, false);
            }
            Err(Refused::NotFound) => {
                self.controllers[one].world.remove_cell(&cell, uid);
                self.decide_ledger(one, job);
            }
            Err(refused) => {
                // Somebody was faster, or it may have taken effect all the same: read what is there.
                match self.store.cells.get(&cell).cloned() {
                    Some(record) => self.put_cell(one, &cell, (*record).clone()),
                    None => drop(self.controllers[one].world.remove_cell(&cell, uid)),
                }
                if refused == Refused::Conflict {
                    return self.decide_ledger(one, job);
                }
                self.controllers[one].jobs.remove(&job);
                match then {
                    // Whoever observed something looks again before it writes.
                    Then::Recovered(cell) => {
                        let loss = Loss {
                            cell,
                            phase: Some(PresencePhase::Held),
                        };
                        self.confirm(one, loss, (pause * 2).min(1000));
                    }
                    Then::Reconciled(target, _) => self.reconciled(one, target, RETRY),
                    Then::Nobody => {}
                }
            }
        }
    }

    pub fn put_cell(&mut self, one: usize, name: &str, mut record: CellRecord) {
        if self.breaks(Mutation::PromoteByName) {
            forget_incarnations(&mut record);
        }
        self.controllers[one].world.put_cell(name, record);
    }

    /// The ledger is as it should be; now the work on the Cell, unless the loss was none.
    pub fn after_ledger(&mut self, one: usize, job: u64, no_loss: bool) {
        let Some(Job { work, then }) = self.controllers[one].jobs.remove(&job) else {
            return;
        };
        let Work::Ledger { cell, .. } = work else {
            return;
        };
        if no_loss {
            return self.recovered(one, cell);
        }
        self.converge(one, Target::Cell(cell).scope(), then);
    }
}

pub fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Unchanged => "verdicts: unchanged",
        Verdict::NewIncarnation => "verdicts: new incarnation",
        Verdict::Returned => "verdicts: returned",
        Verdict::Evacuating => "verdicts: evacuating",
        Verdict::Evacuated => "verdicts: evacuated",
        Verdict::Lost => "verdicts: lost",
    }
}
