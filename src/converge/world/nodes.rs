//! The nodes that Cells are, and what is taken of them beside the charges of the records.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::api::{CellState, template::Resources};
use crate::converge::neighbours::PodKin;
use crate::converge::node::{CellNode, NodeRecord, Standing};

use super::kin::Kins;
use super::own_pods::OwnPods;
use super::{CellRecord, World};

/// What is taken of one node beside the charges of the records: by Pods of others, and by ours as far as no record is
/// charged for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Foreign {
    /// What they request.
    pub resources: Resources,
    /// How many Pods no record is charged for.
    pub pods: i32,
}

impl Foreign {
    fn is_nothing(&self) -> bool {
        *self == Foreign::default()
    }
}

/// A Pod that is not ours: there may be very many, so no more than this is kept of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignPod {
    /// Its node.
    pub node: Arc<str>,
    /// What it requests.
    pub resources: Resources,
    /// Which Pods it is like.
    pub(super) kin: u32,
    /// The re-list it was last seen in.
    seen: u32,
}

/// Nodes and the Pods of others on them.
#[derive(Debug, Clone, Default)]
pub(super) struct Nodes {
    nodes: HashMap<String, NodeRecord>,
    nodes_listed: bool,
    /// By uid.
    pub pods: HashMap<u128, ForeignPod>,
    pods_listed: bool,
    taken: HashMap<Arc<str>, Foreign>,
    /// What the Pods look like to each other.
    pub kins: Kins,
    pub own: OwnPods,
    /// The Cells that are a node; more than one only by mistake.
    cells: HashMap<String, BTreeSet<String>>,
}

/// A Pod that is not counted any more.
pub(super) struct Removed {
    node: Arc<str>,
    /// What it counted for there.
    booked: Foreign,
    /// Which Pods it was like.
    pub kin: u32,
    /// It did not have others near it.
    kept_off: bool,
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

    /// What is taken of a node beside the charges of the records.
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
        let room = grew && self.cell_of_node(name).is_some();
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

    /// Enters a Pod of others, or what it is now. Returns whether that may let something in that waits.
    pub fn put_foreign(
        &mut self,
        uid: u128,
        node: &str,
        resources: Resources,
        kin: PodKin,
    ) -> bool {
        let booked = Foreign { resources, pods: 1 };
        let node = self.book_on(node, booked);
        // Before the old one leaves, which would free its number for the new one.
        let kin = self.nodes.kins.enter(kin, Some(&node));
        let before = self.remove_pod(uid);
        let changed = before.as_ref().is_none_or(|before| before.kin != kin);
        let frees = self.frees(before.as_ref(), &node, booked);
        let pod = ForeignPod {
            node,
            resources,
            kin,
            seen: self.relist as u32,
        };
        self.nodes.pods.insert(uid, pod);
        frees || changed && self.pods_may_let_in()
    }

    /// Removes a Pod. Returns whether that frees room on a Cell, or may let in what it kept off: near it need not be on
    /// its node.
    pub fn remove_foreign(&mut self, uid: u128) -> bool {
        let Some(removed) = self.remove_pod(uid) else {
            return false;
        };
        let frees = !removed.booked.is_nothing() && self.cell_of_node(&removed.node).is_some();
        frees || self.pods_may_let_in() || removed.kept_off && !self.waiting.is_empty()
    }

    /// Books what a Pod counts for on its node.
    pub(super) fn book_on(&mut self, node: &str, booked: Foreign) -> Arc<str> {
        let node: Arc<str> = match self.nodes.taken.get_key_value(node) {
            Some((known, _)) => known.clone(),
            None => node.into(),
        };
        if !booked.is_nothing() {
            let taken = self.nodes.taken.entry(node.clone()).or_default();
            taken.pods += booked.pods;
            taken.resources = taken.resources.plus(booked.resources);
        }
        node
    }

    /// Takes it off again.
    pub(super) fn unbook(&mut self, node: &str, booked: Foreign) {
        let Some(taken) = self.nodes.taken.get_mut(node) else {
            return;
        };
        let less = |sum: i64, one: i64| sum.saturating_sub(one);
        taken.pods -= booked.pods;
        taken.resources = Resources {
            memory: less(taken.resources.memory, booked.resources.memory),
            disk: less(taken.resources.disk, booked.resources.disk),
            cpu: less(taken.resources.cpu, booked.resources.cpu),
        };
        if taken.is_nothing() {
            self.nodes.taken.remove(node);
        }
    }

    /// Whether a Pod on the node of a Cell takes less than it did.
    pub(super) fn frees(&self, before: Option<&Removed>, node: &Arc<str>, booked: Foreign) -> bool {
        let less = before.is_some_and(|before| {
            let (was, is) = (before.booked.resources, booked.resources);
            before.node != *node
                || before.booked.pods > booked.pods
                || was.memory > is.memory
                || was.disk > is.disk
                || was.cpu > is.cpu
        });
        less && self.cell_of_node(node).is_some()
    }

    /// Removes a Pod of anybody. Returns what it was.
    pub(super) fn remove_pod(&mut self, uid: u128) -> Option<Removed> {
        let (node, kin, booked, is_foreign) = match self.nodes.pods.remove(&uid) {
            Some(pod) => {
                let booked = Foreign {
                    resources: pod.resources,
                    pods: 1,
                };
                (pod.node, pod.kin, booked, true)
            }
            None => {
                let pod = self.nodes.own.remove(uid)?;
                (pod.node, pod.kin, pod.booked, false)
            }
        };
        let kept_off = self.nodes.kins.keeps_off(kin);
        let guarded = Some(&*node).filter(|_| is_foreign);
        self.nodes.kins.leave(kin, guarded);
        self.unbook(&node, booked);
        Some(Removed {
            node,
            booked,
            kin,
            kept_off,
        })
    }

    /// All Pods are listed: drops what the list that began with [`World::begin_relist`] did not show.
    pub fn end_foreign_list(&mut self, since: u64) -> NodeNews {
        let others = self.nodes.pods.iter();
        let others = others.filter(|(_, pod)| u64::from(pod.seen) < since);
        let ours = self.nodes.own.pods.iter();
        let ours = ours.filter(|(_, pod)| u64::from(pod.seen) < since);
        let others = others.map(|(uid, _)| *uid);
        let gone: Vec<u128> = others.chain(ours.map(|(uid, _)| *uid)).collect();
        for uid in gone {
            self.remove_pod(uid);
        }
        self.nodes.pods_listed = true;
        NodeNews {
            cells: self.review(None),
            room: true,
        }
    }

    /// The Cell that is this node.
    pub fn cell_of_node(&self, node: &str) -> Option<&str> {
        let cells = self.nodes.cells.get(node)?;
        cells.first().map(String::as_str)
    }

    /// The Cells that are this node; more than one only by mistake.
    pub fn cells_of_node(&self, node: &str) -> impl Iterator<Item = (&String, &CellRecord)> {
        let names = self.nodes.cells.get(node).into_iter().flatten();
        names.filter_map(|name| self.cells.get_key_value(name))
    }

    /// The nodes that Cells are, whether they exist or not.
    pub fn nodes_of_cells(&self) -> impl ExactSizeIterator<Item = &String> {
        self.nodes.cells.keys()
    }

    /// Whether a Cell that is this node is lost.
    pub fn node_is_lost(&self, node: &str) -> bool {
        self.cells_of_node(node)
            .any(|(_, cell)| cell.status.state == Some(CellState::Missing))
    }

    /// A Cell is another node than before.
    pub(super) fn stands_on(&mut self, cell: &str, former: Option<&str>, now: Option<&str>) {
        if let Some(former) = former
            && let Some(cells) = self.nodes.cells.get_mut(former)
        {
            cells.remove(cell);
            if cells.is_empty() {
                self.nodes.cells.remove(former);
            }
        }
        if let Some(now) = now {
            let cells = self.nodes.cells.entry(now.to_owned()).or_default();
            cells.insert(cell.to_owned());
        }
        self.review_pods_of(cell);
    }

    /// Looks again how Cells stand, on one node or on all. Returns those for which it changed.
    fn review(&mut self, node: Option<&str>) -> Vec<String> {
        let mut changed = Vec::new();
        let mut look = |name: &String, cell: &CellRecord| {
            if let Some(own) = &cell.node
                && self.standing(&own.name) != own.standing
            {
                changed.push((name.clone(), self.standing(&own.name)));
            }
        };
        match node {
            Some(node) => self
                .cells_of_node(node)
                .for_each(|(name, cell)| look(name, cell)),
            None => self.cells.iter().for_each(|(name, cell)| look(name, cell)),
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
mod tests;
