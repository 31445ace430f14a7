//! One record against one container: looks the pair up in the harmonisation table and takes the step it says.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;

use super::actor::{Actor, Meanwhile, Message};
use super::container::{Container, Phase};
use super::environ::Who;
use super::jobs::{Job, MISSING};
use super::metrics::StopReason;
use super::outcome::{End, Outcome};
use super::patches;
use super::process::{self, Launch};
use super::records::{Instance, Key, Kind, Record, lrp_view, task_view};
use crate::api::{ActualLRPStatus, Task};
use crate::converge::harmony::{self, ContainerState, LrpAction, Mode, TaskAction};

/// What a step did.
enum Took {
    /// Nothing: look at the next instance.
    Nothing,
    /// Something here changed: look again from the start.
    Local,
    /// A call is under way: its answer settles on.
    Call,
}

/// Why a placement can't be taken by a rep that shuts down.
const DRAINING: &str = "the Cell is shutting down";

impl Actor {
    /// Brings a record and what runs here of it together, as far as that goes without an answer from elsewhere.
    /// `live` is whether the record was read just now.
    pub(super) fn settle(&mut self, key: &Key, live: bool) {
        self.settle_with(key, live, None);
    }

    /// As [`Actor::settle`]; `wanted_by` is the uid of the DesiredLRP that wants a missing record.
    pub(super) fn settle_with(&mut self, key: &Key, live: bool, wanted_by: Option<&str>) {
        if let Some(meanwhile) = self.busy.get_mut(key) {
            *meanwhile = Meanwhile::Changed.max(*meanwhile);
            return;
        }
        'again: loop {
            for guid in self.guids(key) {
                if self.is_of_an_earlier_life(key, &guid) {
                    continue;
                }
                let took = match key.kind {
                    Kind::Lrp => self.lrp_step(key, &guid, live, wanted_by),
                    Kind::Task => self.task_step(key, &guid, live),
                };
                match took {
                    Took::Nothing => {}
                    Took::Local => continue 'again,
                    Took::Call => return,
                }
            }
            break;
        }
        let held = self
            .containers
            .values()
            .any(|container| container.key == *key);
        let named = self
            .records
            .get(key)
            .is_some_and(|record| !record.guids_on(&self.setup.cell).is_empty());
        if !held && !named {
            self.records.remove(key);
            self.failures.remove(key);
        }
    }

    /// Whether an instance was recorded here before this rep began and died then. That is the controller's to
    /// settle: it starts it anew on this Cell, while a rep that gave it back would have it auctioned away.
    fn is_of_an_earlier_life(&self, key: &Key, guid: &str) -> bool {
        let recorded = self
            .records
            .get(key)
            .and_then(|record| record.epoch_of(guid));
        !self.containers.contains_key(guid)
            && recorded.is_some_and(|epoch| epoch < self.setup.first_epoch)
    }

    /// The guids to look at: those that run here, and those that the record has here.
    fn guids(&self, key: &Key) -> BTreeSet<String> {
        let here = self
            .containers
            .iter()
            .filter(|(_, container)| container.key == *key);
        let named = self
            .records
            .get(key)
            .map(|record| record.guids_on(&self.setup.cell));
        here.map(|(guid, _)| guid.clone())
            .chain(named.into_iter().flatten())
            .collect()
    }

    fn lrp_step(&mut self, key: &Key, guid: &str, live: bool, wanted_by: Option<&str>) -> Took {
        let record = match self.records.get(key) {
            Some(Record::Lrp(lrp)) => Some(lrp.as_ref()),
            Some(Record::Task(_)) | None => None,
        };
        let container = self.containers.get(guid);
        let instance = Instance {
            cell: &self.setup.cell,
            guid,
            owner: container.and_then(|container| container.owner.as_deref()),
        };
        let view = lrp_view(record, wanted_by, instance);
        let status = record
            .and_then(|lrp| lrp.status.clone())
            .unwrap_or_default();
        let desired_lrp = record.map(|lrp| lrp.spec.desired_lrp_name.clone());
        let state = self.state(guid);
        let action = harmony::lrp(view, state, self.mode);
        let act = matches!(action, LrpAction::Stop | LrpAction::CreateRecord);
        if harmony::wants_live_read(state, act) && !live {
            return self.read_first(key);
        }
        match action {
            LrpAction::Nothing => Took::Nothing,
            LrpAction::Reserve => match desired_lrp {
                Some(desired_lrp) => self.call(
                    key,
                    Job::Reserve {
                        guid: guid.into(),
                        desired_lrp,
                    },
                ),
                None => Took::Nothing,
            },
            LrpAction::Run => self.run_container(guid),
            LrpAction::Stop => self.stop_container(guid, StopReason::NotAssigned),
            LrpAction::Delete => self.delete(guid),
            LrpAction::CreateRecord => match self.containers.get(guid).and_then(Container::slot) {
                Some(slot) => self.call(key, Job::Create(slot)),
                None => Took::Nothing,
            },
            LrpAction::Claim
            | LrpAction::ReportRunning
            | LrpAction::ReportCrash
            | LrpAction::Unclaim
            | LrpAction::Refuse
            | LrpAction::DropSuspect
            | LrpAction::DropEvacuating => self.lrp_write(key, guid, action, &status),
        }
    }

    fn lrp_write(
        &mut self,
        key: &Key,
        guid: &str,
        action: LrpAction,
        status: &ActualLRPStatus,
    ) -> Took {
        let Some(stamp) = self.stamp() else {
            return Took::Nothing;
        };
        let container = self.containers.get(guid);
        let (done, patch) = match action {
            LrpAction::Claim => ("claimed", patches::claim(&stamp)),
            LrpAction::ReportRunning => {
                let ports = container
                    .map(|container| container.ports.mappings.clone())
                    .unwrap_or_default();
                (
                    "running",
                    patches::running(&stamp, guid, &self.setup.address, &ports),
                )
            }
            LrpAction::ReportCrash => {
                let reason = container.map(Container::end_reason).unwrap_or_default();
                (
                    "reported as crashed",
                    patches::crashed(&stamp, status, &reason),
                )
            }
            LrpAction::Unclaim => ("given back to be placed again", patches::unclaim(&stamp)),
            LrpAction::Refuse => ("refused", patches::refuse(&stamp, status, DRAINING)),
            LrpAction::DropSuspect => ("dropped as suspect", patches::drop_suspect()),
            LrpAction::DropEvacuating => ("dropped as evacuating", patches::drop_evacuating()),
            LrpAction::Nothing
            | LrpAction::Reserve
            | LrpAction::Run
            | LrpAction::Stop
            | LrpAction::Delete
            | LrpAction::CreateRecord => return Took::Nothing,
        };
        self.write(key, guid, done, patch)
    }

    fn task_step(&mut self, key: &Key, guid: &str, live: bool) -> Took {
        let record = match self.records.get(key) {
            Some(Record::Task(task)) => Some(task.as_ref().clone()),
            Some(Record::Lrp(_)) | None => None,
        };
        let view = task_view(record.as_ref(), &self.setup.cell, guid);
        let state = self.state(guid);
        let action = harmony::task(view, state, self.mode);
        if harmony::wants_live_read(state, action == TaskAction::Stop) && !live {
            return self.read_first(key);
        }
        let cancelled = record
            .as_ref()
            .is_some_and(|task| task.spec.cancelled == Some(true));
        match (action, record) {
            (TaskAction::Nothing, _) => Took::Nothing,
            (TaskAction::Delete, _) => self.delete(guid),
            (TaskAction::Run, _) => self.run_container(guid),
            (TaskAction::Stop, _) => {
                let reason = if cancelled {
                    StopReason::Cancelled
                } else {
                    StopReason::NotAssigned
                };
                if let Some(container) = self.containers.get_mut(guid).filter(|_| cancelled) {
                    container.stop_reason = Some(crate::converge::task::CANCELLED);
                }
                self.stop_container(guid, reason)
            }
            (TaskAction::Reserve, Some(task)) => match self.reserve_task(key, guid, &task) {
                Ok(()) => Took::Local,
                Err(reason) => self.reject(key, guid, &task, &reason),
            },
            (TaskAction::Reject, Some(task)) => self.reject(key, guid, &task, DRAINING),
            (TaskAction::ReportRunning, Some(task)) => match self.stamp() {
                Some(stamp) => self.write(
                    key,
                    guid,
                    "running",
                    patches::task_running(&stamp, &task, guid),
                ),
                None => Took::Nothing,
            },
            (TaskAction::Complete, Some(task)) => {
                let outcome = self
                    .containers
                    .get(guid)
                    .and_then(|container| container.outcome.clone());
                self.complete(key, guid, &task, outcome)
            }
            (TaskAction::FailMissing, Some(task)) => {
                let reason = if cancelled {
                    crate::converge::task::CANCELLED
                } else {
                    MISSING
                };
                self.complete(key, guid, &task, Some(Outcome::Failed(reason.into())))
            }
            // Without a record none of these steps comes out of the table.
            (
                TaskAction::Reserve
                | TaskAction::Reject
                | TaskAction::ReportRunning
                | TaskAction::Complete
                | TaskAction::FailMissing,
                None,
            ) => Took::Nothing,
        }
    }

    fn reject(&mut self, key: &Key, guid: &str, task: &Task, reason: &str) -> Took {
        match self.stamp() {
            Some(stamp) => self.write(
                key,
                guid,
                "rejected",
                patches::task_rejected(&stamp, task, reason),
            ),
            None => Took::Nothing,
        }
    }

    fn complete(&mut self, key: &Key, guid: &str, task: &Task, outcome: Option<Outcome>) -> Took {
        let outcome = outcome.unwrap_or_else(|| Outcome::Failed(MISSING.into()));
        match self.stamp() {
            Some(stamp) => self.write(
                key,
                guid,
                "completed",
                patches::task_completed(&stamp, task, &outcome),
            ),
            None => Took::Nothing,
        }
    }

    fn state(&self, guid: &str) -> ContainerState {
        self.containers
            .get(guid)
            .map_or(ContainerState::None, Container::state)
    }

    /// Starts the process of a container for which room is set aside. Not without a presence: somebody else may
    /// have been told to run it by then.
    fn run_container(&mut self, guid: &str) -> Took {
        if self.epoch().is_none() {
            return Took::Nothing;
        }
        let Some(container) = self.containers.get_mut(guid) else {
            return Took::Nothing;
        };
        let (process, index) = (container.process.clone(), container.index);
        match self.setup.work_dir.create(guid) {
            Ok(dir) => {
                container.dir = Some(dir.clone());
                let who = Who {
                    cell_id: self.setup.cell.clone(),
                    address: self.setup.address.clone(),
                    process: process.clone(),
                    index,
                    guid: guid.into(),
                };
                let launch = Launch {
                    who,
                    spec: container.spec.clone(),
                    ports: container.ports.clone(),
                    dir,
                    start_timeout: container.start_timeout,
                    probe: container.key.kind == Kind::Lrp,
                };
                let (outbox, name) = (self.outbox.clone(), guid.to_owned());
                let handle = process::start(self.setup.supervisor.clone(), launch, move |event| {
                    let _ = outbox.send(Message::Process(name.clone(), event));
                });
                container.phase = Phase::Starting(handle);
                tracing::info!(process, index, instance = guid, "starting");
            }
            Err(error) => {
                tracing::error!(process, index, instance = guid, %error, "the instance's directory can't be made");
                container.ended(End::StartFailed(error.to_string()));
            }
        }
        Took::Local
    }

    fn stop_container(&mut self, guid: &str, reason: StopReason) -> Took {
        let draining = self.mode == Mode::Draining && reason == StopReason::NotAssigned;
        let reason = if draining {
            StopReason::Evacuation
        } else {
            reason
        };
        let Some(container) = self.containers.get_mut(guid) else {
            return Took::Nothing;
        };
        if container.stop() {
            self.setup.metrics.stopped(reason);
            let (process, index) = (&container.process, container.index);
            tracing::info!(
                process,
                index,
                instance = guid,
                reason = reason.as_str(),
                "stopping"
            );
        }
        Took::Local
    }

    /// Forgets a container that runs no process. Its directory goes, its logs stay for a while.
    fn delete(&mut self, guid: &str) -> Took {
        let Some(container) = self.containers.remove(guid) else {
            return Took::Nothing;
        };
        let name = match container.index {
            Some(index) => format!("{}-{index}-{guid}", container.process),
            None => format!("{}-{guid}", container.process),
        };
        if let Some(dir) = container.dir {
            let work_dir = self.setup.work_dir.clone();
            tokio::task::spawn_blocking(move || {
                if let Err(error) = work_dir.archive(&dir, &name, Timestamp::now()) {
                    tracing::warn!(%error, name, "the directory of an ended instance can't be cleared");
                }
            });
        }
        Took::Local
    }

    /// A write, once its answer is there, settles on.
    fn write(
        &mut self,
        key: &Key,
        guid: &str,
        done: &'static str,
        status: serde_json::Value,
    ) -> Took {
        let version = self
            .records
            .get(key)
            .and_then(|record| record.version().map(ToOwned::to_owned));
        let body = patches::bound(version.as_deref(), status);
        self.call(
            key,
            Job::Write {
                guid: guid.into(),
                done,
                body,
            },
        )
    }

    fn call(&mut self, key: &Key, job: Job) -> Took {
        if self.epoch().is_none() {
            // Without a presence this Cell takes nothing on and tells nothing; what runs goes on.
            return Took::Nothing;
        }
        self.spawn(key, job);
        Took::Call
    }

    fn read_first(&mut self, key: &Key) -> Took {
        self.read(key);
        Took::Call
    }
}
