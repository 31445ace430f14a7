//! What a Pod is made from: the template of a DesiredLRP or of a Task, from the cache where that has the right one.

use kube::Api;
use kube::runtime::reflector::ObjectRef;

use super::Templates;
use crate::api::{DesiredLRP, RawTemplate, Task};
use crate::client::{CallError, bounded};
use crate::controller::context::Context;
use crate::converge::pods::build::What;
use crate::converge::pods::{WorkKey, WorkKind};
use crate::converge::world::Key;

/// What a Pod is made from.
pub(super) struct Source {
    /// The uid of the record.
    pub(super) uid: String,
    /// What to run.
    pub(super) template: RawTemplate,
    /// The process and the index, for an instance of one.
    slot: Option<(String, i32)>,
    result_file: Option<String>,
}

impl Source {
    /// What runs in the Pod.
    pub(super) fn what(&self) -> What<'_> {
        match &self.slot {
            Some((process, index)) => What::Lrp {
                process,
                index: *index,
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
            let is_ours = |desired: &DesiredLRP| desired.metadata.uid == lrp.owner;
            let cached = templates
                .desired
                .get(&ObjectRef::new(&lrp.process).within(namespace));
            let cached = cached.filter(|desired| is_ours(desired));
            let template = match cached {
                Some(desired) => Some(desired.spec.template.clone()),
                None => {
                    let api = Api::<DesiredLRP>::namespaced(client, namespace);
                    let read = bounded(api.get_opt(&lrp.process)).await?;
                    read.filter(is_ours).map(|desired| desired.spec.template)
                }
            };
            Ok(template.map(|template| Source {
                uid: lrp.version.uid,
                template,
                slot: Some((lrp.process, lrp.index)),
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
