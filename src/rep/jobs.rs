//! Calls to the API server on behalf of one record, one at a time, and what their answers mean.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::actor::{Actor, Meanwhile, Message};
use super::container::{Container, Phase};
use super::ports::Ports;
use super::records::{Key, Record, differ, owner_of};
use super::store::{Reading, Slot};
use super::workdir::is_safe_guid;
use crate::api::template::{self, Resources};
use crate::api::{DesiredLRP, MissingCellPolicy, RawTemplate, Task};
use crate::client::CallError;
use crate::converge::harmony::LrpAction;
use crate::converge::process_spec::ProcessSpec;

/// What a Task fails with that is recorded as running here and does not.
pub(super) const MISSING: &str = "task container does not exist";

/// The first pause before a record is tried again; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A call.
#[derive(Debug, Clone)]
pub(super) enum Job {
    /// Read the record.
    Read,
    /// Read the DesiredLRP, to set room aside for an instance of it.
    Reserve {
        /// The instance.
        guid: String,
        /// The DesiredLRP's name.
        desired_lrp: String,
    },
    /// Make the record again.
    Create(Slot),
    /// Write the record's status.
    Write {
        /// The instance it is about.
        guid: String,
        /// What is then done, for the log.
        done: &'static str,
        /// The patch.
        body: Value,
    },
}

/// An answer.
#[derive(Debug)]
pub(super) enum Answer {
    Read(Result<Reading, CallError>),
    Desired(Result<Option<Box<DesiredLRP>>, CallError>),
    Created(Result<bool, CallError>),
    Written(Result<Record, CallError>),
}

impl Actor {
    /// Reads a record, and settles it on what was read.
    pub(super) fn read(&mut self, key: &Key) {
        self.spawn(key, Job::Read);
    }

    /// Makes a call for a record that has none under way.
    pub(super) fn spawn(&mut self, key: &Key, job: Job) {
        if let Some(meanwhile) = self.busy.get_mut(key) {
            *meanwhile = Meanwhile::Doubted;
            return;
        }
        self.busy.insert(key.clone(), Meanwhile::Nothing);
        let slot = self
            .containers
            .values()
            .find(|container| container.key == *key)
            .and_then(Container::slot);
        let owner = match self.records.get(key) {
            Some(Record::Lrp(lrp)) => owner_of(lrp).map(ToOwned::to_owned),
            Some(Record::Task(_)) | None => None,
        };
        let (store, outbox, key) = (self.setup.store.clone(), self.outbox.clone(), key.clone());
        tokio::spawn(async move {
            let _turn = store.turn().await;
            let answer = match &job {
                Job::Read => Answer::Read(store.read(&key, slot).await),
                Job::Reserve {
                    guid: _,
                    desired_lrp,
                } => Answer::Desired(
                    store
                        .desired_of(&key.namespace, desired_lrp, owner.as_deref())
                        .await
                        .map(|found| found.map(Box::new)),
                ),
                Job::Create(slot) => Answer::Created(store.create(&key, slot).await),
                Job::Write {
                    guid: _,
                    done: _,
                    body,
                } => Answer::Written(store.write(&key, body.clone()).await),
            };
            // The actor is gone only when the rep ends.
            let _ = outbox.send(Message::Answered(Box::new((key, job, answer))));
        });
    }

    pub(super) fn answered(&mut self, key: Key, job: Job, answer: Answer) {
        let meanwhile = self.busy.remove(&key).unwrap_or(Meanwhile::Nothing);
        match answer {
            Answer::Read(Ok(Reading { record, wanted_by })) => {
                self.failures.remove(&key);
                self.retire(&key, record.as_ref(), meanwhile);
                // What was read now holds even where its version is smaller: the store may have been restored.
                match record {
                    Some(record) => self.records.insert(key.clone(), record),
                    None => self.records.remove(&key),
                };
                self.settle_with(&key, true, wanted_by.as_deref());
            }
            Answer::Written(Ok(record)) => {
                self.failures.remove(&key);
                self.tell(&key, &job);
                // The record may have been made anew since room was set aside.
                if let Job::Write { guid, .. } = &job
                    && let Some(container) = self.containers.get_mut(guid)
                {
                    container.uid = record.uid().map(ToOwned::to_owned);
                }
                self.remember(record);
                self.settle(&key, false);
            }
            Answer::Created(Ok(made)) => {
                if made {
                    tracing::warn!(cell = self.setup.cell, record = %key, "was gone and is wanted: made again");
                }
                self.read(&key);
            }
            Answer::Desired(Ok(desired)) => self.reserve(&key, &job, desired),
            // Somebody wrote in between, or the record is gone: decide again on what is there now.
            Answer::Written(Err(error)) if error.is_conflict() || error.is_not_found() => {
                tracing::debug!(%key, %error, "the record has changed meanwhile");
                self.read(&key);
            }
            Answer::Read(Err(error))
            | Answer::Desired(Err(error))
            | Answer::Created(Err(error))
            | Answer::Written(Err(error)) => self.try_again(&key, &error),
        }
        match meanwhile {
            Meanwhile::Nothing => {}
            Meanwhile::Changed => self.settle(&key, false),
            Meanwhile::Doubted => self.read(&key),
        }
    }

    /// A record that left the watch and is not there, or only under another uid, was deleted: that asks for a fresh
    /// instance. One that is merely not listed any more may be a loss of the store, and its instance goes on.
    fn retire(&mut self, key: &Key, found: Option<&Record>, meanwhile: Meanwhile) {
        let Some(uid) = self.left.get(key).cloned() else {
            return;
        };
        if found.and_then(Record::uid) == Some(&uid) {
            // It only left for another Cell; unless this was read before it left, and says nothing.
            if meanwhile != Meanwhile::Doubted {
                self.left.remove(key);
            }
            return;
        }
        self.left.remove(key);
        for (guid, container) in &mut self.containers {
            if container.key == *key && container.uid.as_deref() == Some(&uid) {
                container.retired = true;
                tracing::info!(cell = self.setup.cell, record = %key, instance = guid, "the record was deleted");
            }
        }
    }

    fn tell(&self, key: &Key, job: &Job) {
        if let Job::Write { guid, done, body } = job {
            let status = &body["status"];
            let reason = [
                "crashReason",
                "failureReason",
                "placementError",
                "rejectionReason",
            ]
            .iter()
            .find_map(|field| status[*field].as_str());
            tracing::info!(cell = self.setup.cell, record = %key, instance = guid, reason, "{done}");
        }
    }

    /// Waits before the record is read and decided on again; only the first failure in a row is told.
    fn try_again(&mut self, key: &Key, error: &CallError) {
        let failures = self.failures.entry(key.clone()).or_insert(0);
        *failures = failures.saturating_add(1);
        if *failures == 1 {
            tracing::warn!(cell = self.setup.cell, record = %key, %error, "the API server did not do it; trying again");
        } else {
            tracing::debug!(record = %key, %error, failures, "still not done");
        }
        let pause = FIRST_PAUSE
            .saturating_mul(1 << (*failures - 1).min(10))
            .min(LONGEST_PAUSE);
        self.busy.insert(key.clone(), Meanwhile::Nothing);
        let (outbox, key) = (self.outbox.clone(), key.clone());
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let _ = outbox.send(Message::Retry(key));
        });
    }

    /// Sets room aside for an instance of a DesiredLRP, or refuses the placement.
    fn reserve(&mut self, key: &Key, job: &Job, desired: Option<Box<DesiredLRP>>) {
        let Job::Reserve { guid, desired_lrp } = job else {
            return;
        };
        let Some(Record::Lrp(lrp)) = self.records.get(key) else {
            return;
        };
        let (index, owner) = (lrp.spec.index, owner_of(lrp).map(ToOwned::to_owned));
        let record_uid = lrp.metadata.uid.clone();
        let status = lrp.status.clone().unwrap_or_default();
        // The answer may be late: what it was asked for must still be wanted.
        let mine = lrp.status.as_ref().is_some_and(|status| {
            status.cell_name.as_deref() == Some(&self.setup.cell)
                && status.instance_guid.as_deref() == Some(guid)
        });
        if !mine || self.containers.contains_key(guid) {
            return self.settle(key, false);
        }
        let uid = desired
            .as_ref()
            .and_then(|desired| desired.metadata.uid.clone());
        if differ(owner.as_deref(), uid.as_deref()) {
            tracing::debug!(%key, "belongs to a DesiredLRP that is gone; the garbage collector takes it");
            return;
        }
        let room = match &desired {
            None => Err(format!("DesiredLRP {desired_lrp} does not exist")),
            Some(desired) => self
                .can_fence(desired.spec.missing_cell_policy)
                .and_then(|()| room(&desired.spec.template, guid)),
        };
        match (room, desired) {
            (Ok(room), Some(desired)) => {
                let seconds = u64::try_from(desired.spec.start_timeout_seconds).unwrap_or(0);
                let start_timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
                let container = Container {
                    index: Some(index),
                    uid: record_uid,
                    owner: uid,
                    strict: desired.spec.missing_cell_policy == MissingCellPolicy::Strict,
                    start_timeout,
                    ..container(key, desired_lrp, room)
                };
                self.containers.insert(guid.clone(), container);
                self.settle(key, false);
            }
            (Err(reason), _) => {
                if self.epoch().is_some() {
                    self.lrp_write(key, guid, LrpAction::Refuse, &status, &reason);
                }
            }
            (Ok(_), None) => {}
        }
    }

    /// Sets room aside for a Task.
    ///
    /// # Errors
    /// Why it can't run here.
    pub(super) fn reserve_task(
        &mut self,
        key: &Key,
        guid: &str,
        task: &Task,
    ) -> Result<(), String> {
        let room = room(&task.spec.template, guid)?;
        let container = Container {
            uid: task.metadata.uid.clone(),
            result_file: task.spec.result_file.clone(),
            ..container(key, &key.name, room)
        };
        self.containers.insert(guid.to_owned(), container);
        Ok(())
    }
}

/// What is set aside.
struct Room {
    spec: ProcessSpec,
    resources: Resources,
    ports: Ports,
}

fn room(template: &RawTemplate, guid: &str) -> Result<Room, String> {
    if !is_safe_guid(guid) {
        return Err(format!("the instance guid {guid:?} can't name a directory"));
    }
    let template = template.parse().map_err(|error| error.to_string())?;
    let spec = ProcessSpec::from_template(&template).map_err(|error| error.to_string())?;
    let resources = template::resources(&template).map_err(|error| error.to_string())?;
    let ports = Ports::allocate(&spec.ports).map_err(|error| error.to_string())?;
    Ok(Room {
        spec,
        resources,
        ports,
    })
}

/// A container as a Task's is: with neither slot nor readiness.
fn container(key: &Key, process: &str, room: Room) -> Container {
    let Room {
        spec,
        resources,
        ports,
    } = room;
    Container {
        key: key.clone(),
        process: process.to_owned(),
        index: None,
        uid: None,
        retired: false,
        owner: None,
        spec,
        resources,
        ports: Arc::new(ports),
        strict: false,
        start_timeout: None,
        result_file: None,
        dir: None,
        phase: Phase::Reserved,
        stop_reason: None,
        outcome: None,
    }
}
