//! L1: once faults stop, what is there becomes what is wanted.
//!
//! From a reached state everything that is on its way arrives, every process that stands still goes on, every wait
//! comes to its end, in one fair order. That must end in a state in which nobody wants to do anything, and in which
//! every instance runs exactly once and every Task has ended.

use std::hash::{DefaultHasher, Hash, Hasher};

use diego_operator::api::{ActualLRPState, TaskState};
use diego_operator::converge::harmony::ContainerState;
use stateright::Model;

use crate::protocol::{Protocol, Step};
use crate::state::{Record, State};

/// So many rounds, in each of which everybody has a turn, are enough for anything.
const ROUNDS: usize = 40;

pub fn settles(model: &Protocol, state: &State) -> bool {
    if state.broken.is_some() {
        return true;
    }
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    if !hasher.finish().is_multiple_of(model.settle_one_in) {
        return true;
    }
    let mut now = state.clone();
    now.faults = 0;
    for _ in 0..ROUNDS {
        let before = now.clone();
        round(model, &mut now, false);
        if now == before {
            // Nobody has anything to do at once: time passes.
            round(model, &mut now, true);
        }
        if now == before {
            return is_settled(&now);
        }
    }
    false
}

/// Everybody takes every step that is open, once, and everything sent arrives.
fn round(model: &Protocol, now: &mut State, late: bool) {
    let mut steps = Vec::new();
    model.actions(now, &mut steps);
    for step in steps {
        // What an earlier step of the round has settled is not open any more.
        let mut open = Vec::new();
        model.actions(now, &mut open);
        let fair = match step {
            Step::LoseVerdict(..) | Step::Lose(..) | Step::DeliverTwice(..) => false,
            Step::Die(_) | Step::Pause(_) => false,
            Step::Plan(_, after_waits) => after_waits == late,
            _ => true,
        };
        if fair
            && open.contains(&step)
            && let Some(next) = model.next_state(now, step)
        {
            *now = next;
        }
    }
}

fn is_settled(state: &State) -> bool {
    let mut cells = state.reps.iter().enumerate();
    let present = cells.all(|(cell, rep)| rep.alive && state.holds_presence(cell));
    present
        && (0..state.records.len()).all(|number| {
            let containers = state.reps.iter().enumerate().flat_map(|(cell, rep)| {
                rep.containers
                    .iter()
                    .filter(|one| one.record == number)
                    .map(move |one| (cell, one))
            });
            let mut containers = containers.collect::<Vec<_>>();
            match state.records[number] {
                Record::Lrp(slot) => {
                    let only = containers.pop();
                    containers.is_empty()
                        && slot.state == ActualLRPState::Running
                        && slot.suspect.is_none()
                        && slot.run.zip(only).is_some_and(|(run, (cell, one))| {
                            (run.cell, run.guid) == (cell, one.guid)
                                && one.state == ContainerState::Running
                        })
                }
                Record::Task(job) => job.state == TaskState::Completed && containers.is_empty(),
            }
        })
}
