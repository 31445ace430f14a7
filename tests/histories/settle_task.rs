//! The same for a Task.

use diego_operator::converge::harmony::said::{self, TaskFacts};
use diego_operator::converge::harmony::{self, ContainerState, TaskAction};
use diego_operator::converge::task::transition::{self, Instance, Verb};
use diego_operator::rep::records::task_view;

use crate::at;
use crate::calls::Status;
use crate::faults::Mutation;
use crate::history::Sim;
use crate::rep::{Container, Record, Took, Work};

impl Sim {
    pub fn task_step(&mut self, rep: usize, work: &Work, guid: &str, live: bool) -> Took {
        let one = &self.reps[rep];
        let record = match one.records.get(work) {
            Some(Record::Task(task)) => Some(task.clone()),
            Some(Record::Lrp(_)) | None => None,
        };
        let uid = one
            .containers
            .get(guid)
            .map(|container| container.uid.as_str());
        let view = task_view(
            record.as_ref().map(|task| &task.object),
            uid,
            &one.cell,
            guid,
        );
        let state = one.state(guid);
        let action = harmony::task(view, state, one.mode);
        if harmony::wants_live_read(state, action == TaskAction::Stop) && !live {
            self.read(rep, work);
            return Took::Call;
        }
        let refuses = one.refuses;
        let (epoch, cell) = (one.stamp(), one.cell.clone());
        let instance = Instance {
            cell,
            epoch: epoch.unwrap_or_default(),
            guid: guid.to_owned(),
        };
        let mut facts = TaskFacts {
            outcome: (one.containers.get(guid)).and_then(|container| container.outcome.clone()),
            missing: "task container does not exist".into(),
            refusal: "the Cell is being evacuated".into(),
        };
        let Some(task) = record else {
            return match action {
                TaskAction::Delete => self.delete_container(rep, guid),
                TaskAction::Run => self.run_container(rep, guid),
                TaskAction::Stop => self.stop_container(rep, guid),
                TaskAction::Nothing
                | TaskAction::Reserve
                | TaskAction::ReportRunning
                | TaskAction::Complete
                | TaskAction::FailMissing
                | TaskAction::Reject => Took::Nothing,
            };
        };
        let said = match action {
            TaskAction::Nothing => return Took::Nothing,
            TaskAction::Delete => return self.delete_container(rep, guid),
            TaskAction::Run => return self.run_container(rep, guid),
            TaskAction::Stop => {
                if let Some(container) = self.reps[rep].containers.get_mut(guid) {
                    container.cancelled = task.record.cancelled;
                }
                return self.stop_container(rep, guid);
            }
            TaskAction::Reserve if refuses => {
                facts.refusal = "no room".into();
                TaskAction::Reject
            }
            TaskAction::Reserve => {
                let container = Container {
                    work: work.clone(),
                    process: work.1.name.clone(),
                    index: 0,
                    uid: task.record.version.uid.clone(),
                    owner: None,
                    strict: false,
                    retired: false,
                    state: ContainerState::Reserved,
                    cancelled: false,
                    outcome: None,
                };
                self.reps[rep].containers.insert(guid.to_owned(), container);
                return Took::Local;
            }
            TaskAction::ReportRunning
                if self.breaks(Mutation::RunTaskFirst) && state == ContainerState::Reserved =>
            {
                return self.run_container(rep, guid);
            }
            TaskAction::Reject
            | TaskAction::ReportRunning
            | TaskAction::Complete
            | TaskAction::FailMissing => action,
        };
        let Some((_, verb)) = said::task(said, instance, facts) else {
            return Took::Nothing;
        };
        if epoch.is_none() {
            return Took::Nothing;
        }
        let (status, generation) = (&task.record.status, task.record.version.generation);
        match transition::apply(status, &verb, generation, at(self.now)) {
            Ok(next) => {
                self.coverage.add(task_verb_name(&verb), 1);
                self.write(rep, work, guid, Status::Task(Box::new(next)))
            }
            Err(refusal) => {
                // Whatever the table asks for, the guard allows: else the pair would never settle.
                self.violated(format!("L1: {} may not be written: {refusal}", work.1));
                Took::Nothing
            }
        }
    }
}

pub fn task_verb_name(verb: &Verb) -> &'static str {
    match verb {
        Verb::Start { .. } => "task starts",
        Verb::Complete { .. } => "task completions",
        Verb::Reject { .. } => "task rejections",
        Verb::Place { .. }
        | Verb::Fail { .. }
        | Verb::Resolve
        | Verb::Demote
        | Verb::Settle { .. } => "verbs of the controller",
    }
}
