//! What a Pod asks of the Pods near it: required pod affinity and anti-affinity, by the scheduler's rules.
//!
//! Pods that nobody's terms can tell apart are alike: the instances of one process, the Pods of one ReplicaSet. Labels
//! that each has for itself (guid, index, Cell; the name that a StatefulSet gives, the Job) are known to be there, and their
//! values are not looked at.

use std::collections::BTreeMap;

use super::node::{Expression, NodeRecord};
use super::pods::{LABEL_CELL, LABEL_GUID, LABEL_TASK};
use crate::api::{LABEL_DESIRED_LRP, LABEL_INDEX};

mod batch;
mod read;
#[cfg(test)]
mod tests;

pub use batch::{Likenesses, Terms};
pub use read::keeps_off;

/// What a template asks of the Pods near it. Equal needs are the same for all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct PodNeeds {
    /// Pods that must be near (`spec.affinity.podAffinity`).
    pub near: Vec<PodTerm>,
    /// Pods that must not be near (`spec.affinity.podAntiAffinity`).
    pub apart: Vec<PodTerm>,
}

impl PodNeeds {
    /// It asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.near.is_empty() && self.apart.is_empty()
    }
}

/// Some Pods, and what near means.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PodTerm {
    /// Near is a node with the same value of this label.
    pub topology: String,
    /// All of it must hold; without any all Pods are meant. `None` means none.
    pub selector: Option<Vec<Expression>>,
    /// Where the Pods are.
    pub namespaces: Namespaces,
}

/// In which namespaces Pods are meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Namespaces {
    /// In that of the Pod that asks.
    Own,
    /// In these.
    These(Vec<String>),
    /// In all.
    All,
}

/// A Pod as the terms of others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Likeness<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// The labels of its template, or its own.
    pub labels: &'a BTreeMap<String, String>,
    /// What it runs for; `None` for Pods of others.
    pub of: Option<Of<'a>>,
}

/// What a Pod of ours runs for, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Of<'a> {
    /// A DesiredLRP.
    Process(&'a str),
    /// A Task.
    Task(&'a str),
}

/// A Pod that is there, as its labels are kept: Pods that are alike share one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct PodKin {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The Pods that must not be near it.
    pub apart: Vec<PodTerm>,
}

impl PodKin {
    /// Of a Pod with these labels; what each has for itself is known to be there, and not told apart.
    pub fn new(namespace: &str, labels: &BTreeMap<String, String>, apart: Vec<PodTerm>) -> Self {
        let ours = labels.contains_key(LABEL_GUID);
        let is_told = |key: &str| !(is_of_one(key) || ours && is_of_each(key));
        let told = labels.iter().map(|(key, value)| {
            let value = if is_told(key) { value } else { "" };
            (key.clone(), value.to_owned())
        });
        PodKin {
            namespace: namespace.to_owned(),
            labels: told.collect(),
            apart,
        }
    }

    /// As the terms of others see it.
    pub fn likeness(&self) -> Likeness<'_> {
        Likeness {
            namespace: &self.namespace,
            labels: &self.labels,
            of: None,
        }
    }
}

/// Pods that are alike, and where they are.
#[derive(Debug, Clone)]
pub struct Resident<'a> {
    /// As the terms of others see them.
    pub likeness: Likeness<'a>,
    /// The Pods that must not be near them.
    pub apart: &'a [PodTerm],
    /// Their nodes; of a process also which instance it is.
    pub places: Vec<(Option<i32>, &'a NodeRecord)>,
}

/// Labels that the controllers of Kubernetes give to one Pod, or to those of one Job: where there are very many Pods, no
/// two of a StatefulSet would be alike, and no two runs of a CronJob.
fn is_of_one(key: &str) -> bool {
    const OF_ONE: [&str; 4] = [
        "apps.kubernetes.io/pod-index",
        "controller-uid",
        "job-name",
        "statefulset.kubernetes.io/pod-name",
    ];
    OF_ONE.contains(&key) || key.starts_with("batch.kubernetes.io/")
}

/// Labels that each instance has for itself.
fn is_of_each(key: &str) -> bool {
    [LABEL_GUID, LABEL_CELL, LABEL_INDEX].contains(&key)
}

impl<'a> Likeness<'a> {
    fn label(&self, key: &str) -> Option<&'a str> {
        match (self.of, key) {
            (Some(_), LABEL_GUID | LABEL_CELL) | (Some(Of::Process(_)), LABEL_INDEX) => Some(""),
            (Some(Of::Process(name)), LABEL_DESIRED_LRP) | (Some(Of::Task(name)), LABEL_TASK) => {
                Some(name)
            }
            (Some(Of::Process(_)), LABEL_TASK)
            | (Some(Of::Task(_)), LABEL_DESIRED_LRP | LABEL_INDEX) => None,
            (Some(_) | None, key) => self.labels.get(key).map(String::as_str),
        }
    }
}

impl PodTerm {
    /// Whether `other` is meant, when a Pod of the namespace `own` asks.
    pub fn means(&self, own: &str, other: &Likeness<'_>) -> bool {
        let there = match &self.namespaces {
            Namespaces::Own => other.namespace == own,
            Namespaces::These(names) => names.iter().any(|name| name == other.namespace),
            Namespaces::All => true,
        };
        let selected =
            |all: &Vec<Expression>| all.iter().all(|one| one.matches(other.label(&one.key)));
        there && self.selector.as_ref().is_some_and(selected)
    }
}
