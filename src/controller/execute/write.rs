//! One write to the API server: a compare-and-swap on the version that was decided on, and what became of it.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};

use crate::api::{
    ActualLRP, ActualLRPSpec, ActualLRPStatus, DesiredLRP, LABEL_DESIRED_LRP, LABEL_INDEX, Task,
    TaskStatus,
};
use crate::client::{CallError, bounded};
use crate::controller::context::{Context, Lane};
use crate::controller::convert;
use crate::controller::execute::tell;
use crate::converge::plan::Write;
use crate::converge::world::{Key, Lrp, TaskRecord, Version};
use crate::patch::status_patch;

/// The field manager of every write of the controller.
const MANAGER: &str = "diego-controller";

/// Sends one write and settles it in the world, whatever comes of it.
pub async fn perform(context: &Arc<Context>, lane: &Lane, write: &Write) -> Result<(), CallError> {
    match write {
        Write::CreateLrp {
            key,
            desired,
            owner,
            index,
            domain,
            status,
            ..
        } => {
            let api = Api::<ActualLRP>::namespaced(lane.client.clone(), &key.namespace);
            let result = create(&api, key, desired, owner, *index, domain.clone(), status).await;
            settle_lrp(context, &api, key, result, None).await
        }
        Write::LrpStatus {
            key,
            version,
            from,
            to,
            ..
        } => {
            let api = Api::<ActualLRP>::namespaced(lane.client.clone(), &key.namespace);
            let patch = status_patch(version, from.as_ref(), to.as_ref());
            let result =
                bounded(api.patch_status(&key.name, &params(), &Patch::Merge(&patch))).await;
            settle_lrp(context, &api, key, result.map(Some), Some((version, from))).await
        }
        Write::DeleteLrp {
            key,
            version,
            orphan_of,
        } => {
            let api = Api::<ActualLRP>::namespaced(lane.client.clone(), &key.namespace);
            let result = delete_lrp(context, &api, key, version, orphan_of.as_ref()).await;
            settle_lrp(context, &api, key, result, None).await
        }
        Write::TaskStatus { .. } | Write::DeleteTask { .. } => {
            task(context, lane, write).await.map(|_| ())
        }
    }
}

/// The same for a write about a Task. Returns the Task, unless it is gone, or the write is about something else.
pub async fn task(
    context: &Arc<Context>,
    lane: &Lane,
    write: &Write,
) -> Result<Option<Task>, CallError> {
    match write {
        Write::TaskStatus {
            key,
            version,
            from,
            to,
            ..
        } => {
            let api = Api::<Task>::namespaced(lane.client.clone(), &key.namespace);
            let patch = status_patch(version, from.as_ref(), to.as_ref());
            let result =
                bounded(api.patch_status(&key.name, &params(), &Patch::Merge(&patch))).await;
            let result = result.map(Some);
            settle_task(context, &api, key, &result, Some((version, from))).await;
            result
        }
        Write::DeleteTask { key, version, .. } => {
            let api = Api::<Task>::namespaced(lane.client.clone(), &key.namespace);
            let result = delete(&api, &key.name, version).await.map(|()| None);
            settle_task(context, &api, key, &result, None).await;
            result
        }
        Write::CreateLrp { .. } | Write::LrpStatus { .. } | Write::DeleteLrp { .. } => Ok(None),
    }
}

/// Deletes this very version. An orphan is deleted only if its DesiredLRP, read now, is not there: the list in
/// hand may be older than the instance.
async fn delete_lrp(
    context: &Arc<Context>,
    api: &Api<ActualLRP>,
    key: &Key,
    version: &Version,
    orphan_of: Option<&Key>,
) -> Result<Option<ActualLRP>, CallError> {
    if let Some(desired) = orphan_of {
        let desireds = Api::<DesiredLRP>::namespaced(api.clone().into_client(), &desired.namespace);
        if let Some(there) = bounded(desireds.get_opt(&desired.name)).await? {
            context.world(|world| {
                let record = convert::desired(&there, world);
                world.put_desired(desired, record);
            });
            return bounded(api.get_opt(&key.name)).await;
        }
    }
    delete(api, &key.name, version).await.map(|()| None)
}

/// Deletes this very version. That there is nothing to delete is as good.
async fn delete<K>(api: &Api<K>, name: &str, version: &Version) -> Result<(), CallError>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let preconditions = Preconditions {
        uid: Some(version.uid.clone()),
        resource_version: Some(version.revision.to_string()),
    };
    let params = DeleteParams {
        preconditions: Some(preconditions),
        ..DeleteParams::background()
    };
    match bounded(api.delete(name, &params)).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// How the controller patches: under its own name.
pub fn params() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.into()),
        ..Default::default()
    }
}

/// Two steps, since a status can't be created along: an instance without one is Unclaimed and placed later.
async fn create(
    api: &Api<ActualLRP>,
    key: &Key,
    desired: &Key,
    owner: &str,
    index: i32,
    domain: Option<String>,
    status: &ActualLRPStatus,
) -> Result<Option<ActualLRP>, CallError> {
    let object = ActualLRP {
        metadata: ObjectMeta {
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()),
            labels: Some(
                [
                    (LABEL_DESIRED_LRP.into(), desired.name.clone()),
                    (LABEL_INDEX.into(), index.to_string()),
                ]
                .into(),
            ),
            owner_references: Some(vec![OwnerReference {
                api_version: format!("{}/{}", crate::api::GROUP, crate::api::VERSION),
                kind: "DesiredLRP".into(),
                name: desired.name.clone(),
                uid: owner.into(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..Default::default()
        },
        spec: ActualLRPSpec {
            desired_lrp_name: desired.name.clone(),
            index,
            domain,
        },
        status: None,
    };
    let post = PostParams {
        field_manager: Some(MANAGER.into()),
        ..Default::default()
    };
    let created = bounded(api.create(&post, &object)).await?;
    let version = convert::lrp(&created).version;
    let patch = status_patch(&version, &ActualLRPStatus::default(), status);
    Ok(Some(
        bounded(api.patch_status(&key.name, &params(), &Patch::Merge(&patch))).await?,
    ))
}

/// Enters the answer into the world. After an error what is stored is read anew, since the write may or may
/// not have taken effect; if that fails too, what was known before stands until the watch says otherwise.
async fn settle_lrp(
    context: &Arc<Context>,
    api: &Api<ActualLRP>,
    key: &Key,
    result: Result<Option<ActualLRP>, CallError>,
    before: Option<(&Version, &ActualLRPStatus)>,
) -> Result<(), CallError> {
    match result {
        Ok(stored) => {
            context.world(|world| world.settle_lrp(key, stored.as_ref().map(convert::lrp)));
            Ok(())
        }
        Err(error) => {
            // What was not sent changed nothing; a leader that was deposed must not ask for all it had planned.
            let live = match error.is_not_sent() {
                true => None,
                false => bounded(api.get_opt(&key.name)).await.ok(),
            };
            let known = context.world(|world| world.lrp(key).cloned());
            // What made the write fail may have been a crash; the watch then brings no news of it.
            if let (Some(known), Some(Some(live))) = (&known, &live) {
                let live = convert::lrp(live);
                if tell::is_crash(known, &live) {
                    tell::crash(context, key, &live);
                }
            }
            context.world(|world| match live {
                Some(live) => world.settle_lrp(key, live.as_ref().map(convert::lrp)),
                None => {
                    let record = known.and_then(|known| match before {
                        Some((version, status)) => Some(Lrp {
                            version: version.clone(),
                            status: status.clone(),
                            ..known
                        }),
                        // What stands for an object that is being created has no uid. Another one is not gone
                        // because its deletion failed.
                        None => Some(known).filter(|known| !known.version.uid.is_empty()),
                    });
                    world.settle_lrp(key, record);
                }
            });
            Err(error)
        }
    }
}

/// As [`settle_lrp`].
async fn settle_task(
    context: &Arc<Context>,
    api: &Api<Task>,
    key: &Key,
    result: &Result<Option<Task>, CallError>,
    before: Option<(&Version, &TaskStatus)>,
) {
    let live = match result {
        Ok(stored) => Some(stored.clone()),
        Err(error) if error.is_not_sent() => None,
        Err(_) => bounded(api.get_opt(&key.name)).await.ok(),
    };
    context.world(|world| {
        let record = match &live {
            Some(live) => live.as_ref().map(|live| convert::task(live, world)),
            None => world.task(key).cloned().map(|known| match before {
                Some((version, status)) => TaskRecord {
                    version: version.clone(),
                    status: status.clone(),
                    ..known
                },
                None => known,
            }),
        };
        world.settle_task(key, record);
    });
}
