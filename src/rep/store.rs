//! The records in the API server: every call the rep makes about its work, each bounded in time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use serde_json::Value;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use super::records::{Key, Kind, Record};
use crate::api::{ActualLRP, ActualLRPSpec, DesiredLRP, LABEL_DESIRED_LRP, LABEL_INDEX, Task};
use crate::client::{CallError, bounded};
use crate::lenient::Lenient;

/// Who wrote a field, in `metadata.managedFields`.
pub const FIELD_MANAGER: &str = "diego-rep";

/// The field selector of this Cell's assignments.
pub fn selector(cell: &str) -> String {
    format!("status.cellName={cell}")
}

/// A record read now, not from a cache.
#[derive(Debug)]
pub struct Reading {
    /// The record, if it is there.
    pub record: Option<Record>,
    /// Where it is not: the uid of the DesiredLRP that wants the index.
    pub wanted_by: Option<String>,
}

/// A slot of a DesiredLRP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The DesiredLRP's name.
    pub desired_lrp: String,
    /// Its uid: another one under the same name has slots of its own.
    pub owner: String,
    /// The index.
    pub index: i32,
}

/// So many calls for records may be under way at once. After a loss many assignments come in one instant; a rep
/// that answered all of them at once would slow down the placing of the rest.
const CALLS_AT_ONCE: usize = 8;

/// So many DesiredLRPs are remembered.
const REMEMBERED: usize = 256;

/// A DesiredLRP that was read is good for so long: instances that come at once make one call, and what was changed, such
/// as its start timeout, holds soon.
const REMEMBERED_FOR: Duration = Duration::from_secs(2);

/// The calls.
#[derive(Clone)]
pub struct Store {
    client: Client,
    permits: Arc<Semaphore>,
    /// DesiredLRPs by uid, and when they were asked for.
    desired: Arc<Mutex<HashMap<String, (Instant, DesiredLRP)>>>,
}

impl Store {
    /// The calls of one client.
    pub fn new(client: Client) -> Self {
        Store {
            client,
            permits: Arc::new(Semaphore::new(CALLS_AT_ONCE)),
            desired: Arc::default(),
        }
    }

    /// Waits for its turn. The semaphore is never closed.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.permits.acquire().await.ok()
    }

    /// The DesiredLRP of that name, as it was read some time before if it is the one with the uid `owner`. Many
    /// instances of one DesiredLRP that come at once make one call.
    ///
    /// # Errors
    /// Anything but that it is not there.
    pub async fn desired_of(
        &self,
        namespace: &str,
        name: &str,
        owner: Option<&str>,
    ) -> Result<Option<DesiredLRP>, CallError> {
        // Held while it is read: those who ask meanwhile find it.
        let mut remembered = self.desired.lock().await;
        if let Some((asked, known)) = owner.and_then(|owner| remembered.get(owner))
            && asked.elapsed() < REMEMBERED_FOR
        {
            return Ok(Some(known.clone()));
        }
        let asked = Instant::now();
        let found = self.desired(namespace, name).await?;
        if let Some(desired) = &found
            && let Some(uid) = &desired.metadata.uid
        {
            if remembered.len() >= REMEMBERED {
                remembered.clear();
            }
            remembered.insert(uid.clone(), (asked, desired.clone()));
        }
        Ok(found)
    }

    fn lrps(&self, namespace: &str) -> Api<ActualLRP> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn tasks(&self, namespace: &str) -> Api<Task> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Reads a record. `slot` is what a missing ActualLRP would fill.
    ///
    /// # Errors
    /// Anything but that it is not there.
    pub async fn read(&self, key: &Key, slot: Option<Slot>) -> Result<Reading, CallError> {
        let record: Option<Record> = match key.kind {
            Kind::Lrp => bounded(self.lrps(&key.namespace).get_opt(&key.name))
                .await?
                .map(Into::into),
            Kind::Task => bounded(self.tasks(&key.namespace).get_opt(&key.name))
                .await?
                .map(Into::into),
        };
        let wanted_by = match (&record, slot) {
            (None, Some(slot)) => self
                .desired(&key.namespace, &slot.desired_lrp)
                .await?
                .filter(|desired| wants(desired, slot.index))
                .map(|desired| desired.metadata.uid.unwrap_or_default()),
            (Some(_), _) | (None, None) => None,
        };
        Ok(Reading { record, wanted_by })
    }

    /// The DesiredLRP of that name.
    ///
    /// # Errors
    /// Anything but that it is not there.
    pub async fn desired(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<DesiredLRP>, CallError> {
        bounded(Api::<DesiredLRP>::namespaced(self.client.clone(), namespace).get_opt(name)).await
    }

    /// All records that are assigned to a Cell and can be read; the watch tells of the others.
    ///
    /// # Errors
    /// When either kind can't be listed: half an answer is none.
    pub async fn assigned(&self, cell: &str) -> Result<Vec<Record>, CallError> {
        let params = ListParams::default().fields(&selector(cell));
        let lrps = Api::<Lenient<ActualLRP>>::all(self.client.clone());
        let tasks = Api::<Lenient<Task>>::all(self.client.clone());
        let (lrps, tasks) = tokio::join!(bounded(lrps.list(&params)), bounded(tasks.list(&params)));
        let lrps = lrps?.items.into_iter().filter_map(Lenient::read);
        let tasks = tasks?.items.into_iter().filter_map(Lenient::read);
        Ok(lrps
            .map(Record::from)
            .chain(tasks.map(Record::from))
            .collect())
    }

    /// Writes the status of a record; `body` is bound to the version it was decided on.
    ///
    /// # Errors
    /// A conflict when somebody wrote since then.
    pub async fn write(&self, key: &Key, body: Value) -> Result<Record, CallError> {
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(body);
        match key.kind {
            Kind::Lrp => bounded(
                self.lrps(&key.namespace)
                    .patch_status(&key.name, &params, &patch),
            )
            .await
            .map(Into::into),
            Kind::Task => bounded(
                self.tasks(&key.namespace)
                    .patch_status(&key.name, &params, &patch),
            )
            .await
            .map(Into::into),
        }
    }

    /// Makes the record of a slot again that its DesiredLRP wants and that is gone. Returns whether it did.
    ///
    /// # Errors
    /// Anything but that it is there, or no longer wanted.
    pub async fn create(&self, key: &Key, slot: &Slot) -> Result<bool, CallError> {
        let Some(desired) = self.desired(&key.namespace, &slot.desired_lrp).await? else {
            return Ok(false);
        };
        // It may have been replaced since it was found to want the index.
        if !has(&desired, slot) {
            return Ok(false);
        }
        let lrp = record_of(&desired, slot.index);
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        match bounded(self.lrps(&key.namespace).create(&params, &lrp)).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Whether a DesiredLRP wants this index.
fn wants(desired: &DesiredLRP, index: i32) -> bool {
    desired.metadata.deletion_timestamp.is_none() && (0..desired.spec.instances).contains(&index)
}

/// Whether a slot is this DesiredLRP's, and not its namesake's before it, and still wanted.
fn has(desired: &DesiredLRP, slot: &Slot) -> bool {
    desired.metadata.uid.as_deref() == Some(&slot.owner) && wants(desired, slot.index)
}

/// The record of a slot, as the controller would make it.
fn record_of(desired: &DesiredLRP, index: i32) -> ActualLRP {
    let name = desired.metadata.name.clone().unwrap_or_default();
    let owner = OwnerReference {
        api_version: DesiredLRP::api_version(&()).into_owned(),
        kind: DesiredLRP::kind(&()).into_owned(),
        name: name.clone(),
        uid: desired.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    ActualLRP {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{index}")),
            namespace: desired.metadata.namespace.clone(),
            labels: Some(BTreeMap::from([
                (LABEL_DESIRED_LRP.to_owned(), name.clone()),
                (LABEL_INDEX.to_owned(), index.to_string()),
            ])),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: ActualLRPSpec {
            desired_lrp_name: name,
            index,
            domain: desired.spec.domain.clone(),
        },
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::DesiredLRPSpec;

    #[test]
    fn a_record_made_again_belongs_to_its_desired_lrp() {
        let spec = DesiredLRPSpec {
            instances: 2,
            domain: Some("d".into()),
            ..DesiredLRPSpec::default()
        };
        let mut desired = DesiredLRP::new("web", spec);
        desired.metadata.uid = Some("u".into());
        let lrp = record_of(&desired, 1);
        assert_eq!(lrp.metadata.name.as_deref(), Some("web-1"));
        assert_eq!(lrp.metadata.owner_references.expect("an owner")[0].uid, "u");
        assert_eq!((lrp.spec.index, lrp.spec.domain.as_deref()), (1, Some("d")));
        assert!(wants(&desired, 1) && !wants(&desired, 2) && !wants(&desired, -1));
        let slot = |owner: &str, index| Slot {
            desired_lrp: "web".into(),
            owner: owner.into(),
            index,
        };
        assert!(has(&desired, &slot("u", 1)) && !has(&desired, &slot("u", 2)));
        assert!(!has(&desired, &slot("old", 1)), "a slot of its namesake");
    }
}
