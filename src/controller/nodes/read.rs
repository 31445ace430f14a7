//! Nodes and Pods, read no further than the auction looks, and their records.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::api::core::v1::{self as core, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ObjectMeta;
use serde::Deserialize;

use crate::api::quantity;
use crate::api::template::Resources;
use crate::api::template::requests::{self, Wants};
use crate::converge::neighbours::{self, PodKin};
use crate::converge::node::{NodeRecord, Taint, TaintEffect};
use crate::converge::pods::{self, LABEL_GUID, WorkKey};
use crate::converge::world::Key;

/// A Node without what is not looked at, such as the images on it.
#[derive(kube::Resource, Deserialize, Debug, Clone)]
#[resource(inherit = "core::Node")]
pub struct SomeNode {
    /// Name, uid, labels.
    pub metadata: ObjectMeta,
    /// What operators and controllers set.
    #[serde(default)]
    pub spec: NodeSpec,
    #[serde(default)]
    status: NodeStatus,
}

/// Part of a Node's spec.
#[derive(Deserialize, Debug, Clone, Default)]
pub struct NodeSpec {
    #[serde(default)]
    unschedulable: bool,
    /// Its taints.
    #[serde(default)]
    pub taints: Option<Vec<core::Taint>>,
}

#[derive(Deserialize, Debug, Clone, Default)]
struct NodeStatus {
    #[serde(default)]
    allocatable: BTreeMap<String, Quantity>,
    #[serde(default)]
    conditions: Vec<NodeCondition>,
}

#[derive(Deserialize, Debug, Clone)]
struct NodeCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// A Pod without what is not looked at, which is nearly all of it.
#[derive(kube::Resource, Deserialize, Debug, Clone)]
#[resource(inherit = "core::Pod")]
pub struct SomePod {
    /// Name and uid.
    pub metadata: ObjectMeta,
    #[serde(default)]
    spec: SomePodSpec,
}

#[derive(Deserialize, Debug, Clone, Default)]
#[serde(rename_all = "camelCase")]
struct SomePodSpec {
    node_name: Option<String>,
    #[serde(default)]
    containers: Vec<SomeContainer>,
    #[serde(default)]
    init_containers: Vec<SomeContainer>,
    resources: Option<ResourceRequirements>,
    overhead: Option<BTreeMap<String, Quantity>>,
    affinity: Option<SomeAffinity>,
}

#[derive(Deserialize, Debug, Clone)]
#[serde(rename_all = "camelCase")]
struct SomeAffinity {
    pod_anti_affinity: Option<core::PodAntiAffinity>,
}

#[derive(Deserialize, Debug, Clone)]
#[serde(rename_all = "camelCase")]
struct SomeContainer {
    resources: Option<ResourceRequirements>,
    restart_policy: Option<String>,
}

/// What a Pod takes of which node.
pub struct Takes<'a> {
    /// Which Pod.
    pub uid: u128,
    /// Its node.
    pub node: &'a str,
    /// What it requests.
    pub resources: Resources,
    /// The record of ours that it runs for, and the guid.
    pub ours: Option<(WorkKey, &'a str)>,
    /// It bears the label by which fencers know what must not run twice.
    pub strict: bool,
    /// What other Pods see of it.
    pub kin: PodKin,
}

/// A Node's record.
pub fn node(node: &SomeNode) -> NodeRecord {
    let SomeNode {
        metadata,
        spec,
        status,
    } = node;
    // What can't be read offers nothing.
    let given = |name: &str, read: fn(&str) -> Result<i64, String>| {
        let quantity = status.allocatable.get(name);
        quantity.and_then(|one| read(&one.0).ok()).unwrap_or(0)
    };
    NodeRecord {
        uid: metadata.uid.clone().unwrap_or_default(),
        labels: metadata.labels.clone().unwrap_or_default(),
        unschedulable: spec.unschedulable,
        ready: status
            .conditions
            .iter()
            .any(|one| one.kind == "Ready" && one.status == "True"),
        taints: spec.taints.iter().flatten().filter_map(taint).collect(),
        allocatable: Resources {
            memory: given("memory", quantity::bytes),
            disk: given("ephemeral-storage", quantity::bytes),
            cpu: given("cpu", quantity::millis),
        },
        pods: i32::try_from(given("pods", quantity::bytes)).unwrap_or(i32::MAX),
    }
}

fn taint(taint: &core::Taint) -> Option<Taint> {
    Some(Taint {
        key: taint.key.clone(),
        value: taint.value.clone().unwrap_or_default(),
        effect: TaintEffect::of(&taint.effect)?,
    })
}

/// What a Pod takes; `None` while it has no node.
pub fn pod(pod: &SomePod) -> Option<Takes<'_>> {
    let spec = &pod.spec;
    let node = spec.node_name.as_deref().filter(|name| !name.is_empty())?;
    let restarts = |one: &SomeContainer| one.restart_policy.as_deref() == Some("Always");
    let containers = spec.containers.iter();
    let init = spec.init_containers.iter();
    let wants = Wants {
        containers: containers.map(|one| one.resources.as_ref()).collect(),
        init: init
            .map(|one| (one.resources.as_ref(), restarts(one)))
            .collect(),
        whole: spec.resources.as_ref(),
        overhead: spec.overhead.as_ref(),
    };
    Some(Takes {
        uid: uid(&pod.metadata),
        node,
        // The API server lets only quantities pass.
        resources: requests::of_pod(&wants).unwrap_or_default(),
        ours: ours(&pod.metadata),
        strict: is_strict(&pod.metadata),
        kin: kin(pod),
    })
}

fn kin(pod: &SomePod) -> PodKin {
    let meta = &pod.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let none = BTreeMap::new();
    let affinity = pod.spec.affinity.as_ref();
    let apart = affinity.and_then(|all| all.pod_anti_affinity.as_ref());
    PodKin::new(
        namespace,
        meta.labels.as_ref().unwrap_or(&none),
        apart.map(neighbours::keeps_off).unwrap_or_default(),
    )
}

fn is_strict(meta: &ObjectMeta) -> bool {
    let labels = meta.labels.as_ref();
    let policy = labels.and_then(|labels| labels.get(pods::LABEL_POLICY));
    policy.is_some_and(|policy| policy == pods::STRICT)
}

/// One that nobody owns runs for nobody, whatever its labels say; nor does one of another name than the executor gives,
/// of which there can be no two.
fn ours(meta: &ObjectMeta) -> Option<(WorkKey, &str)> {
    let guid = meta.labels.as_ref()?.get(LABEL_GUID)?;
    let (owner, kind) = pods::owner(meta)?;
    if meta.name.as_deref() != Some(&*pods::build::name(&owner.name, guid)) {
        return None;
    }
    let key = Key::new(meta.namespace.as_deref()?, &*owner.name);
    Some((WorkKey { kind, key }, guid))
}

/// An object's uid as a number: a UUID is one; of anything else a hash will do.
pub fn uid(meta: &ObjectMeta) -> u128 {
    let text = meta.uid.as_deref().unwrap_or_default();
    if let Ok(uuid) = uuid::Uuid::parse_str(text) {
        return uuid.as_u128();
    }
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    u128::from(hasher.finish())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_read_as_far_as_the_auction_looks() {
        let object: SomeNode = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "n1", "uid": "u", "labels": {"disk": "ssd"}},
            "spec": {"unschedulable": true, "taints": [
                {"key": "a", "value": "b", "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"},
                {"key": "c", "effect": "NoExecute"},
            ]},
            "status": {
                "allocatable": {"cpu": "3920m", "memory": "1Gi", "ephemeral-storage": "1000", "pods": "110", "example.com/gpu": "1"},
                "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
                "images": [{"names": ["a"], "sizeBytes": 1}],
            },
        })).unwrap();
        let record = node(&object);
        let taint = |key: &str, value: &str, effect| Taint {
            key: key.into(),
            value: value.into(),
            effect,
        };
        assert_eq!(
            record,
            NodeRecord {
                uid: "u".into(),
                labels: BTreeMap::from([("disk".into(), "ssd".into())]),
                unschedulable: true,
                ready: true,
                taints: vec![
                    taint("a", "b", TaintEffect::NoSchedule),
                    taint("c", "", TaintEffect::NoExecute)
                ],
                allocatable: Resources {
                    memory: 1 << 30,
                    disk: 1000,
                    cpu: 3920
                },
                pods: 110,
            }
        );
    }

    #[test]
    fn a_bare_node_is_not_ready_and_offers_nothing() {
        let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
        let record = node(&serde_json::from_value(object).unwrap());
        assert_eq!(record, NodeRecord::default());
    }

    #[test]
    fn a_pod_runs_for_the_record_that_owns_it() {
        let named = |name: &str, owner: serde_json::Value| {
            let pod: SomePod = serde_json::from_value(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": name, "namespace": "ns", "ownerReferences": [owner],
                    "labels": {"diego.cloudfoundry.org/instance-guid": "1234"},
                },
                "spec": {"nodeName": "n1", "containers": []},
            }))
            .unwrap();
            let ours = super::pod(&pod).unwrap().ours;
            ours.map(|(work, guid)| (work.to_string(), guid.to_owned()))
        };
        let ours = |owner| named("web-0-1234", owner);
        let owner = |kind: &str, controller| json!({"apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": kind, "name": "web-0", "uid": "u", "controller": controller});
        let expected = Some(("ActualLRP ns/web-0".to_owned(), "1234".to_owned()));
        assert_eq!(ours(owner("ActualLRP", true)), expected);
        assert_eq!(ours(owner("ActualLRP", false)), None);
        assert_eq!(ours(owner("ReplicaSet", true)), None);
        assert_eq!(named("forged", owner("ActualLRP", true)), None);
    }

    #[test]
    fn a_pod_takes_what_it_requests_of_its_node() {
        let object = |node: serde_json::Value| -> SomePod {
            serde_json::from_value(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "p", "uid": "67e55044-10b1-426f-9247-bb680e5fe0c8"},
                "spec": {"nodeName": node, "containers": [
                    {"name": "a", "image": "i", "resources": {"requests": {"cpu": "250m", "memory": "64Mi"}}},
                ]},
            }))
            .unwrap()
        };
        assert!(pod(&object(json!(null))).is_none());
        let object = object(json!("n1"));
        let takes = pod(&object).unwrap();
        assert_eq!(
            (takes.node, takes.resources.cpu, takes.resources.memory),
            ("n1", 250, 64 << 20)
        );
        assert_eq!(takes.uid, 0x67e5_5044_10b1_426f_9247_bb68_0e5f_e0c8);
    }
}
