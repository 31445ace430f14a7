//! The calls of the executor: make, read and delete Pods, and read records, past every cache.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, PostParams, Preconditions, TypeMeta,
};
use kube::core::Resource;
use serde_json::json;

use super::source::{closed_nodes, node_of, source};
use super::{Templates, tell};
use crate::api::{ActualLRP, Task};
use crate::client::{CallError, bounded};
use crate::controller::context::Context;
use crate::controller::convert;
use crate::controller::turns::{Rank, Turn};
use crate::converge::life::Life;
use crate::converge::lrp::Instance;
use crate::converge::pods::build::{self, Bound, Place};
use crate::converge::pods::{
    DeleteWhy, Local, PodRecord, WorkKey, WorkKind, is_controlled_by, refusal,
};
use crate::converge::world::{Key, World};

/// The field manager of the Pods.
const MANAGER: &str = "diego-controller";

/// What an API server has under a Pod's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum There {
    /// The Pod of this very run, or another one of ours.
    Ours,
    /// Another Pod of this name.
    Foreign(String),
    /// None.
    Gone,
}

/// Why no Pod can be made where another one has its name.
fn taken(pod: &str) -> String {
    format!(
        "Pod {pod} is there and was not made for this instance: delete it, or rename it where it is wanted"
    )
}

/// Whether a Pod is to be made, or only whether it could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Make<'a> {
    /// On its Cell's node, if that would go.
    Try(&'a Instance),
    /// On its Cell's node.
    Create(&'a Instance),
    /// For a scheduler to bind.
    Unbound(&'a str),
}

impl Make<'_> {
    fn guid(&self) -> &str {
        match self {
            Make::Try(run) | Make::Create(run) => &run.guid,
            Make::Unbound(guid) => guid,
        }
    }

    fn is_try(&self) -> bool {
        matches!(self, Make::Try(_))
    }
}

/// Makes the Pod of an instance, or asks whether it could be made. What the API server refuses is noted, and given back
/// with the next step; everything else that goes wrong is an error.
pub(super) async fn make(
    context: &Arc<Context>,
    templates: &Templates,
    work: &WorkKey,
    make: Make<'_>,
) -> Result<(), CallError> {
    let guid = make.guid();
    let Some(source) = source(context, templates, work).await? else {
        // Whom it belongs to is gone, and takes the record along.
        return hold(
            context,
            work,
            guid,
            Local::Refused("its template is gone".into()),
        );
    };
    let node = match make {
        Make::Try(run) | Make::Create(run) => node_of(context, &run.cell),
        Make::Unbound(_) => String::new(),
    };
    let closed = match make {
        Make::Try(_) | Make::Create(_) => Vec::new(),
        Make::Unbound(_) => context.world(|world| closed_nodes(world)),
    };
    let place = match make {
        Make::Try(run) | Make::Create(run) if node.is_empty() => {
            let words = format!("Cell {} names no node (spec.nodeName)", run.cell);
            return hold(context, work, guid, Local::Refused(words));
        }
        Make::Try(run) | Make::Create(run) => Place::Cell {
            cell: &run.cell,
            epoch: run.epoch,
            node: &node,
        },
        Make::Unbound(_) => Place::Scheduled { closed: &closed },
    };
    let bound = Bound {
        namespace: &work.key.namespace,
        record: &work.key.name,
        uid: &source.uid,
        guid,
        place,
        what: source.what(),
    };
    let (metadata, spec) = match build::pod(&source.template, &bound) {
        Ok(built) => built,
        Err(words) => return hold(context, work, guid, Local::Refused(words)),
    };
    let kind = ApiResource::erase::<Pod>(&());
    let object = DynamicObject {
        types: Some(TypeMeta {
            api_version: "v1".into(),
            kind: "Pod".into(),
        }),
        metadata,
        data: json!({ "spec": spec }),
    };
    let client = context.pods.lane.client.clone();
    let api = Api::<DynamicObject>::namespaced_with(client, &work.key.namespace, &kind);
    let params = PostParams {
        dry_run: make.is_try(),
        field_manager: Some(MANAGER.into()),
    };
    let turn = turn(context, work).await;
    if let Make::Create(run) = make
        && !context.world(|world| is_still_wanted(world, work, run))
    {
        // Its Cell was lost, or its record given to another, while this waited.
        return Ok(());
    }
    let made = bounded(api.create(&params, &object)).await;
    drop(turn);
    match made {
        Ok(_) if make.is_try() => hold(context, work, guid, Local::SetAside),
        Ok(object) => {
            tell::creation(context, "created");
            enter(context, object.try_parse::<Pod>().ok().as_ref());
            Ok(())
        }
        Err(error) if error.is_already_exists() => {
            // An earlier try took effect, or a Pod of this name is somebody else's.
            match read_pod(context, work, guid).await? {
                There::Ours => {
                    tell::creation(context, "exists");
                    Ok(())
                }
                There::Foreign(name) => hold(context, work, guid, Local::Refused(taken(&name))),
                There::Gone if make.is_try() => Ok(()),
                There::Gone => {
                    // The run of a Task is spent by an earlier try then; an instance is tried again.
                    if work.kind == WorkKind::Task {
                        context.pods.index(|index| index.release(work, guid));
                    }
                    Ok(())
                }
            }
        }
        Err(error) if error.is_refused() || error.is_not_found() => {
            if !make.is_try() {
                tell::creation(context, "refused");
            }
            tracing::info!(record = %work, %error, "the API server refuses the Pod");
            let name = object.metadata.name.as_deref().unwrap_or_default();
            let words = refusal(&error.to_string(), name);
            hold(context, work, guid, Local::Refused(words))
        }
        Err(error) => {
            if !make.is_try() && !error.is_not_sent() {
                tell::creation(context, "error");
            }
            Err(error)
        }
    }
}

fn is_still_wanted(world: &World, work: &WorkKey, run: &Instance) -> bool {
    let named = match work.kind {
        WorkKind::Lrp => world.lrp(&work.key).is_some_and(|lrp| {
            let mut named = lrp.status.named();
            named.any(|one| one.guid == Some(run.guid.as_str()))
        }),
        WorkKind::Task => world
            .task(&work.key)
            .is_some_and(|task| task.status.instance_guid.as_ref() == Some(&run.guid)),
    };
    let life = world.life(&run.cell, Some(run.epoch));
    named && matches!(life, Life::Alive | Life::Draining)
}

async fn turn(context: &Context, work: &WorkKey) -> Turn {
    let rank = match work.kind {
        WorkKind::Lrp => context.world(|world| Rank::of_lrp(world, &work.key)),
        WorkKind::Task => Rank::Task,
    };
    context.pods.lane.turns.take(rank).await
}

fn hold(context: &Context, work: &WorkKey, guid: &str, local: Local) -> Result<(), CallError> {
    context.pods.index(|index| index.hold(work, guid, local));
    Ok(())
}

/// Reads a record past every cache, into the world.
pub(super) async fn read_record(context: &Arc<Context>, work: &WorkKey) -> Result<(), CallError> {
    let client = context.pods.lane.client.clone();
    let Key { namespace, name } = &work.key;
    match work.kind {
        WorkKind::Lrp => {
            let known = context.world(|world| Some(world.lrp(&work.key)?.version.uid.clone()));
            let api = Api::<ActualLRP>::namespaced(client, namespace);
            let stored = bounded(api.get_opt(name)).await?;
            context.world(|world| match &stored {
                Some(lrp) => {
                    world.put_lrp(&work.key, convert::lrp(lrp));
                }
                None => {
                    world.remove_lrp(&work.key, &known.unwrap_or_default());
                }
            });
        }
        WorkKind::Task => {
            let known = context.world(|world| Some(world.task(&work.key)?.version.uid.clone()));
            let api = Api::<Task>::namespaced(client, namespace);
            let stored = bounded(api.get_opt(name)).await?;
            context.world(|world| match &stored {
                Some(task) => {
                    let record = convert::task(task, world);
                    world.put_task(&work.key, record);
                }
                None => {
                    world.remove_task(&work.key, &known.unwrap_or_default());
                }
            });
        }
    }
    Ok(())
}

/// Reads the Pod that an instance has or would have, into the index. One whose labels were taken away is deleted: nobody
/// follows it any more, and another is made in its place.
pub(super) async fn read_pod(
    context: &Arc<Context>,
    work: &WorkKey,
    guid: &str,
) -> Result<There, CallError> {
    let key = Key::new(&*work.key.namespace, build::name(&work.key.name, guid));
    let client = context.pods.lane.client.clone();
    let api = Api::<Pod>::namespaced(client, &key.namespace);
    let Some(pod) = read(context, &api, &key).await? else {
        return Ok(There::Gone);
    };
    if PodRecord::read(&pod).is_some_and(|pod| pod.work == *work && pod.guid == guid) {
        return Ok(There::Ours);
    }
    let owner = context.world(|world| match work.kind {
        WorkKind::Lrp => world.lrp(&work.key).map(|lrp| lrp.version.uid.clone()),
        WorkKind::Task => world.task(&work.key).map(|task| task.version.uid.clone()),
    });
    if !owner.is_some_and(|owner| is_controlled_by(&pod, &owner)) {
        return Ok(There::Foreign(key.name));
    }
    tracing::warn!(record = %work, pod = %key, "the labels of its Pod were changed: deleting it");
    let uid = pod.metadata.uid.unwrap_or_default();
    let turn = turn(context, work).await;
    let result = bounded(api.delete(&key.name, &precisely(&uid, false))).await;
    drop(turn);
    match result {
        Ok(_) => tell::deletion(context, &key, DeleteWhy::NotAssigned),
        Err(error) if error.is_not_found() || error.is_conflict() => {}
        Err(error) => return Err(error),
    }
    Ok(There::Gone)
}

/// Reads a Pod, into the index where it is one of ours.
async fn read(context: &Context, api: &Api<Pod>, key: &Key) -> Result<Option<Pod>, CallError> {
    let pod = bounded(api.get_opt(&key.name)).await?;
    match &pod {
        Some(pod) => enter(context, Some(pod)),
        None => {
            context.pods.index(|index| index.remove_name(key));
        }
    }
    Ok(pod)
}

/// Deletes the Pod of this uid and no other.
fn precisely(uid: &str, force: bool) -> DeleteParams {
    DeleteParams {
        grace_period_seconds: force.then_some(0),
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        }),
        ..DeleteParams::background()
    }
}

fn enter(context: &Context, pod: Option<&Pod>) {
    if let Some(pod) = pod {
        context.pods.index(|index| index.enter(pod));
    }
}

/// Deletes this very Pod.
pub(super) async fn delete(
    context: &Arc<Context>,
    work: &WorkKey,
    guid: &str,
    force: bool,
    why: DeleteWhy,
) -> Result<(), CallError> {
    let found = context.pods.index(|index| {
        let all = index.of(work);
        let pod = all.iter().find(|pod| pod.guid == guid)?;
        Some((pod.key.clone(), pod.uid.clone()))
    });
    let Some((key, uid)) = found else {
        return Ok(());
    };
    let params = precisely(&uid, force);
    let api = Api::<Pod>::namespaced(context.pods.lane.client.clone(), &key.namespace);
    let turn = turn(context, work).await;
    let result = bounded(api.delete(&key.name, &params)).await;
    drop(turn);
    match result {
        Ok(answer) => {
            tell::deletion(context, &key, why);
            // With time left it goes on ending; else it is gone.
            let ending = answer
                .left()
                .filter(|pod| pod.meta().deletion_timestamp.is_some());
            match ending {
                Some(pod) => enter(context, Some(&pod)),
                None => {
                    context.pods.index(|index| index.remove(&key, &uid));
                }
            }
            Ok(())
        }
        Err(error) if error.is_not_found() => {
            context.pods.index(|index| index.remove(&key, &uid));
            Ok(())
        }
        // Another Pod has that name by now.
        Err(error) if error.is_conflict() => read(context, &api, &key).await.map(drop),
        Err(error) => Err(error),
    }
}
