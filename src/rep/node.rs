//! The Node that this machine is, with executor Pods: where it stands and what its kubelet gives to Pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{Api, Client};

use crate::api::{Capacity, quantity};
use crate::client::{CallError, bounded};

/// The label of the failure domain, and its name of former years.
const ZONE_LABELS: [&str; 2] = [
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/zone",
];

/// What the operator told of what the Cell offers; the rest is the Node's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// `--memory`
    pub memory: Option<String>,
    /// `--disk`
    pub disk: Option<String>,
    /// `--max-containers`
    pub containers: Option<i32>,
}

/// What the rep takes over from its Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its zone, if it has one.
    pub zone: Option<String>,
    /// What the Cell offers.
    pub capacity: Capacity,
}

/// Why the Node can't be used.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// There is none.
    #[error(
        "there is no Node {0:?}: --node-name must be the name of the Node that this machine is; in a Pod take it from the field spec.nodeName"
    )]
    NotFound(String),
    /// No right to read it.
    #[error(
        "Node {0:?} can't be read: {1}; give this rep's ServiceAccount a ClusterRole with the rule {{apiGroups: [\"\"], resources: [nodes], verbs: [get]}}"
    )]
    Forbidden(String, CallError),
    /// No answer, or no good one.
    #[error("Node {0:?} can't be read: {1}")]
    Call(String, CallError),
}

/// Reads one Node.
#[derive(Clone)]
pub struct OwnNode {
    /// Its name.
    pub name: String,
    client: Client,
    offer: Offer,
}

impl OwnNode {
    /// The Node of this name.
    pub fn new(client: Client, name: &str, offer: Offer) -> OwnNode {
        OwnNode {
            name: name.to_owned(),
            client,
            offer,
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// When there is none, or it can't be read.
    pub async fn read(&self) -> Result<NodeFacts, NodeError> {
        let name = || self.name.clone();
        let api = Api::<Node>::all(self.client.clone());
        match bounded(api.get_opt(&self.name)).await {
            Ok(Some(node)) => Ok(facts(&node, &self.offer)),
            Ok(None) => Err(NodeError::NotFound(name())),
            Err(error) if error.is_forbidden() => Err(NodeError::Forbidden(name(), error)),
            Err(error) => Err(NodeError::Call(name(), error)),
        }
    }
}

fn facts(node: &Node, offer: &Offer) -> NodeFacts {
    let labels = node.metadata.labels.as_ref();
    let zone = ZONE_LABELS
        .iter()
        .filter_map(|label| labels?.get(*label))
        .find(|zone| (1..=63).contains(&zone.len()));
    let status = node.status.as_ref();
    let allocatable = status.and_then(|status| status.allocatable.as_ref());
    let given = |name: &str| amount(allocatable, name);
    NodeFacts {
        zone: zone.cloned(),
        capacity: Capacity {
            memory: offer
                .memory
                .clone()
                .unwrap_or_else(|| quantity::format(given("memory"))),
            disk: offer
                .disk
                .clone()
                .unwrap_or_else(|| quantity::format(given("ephemeral-storage"))),
            containers: offer.containers.unwrap_or_else(|| {
                let pods = i32::try_from(given("pods")).unwrap_or(i32::MAX);
                // A kubelet that has just begun says nothing yet; the schema wants one at least.
                pods.clamp(1, 100_000)
            }),
        },
    }
}

fn amount(allocatable: Option<&BTreeMap<String, Quantity>>, name: &str) -> i64 {
    allocatable
        .and_then(|all| all.get(name))
        .and_then(|one| quantity::bytes(&one.0).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(labels: serde_json::Value) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n1", "uid": "u", "labels": labels},
            "status": {"allocatable": {"memory": "2Gi", "ephemeral-storage": "1000", "pods": "110", "cpu": "2"}},
        }))
        .unwrap()
    }

    #[test]
    fn the_cell_offers_what_the_kubelet_gives_to_pods() {
        let found = facts(&node(json!({})), &Offer::default());
        assert_eq!(found.zone, None);
        let expected = Capacity {
            memory: "2Gi".into(),
            disk: "1000".into(),
            containers: 110,
        };
        assert_eq!(found.capacity, expected);
    }

    #[test]
    fn what_the_operator_says_goes_before() {
        let offer = Offer {
            memory: Some("1Gi".into()),
            disk: None,
            containers: Some(5),
        };
        let Capacity {
            memory,
            disk,
            containers,
        } = facts(&node(json!({})), &offer).capacity;
        assert_eq!((&*memory, &*disk, containers), ("1Gi", "1000", 5));
    }

    #[test]
    fn the_zone_is_that_of_either_label() {
        let zone = |labels| facts(&node(labels), &Offer::default()).zone;
        let both = json!({"failure-domain.beta.kubernetes.io/zone": "old", "topology.kubernetes.io/zone": "new"});
        assert_eq!(zone(both).as_deref(), Some("new"));
        let old = json!({"failure-domain.beta.kubernetes.io/zone": "old"});
        assert_eq!(zone(old).as_deref(), Some("old"));
        assert_eq!(zone(json!({"topology.kubernetes.io/zone": ""})), None);
    }

    #[test]
    fn a_node_that_says_nothing_yet_offers_nothing() {
        let facts = facts(&Node::default(), &Offer::default());
        assert_eq!(
            (&*facts.capacity.memory, facts.capacity.containers),
            ("0", 1)
        );
    }
}
