//! What a Pod is made from: the template of a DesiredLRP or of a Task, from the cache where that has the right one, and the
//! nodes that it may and may not go to.

use std::collections::{BTreeSet, HashSet};

use kube::Api;
use kube::runtime::reflector::ObjectRef;

use super::Templates;
use crate::api::{DesiredLRP, ExecutorKind, MissingCellPolicy, RawTemplate, Task};
use crate::client::{CallError, bounded};
use crate::controller::context::Context;
use crate::converge::life::Life;
use crate::converge::lrp::belongs;
use crate::converge::pods::build::What;
use crate::converge::pods::{WorkKey, WorkKind};
use crate::converge::world::{CellRecord, Key, World};

/// What a Pod is made from.
pub(super) struct Source {
    /// The uid of the record.
    pub(super) uid: String,
    /// What to run.
    pub(super) template: RawTemplate,
    /// The process, the index and the policy, for an instance of one.
    slot: Option<(String, i32, MissingCellPolicy)>,
    result_file: Option<String>,
}

impl Source {
    /// What runs in the Pod.
    pub(super) fn what(&self) -> What<'_> {
        match &self.slot {
            Some((process, index, policy)) => What::Lrp {
                process,
                index: *index,
                policy: *policy,
            },
            None => What::Task {
                result_file: self.result_file.as_deref(),
            },
        }
    }
}

/// Reads what is not in the cache past it. `None` when it is gone, or another one has its name.
pub(super) async fn source(
    context: &Context,
    templates: &Templates,
    work: &WorkKey,
) -> Result<Option<Source>, CallError> {
    let client = context.pods.lane.client.clone();
    let Key { namespace, name } = &work.key;
    match work.kind {
        WorkKind::Lrp => {
            let Some(lrp) = context.world(|world| world.lrp(&work.key).cloned()) else {
                return Ok(None);
            };
            let is_ours = |desired: &DesiredLRP| {
                let uid = desired.metadata.uid.as_deref();
                uid.is_some_and(|uid| belongs(&lrp, uid))
            };
            let cached = templates
                .desired
                .get(&ObjectRef::new(&lrp.process).within(namespace));
            let cached = cached.filter(|desired| is_ours(desired));
            let spec = match cached {
                Some(desired) => Some(desired.spec.clone()),
                None => {
                    let api = Api::<DesiredLRP>::namespaced(client, namespace);
                    let read = bounded(api.get_opt(&lrp.process)).await?;
                    read.filter(is_ours).map(|desired| desired.spec)
                }
            };
            Ok(spec.map(|spec| Source {
                uid: lrp.version.uid,
                template: spec.template,
                slot: Some((lrp.process, lrp.index, spec.missing_cell_policy)),
                result_file: None,
            }))
        }
        WorkKind::Task => {
            let uid = context.world(|world| Some(world.task(&work.key)?.version.uid.clone()));
            let is_ours = |task: &Task| task.metadata.uid == uid;
            let cached = templates.tasks.get(&ObjectRef::new(name).within(namespace));
            let spec = match cached.filter(|task| is_ours(task)) {
                Some(task) => Some(task.spec.clone()),
                None => {
                    let api = Api::<Task>::namespaced(client, namespace);
                    let read = bounded(api.get_opt(name)).await?;
                    read.filter(is_ours).map(|task| task.spec)
                }
            };
            Ok(spec.map(|spec| Source {
                uid: uid.unwrap_or_default(),
                template: spec.template,
                slot: None,
                result_file: spec.result_file,
            }))
        }
    }
}

/// The nodes of Cells that take no work now, by name.
pub(super) fn closed_nodes(world: &World) -> Vec<String> {
    let of_pods = |cell: &&CellRecord| cell.executor == ExecutorKind::Pods;
    let mut open = HashSet::new();
    let mut closed = BTreeSet::new();
    for (name, cell) in world.cells().iter().filter(|(_, cell)| of_pods(cell)) {
        let Some(node) = &cell.node else { continue };
        let open_now = match world.life(name, cell.status.epoch) {
            Life::Alive => true,
            Life::Draining | Life::Superseded { .. } | Life::Lost | Life::Left | Life::Unknown => {
                false
            }
        };
        match open_now {
            true => open.insert(&*node.name),
            false => closed.insert(&*node.name),
        };
    }
    let closed = closed.into_iter().filter(|node| !open.contains(node));
    closed.map(ToOwned::to_owned).collect()
}

/// The node that a Cell is.
pub(super) fn node_of(context: &Context, cell: &str) -> String {
    let name = context.world(|world| {
        let cell = world.cells().get(cell)?;
        cell.node.as_ref().map(|node| node.name.clone())
    });
    name.unwrap_or_default()
}
