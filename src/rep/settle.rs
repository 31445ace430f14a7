//! One record against one container: looks the pair up in the harmonisation table and takes the step it says.

mod lrps;
mod tasks;

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;

use super::actor::{Actor, Meanwhile, Message};
use super::container::{Container, Phase};
use super::environ::Who;
use super::fence::Deadlines;
use super::jobs::Job;
use super::metrics::StopReason;
use super::outcome::End;
use super::process::{self, Launch};
use super::records::{Key, Kind, Record};
use crate::converge::harmony::{ContainerState, Mode};
use crate::converge::lrp::transition::Instance;
use crate::patch;

/// What a step did.
pub(super) enum Took {
    /// Nothing: look at the next instance.
    Nothing,
    /// Something here changed: look again from the start.
    Local,
    /// A call is under way: its answer settles on.
    Call,
}

/// Why a placement can't be taken by a rep that shuts down.
const DRAINING: &str = "the Cell is being evacuated";

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

    fn state(&self, guid: &str) -> ContainerState {
        self.containers
            .get(guid)
            .map_or(ContainerState::None, Container::state)
    }

    /// Starts the process of a container for which room is set aside. Not without a presence: somebody else may
    /// have been told to run it by then.
    pub(super) fn run_container(&mut self, guid: &str) -> Took {
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
                    namespace: container.key.namespace.clone(),
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
                    fence: container
                        .strict
                        .then(|| Deadlines::new(self.keeping.clone())),
                    hold: self.setup.hold.clone(),
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

    pub(super) fn stop_container(&mut self, guid: &str, reason: StopReason) -> Took {
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
    pub(super) fn delete(&mut self, guid: &str) -> Took {
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
    pub(super) fn write(
        &mut self,
        key: &Key,
        guid: &str,
        done: &'static str,
        status: serde_json::Value,
    ) -> Took {
        let record = self.records.get(key);
        let (uid, version) = (
            record.and_then(Record::uid),
            record.and_then(Record::version),
        );
        let body = patch::bound(uid, version, status);
        self.call(
            key,
            Job::Write {
                guid: guid.into(),
                done,
                body,
            },
        )
    }

    pub(super) fn call(&mut self, key: &Key, job: Job) -> Took {
        if self.epoch().is_none() {
            // Without a presence this Cell takes nothing on and tells nothing; what runs goes on.
            return Took::Nothing;
        }
        self.spawn(key, job);
        Took::Call
    }

    pub(super) fn read_first(&mut self, key: &Key) -> Took {
        self.read(key);
        Took::Call
    }

    /// One instance here, as the transition guard wants it named; `None` without a presence, for then nothing is told.
    fn instance(&self, guid: &str) -> Option<Instance> {
        let epoch = self.epoch()?;
        Some(Instance {
            cell: self.setup.cell.clone(),
            epoch,
            guid: guid.to_owned(),
        })
    }

    /// The table asked for a change that may not be: nothing is done until something else changes.
    fn not_written(&self, key: &Key, guid: &str, refusal: &dyn std::fmt::Display) -> Took {
        tracing::warn!(cell = self.setup.cell, record = %key, instance = guid, %refusal, "not written");
        Took::Nothing
    }
}
