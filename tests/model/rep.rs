//! What a rep does about one record: the product's harmonisation table, on the record as the rep last read it.

use diego_operator::converge::harmony::{self, ContainerState, LrpAction, Mode, TaskAction, view};
use diego_operator::converge::lrp::transition::Refusal;

use crate::protocol::{Protection, Protocol};
use crate::reached::What;
use crate::real::{self, guid_name};
use crate::state::{CellId, Container, Guid, Record, Rep, Run, State};

/// The next step of a rep about one record.
#[derive(Debug, Clone, PartialEq)]
pub enum Doing {
    Nothing,
    /// Room is set aside, or a container without a process is forgotten, and it looks again.
    Container(Guid, ContainerState),
    Forget(Guid),
    /// A process starts.
    Run(Guid),
    Stop(Guid),
    Write(Record),
}

/// One of the two tables' answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Lrp(LrpAction),
    Task(TaskAction),
}

fn table(record: &Record, cell: CellId, guid: Guid, state: ContainerState) -> Action {
    let (cell, guid) = (format!("cell-{cell}"), guid_name(guid));
    match record {
        Record::Lrp(slot) => {
            let says = view::lrp(&real::lrp_status(slot), &cell, &guid);
            Action::Lrp(harmony::lrp(says, state, Mode::Ordinary))
        }
        Record::Task(job) => {
            let says = view::task(&real::task_status(job), false, &cell, &guid);
            Action::Task(harmony::task(says, state, Mode::Ordinary))
        }
    }
}

impl State {
    /// A record as the rep of this Cell last read it.
    fn seen(&self, cell: CellId, record: usize) -> &Record {
        let seen = &self.reps[cell].seen[record];
        seen.as_ref().unwrap_or(&self.records[record])
    }
}

impl Rep {
    fn state(&self, guid: Guid) -> ContainerState {
        let found = self.containers.iter().find(|one| one.guid == guid);
        found.map_or(ContainerState::None, |one| one.state)
    }

    fn set(&mut self, record: usize, guid: Guid, state: ContainerState) {
        self.containers.retain(|one| one.guid != guid);
        let container = Container {
            record,
            guid,
            state,
        };
        self.containers.push(container);
    }

    pub fn process_ready(&mut self, guid: Guid) {
        for one in self.containers.iter_mut().filter(|one| one.guid == guid) {
            one.state = ContainerState::Running;
        }
    }

    /// The fence kills what must not run twice.
    pub fn kill_all(&mut self, records: &[Record]) {
        for one in self.containers.iter_mut().filter(|one| one.has_process()) {
            if let Record::Lrp(_) = records[one.record] {
                one.state = ContainerState::CompletedShutdown;
            }
        }
    }

    /// Returns the record it was of.
    pub fn process_ended(&mut self, guid: Guid) -> usize {
        let mut found = self.containers.iter_mut().filter(|one| one.guid == guid);
        let one = found.next().expect("a process");
        one.state = ContainerState::CompletedCrashed;
        one.record
    }

    /// The guids to look at: those that run here, and those that the record as it was read has here.
    fn guids(&self, cell: CellId, record: usize, seen: &Record) -> Vec<Guid> {
        let here = self.containers.iter().filter(|one| one.record == record);
        let mut guids: Vec<Guid> = here.map(|one| one.guid).collect();
        let named = seen.runs().filter(|run| run.cell == cell);
        // What is recorded from before this life is the controller's to settle.
        let named = named.filter(|run| {
            guids.contains(&run.guid) || self.first.is_some_and(|first| run.epoch >= first)
        });
        guids.extend(named.map(|run| run.guid).collect::<Vec<_>>());
        guids.sort_unstable();
        guids.dedup();
        guids
    }
}

impl Protocol {
    /// What the rep of this Cell does next about this record.
    pub fn doing(&self, state: &State, cell: CellId, record: usize) -> Doing {
        let rep = &state.reps[cell];
        // While a call is under way it waits for the answer.
        if !rep.alive || rep.paused || rep.writes[record].is_some() {
            return Doing::Nothing;
        }
        let guids = rep.guids(cell, record, state.seen(cell, record));
        let each = guids.into_iter();
        let mut doing = each.map(|guid| self.doing_about(state, cell, record, guid));
        let found = doing.find(|doing| *doing != Doing::Nothing);
        found.unwrap_or(Doing::Nothing)
    }

    pub fn doing_about(&self, state: &State, cell: CellId, record: usize, guid: Guid) -> Doing {
        let rep = &state.reps[cell];
        let container = rep.state(guid);
        let action = table(state.seen(cell, record), cell, guid, container);
        let first = self.lacks(Protection::RecordBeforeProcess);
        match action {
            Action::Lrp(LrpAction::Nothing) | Action::Task(TaskAction::Nothing) => Doing::Nothing,
            Action::Lrp(LrpAction::Delete) | Action::Task(TaskAction::Delete) => {
                Doing::Forget(guid)
            }
            Action::Lrp(LrpAction::Stop) | Action::Task(TaskAction::Stop) => {
                match self.lacks(Protection::StopStrangers) {
                    true => Doing::Nothing,
                    false => Doing::Stop(guid),
                }
            }
            // Without a presence nothing is taken on, and nothing is told.
            _ if rep.epoch.is_none() => Doing::Nothing,
            Action::Task(TaskAction::Reserve) if first => Doing::Run(guid),
            Action::Lrp(LrpAction::Reserve) | Action::Task(TaskAction::Reserve) => {
                Doing::Container(guid, ContainerState::Reserved)
            }
            Action::Lrp(LrpAction::Run) if self.fences() && !state.holds_presence(cell) => {
                Doing::Nothing
            }
            Action::Lrp(LrpAction::Run) if self.claims_again(state, cell, record, guid) => {
                let action = Action::Lrp(LrpAction::Claim);
                self.say(state, cell, record, guid, action)
            }
            Action::Lrp(LrpAction::Run) | Action::Task(TaskAction::Run) => Doing::Run(guid),
            Action::Lrp(LrpAction::CreateRecord) => unreachable!("records are never deleted"),
            action => self.say(state, cell, record, guid, action),
        }
    }

    fn claims_again(&self, state: &State, cell: CellId, record: usize, guid: Guid) -> bool {
        let mut named = state.seen(cell, record).runs();
        let recorded = named
            .find(|run| run.guid == guid)
            .map(|run| run.epoch.into());
        let epoch = state.reps[cell].epoch.map(i64::from);
        self.strict
            && !self.lacks(Protection::ClaimAgain)
            && harmony::claims_before_run(recorded, epoch)
    }

    /// A write, where it can take effect: on a record that is still as it was read.
    fn say(&self, state: &State, cell: CellId, record: usize, guid: Guid, action: Action) -> Doing {
        let rep = &state.reps[cell];
        let seen = state.seen(cell, record);
        if rep.seen[record].is_some() && !self.lacks(Protection::CompareAndSwap) {
            return Doing::Nothing;
        }
        let (mut epoch, first) = (rep.epoch.expect("checked"), rep.first.expect("registered"));
        let careless = self.lacks(Protection::EpochInWrite);
        if careless {
            let named = seen.runs().map(|run| run.epoch);
            epoch = named.max().unwrap_or(epoch).max(epoch);
        }
        let who = Run { cell, epoch, guid };
        let to = match (action, seen) {
            (Action::Lrp(action), Record::Lrp(slot)) => match real::say_lrp(slot, action, who) {
                Ok(to) => Record::Lrp(to),
                Err(refusal) => {
                    if let Refusal::StaleEpoch { .. } = refusal {
                        self.reached.note(What::OldEpochRefused);
                    }
                    return Doing::Nothing;
                }
            },
            (Action::Task(action), Record::Task(job)) => {
                let done = rep.state(guid) == ContainerState::CompletedCrashed;
                match real::say_task(job, action, who, done) {
                    Ok(to) => Record::Task(to),
                    Err(_) => return Doing::Nothing,
                }
            }
            (_, _) => unreachable!("each kind has its table"),
        };
        let to = match to {
            Record::Lrp(mut slot) if careless => {
                if let Some(run) = slot.run.as_mut().filter(|run| run.guid == guid) {
                    run.epoch = first;
                }
                Record::Lrp(slot)
            }
            to => to,
        };
        match to == *seen {
            true => Doing::Nothing,
            false => Doing::Write(to),
        }
    }

    /// Takes steps up to the first that anybody else can notice.
    pub fn act(&self, state: &mut State, cell: CellId, record: usize) {
        loop {
            let doing = self.doing(state, cell, record);
            let rep = &mut state.reps[cell];
            match doing {
                Doing::Nothing => return,
                Doing::Container(guid, to) => rep.set(record, guid, to),
                Doing::Forget(guid) => rep.containers.retain(|one| one.guid != guid),
                Doing::Run(guid) => {
                    rep.set(record, guid, ContainerState::Starting);
                    state.starts[record] = (state.starts[record] + 1).min(2);
                    if let Record::Lrp(_) = state.records[record] {
                        state.starts[record] = 0;
                    }
                    return;
                }
                Doing::Stop(guid) => {
                    self.reached.note(What::StrangerStopped);
                    return rep.set(record, guid, ContainerState::CompletedShutdown);
                }
                Doing::Write(to) => {
                    rep.writes[record] = Some(to);
                    return;
                }
            }
        }
    }
}
