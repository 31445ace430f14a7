//! The Pod of an instance or of a Task: the template as it is, bound to a node, labelled, and owned by its record.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Map, Value, json};

use super::read::DEFAULT_CONTAINER;
use super::{ANNOTATION_EPOCH, LABEL_CELL, LABEL_GUID, LABEL_POLICY, LABEL_TASK, STRICT, WorkKind};
use crate::api::{GROUP, LABEL_DESIRED_LRP, LABEL_INDEX, MissingCellPolicy, RawTemplate, VERSION};
use crate::converge::node::CELL_MISSING_TAINT;

/// Names of Pods are host names: at most so long.
const MAX_NAME: usize = 63;

/// So much of the guid is in a Pod's name.
const GUID_IN_NAME: usize = 8;

/// A Pod is kept off so many nodes at most, lest it grows with the cluster.
const MAX_KEPT_OFF: usize = 64;

/// For whom a Pod is made.
#[derive(Debug, Clone, Copy)]
pub struct Bound<'a> {
    /// The namespace of the record and of the Pod.
    pub namespace: &'a str,
    /// The name of the record.
    pub record: &'a str,
    /// Its uid.
    pub uid: &'a str,
    /// The guid of this run.
    pub guid: &'a str,
    /// Where it runs.
    pub place: Place<'a>,
    /// What runs.
    pub what: What<'a>,
}

/// Where a Pod runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// On the node of a Cell.
    Cell {
        /// The Cell.
        cell: &'a str,
        /// Its epoch.
        epoch: i64,
        /// Its node.
        node: &'a str,
    },
    /// Where the scheduler of the template puts it.
    Scheduled {
        /// Nodes of Cells that take no work now.
        closed: &'a [String],
    },
}

/// What runs in a Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What<'a> {
    /// An instance of a process.
    Lrp {
        /// The DesiredLRP.
        process: &'a str,
        /// Which instance.
        index: i32,
        /// What becomes of it when its Cell is missing.
        policy: MissingCellPolicy,
    },
    /// A Task.
    Task {
        /// The file that becomes its result.
        result_file: Option<&'a str>,
    },
}

impl What<'_> {
    fn kind(&self) -> WorkKind {
        match self {
            What::Lrp { .. } => WorkKind::Lrp,
            What::Task { .. } => WorkKind::Task,
        }
    }
}

/// The name of a Pod: that of its record and the beginning of its guid.
pub fn name(record: &str, guid: &str) -> String {
    let guid: String = guid.chars().take(GUID_IN_NAME).collect();
    // Names of records are ASCII.
    let room = MAX_NAME - 1 - guid.len();
    let record: String = record.chars().take(room).collect();
    format!("{}-{guid}", record.trim_end_matches('-'))
}

/// The Pod, as metadata and spec: kept as raw as the template, so that no field gets lost that this program does not
/// know.
///
/// # Errors
/// What can't be made a Pod, naming the field.
pub fn pod(template: &RawTemplate, bound: &Bound<'_>) -> Result<(ObjectMeta, Value), String> {
    let meta: ObjectMeta = match &template.metadata {
        Some(meta) => serde_json::from_value(meta.clone())
            .map_err(|error| format!("spec.template.metadata: {error}"))?,
        None => ObjectMeta::default(),
    };
    let Value::Object(mut spec) = template.spec.clone() else {
        return Err("spec.template.spec: must be an object".into());
    };
    // Whether and when it starts again is for Diego's crash policy to say.
    spec.insert("restartPolicy".into(), json!("Never"));
    let mut labels = meta.labels.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    labels.insert(LABEL_GUID.into(), bound.guid.into());
    match bound.place {
        Place::Cell { cell, epoch, node } => {
            spec.insert("nodeName".into(), json!(node));
            tolerate(&mut spec);
            labels.insert(LABEL_CELL.into(), cell.into());
            annotations.insert(ANNOTATION_EPOCH.into(), epoch.to_string());
        }
        Place::Scheduled { closed } => {
            let asked = spec.remove("nodeName");
            if let Some(Value::String(node)) = asked.filter(|node| *node != "") {
                return Err(format!(
                    "spec.template.spec.nodeName: {node:?} can't be together with schedulerName, since a scheduler does not look at Pods that have a node: remove one of the two"
                ));
            }
            keep_off(&mut spec, closed)?;
            labels.remove(LABEL_CELL);
            annotations.remove(ANNOTATION_EPOCH);
        }
    }
    match bound.what {
        What::Lrp {
            process,
            index,
            policy,
        } => {
            labels.insert(LABEL_DESIRED_LRP.into(), process.into());
            labels.insert(LABEL_INDEX.into(), index.to_string());
            labels.remove(LABEL_TASK);
            match policy {
                MissingCellPolicy::Strict => labels.insert(LABEL_POLICY.into(), STRICT.into()),
                MissingCellPolicy::Suspect => labels.remove(LABEL_POLICY),
            };
        }
        What::Task { result_file } => {
            labels.insert(LABEL_TASK.into(), bound.record.into());
            labels.remove(LABEL_DESIRED_LRP);
            labels.remove(LABEL_INDEX);
            // A lost Cell's Task has failed, and is never run again: there is nothing to fence.
            labels.remove(LABEL_POLICY);
            if let Some(file) = result_file {
                let wanted = annotations.get(DEFAULT_CONTAINER).map(String::as_str);
                set_result_file(&mut spec, wanted, file)?;
            }
        }
    }
    let owner = OwnerReference {
        api_version: format!("{GROUP}/{VERSION}"),
        kind: bound.what.kind().as_str().into(),
        name: bound.record.into(),
        uid: bound.uid.into(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    let meta = ObjectMeta {
        name: Some(name(bound.record, bound.guid)),
        namespace: Some(bound.namespace.into()),
        labels: Some(labels),
        annotations: Some(annotations).filter(|all| !all.is_empty()),
        owner_references: Some(vec![owner]),
        ..Default::default()
    };
    Ok((meta, Value::Object(spec)))
}

/// Kubernetes puts these on a Node whose kubelet it does not hear, and deletes what does not tolerate them after 300 s.
const UNHEARD: [&str; 2] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
];

/// The node's taints move what has no other mover. What a record moves stays until the record has moved; where the template
/// itself says how long it bears a Node that is not heard, that stands.
fn tolerate(spec: &mut Map<String, Value>) {
    let templates = spec.get("tolerations").and_then(Value::as_array);
    let mut all = templates.cloned().unwrap_or_default();
    let said = |key: &str| {
        all.iter().any(|toleration| {
            let field = |name| {
                toleration
                    .get(name)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            ["", key].contains(&field("key")) && ["", "NoExecute"].contains(&field("effect"))
        })
    };
    let unheard = UNHEARD.into_iter().filter(|key| !said(key));
    let keys: Vec<&str> = std::iter::once(CELL_MISSING_TAINT).chain(unheard).collect();
    all.extend(
        keys.into_iter()
            .map(|key| json!({ "key": key, "operator": "Exists", "effect": "NoExecute" })),
    );
    spec.insert("tolerations".into(), Value::Array(all));
}

/// Requires that a scheduler chooses none of these nodes, beside what the template requires. Each of the terms there is
/// enough by itself, so each is told so.
fn keep_off(spec: &mut Map<String, Value>, nodes: &[String]) -> Result<(), String> {
    if nodes.is_empty() {
        return Ok(());
    }
    // A requirement on a field takes one value.
    let off = nodes.iter().take(MAX_KEPT_OFF);
    let off =
        off.map(|node| json!({ "key": "metadata.name", "operator": "NotIn", "values": [node] }));
    let off: Vec<Value> = off.collect();
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let mut place = Some(spec);
    for field in ["affinity", "nodeAffinity", required] {
        let of = place.and_then(|map| {
            let value = map.entry(field).or_insert(Value::Null);
            if value.is_null() {
                *value = json!({});
            }
            value.as_object_mut()
        });
        place = of;
    }
    let terms = place.map(|map| {
        map.entry("nodeSelectorTerms")
            .or_insert_with(|| json!([{ "matchFields": [] }]))
    });
    let Some(terms) = terms.and_then(Value::as_array_mut) else {
        return Err(format!(
            "spec.template.spec.affinity.nodeAffinity.{required}: must be an object with a list nodeSelectorTerms"
        ));
    };
    // An empty term matches no node, and stays so.
    let terms = terms.iter_mut().filter_map(Value::as_object_mut);
    for term in terms.filter(|term| !term.is_empty()) {
        match term.get_mut("matchFields") {
            Some(Value::Array(fields)) => fields.extend(off.iter().cloned()),
            Some(_) | None => drop(term.insert("matchFields".into(), json!(off))),
        }
    }
    Ok(())
}

/// A result is the termination message of one container; the file is where the kubelet reads it from.
fn set_result_file(
    spec: &mut Map<String, Value>,
    wanted: Option<&str>,
    file: &str,
) -> Result<(), String> {
    if !file.starts_with('/') {
        return Err(format!(
            "spec.resultFile: {file:?} must be an absolute path where a Task runs as a Pod, since it becomes the container's terminationMessagePath: create the Task with one"
        ));
    }
    let containers = spec.get_mut("containers").and_then(Value::as_array_mut);
    let containers = containers.map(Vec::as_mut_slice).unwrap_or_default();
    let named = |one: &Value| wanted.is_some_and(|name| one["name"] == name);
    let at = containers.iter().position(named).unwrap_or(0);
    match containers.get_mut(at).and_then(Value::as_object_mut) {
        Some(container) => {
            container.insert("terminationMessagePath".into(), json!(file));
            Ok(())
        }
        None => Err("spec.template.spec.containers: must have at least one container".into()),
    }
}
