//! The mass-loss guard: the product's rule, asked with a roll call of now.

use std::time::Instant;

use diego_operator::converge::brake::{Brake, Ruling};
use diego_operator::presence::RollCall;

use crate::decide;
use crate::protocol::{Protection, Protocol};
use crate::reached::What;
use crate::real::{Known, cell_name, now, recall};
use crate::state::{CellId, Ledger, Rule, Seen, Standing, State};

/// The product's default, in percent.
const THRESHOLD: u32 = 33;

/// Whom a roll call finds, by Cell.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Roll {
    held: Vec<bool>,
    overdue: Vec<bool>,
}

/// Whether the losses that there are pass, for a controller that knows these ledgers. Losses of before are long ago, and a
/// doubt lasts until all who are overdue have renewed or are gone.
fn passes(ledgers: &[Ledger], roll: &Roll) -> bool {
    thread_local!(static KNOWN: Known<(Vec<Ledger>, Roll), bool> = Known::default());
    recall(&KNOWN, (ledgers.to_vec(), roll.clone()), || {
        let cells = ledgers.iter().enumerate();
        let cells =
            cells.map(|(cell, ledger)| (cell_name(cell), decide::cell_record(cell, ledger)));
        let names = |of: &[bool]| {
            let them = of.iter().enumerate().filter(|(_, is)| **is);
            them.map(|(cell, _)| cell_name(cell)).collect()
        };
        let roll = RollCall {
            held: names(&roll.held),
            overdue: names(&roll.overdue),
        };
        let at = (Instant::now(), now(true));
        let ruling = Brake::default().ruling(&cells.collect(), Some(&roll), THRESHOLD, at);
        ruling == Ruling::Pass
    })
}

impl Protocol {
    /// Every choice of one known ledger per Cell.
    pub fn views(state: &State) -> Vec<Vec<Ledger>> {
        let mut views = vec![Vec::new()];
        for known in &state.known {
            let longer = views.iter().flat_map(|view: &Vec<Ledger>| {
                known.ledgers.iter().map(|ledger| {
                    let mut view = view.clone();
                    view.push(*ledger);
                    view
                })
            });
            views = longer.collect();
        }
        views
    }

    /// What the guard makes of the absences that are known, now.
    pub fn brake(&self, state: &mut State) {
        let roll = Roll {
            held: state.keys.iter().map(Option::is_some).collect(),
            overdue: state
                .reps
                .iter()
                .zip(&state.keys)
                .map(|(rep, key)| key.is_some() && rep.silent && !self.lacks(Protection::RollCall))
                .collect(),
        };
        // An operator who confirms one of them says that it is no mass loss.
        let doubtful = |cell: &CellId| {
            state.reps[*cell].silent && state.ledgers[*cell].state == Standing::Present
        };
        let silent = (0..self.cells).filter(doubtful).count();
        let gone = (0..self.cells).filter(|cell| {
            let absent = |seen: &Seen| matches!(seen, Seen::Gone { .. });
            !roll.held[*cell] && state.known[*cell].seen.iter().any(absent)
        });
        for cell in gone.collect::<Vec<_>>() {
            let passes = self.lacks(Protection::Guard)
                || Self::views(state).iter().any(|view| passes(view, &roll));
            if !passes {
                self.reached.note(What::Held);
                state.known[cell].forgotten |= self.lacks(Protection::LookAgain);
            }
            if (passes || state.confirmed[cell]) && !state.known[cell].forgotten {
                let news = self.believe(state, cell) && state.reps[cell].silent;
                match silent {
                    1 if news => self.reached.note(What::LetGo),
                    2.. if news && !state.confirmed[cell] => state.broken = Some(Rule::S7),
                    _ => {}
                }
            }
        }
    }

    fn believe(&self, state: &mut State, cell: CellId) -> bool {
        let known = &mut state.known[cell];
        let before = known.believed.len();
        for seen in &known.seen {
            if matches!(seen, Seen::Gone { .. }) && !known.believed.contains(seen) {
                known.believed.push(*seen);
            }
        }
        known.believed.sort_unstable();
        known.believed.len() > before
    }
}
