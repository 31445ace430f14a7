//! Which steps are open in a state.

use diego_operator::converge::harmony::ContainerState;

use crate::protocol::{Fault, Protocol, Step, Who};
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
            if !state.holds_presence(cell) {
                steps.push(Step::Register(cell));
            }
            for record in 0..state.records.len() {
                if rep.seen[record] != state.records[record] {
                    steps.push(Step::Read(cell, record));
                }
                if self.doing(state, cell, record) != Doing::Nothing {
                    steps.push(Step::Act(cell, record));
                }
            }
        }
    }

    pub fn steps_of_controllers(&self, state: &State, steps: &mut Vec<Step>) {
        for (one, controller) in state.controllers.iter().enumerate() {
            for cell in 0..self.cells {
                if controller.view[cell] != state.ledgers[cell] {
                    steps.push(Step::Hear(one, cell));
                }
                match controller.verdicts[cell] {
                    Some(_) => steps.extend([Step::Judge(one, cell), Step::LoseVerdict(one, cell)]),
                    None if self.look(state, one, cell).is_some() => {
                        steps.push(Step::Look(one, cell));
                    }
                    None => {}
                }
            }
            let soon = self.plans(state, one, false);
            if Self::is_news(state, one, &soon) {
                steps.push(Step::Plan(one, false));
            }
            let late = self.plans(state, one, true);
            if late != soon && Self::is_news(state, one, &late) {
                steps.push(Step::Plan(one, true));
            }
        }
    }

    pub fn steps_of_the_network(&self, state: &State, steps: &mut Vec<Step>) {
        let controllers = state.controllers.iter().enumerate();
        let of_controllers = controllers.map(|(one, from)| (Who::Controller(one), &from.writes));
        let reps = state.reps.iter().enumerate();
        let of_reps = reps.map(|(cell, from)| (Who::Rep(cell), &from.writes));
        for (who, writes) in of_controllers.chain(of_reps) {
            for (record, write) in writes.iter().enumerate() {
                let Some(write) = write else { continue };
                steps.push(Step::Deliver(who, record));
                steps.push(Step::Lose(who, record));
                if self.duplicates && write.fresh {
                    steps.push(Step::DeliverTwice(who, record));
                }
            }
        }
        for cell in 0..self.cells {
            let rep = &state.reps[cell];
            let renewed = rep.alive && !rep.paused && state.holds_presence(cell);
            if state.keys[cell].is_some() && (!renewed || self.may(state, Fault::Cut)) {
                steps.push(Step::Expire(cell));
            }
        }
    }
}
