//! The ActualLRPs and Tasks of the simulated API server.

use std::rc::Rc;
use std::sync::Arc;

use diego_operator::api::{ActualLRP, ActualLRPSpec, ActualLRPStatus, Task, TaskSpec, TaskStatus};
use diego_operator::converge::demand::Demand;
use diego_operator::converge::world::{Key, Lrp, TaskRecord};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::SignedDuration;

use crate::at;
use crate::schema::{valid_lrp, valid_task};
use crate::store::{Answer, Bound, Object, Refused, Store, StoredLrp, StoredTask, Writer};

/// A finished Task is kept so long, in seconds.
const KEEP: i64 = 10;

impl Store {
    pub fn create_lrp(
        &mut self,
        writer: Writer,
        desired: &Key,
        owner: &str,
        index: i32,
    ) -> Answer<Rc<StoredLrp>> {
        let key = desired.instance(index);
        if self.lrps.contains_key(&key) {
            return Err(Refused::AlreadyExists);
        }
        let record = Lrp {
            version: self.new_version("a"),
            process: desired.name.clone(),
            index,
            owner: Some(owner.to_owned()),
            status: ActualLRPStatus::default(),
        };
        Ok(self.put_lrp(writer, key, record))
    }

    pub fn put_lrp(&mut self, writer: Writer, key: Key, record: Lrp) -> Rc<StoredLrp> {
        let metadata = ObjectMeta {
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()),
            uid: Some(record.version.uid.clone()),
            resource_version: Some(record.version.revision.to_string()),
            owner_references: record.owner.as_ref().map(|owner| {
                vec![OwnerReference {
                    uid: owner.clone(),
                    controller: Some(true),
                    ..OwnerReference::default()
                }]
            }),
            ..ObjectMeta::default()
        };
        let object = ActualLRP {
            metadata,
            spec: ActualLRPSpec {
                desired_lrp_name: record.process.clone(),
                index: record.index,
                domain: None,
            },
            status: Some(record.status.clone()),
        };
        let new = Rc::new(StoredLrp {
            key: key.clone(),
            record,
            object,
        });
        let old = self.lrps.insert(key, new.clone());
        self.changed(writer, old.map(Object::Lrp), Some(Object::Lrp(new.clone())));
        new
    }

    pub fn write_lrp_status(
        &mut self,
        writer: Writer,
        key: &Key,
        bound: Bound<'_>,
        status: ActualLRPStatus,
    ) -> Answer<Rc<StoredLrp>> {
        let lrp = self.lrps.get(key).cloned().ok_or(Refused::NotFound)?;
        self.bound(&lrp.record.version, bound)?;
        valid_lrp(&status)?;
        if status == lrp.record.status {
            return Ok(lrp);
        }
        let mut record = lrp.record.clone();
        record.status = status;
        record.version.revision = self.next();
        Ok(self.put_lrp(writer, key.clone(), record))
    }

    pub fn delete_lrp(&mut self, key: &Key, bound: Bound<'_>) -> Answer<()> {
        let lrp = self.lrps.get(key).cloned().ok_or(Refused::NotFound)?;
        self.bound(&lrp.record.version, bound)?;
        self.remove_lrp(Writer::Controller, key);
        Ok(())
    }

    pub fn remove_lrp(&mut self, writer: Writer, key: &Key) {
        if let Some(old) = self.lrps.remove(key) {
            self.next();
            self.changed(writer, Some(Object::Lrp(old)), None);
        }
    }

    // Tasks

    pub fn create_task(&mut self, key: &Key, now: i64) {
        if self.tasks.contains_key(key) {
            return;
        }
        let record = TaskRecord {
            version: self.new_version("t"),
            created: at(now),
            cancelled: false,
            callback: None,
            seen_finished: None,
            keep: Some(SignedDuration::from_secs(KEEP)),
            demand: Ok(Arc::new(Demand::default())),
            status: TaskStatus::default(),
        };
        self.put_task(Writer::User, key.clone(), record);
    }

    pub fn put_task(&mut self, writer: Writer, key: Key, record: TaskRecord) -> Rc<StoredTask> {
        let metadata = ObjectMeta {
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()),
            uid: Some(record.version.uid.clone()),
            resource_version: Some(record.version.revision.to_string()),
            ..ObjectMeta::default()
        };
        let object = Task {
            metadata,
            spec: TaskSpec {
                cancelled: record.cancelled.then_some(true),
                ..TaskSpec::default()
            },
            status: Some(record.status.clone()),
        };
        let new = Rc::new(StoredTask {
            key: key.clone(),
            record,
            object,
        });
        let old = self.tasks.insert(key, new.clone());
        self.changed(
            writer,
            old.map(Object::Task),
            Some(Object::Task(new.clone())),
        );
        new
    }

    pub fn cancel_task(&mut self, key: &Key) {
        if let Some(task) = self.tasks.get(key) {
            let mut record = task.record.clone();
            record.cancelled = true;
            record.version.generation += 1;
            record.version.revision = self.next();
            self.put_task(Writer::User, key.clone(), record);
        }
    }

    pub fn write_task_status(
        &mut self,
        writer: Writer,
        key: &Key,
        bound: Bound<'_>,
        status: TaskStatus,
    ) -> Answer<Rc<StoredTask>> {
        let task = self.tasks.get(key).cloned().ok_or(Refused::NotFound)?;
        self.bound(&task.record.version, bound)?;
        valid_task(&task.record.status, &status)?;
        if status == task.record.status {
            return Ok(task);
        }
        let mut record = task.record.clone();
        record.status = status;
        record.version.revision = self.next();
        Ok(self.put_task(writer, key.clone(), record))
    }

    pub fn delete_task(
        &mut self,
        writer: Writer,
        key: &Key,
        bound: Option<Bound<'_>>,
    ) -> Answer<()> {
        let task = self.tasks.get(key).cloned().ok_or(Refused::NotFound)?;
        if let Some(bound) = bound {
            self.bound(&task.record.version, bound)?;
        }
        self.tasks.remove(key);
        self.next();
        self.changed(writer, Some(Object::Task(task)), None);
        Ok(())
    }
}
