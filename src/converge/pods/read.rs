//! From a Pod of the API to the trimmed record of it.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;

use super::{
    ANNOTATION_EPOCH, ContainerRecord, ContainerStage, Deleting, LABEL_CELL, LABEL_GUID, Phase,
    PodRecord, WorkKey, WorkKind, build,
};
use crate::api::{GROUP, PortMapping};
use crate::converge::world::Key;

/// Names the container that kubectl, and the result of a Task, mean by default.
pub const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Messages of the kubelet are kept up to so many characters.
const MAX_MESSAGE: usize = 1024;

/// A result is kept whole: the kubelet itself cuts a termination message at 4096 bytes.
const MAX_RESULT: usize = 10_240;

impl PodRecord {
    /// Reads a Pod. `None` for one that is not ours: without our label, not controlled by an ActualLRP or a Task, or not
    /// of the name that the Pod of this run has, of which there can be no two.
    pub fn read(pod: &Pod) -> Option<PodRecord> {
        let meta = &pod.metadata;
        let guid = label(meta, LABEL_GUID)?;
        let (owner, kind) = owner(meta)?;
        if meta.name.as_deref() != Some(&*build::name(&owner.name, guid)) {
            return None;
        }
        let namespace = meta.namespace.clone().unwrap_or_default();
        let spec = pod.spec.clone().unwrap_or_default();
        let status = pod.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let is = |kind: &str, truth: &str| {
            let mut all = conditions.iter();
            all.find(|one| one.type_ == kind && one.status == truth)
        };
        let result_container = result_container(meta, &spec);
        let statuses = |list: Option<Vec<ContainerStatus>>| -> Vec<ContainerRecord> {
            let list = list.unwrap_or_default();
            list.iter().map(|one| container(one, kind)).collect()
        };
        Some(PodRecord {
            key: Key::new(&*namespace, meta.name.clone().unwrap_or_default()),
            uid: meta.uid.clone().unwrap_or_default(),
            revision: revision(meta),
            work: WorkKey {
                kind,
                key: Key::new(namespace, &*owner.name),
            },
            owner: owner.uid.clone(),
            guid: guid.to_owned(),
            cell: label(meta, LABEL_CELL).map(ToOwned::to_owned),
            epoch: meta
                .annotations
                .as_ref()
                .and_then(|all| all.get(ANNOTATION_EPOCH)?.parse().ok()),
            node: spec.node_name.clone().filter(|name| !name.is_empty()),
            created: meta
                .creation_timestamp
                .as_ref()
                .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            deleting: meta.deletion_timestamp.as_ref().map(|time| Deleting {
                until: time.0,
                grace: meta.deletion_grace_period_seconds.unwrap_or(0),
            }),
            phase: match status.phase.as_deref() {
                Some("Running") => Phase::Running,
                Some("Succeeded") => Phase::Succeeded,
                Some("Failed") => Phase::Failed,
                // "Unknown" is not used any more.
                _ => Phase::Pending,
            },
            reason: status.reason.filter(|reason| !reason.is_empty()),
            message: status.message.map(|text| clip(&text, MAX_MESSAGE)),
            ready: is("Ready", "True").is_some(),
            ip: status.pod_ip.filter(|ip| !ip.is_empty()),
            disruption: is("DisruptionTarget", "True").map(told),
            unscheduled: is("PodScheduled", "False").map(told),
            init: statuses(status.init_container_statuses),
            containers: statuses(status.container_statuses),
            ports: ports(&spec),
            result_container,
        })
    }
}

/// The container whose termination message is the result of a Task: the one that kubectl takes by default, else the
/// first.
pub fn result_container(meta: &ObjectMeta, spec: &PodSpec) -> String {
    let annotated = meta
        .annotations
        .as_ref()
        .and_then(|all| all.get(DEFAULT_CONTAINER));
    let named = annotated.filter(|name| spec.containers.iter().any(|one| one.name == **name));
    let first = || spec.containers.first().map(|one| one.name.clone());
    named.cloned().or_else(first).unwrap_or_default()
}

pub(super) fn revision(meta: &ObjectMeta) -> u64 {
    let text = meta.resource_version.as_deref();
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Whether this uid is that of the record which controls a Pod, whatever its labels say.
pub fn is_controlled_by(pod: &Pod, uid: &str) -> bool {
    owner(&pod.metadata).is_some_and(|(owner, _)| owner.uid == uid)
}

fn label<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    let value = meta.labels.as_ref()?.get(name)?;
    Some(value.as_str()).filter(|value| !value.is_empty())
}

/// The record of ours that owns a Pod.
pub fn owner(meta: &ObjectMeta) -> Option<(&OwnerReference, WorkKind)> {
    let mut owners = meta.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true))?;
    let group = owner.api_version.split('/').next();
    let kind = match owner.kind.as_str() {
        _ if group != Some(GROUP) => return None,
        "ActualLRP" => WorkKind::Lrp,
        "Task" => WorkKind::Task,
        _ => return None,
    };
    Some((owner, kind))
}

fn ports(spec: &PodSpec) -> Vec<PortMapping> {
    let declared = spec.containers.iter().flat_map(|one| one.ports.iter());
    declared
        .flatten()
        .map(|port| PortMapping {
            container_port: port.container_port,
            // At the Pod's own address.
            host_port: port.container_port,
            name: port.name.clone(),
        })
        .collect()
}

fn container(status: &ContainerStatus, kind: WorkKind) -> ContainerRecord {
    let state = status.state.clone().unwrap_or_default();
    let max = match kind {
        WorkKind::Lrp => MAX_MESSAGE,
        WorkKind::Task => MAX_RESULT,
    };
    let text = |text: Option<String>| clip(&text.unwrap_or_default(), max);
    let stage = if let Some(ended) = state.terminated {
        ContainerStage::Ended {
            status: ended.exit_code,
            signal: ended.signal.filter(|signal| *signal != 0),
            reason: text(ended.reason),
            message: text(ended.message),
        }
    } else if state.running.is_some() {
        ContainerStage::Running
    } else {
        let waiting = state.waiting.unwrap_or_default();
        ContainerStage::Waiting {
            reason: text(waiting.reason),
            message: text(waiting.message),
        }
    };
    ContainerRecord {
        name: status.name.clone(),
        state: stage,
    }
}

fn told(condition: &PodCondition) -> String {
    let reason = condition.reason.as_deref().unwrap_or_default();
    let message = condition.message.as_deref().unwrap_or_default();
    clip(&super::reason::joined(reason, message), MAX_MESSAGE)
}

fn clip(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => text[..end].to_owned(),
        None => text.to_owned(),
    }
}
