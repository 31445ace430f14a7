//! The controllers: any number of them, each as slow as it likes.
//!
//! So none has a state of its own. What was to be read of a Cell at any time may be acted on at any later time, by one
//! that read it then; and a write that is decided on a version of a record, and arrives later, is the same as one that is
//! decided as late, on what was known that early.

use diego_operator::converge::cell::Verdict as Judged;

use crate::decide;
use crate::protocol::{Protection, Protocol, Step, Who};
use crate::reached::What;
use crate::rules;
use crate::state::{CellId, Key, Ledger, Record, Seen, Standing, State};

fn insert<T: Ord + Copy>(set: &mut Vec<T>, one: T) {
    if let Err(place) = set.binary_search(&one) {
        set.insert(place, one);
    }
}

impl Protocol {
    /// Everything that is to be read now is read by somebody.
    pub fn learn(&self, state: &mut State) {
        let shown = (0..self.cells).all(|cell| {
            let rep = &state.reps[cell];
            !rep.alive || rep.paused || rep.silent || state.holds_presence(cell)
        });
        state.distrusted &= !shown;
        for cell in 0..self.cells {
            let known = &mut state.known[cell];
            insert(&mut known.ledgers, state.ledgers[cell]);
            match state.keys[cell] {
                Some(key) => {
                    insert(&mut known.bases, key.base);
                    insert(&mut known.seen, Seen::Held(key));
                    // It has heard that a presence ended, once, and takes that for news when the Cell is back.
                    let back = known.ledgers.iter().any(|known| known.epoch == key.epoch);
                    if self.lacks(Protection::ConfirmingRead) && state.gone[cell] > 0 && back {
                        let late = Seen::Gone {
                            ledger: key.epoch,
                            revision: state.gone[cell],
                        };
                        insert(&mut known.seen, late);
                    }
                }
                None if state.distrusted && !self.lacks(Protection::Distrust) => {}
                None => {
                    for ledger in known.ledgers.iter().map(|ledger| ledger.epoch) {
                        for base in &known.bases {
                            let revision = state.revision + base;
                            insert(&mut known.seen, Seen::Gone { ledger, revision });
                        }
                    }
                }
            }
        }
        if self.guard {
            self.brake(state);
        }
    }

    /// What a controller reads of a Cell's presence now, if it knows all that is to be known, or has only just begun.
    pub fn sees_now(&self, state: &State, cell: CellId) -> Seen {
        match state.keys[cell] {
            Some(key) => Seen::Held(key),
            None => Seen::Gone {
                ledger: state.ledgers[cell].epoch,
                revision: state.revision,
            },
        }
    }

    pub fn steps_of_controllers(&self, state: &State, steps: &mut Vec<Step>) {
        for cell in 0..self.cells {
            let known = &state.known[cell];
            for seen in &known.seen {
                let is_loss = matches!(seen, Seen::Gone { .. });
                if self.guard && is_loss && !known.believed.contains(seen) {
                    continue;
                }
                let now = state.ledgers[cell];
                if self.lacks(Protection::CompareAndSwap) {
                    let nexts = known.ledgers.iter();
                    let nexts = nexts.map(|before| self.judged(state, cell, *before, *seen));
                    let nexts = nexts.filter(|(judged, _)| *judged != Judged::Unchanged);
                    let nexts = nexts.filter(|(_, next)| *next != now);
                    steps.extend(nexts.map(|(_, next)| Step::Overwrite(cell, next)));
                } else if self.judged(state, cell, now, *seen).0 != Judged::Unchanged {
                    steps.push(Step::Judge(cell, *seen));
                }
            }
            let lost = self.guard && state.keys[cell].is_none();
            if lost && state.ledgers[cell].state == Standing::Present && !state.confirmed[cell] {
                steps.push(Step::Confirm(cell));
            }
        }
        let mut records = vec![state.records.clone()];
        for (record, past) in state.past.iter().enumerate() {
            for before in past {
                let mut records_then = state.records.clone();
                records_then[record] = *before;
                records.push(records_then);
            }
        }
        let views = Self::views(state);
        for (view, records) in views
            .iter()
            .flat_map(|view| records.iter().map(move |it| (view, it)))
        {
            for late in [false, true] {
                for (record, to) in self.plan(view, records, late).into_iter().enumerate() {
                    let step = to.map(|to| Step::Plan(record, to));
                    steps.extend(step.filter(|step| !steps.contains(step)));
                }
            }
        }
    }

    /// What a controller that knows these ledgers and records would write to every record.
    pub fn plan(&self, ledgers: &[Ledger], records: &[Record], late: bool) -> Vec<Option<Record>> {
        decide::plan(&decide::Question {
            ledgers: ledgers.to_vec(),
            records: records.to_vec(),
            late,
            strict: self.strict && !self.lacks(Protection::HoldBack),
        })
    }

    pub fn judged(
        &self,
        state: &State,
        cell: CellId,
        before: Ledger,
        seen: Seen,
    ) -> (Judged, Ledger) {
        let seen = match seen {
            Seen::Held(key) if self.lacks(Protection::Incarnation) => Seen::Held(Key {
                life: before.life,
                ..key
            }),
            Seen::Gone { revision, .. } if self.lacks(Protection::LedgerBeforePresence) => {
                Seen::Gone {
                    ledger: before.epoch,
                    revision,
                }
            }
            seen => seen,
        };
        let recorded = match seen {
            Seen::Held(_) => 0,
            Seen::Gone { revision, .. } => state.recorded(cell, revision),
        };
        decide::judge(cell, before, seen, recorded)
    }

    pub fn judge(&self, state: &mut State, cell: CellId, seen: Seen) {
        let (judged, next) = self.judged(state, cell, state.ledgers[cell], seen);
        self.reached.note(match judged {
            Judged::Lost if std::mem::take(&mut state.confirmed[cell]) => What::Confirmed,
            Judged::Lost => What::Lost,
            Judged::Returned => What::Returned,
            Judged::NewIncarnation => What::NewIncarnation,
            Judged::Unchanged => unreachable!("no step"),
            Judged::Evacuating | Judged::Evacuated => unreachable!("nothing drains"),
        });
        rules::ledger_written(state, cell, next);
    }

    /// A controller's write to a record takes effect.
    pub fn place(&self, state: &mut State, record: usize, mut to: Record) {
        let fresh = state.new_guid();
        to.each_guid(&mut |guid| {
            if decide::is_new(*guid) {
                *guid = fresh;
            }
        });
        self.write(state, Who::Controller, record, to);
    }

    pub fn write(&self, state: &mut State, who: Who, record: usize, to: Record) {
        self.reached.note_change(&state.records[record], &to);
        rules::record_written(state, who, record, to);
        self.put(state, record, to);
    }
}
