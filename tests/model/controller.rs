//! What a controller does: it looks, judges, plans and writes, each at a time of its own.

use diego_operator::converge::cell::Verdict as Judged;

use crate::decide;
use crate::protocol::{Protection, Protocol, Who};
use crate::reached::What;
use crate::rules;
use crate::state::{CellId, Key, Ledger, Record, Seen, State, Verdict, Write};

impl Protocol {
    /// What a controller sees of a Cell's presence now; `None` where that is no news to it.
    pub fn look(&self, state: &State, controller: usize, cell: CellId) -> Option<Verdict> {
        let known = state.controllers[controller].view[cell];
        let seen = match state.keys[cell] {
            Some(key) if !self.lacks(Protection::ConfirmingRead) => Seen::Held(key),
            // It has heard that a presence ended, once, and takes that for news as soon as the Cell is back.
            Some(key) if state.gone[cell] == 0 || known.epoch != key.epoch => Seen::Held(key),
            Some(_) => Seen::Gone {
                ledger: known.epoch,
                revision: state.gone[cell],
            },
            None => Seen::Gone {
                ledger: known.epoch,
                revision: state.revision,
            },
        };
        let (judged, next) = self.judged(cell, known, seen);
        (judged != Judged::Unchanged).then_some(Verdict {
            seen,
            blind: self.lacks(Protection::CompareAndSwap).then_some(next),
        })
    }

    pub fn judged(&self, cell: CellId, before: Ledger, seen: Seen) -> (Judged, Ledger) {
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
        decide::judge(cell, before, seen)
    }

    pub fn judge(&self, state: &mut State, controller: usize, cell: CellId) {
        let verdict = state.controllers[controller].verdicts[cell].take();
        let Verdict { seen, blind } = verdict.expect("a verdict on its way");
        let before = state.ledgers[cell];
        let (judged, next) = match blind {
            Some(next) => (Judged::Lost, next),
            None => self.judged(cell, before, seen),
        };
        self.reached.note(match judged {
            Judged::Unchanged => What::VerdictWithdrawn,
            Judged::Lost => What::Lost,
            Judged::Returned => What::Returned,
            Judged::NewIncarnation => What::NewIncarnation,
            Judged::Evacuating | Judged::Evacuated => unreachable!("nothing drains"),
        });
        rules::ledger_written(state, cell, next);
        state.controllers[controller].view[cell] = next;
    }

    /// What a controller would write to every record now.
    pub fn plans(&self, state: &State, controller: usize, late: bool) -> Vec<Option<Record>> {
        decide::plan(&decide::Question {
            ledgers: state.controllers[controller].view.clone(),
            records: state.records.clone(),
            late,
            strict: self.strict && !self.lacks(Protection::HoldBack),
        })
    }

    /// Whether there is a plan for a record on which this controller has no write on its way.
    pub fn is_news(state: &State, controller: usize, plans: &[Option<Record>]) -> bool {
        let writes = &state.controllers[controller].writes;
        let mut pairs = plans.iter().zip(writes);
        pairs.any(|(plan, write)| plan.is_some() && write.is_none())
    }

    pub fn plan(&self, state: &mut State, controller: usize, late: bool) {
        let plans = self.plans(state, controller, late);
        for (record, plan) in plans.into_iter().enumerate() {
            let Some(mut to) = plan else { continue };
            if state.controllers[controller].writes[record].is_some() {
                continue;
            }
            let fresh = state.new_guid();
            to.each_guid(&mut |guid| {
                if decide::is_new(*guid) {
                    *guid = fresh;
                }
            });
            state.controllers[controller].writes[record] = Some(Write { to, fresh: true });
        }
    }

    pub fn writes(state: &mut State, who: Who) -> &mut Vec<Option<Write>> {
        match who {
            Who::Controller(one) => &mut state.controllers[one].writes,
            Who::Rep(cell) => &mut state.reps[cell].writes,
        }
    }

    /// A write arrives: it takes effect if its object is still the version it was decided on.
    pub fn deliver(&self, state: &mut State, who: Who, record: usize, twice: bool) {
        let writes = Self::writes(state, who);
        let Write { to, fresh } = writes[record].expect("a write on its way");
        if !twice {
            writes[record] = None;
        }
        if !fresh && !self.lacks(Protection::CompareAndSwap) {
            return self.reached.note(What::StaleWriteRefused);
        }
        self.reached.note_change(&state.records[record], &to);
        rules::record_written(state, who, record, to);
        state.put(record, to);
    }
}
