//! The steps about Tasks.

use k8s_openapi::jiff::Timestamp;

use super::{DRAINING, Took};
use crate::api::Task;
use crate::converge::harmony::said::{self, TaskFacts};
use crate::converge::harmony::{self, TaskAction};
use crate::converge::task::CANCELLED;
use crate::converge::task::transition;
use crate::patch;
use crate::rep::actor::Actor;
use crate::rep::jobs::MISSING;
use crate::rep::metrics::StopReason;
use crate::rep::records::{Key, Record, task_view};

impl Actor {
    pub(super) fn task_step(&mut self, key: &Key, guid: &str, live: bool) -> Took {
        let record = match self.records.get(key) {
            Some(Record::Task(task)) => Some(task.as_ref().clone()),
            Some(Record::Lrp(_)) | None => None,
        };
        let container = self.containers.get(guid);
        let uid = container.and_then(|container| container.uid.as_deref());
        let view = task_view(record.as_ref(), uid, &self.setup.cell, guid);
        let state = self.state(guid);
        let action = harmony::task(view, state, self.mode);
        if harmony::wants_live_read(state, action == TaskAction::Stop) && !live {
            return self.read_first(key);
        }
        match action {
            TaskAction::Nothing => Took::Nothing,
            TaskAction::Delete => self.delete(guid),
            TaskAction::Run => self.run_container(guid),
            TaskAction::Stop => self.stop_task(guid, record.as_ref()),
            TaskAction::Reserve
            | TaskAction::Reject
            | TaskAction::ReportRunning
            | TaskAction::Complete
            | TaskAction::FailMissing => match record {
                Some(task) => self.task_write(key, guid, action, &task),
                // Without a record none of these steps comes out of the table.
                None => Took::Nothing,
            },
        }
    }

    fn stop_task(&mut self, guid: &str, record: Option<&Task>) -> Took {
        let cancelled = record.is_some_and(is_cancelled);
        if !cancelled {
            return self.stop_container(guid, StopReason::NotAssigned);
        }
        if let Some(container) = self.containers.get_mut(guid) {
            container.stop_reason = Some(CANCELLED);
        }
        self.stop_container(guid, StopReason::Cancelled)
    }

    /// Writes the record's next status, if the transition guard allows it. Room is set aside without a write, unless
    /// there is none.
    fn task_write(&mut self, key: &Key, guid: &str, action: TaskAction, task: &Task) -> Took {
        let Some(instance) = self.instance(guid) else {
            return Took::Nothing;
        };
        let cancelled = is_cancelled(task);
        let container = self.containers.get(guid);
        let mut facts = TaskFacts {
            outcome: container.and_then(|container| container.outcome.clone()),
            missing: if cancelled { CANCELLED } else { MISSING }.into(),
            refusal: DRAINING.into(),
        };
        let action = match action {
            TaskAction::Reserve => match self.reserve_task(key, guid, task) {
                Ok(()) => return Took::Local,
                Err(reason) => {
                    facts.refusal = reason;
                    TaskAction::Reject
                }
            },
            other => other,
        };
        let Some((done, verb)) = said::task(action, instance, facts) else {
            return Took::Nothing;
        };
        let status = task.status.clone().unwrap_or_default();
        let generation = task.metadata.generation.unwrap_or_default();
        match transition::apply(&status, &verb, generation, Timestamp::now()) {
            Ok(next) => self.write(key, guid, done, patch::between(&status, &next)),
            Err(refusal) => self.not_written(key, guid, &refusal),
        }
    }
}

fn is_cancelled(task: &Task) -> bool {
    task.spec.cancelled == Some(true)
}
