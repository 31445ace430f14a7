//! L1: once faults stop, what is there becomes what is wanted.
//!
//! From a reached state everything that is on its way arrives, every process that stands still goes on, every wait
//! comes to its end, in one fair order, and the controllers know what is to be known. That must end in a state in which
//! nobody wants to do anything, and in which every instance runs exactly once and every Task has ended: when machines
//! that are off start again, and when they never do.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;

use diego_operator::api::{ActualLRPState, TaskState};
use diego_operator::converge::harmony::ContainerState;
use stateright::Model;

use crate::protocol::{Protocol, Step};
use crate::state::{Record, State};

/// So many steps are enough for anything.
const STEPS: usize = 300;

/// States that were seen to come to rest, by what becomes of machines that are off.
pub type Resting = Mutex<HashSet<(u64, bool)>>;

pub fn settles(model: &Protocol, state: &State) -> bool {
    if state.broken.is_some() || model.settle_one_in == 0 {
        return true;
    }
    if !hash(state).is_multiple_of(model.settle_one_in) {
        return true;
    }
    let dead = state.reps.iter().any(|rep| !rep.alive);
    let some_left = state.reps.iter().any(|rep| rep.alive);
    // What must not run twice, and may still run on a machine without a fence, waits for an operator.
    let waits = model.strict && !model.fences();
    settles_with(model, state, true)
        && (!dead || !some_left || waits || settles_with(model, state, false))
}

fn hash(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// `boots`: machines that are off start again. Otherwise an operator confirms that they are lost.
fn settles_with(model: &Protocol, state: &State, boots: bool) -> bool {
    let known = |one| model.resting.lock().expect("nobody panics").contains(&one);
    let mut now = state.clone();
    now.faults = 0;
    let mut passed = Vec::new();
    for _ in 0..STEPS {
        let this = (hash(&now), boots);
        let rests = known(this) || {
            passed.push(this);
            match fair_step(model, &now, boots) {
                Some(next) => {
                    now = next;
                    false
                }
                None => is_settled(&now),
            }
        };
        if rests {
            model.resting.lock().expect("nobody panics").extend(passed);
            return true;
        }
    }
    false
}

/// The next state of the fair run: who is behind catches up first, and time passes when nobody has anything to do at once.
fn fair_step(model: &Protocol, now: &State, boots: bool) -> Option<State> {
    let mut steps = Vec::new();
    model.actions(now, &mut steps);
    let plans = [false, true].map(|late| model.plan(&now.ledgers, &now.records, late));
    let turns = steps.into_iter();
    let turns = turns.filter_map(|step| Some((turn(model, now, step, &plans, boots)?, step)));
    let mut turns = turns.collect::<Vec<_>>();
    turns.sort_by_key(|(turn, _)| *turn);
    let mut nexts = turns.into_iter();
    nexts.find_map(|(_, step)| model.next_state(now, step))
}

/// When it is this step's turn, if it is part of the fair run.
fn turn(
    model: &Protocol,
    now: &State,
    step: Step,
    [soon, late]: &[Vec<Option<Record>>; 2],
    boots: bool,
) -> Option<u8> {
    match step {
        Step::Boot(_) => boots.then_some(0),
        Step::Resume(_) | Step::Heal(_) | Step::Register(..) | Step::Expire(_) => Some(0),
        Step::Confirm(cell) => (!boots && !now.reps[cell].alive).then_some(1),
        Step::Judge(cell, seen) => (seen == model.sees_now(now, cell)).then_some(1),
        Step::Deliver(..) | Step::Read(..) | Step::Act(..) | Step::Overwrite(..) => Some(2),
        Step::Ready(..) | Step::End(..) => Some(3),
        Step::Plan(record, to) if soon[record] == Some(to) => Some(4),
        Step::Plan(record, to) => (late[record] == Some(to)).then_some(5),
        Step::Lose(..) | Step::Die(_) | Step::Pause(_) | Step::BlackOut(_) | Step::Wipe => None,
    }
}

fn is_settled(state: &State) -> bool {
    let mut cells = state.reps.iter().enumerate();
    let present = cells.all(|(cell, rep)| !rep.alive || state.holds_presence(cell));
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
