//! Which steps are open in a state.

use diego_operator::converge::harmony::ContainerState;

use crate::protocol::{Fault, Protocol, Step};
use crate::rep::Doing;
use crate::state::{Record, State};

impl Protocol {
    pub fn steps_of_reps(&self, state: &State, steps: &mut Vec<Step>) {
        for (cell, rep) in state.reps.iter().enumerate() {
            if !rep.alive {
                steps.push(Step::Boot(cell));
                continue;
            }
            for container in rep.containers.iter().filter(|one| one.has_process()) {
                let is_task = matches!(state.records[container.record], Record::Task(_));
                if !is_task && container.state != ContainerState::Running {
                    steps.push(Step::Ready(cell, container.guid));
                }
                if is_task || self.may(state, Fault::Crash) {
                    steps.push(Step::End(cell, container.guid));
                }
            }
            if self.may(state, Fault::Die) {
                steps.push(Step::Die(cell));
            }
            if rep.paused {
                steps.push(Step::Resume(cell));
                continue;
            }
            if self.may(state, Fault::Pause) {
                steps.push(Step::Pause(cell));
            }
            if rep.silent {
                steps.push(Step::Heal(cell));
            } else if !state.holds_presence(cell) || self.hears_of_its_loss(state, cell) {
                let known = self.epochs_known(state, cell);
                steps.extend(known.into_iter().map(|last| Step::Register(cell, last)));
            }
            for record in 0..state.records.len() {
                if rep.seen[record].is_some() {
                    steps.push(Step::Read(cell, record));
                }
                if self.doing(state, cell, record) != Doing::Nothing {
                    steps.push(Step::Act(cell, record));
                }
            }
        }
    }

    pub fn steps_of_the_rest(&self, state: &State, steps: &mut Vec<Step>) {
        for (cell, rep) in state.reps.iter().enumerate() {
            for (record, write) in rep.writes.iter().enumerate() {
                if write.is_some() {
                    steps.push(Step::Deliver(cell, record));
                    steps.push(Step::Lose(cell, record));
                }
            }
            if state.keys[cell].is_some() && (!state.renews(cell) || self.may(state, Fault::Cut)) {
                steps.push(Step::Expire(cell));
            }
        }
        if self.may(state, Fault::Blackout) {
            steps.extend((0..4).map(Step::BlackOut));
        }
        if self.may(state, Fault::Wipe) {
            steps.push(Step::Wipe);
        }
    }
}
