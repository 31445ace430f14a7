//! Carrying out a plan: one compare-and-swap per write, bounded in number and time, no choices of its own.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};

use crate::api::{
    ActualLRP, ActualLRPSpec, ActualLRPStatus, DesiredLRP, LABEL_DESIRED_LRP, LABEL_INDEX, Task,
};
use crate::client::{CallError, bounded};
use crate::converge::lrp::StartReason;
use crate::converge::plan::{LrpChange, Scope, TaskChange, Write};
use crate::converge::world::{Key, Lrp, TaskRecord, Version};
use crate::metrics::{OutcomeLabel, ReasonLabel};

use super::context::{Context, Lane};
use super::convert;
use super::events::reference;

/// The field manager of every write of the controller.
const MANAGER: &str = "diego-controller";

/// How often a scope is planned anew because a write met a newer version or failed; then the requeue has it.
const ATTEMPTS: u32 = 8;

/// What came of the writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Instances that got a place.
    pub placed: u32,
    /// Instances that no Cell could take.
    pub waiting: u32,
    /// Tasks failed.
    pub tasks_failed: u32,
    /// Writes that met a newer version; they were decided anew.
    pub conflicts: u32,
    /// Writes that failed in the last attempt: left to the resync.
    pub unfinished: u32,
}

/// Plans and writes until nothing in `scope` is left to do. Returns what was done, and when to look again.
/// `first` is set when the first write has succeeded.
pub async fn converge(
    context: &Arc<Context>,
    lane: &Lane,
    scope: &Scope,
    first: Option<&OnceLock<Instant>>,
) -> (Tally, Option<k8s_openapi::jiff::Timestamp>) {
    let mut tally = Tally::default();
    let mut recheck = None;
    for attempt in 0..ATTEMPTS {
        let plan = context.plan(scope);
        recheck = plan.recheck;
        let nothing = plan.writes.is_empty();
        let outcome = execute(context, lane, plan.writes, first).await;
        let vanished = vanished_cells(context, &plan.unknown_cells).await;
        if nothing && !vanished {
            tally.unfinished = 0;
            return (tally, recheck);
        }
        tally.placed += outcome.placed;
        tally.waiting += outcome.waiting;
        tally.tasks_failed += outcome.tasks_failed;
        tally.conflicts += outcome.conflicts;
        tally.unfinished = outcome.conflicts + outcome.unfinished;
        if tally.unfinished == 0 && !vanished {
            return (tally, recheck);
        }
        // A conflict is decided anew at once; only a server in trouble is given time.
        let pause = if outcome.unfinished > 0 {
            Duration::from_millis(50) * 2u32.pow(attempt)
        } else {
            Duration::ZERO
        };
        tokio::time::sleep(pause).await;
    }
    (tally, recheck)
}

/// Records name Cells that have no object: when these have no presence either, they are lost.
async fn vanished_cells(context: &Arc<Context>, cells: &BTreeSet<String>) -> bool {
    let mut found = false;
    for cell in cells.iter().filter(|cell| context.grace(cell).is_zero()) {
        match context.store.get(cell).await {
            Ok(reading) if reading.presence.is_none() => {
                tracing::warn!(
                    cell,
                    "work is recorded on a Cell that has neither an object nor a presence"
                );
                context.world(|world| world.mark_vanished(cell));
                found = true;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(cell, %error, "the presence of an unknown Cell could not be read")
            }
        }
    }
    found
}

async fn execute(
    context: &Arc<Context>,
    lane: &Lane,
    writes: Vec<Write>,
    first: Option<&OnceLock<Instant>>,
) -> Tally {
    // Bound already by the lane's permits; this only keeps a big plan from making as many futures at once.
    let at_once = 256;
    let outcomes = stream::iter(writes)
        .map(|write| async move {
            let permit = lane.permits.acquire().await;
            let result = perform(context, lane, &write).await;
            drop(permit);
            if result.is_ok()
                && let Some(first) = first
            {
                let _ = first.set(Instant::now());
            }
            (write, result)
        })
        .buffer_unordered(at_once);
    futures::pin_mut!(outcomes);
    let mut tally = Tally::default();
    while let Some((write, result)) = outcomes.next().await {
        // A recovery is told in one Event on the Cell, not in one per instance.
        account(context, &write, &result, first.is_none(), &mut tally);
    }
    tally
}

fn account(
    context: &Context,
    write: &Write,
    result: &Result<(), CallError>,
    tell: bool,
    tally: &mut Tally,
) {
    let outcome = match result {
        Ok(()) => "written",
        Err(error) => error.outcome(),
    };
    context
        .metrics
        .writes
        .get_or_create(&OutcomeLabel { outcome })
        .inc();
    match result {
        Err(error) if error.is_conflict() || error.is_already_exists() || error.is_not_found() => {
            tally.conflicts += 1
        }
        Err(error) => {
            tracing::debug!(%error, ?write, "a write failed");
            tally.unfinished += 1;
        }
        Ok(()) => written(context, write, tell, tally),
    }
}

/// Counts and tells what a successful write did.
fn written(context: &Context, write: &Write, tell: bool, tally: &mut Tally) {
    match write {
        Write::CreateLrp { key, change, .. } | Write::LrpStatus { key, change, .. } => match change
        {
            LrpChange::Placed { reason, cell } => {
                tally.placed += 1;
                let reason = reason.as_str();
                context
                    .metrics
                    .starts
                    .get_or_create(&ReasonLabel { reason })
                    .inc();
                tracing::debug!(lrp = %key, cell, reason, "placed");
            }
            LrpChange::RestartedHere { cell } => {
                tally.placed += 1;
                context
                    .metrics
                    .starts
                    .get_or_create(&ReasonLabel {
                        reason: StartReason::MissingInstance.as_str(),
                    })
                    .inc();
                tracing::debug!(lrp = %key, cell, "restarted on its Cell, which came back without its containers");
            }
            LrpChange::Waiting { reason, error } => {
                tally.waiting += 1;
                if tell {
                    let uid =
                        context.world(|world| world.lrp(key).map(|lrp| lrp.version.uid.clone()));
                    let about = reference(
                        "ActualLRP",
                        Some(&key.namespace),
                        &key.name,
                        &uid.unwrap_or_default(),
                    );
                    let note = format!("No Cell can take it ({}): {error}", reason.as_str());
                    context
                        .events
                        .warning(about, "ActualLRPPlacementFailed", "Place", note);
                }
            }
            LrpChange::Promoted { cell } => {
                tracing::info!(lrp = %key, cell, "the Cell is back before the replacement ran: the original is kept");
            }
            LrpChange::SuspectDropped | LrpChange::EvacuatingDropped => {}
        },
        Write::DeleteLrp { .. } => {}
        Write::TaskStatus { key, change, .. } => match change {
            TaskChange::Failed { kind, reason } => {
                tally.tasks_failed += 1;
                context
                    .metrics
                    .tasks_failed
                    .get_or_create(&ReasonLabel {
                        reason: kind.as_str(),
                    })
                    .inc();
                let uid = context
                    .world(|world| world.task(key).map(|task| task.version.uid.clone()))
                    .unwrap_or_default();
                let about = reference("Task", Some(&key.namespace), &key.name, &uid);
                context.events.warning(
                    about,
                    &format!("Task{}", kind.as_str()),
                    "Fail",
                    reason.clone(),
                );
            }
            TaskChange::Placed { cell } => tracing::debug!(task = %key, cell, "placed"),
            TaskChange::Waiting { error } => {
                tracing::debug!(task = %key, error, "waits for a Cell")
            }
        },
    }
}

/// Sends one write and settles it in the world, whatever comes of it.
async fn perform(context: &Arc<Context>, lane: &Lane, write: &Write) -> Result<(), CallError> {
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
            let result = delete(context, &api, key, version, orphan_of.as_ref()).await;
            settle_lrp(context, &api, key, result, None).await
        }
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
            settle_task(context, &api, key, result, version, from).await
        }
    }
}

/// Deletes this very version. An orphan is deleted only if its DesiredLRP, read now, is not there: the list in
/// hand may be older than the instance.
async fn delete(
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
    let preconditions = Preconditions {
        uid: Some(version.uid.clone()),
        resource_version: Some(version.revision.to_string()),
    };
    let params = DeleteParams {
        preconditions: Some(preconditions),
        ..DeleteParams::background()
    };
    match bounded(api.delete(&key.name, &params)).await {
        Ok(_) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
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
            let live = bounded(api.get_opt(&key.name)).await;
            context.world(|world| match live {
                Ok(live) => world.settle_lrp(key, live.as_ref().map(convert::lrp)),
                Err(_) => {
                    let known = world.lrp(key).cloned();
                    let record = known.zip(before).map(|(known, (version, status))| Lrp {
                        version: version.clone(),
                        status: status.clone(),
                        ..known
                    });
                    world.settle_lrp(key, record);
                }
            });
            Err(error)
        }
    }
}

async fn settle_task(
    context: &Arc<Context>,
    api: &Api<Task>,
    key: &Key,
    result: Result<Task, CallError>,
    version: &Version,
    from: &crate::api::TaskStatus,
) -> Result<(), CallError> {
    match result {
        Ok(stored) => {
            context.world(|world| {
                let record = convert::task(&stored, world);
                world.settle_task(key, Some(record));
            });
            Ok(())
        }
        Err(error) => {
            let live = bounded(api.get_opt(&key.name)).await;
            context.world(|world| {
                let record = match &live {
                    Ok(live) => live.as_ref().map(|live| convert::task(live, world)),
                    Err(_) => world.task(key).cloned().map(|known| TaskRecord {
                        version: version.clone(),
                        status: from.clone(),
                        ..known
                    }),
                };
                world.settle_task(key, record);
            });
            Err(error)
        }
    }
}

/// A merge patch of the status subresource that applies to this very version of this very object.
pub fn status_patch<S: serde::Serialize>(version: &Version, from: &S, to: &S) -> Value {
    json!({
        "metadata": { "uid": version.uid, "resourceVersion": version.revision.to_string() },
        "status": replacing(&json!(from), &json!(to)),
    })
}

/// `to` as a merge patch that leaves nothing of `from` behind.
fn replacing(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else {
        return to.clone();
    };
    let mut patch = serde_json::Map::new();
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in to {
        patch.insert(
            key.clone(),
            replacing(from.get(key).unwrap_or(&Value::Null), value),
        );
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_leaves_nothing_of_the_old_value_behind() {
        let from = json!({"a": 1, "b": {"x": 1, "y": 2}, "c": [1]});
        let to = json!({"b": {"y": 3}, "c": [2, 3], "d": {"z": 1}});
        assert_eq!(
            replacing(&from, &to),
            json!({"a": null, "b": {"x": null, "y": 3}, "c": [2, 3], "d": {"z": 1}})
        );
    }
}
