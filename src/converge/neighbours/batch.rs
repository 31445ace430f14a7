//! Which Pods a batch of work asks about, and which terms of Pods that are there mean it: each is looked up by a label
//! that a term requires, and not compared with all.

use std::collections::{HashMap, HashSet};

use super::{Likeness, PodTerm};
use crate::api::{LABEL_DESIRED_LRP, LABEL_INDEX};
use crate::converge::node::Operator;
use crate::converge::pods::{LABEL_CELL, LABEL_GUID, LABEL_TASK};

/// A label with its value.
type Pair<'a> = (&'a str, &'a str);

/// Who asks, by namespace, and for what.
type Asked<'a> = (&'a str, &'a PodTerm);

/// Terms, each once.
#[derive(Debug, Default)]
pub struct Terms<'a> {
    known: HashSet<Asked<'a>>,
    by_label: HashMap<Pair<'a>, Vec<Asked<'a>>>,
    /// Those that require no label of certain values.
    others: Vec<Asked<'a>>,
}

impl<'a> Terms<'a> {
    /// One more, of who is in this namespace.
    pub fn add(&mut self, namespace: &'a str, term: &'a PodTerm) {
        if !self.known.insert((namespace, term)) {
            return;
        }
        let Some((key, values)) = term.requires() else {
            return self.others.push((namespace, term));
        };
        for value in values {
            let terms = self.by_label.entry((key, value)).or_default();
            terms.push((namespace, term));
        }
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether any means `other`.
    pub fn any_means(&self, other: &Likeness<'_>) -> bool {
        let mean = |(namespace, term): &Asked<'_>| term.means(namespace, other);
        let of_pair = |pair| self.by_label.get(&pair).into_iter().flatten();
        !self.is_empty()
            && (self.others.iter().any(mean) || other.pairs().flat_map(of_pair).any(mean))
    }
}

/// What terms may mean.
#[derive(Debug, Default)]
pub struct Likenesses<'a> {
    all: Vec<Likeness<'a>>,
    by_label: HashMap<Pair<'a>, Vec<usize>>,
}

impl<'a> Likenesses<'a> {
    /// One more.
    pub fn add(&mut self, one: Likeness<'a>) {
        for pair in one.pairs() {
            self.by_label.entry(pair).or_default().push(self.all.len());
        }
        self.all.push(one);
    }

    /// Whether a term of who is in this namespace means any.
    pub fn any_is_meant(&self, namespace: &str, term: &PodTerm) -> bool {
        let Some((key, values)) = term.requires() else {
            return self.all.iter().any(|one| term.means(namespace, one));
        };
        let numbers = values
            .iter()
            .filter_map(|value| self.by_label.get(&(key, &**value)));
        let mut likely = numbers.flatten().filter_map(|number| self.all.get(*number));
        likely.any(|one| term.means(namespace, one))
    }
}

impl PodTerm {
    /// A label that all Pods which it means have, and its values.
    fn requires(&self) -> Option<(&str, &[String])> {
        let mut all = self.selector.iter().flatten();
        let is = all.find(|one| one.operator == Operator::In)?;
        Some((&is.key, &is.values))
    }
}

impl<'a> Likeness<'a> {
    /// Its labels; some may come twice.
    fn pairs(&self) -> impl Iterator<Item = Pair<'a>> {
        let ours = [
            LABEL_GUID,
            LABEL_CELL,
            LABEL_INDEX,
            LABEL_DESIRED_LRP,
            LABEL_TASK,
        ];
        let ours = ours.into_iter().filter(|_| self.of.is_some());
        let keys = self.labels.keys().map(String::as_str).chain(ours);
        keys.filter_map(|key| Some((key, self.label(key)?)))
    }
}
