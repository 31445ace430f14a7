//! From API objects to the trimmed records of the world.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::ObjectMeta;

use crate::api::{
    ANNOTATION_CONFIRM_LOSS, ActualLRP, Cell, DesiredLRP, ExecutorKind, Task, TaskState, quantity,
    template::RawTemplate, template::Resources,
};
use crate::callback::receiver;
use crate::converge::demand::Demand;
use crate::converge::node::CellNode;
use crate::converge::task;
use crate::converge::world::{CellRecord, Desired, Key, Lrp, TaskRecord, Version, World};

/// The key of a namespaced object.
pub fn key(object: &impl ResourceExt) -> Key {
    Key::new(object.namespace().unwrap_or_default(), object.name_any())
}

fn version(meta: &ObjectMeta) -> Version {
    Version {
        uid: meta.uid.clone().unwrap_or_default(),
        revision: meta
            .resource_version
            .as_deref()
            .and_then(|text| text.parse().ok())
            .unwrap_or_default(),
        generation: meta.generation.unwrap_or_default(),
        deleting: meta.deletion_timestamp.is_some(),
    }
}

/// A Cell's record.
pub fn cell(object: &Cell) -> CellRecord {
    let Cell {
        metadata,
        spec,
        status,
    } = object;
    CellRecord {
        version: version(metadata),
        generation: metadata.generation.unwrap_or_default(),
        zone: spec.zone.clone(),
        executor: spec.executor,
        node: (spec.executor == ExecutorKind::Pods).then(|| CellNode {
            name: spec.node_name.clone().unwrap_or_default(),
            ..CellNode::default()
        }),
        // The schema lets only quantities pass; what can't be read offers nothing.
        capacity: Resources {
            memory: quantity::bytes(&spec.capacity.memory).unwrap_or_default(),
            disk: quantity::bytes(&spec.capacity.disk).unwrap_or_default(),
            cpu: 0,
        },
        containers: spec.capacity.containers,
        required_tags: spec.placement_tags.clone(),
        optional_tags: spec.optional_placement_tags.clone(),
        unschedulable: spec.unschedulable.unwrap_or_default(),
        evacuate: spec.evacuate.unwrap_or_default(),
        loss_confirmed: (metadata.annotations.as_ref())
            .and_then(|annotations| annotations.get(ANNOTATION_CONFIRM_LOSS))
            .is_some_and(|value| value == "true"),
        status: status.clone().unwrap_or_default(),
    }
}

/// A DesiredLRP's record. What `world` has read from the same template already is not read again.
pub fn desired(object: &DesiredLRP, world: &World) -> Desired {
    let DesiredLRP {
        metadata,
        spec,
        status,
    } = object;
    let version = version(metadata);
    let known = world
        .desired(&key(object))
        .filter(|known| {
            known.version.uid == version.uid && known.version.generation == version.generation
        })
        .map(|known| known.demand.clone());
    Desired {
        demand: known.unwrap_or_else(|| demand(&spec.template, &spec.placement_tags)),
        version,
        instances: spec.instances,
        domain: spec.domain.clone(),
        policy: spec.missing_cell_policy,
        status: status.clone().unwrap_or_default(),
    }
}

/// An ActualLRP's record.
pub fn lrp(object: &ActualLRP) -> Lrp {
    let ActualLRP {
        metadata,
        spec,
        status,
    } = object;
    let owner = metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true));
    Lrp {
        version: version(metadata),
        process: spec.desired_lrp_name.clone(),
        index: spec.index,
        owner: owner.map(|owner| owner.uid.clone()),
        status: status.clone().unwrap_or_default(),
    }
}

/// A Task's record. What `world` has read from the same template already is not read again.
pub fn task(object: &Task, world: &World) -> TaskRecord {
    let Task {
        metadata,
        spec,
        status,
    } = object;
    let version = version(metadata);
    let known = world
        .task(&key(object))
        .filter(|known| known.version.uid == version.uid);
    let seen_finished = known.and_then(|known| known.seen_finished);
    let known = known
        .filter(|known| known.version.generation == version.generation)
        .map(|known| known.demand.clone());
    let finished = matches!(
        status.as_ref().map(|status| status.state),
        Some(TaskState::Completed | TaskState::Resolving)
    );
    TaskRecord {
        demand: known.unwrap_or_else(|| demand(&spec.template, &spec.placement_tags)),
        version,
        created: metadata
            .creation_timestamp
            .as_ref()
            .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        cancelled: spec.cancelled.unwrap_or_default(),
        callback: spec.completion_callback_url.as_deref().map(receiver),
        seen_finished: seen_finished.or_else(|| finished.then(Timestamp::now)),
        keep: task::keep(spec.ttl_seconds_after_finished),
        status: status.clone().unwrap_or_default(),
    }
}

fn demand(template: &RawTemplate, tags: &[String]) -> Result<Arc<Demand>, String> {
    Demand::new(template, tags).map(Arc::new)
}
