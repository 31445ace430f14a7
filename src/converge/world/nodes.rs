//! The nodes that Cells are, and what Pods of others take of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::api::{CellState, template::Resources};
use crate::converge::node::{CellNode, NodeRecord, Standing};

use super::{CellRecord, World};

/// What Pods that are not ours take of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Foreign {
    /// What they request.
    pub resources: Resources,
    /// How many they are.
    pub pods: i32,
}

/// A Pod that is not ours: there may be very many, so no more than this is kept of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignPod {
    /// Its node.
    pub node: Arc<str>,
    /// What it requests.
    pub resources: Resources,
    /// The re-list it was last seen in.
    seen: u64,
}

/// Nodes and the Pods of others on them.
#[derive(Debug, Clone, Default)]
pub(super) struct Nodes {
    nodes: HashMap<String, NodeRecord>,
    nodes_listed: bool,
    /// By uid.
    pods: HashMap<u128, ForeignPod>,
    pods_listed: bool,
    taken: HashMap<Arc<str>, Foreign>,
}

/// What a change of a node means to others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeNews {
    /// Cells whose standing changed.
    pub cells: Vec<String>,
    /// There may be more room than before.
    pub room: bool,
}

impl World {
    /// One Node.
    pub fn node(&self, name: &str) -> Option<&NodeRecord> {
        self.nodes.nodes.get(name)
    }

    /// All Nodes were listed once: what is not there does not exist.
    pub fn nodes_are_listed(&self) -> bool {
        self.nodes.nodes_listed
    }

    /// All Nodes by name, in no order.
    pub fn nodes(&self) -> impl Iterator<Item = (&String, &NodeRecord)> {
        self.nodes.nodes.iter()
    }

    /// What Pods of others take of a node.
    pub fn foreign(&self, node: &str) -> Foreign {
        self.nodes.taken.get(node).copied().unwrap_or_default()
    }

    /// How many Pods of others are known.
    pub fn foreign_pods(&self) -> usize {
        self.nodes.pods.len()
    }

    /// How the node of a Cell stands.
    fn standing(&self, node: &str) -> Standing {
        if !self.nodes.nodes_listed || !self.nodes.pods_listed {
            return Standing::NotRead;
        }
        self.node(node).map_or(Standing::NotFound, Standing::of)
    }

    pub(super) fn standing_of(&self, node: CellNode) -> CellNode {
        CellNode {
            standing: self.standing(&node.name),
            ..node
        }
    }

    /// Enters a Node.
    pub fn put_node(&mut self, name: &str, record: NodeRecord) -> NodeNews {
        let known = self.nodes.nodes.insert(name.to_owned(), record);
        let grew = match (known, self.node(name)) {
            (Some(known), Some(now)) => known != *now,
            _ => true,
        };
        let cells = self.review(Some(name));
        // Labels and taints may let in what they kept out.
        let room = grew && self.cells_on(name).next().is_some();
        NodeNews { cells, room }
    }

    /// Removes a Node. Returns the Cells that stand on it.
    pub fn remove_node(&mut self, name: &str) -> NodeNews {
        self.nodes.nodes.remove(name);
        NodeNews {
            cells: self.review(Some(name)),
            room: false,
        }
    }

    /// All Nodes are listed: drops what is not in `live`.
    pub fn end_node_list(&mut self, live: &HashSet<String>) -> NodeNews {
        self.nodes.nodes.retain(|name, _| live.contains(name));
        self.nodes.nodes_listed = true;
        NodeNews {
            cells: self.review(None),
            room: true,
        }
    }

    /// Enters a Pod of others, or what it requests now. Returns whether that frees room.
    pub fn put_foreign(&mut self, uid: u128, node: &str, resources: Resources) -> bool {
        let before = self.remove_pod(uid);
        let node: Arc<str> = match self.nodes.taken.get_key_value(node) {
            Some((known, _)) => known.clone(),
            None => node.into(),
        };
        let taken = self.nodes.taken.entry(node.clone()).or_default();
        taken.pods += 1;
        taken.resources = taken.resources.plus(resources);
        let frees = before.is_some_and(|before| {
            before.node != node
                || before.resources.memory > resources.memory
                || before.resources.disk > resources.disk
                || before.resources.cpu > resources.cpu
        });
        let frees = frees && self.cells_on(&node).next().is_some();
        let seen = self.relist;
        self.nodes.pods.insert(
            uid,
            ForeignPod {
                node,
                resources,
                seen,
            },
        );
        frees
    }

    /// Removes a Pod of others. Returns whether that frees room on a Cell.
    pub fn remove_foreign(&mut self, uid: u128) -> bool {
        let Some(pod) = self.remove_pod(uid) else {
            return false;
        };
        self.cells_on(&pod.node).next().is_some()
    }

    fn remove_pod(&mut self, uid: u128) -> Option<ForeignPod> {
        let pod = self.nodes.pods.remove(&uid)?;
        if let Some(taken) = self.nodes.taken.get_mut(&pod.node) {
            taken.pods -= 1;
            let less = |sum: i64, one: i64| sum.saturating_sub(one);
            taken.resources = Resources {
                memory: less(taken.resources.memory, pod.resources.memory),
                disk: less(taken.resources.disk, pod.resources.disk),
                cpu: less(taken.resources.cpu, pod.resources.cpu),
            };
            if taken.pods == 0 {
                self.nodes.taken.remove(&pod.node);
            }
        }
        Some(pod)
    }

    /// All Pods of others are listed: drops what the list that began with [`World::begin_relist`] did not show.
    pub fn end_foreign_list(&mut self, since: u64) -> NodeNews {
        let gone = self.nodes.pods.iter().filter(|(_, pod)| pod.seen < since);
        let gone: Vec<u128> = gone.map(|(uid, _)| *uid).collect();
        for uid in gone {
            self.remove_pod(uid);
        }
        self.nodes.pods_listed = true;
        NodeNews {
            cells: self.review(None),
            room: true,
        }
    }

    /// The Cells that are this node; more than one only by mistake.
    pub fn cells_of_node<'a>(
        &'a self,
        node: &'a str,
    ) -> impl Iterator<Item = (&'a String, &'a CellRecord)> {
        self.cells
            .iter()
            .filter(move |(_, cell)| cell.node.as_ref().is_some_and(|one| one.name == node))
    }

    /// Whether a Cell that is this node is lost.
    pub fn node_is_lost(&self, node: &str) -> bool {
        self.cells_of_node(node)
            .any(|(_, cell)| cell.status.state == Some(CellState::Missing))
    }

    fn cells_on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a String> {
        self.cells_of_node(node).map(|(name, _)| name)
    }

    /// Looks again how Cells stand, on one node or on all. Returns those for which it changed.
    fn review(&mut self, node: Option<&str>) -> Vec<String> {
        let mut changed = Vec::new();
        for (name, cell) in &self.cells {
            if let Some(own) = &cell.node
                && node.is_none_or(|node| own.name == node)
                && self.standing(&own.name) != own.standing
            {
                changed.push((name.clone(), self.standing(&own.name)));
            }
        }
        for (name, standing) in &changed {
            if let Some(cell) = self.cells.get_mut(name)
                && let Some(node) = &mut cell.node
            {
                node.standing = *standing;
            }
        }
        changed.into_iter().map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(cpu: i64) -> Resources {
        Resources {
            memory: 10 * cpu,
            disk: 0,
            cpu,
        }
    }

    #[test]
    fn the_books_of_foreign_pods_balance() {
        let mut world = World::default();
        world.put_foreign(1, "n1", takes(100));
        world.put_foreign(2, "n1", takes(50));
        world.put_foreign(2, "n1", takes(20));
        let foreign = world.foreign("n1");
        assert_eq!((foreign.pods, foreign.resources), (2, takes(120)));
        world.remove_foreign(1);
        world.remove_foreign(1);
        assert_eq!(world.foreign("n1").resources, takes(20));
        world.put_foreign(2, "n2", takes(20));
        assert_eq!(world.foreign("n1"), Foreign::default());
        let since = world.begin_relist();
        world.put_foreign(3, "n2", takes(1));
        world.end_foreign_list(since);
        let foreign = world.foreign("n2");
        assert_eq!((foreign.pods, foreign.resources), (1, takes(1)));
        world.remove_foreign(3);
        assert!(world.nodes.taken.is_empty() && world.nodes.pods.is_empty());
    }

    /// A hash table is between 7/16 and 7/8 full, and needs one byte more for each place.
    #[test]
    fn a_foreign_pod_takes_at_most_150_bytes() {
        let place = std::mem::size_of::<(u128, ForeignPod)>() + 1;
        assert!(place * 16 / 7 <= 150, "{place} bytes a place");
    }
}
