//! A Kubernetes node as the auction sees it: which Pods may go there, as far as the node itself decides it.
//!
//! The rules are those of the scheduler's filters NodeName, TaintToleration and NodeAffinity; how much room is left
//! is the auction's own affair. [`needs`] reads what a template asks of a node.

use std::collections::BTreeMap;

use crate::api::template::Resources;

pub mod needs;
mod refused;
pub mod taint;

pub use needs::{Expression, NodeNeeds, Operator, Term, Toleration};
pub use refused::refusal;

/// The taint that a lost Cell's Node is given, where that is switched on. Pods of ours stay: what becomes of them is
/// decided by the rules of their Cell.
pub const CELL_MISSING_TAINT: &str = "diego.cloudfoundry.org/cell-missing";

/// A Node, as far as the rules look at it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeRecord {
    /// Which object it is.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// It is cordoned.
    pub unschedulable: bool,
    /// Its kubelet says that it is ready.
    pub ready: bool,
    /// What keeps Pods away that do not tolerate it.
    pub taints: Vec<Taint>,
    /// What its kubelet gives to Pods.
    pub allocatable: Resources,
    /// So many Pods at once.
    pub pods: i32,
}

/// One taint of a Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value; often empty.
    pub value: String,
    /// What it does.
    pub effect: TaintEffect,
}

/// What a taint does to Pods that do not tolerate it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaintEffect {
    /// None is placed there.
    NoSchedule,
    /// Others are placed there first; the auction does not look at it.
    PreferNoSchedule,
    /// None is placed there, and those that are there are evicted.
    NoExecute,
}

impl Taint {
    /// Whether it is the one that a lost Cell's Node is given.
    pub fn is_ours(&self) -> bool {
        self.key == CELL_MISSING_TAINT && self.effect == TaintEffect::NoExecute
    }
}

impl TaintEffect {
    /// The effect of this name.
    pub fn of(name: &str) -> Option<TaintEffect> {
        match name {
            "NoSchedule" => Some(TaintEffect::NoSchedule),
            "PreferNoSchedule" => Some(TaintEffect::PreferNoSchedule),
            "NoExecute" => Some(TaintEffect::NoExecute),
            _ => None,
        }
    }

    /// Whether it keeps Pods away.
    fn is_hard(self) -> bool {
        match self {
            TaintEffect::NoSchedule | TaintEffect::NoExecute => true,
            TaintEffect::PreferNoSchedule => false,
        }
    }
}

/// Whether a Cell's node takes new Pods at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// The controller has not read the Nodes, or the Pods that are on them: it may lack the right to.
    #[default]
    NotRead,
    /// There is no such Node.
    NotFound,
    /// Its kubelet does not say that it is ready.
    NotReady,
    /// It is cordoned.
    Unschedulable,
    /// It does.
    Open,
}

impl Standing {
    /// That of a Node.
    pub fn of(node: &NodeRecord) -> Standing {
        match (node.ready, node.unschedulable) {
            (false, _) => Standing::NotReady,
            (true, true) => Standing::Unschedulable,
            (true, false) => Standing::Open,
        }
    }

    /// Why not, in the scheduler's words where it has any.
    pub fn why_not(self) -> Option<&'static str> {
        match self {
            Standing::NotRead => Some("node(s) could not be read by the controller"),
            Standing::NotFound => Some("node(s) didn't exist"),
            Standing::NotReady => Some("node(s) were not ready"),
            Standing::Unschedulable => Some("node(s) were unschedulable"),
            Standing::Open => None,
        }
    }
}

/// The node that a Cell is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CellNode {
    /// Its name.
    pub name: String,
    /// How it stands; kept by the world.
    pub standing: Standing,
}

/// What keeps a Pod from a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit<'a> {
    /// It asks for another by name.
    Name,
    /// It does not tolerate this taint.
    Taint(&'a Taint),
    /// It asks for other labels.
    Affinity,
}

impl std::fmt::Display for Unfit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unfit::Name => f.write_str("node(s) didn't match the requested node name"),
            Unfit::Taint(Taint { key, value, .. }) => {
                write!(f, "node(s) had untolerated taint {{{key}: {value}}}")
            }
            Unfit::Affinity => f.write_str("node(s) didn't match Pod's node affinity/selector"),
        }
    }
}

/// Whether what `needs` says may go to the node `name`.
///
/// # Errors
/// The first thing that keeps it away, in the order of the scheduler's filters.
pub fn fit<'a>(needs: &NodeNeeds, name: &str, node: &'a NodeRecord) -> Result<(), Unfit<'a>> {
    if needs
        .node_name
        .as_deref()
        .is_some_and(|wanted| wanted != name)
    {
        return Err(Unfit::Name);
    }
    let untolerated = node
        .taints
        .iter()
        .filter(|taint| taint.effect.is_hard() && !taint.is_ours())
        .find(|taint| !needs.tolerations.iter().any(|one| one.tolerates(taint)));
    if let Some(taint) = untolerated {
        return Err(Unfit::Taint(taint));
    }
    let selected = needs
        .selector
        .iter()
        .all(|(key, value)| node.labels.get(key) == Some(value));
    // Terms are alternatives; where there is no list at all, nothing is asked for.
    let affine = needs
        .affinity
        .as_ref()
        .is_none_or(|terms| terms.iter().any(|term| term.matches(name, &node.labels)));
    match selected && affine {
        true => Ok(()),
        false => Err(Unfit::Affinity),
    }
}

impl Term {
    /// All of it must hold; a term that asks for nothing matches nothing.
    fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let Term {
            labels: of_labels,
            names,
        } = self;
        (!of_labels.is_empty() || !names.is_empty())
            && of_labels
                .iter()
                .all(|one| one.matches(labels.get(&one.key).map(String::as_str)))
            && names.iter().all(|one| one.matches(Some(name)))
    }
}

impl Expression {
    pub(super) fn matches(&self, found: Option<&str>) -> bool {
        let listed = |found: &str| self.values.iter().any(|value| value == found);
        match self.operator {
            Operator::In => found.is_some_and(listed),
            Operator::NotIn => !found.is_some_and(listed),
            Operator::Exists => found.is_some(),
            Operator::DoesNotExist => found.is_none(),
            Operator::Gt => self
                .compared(found)
                .is_some_and(|(found, than)| found > than),
            Operator::Lt => self
                .compared(found)
                .is_some_and(|(found, than)| found < than),
        }
    }

    /// Both as whole numbers; a label that is none never matches.
    fn compared(&self, found: Option<&str>) -> Option<(i64, i64)> {
        let than = self.values.first()?.parse().ok()?;
        Some((found?.parse().ok()?, than))
    }
}

impl Toleration {
    /// Whether Pods with it may go to a node with `taint`.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|effect| effect == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && match &self.value {
                // Exists
                None => true,
                // Equal, which needs a key
                Some(value) => !self.key.is_empty() && *value == taint.value,
            }
    }
}

#[cfg(test)]
mod tests;
