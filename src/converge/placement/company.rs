//! Required pod affinity and anti-affinity in an auction under way: which nodes the Pods that are there, and those placed
//! before, leave to a piece of work.
//!
//! The rules are those of the scheduler's filter InterPodAffinity. What a slot has already does not count for it: it is
//! what gets replaced. Where nothing asks and nothing keeps others off, none of this exists.

use std::collections::HashMap;

use super::{Ask, Bidder, Ground, Work};
use crate::api::ExecutorKind;
use crate::converge::neighbours::{Likeness, Of, PodNeeds, PodTerm, Resident};
use crate::converge::node::NodeRecord;
use crate::converge::world::Key;

/// What keeps a Pod from a node, in the scheduler's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unwelcome {
    /// None of those that it asks for is near.
    Far,
    /// One of those that it must not be near is.
    Close,
    /// One that is there must not have it near.
    KeptOff,
}

impl Unwelcome {
    pub fn words(self) -> &'static str {
        match self {
            Unwelcome::Far => "node(s) didn't match pod affinity rules",
            Unwelcome::Close => "node(s) didn't match pod anti-affinity rules",
            Unwelcome::KeptOff => "node(s) didn't satisfy existing pods anti-affinity rules",
        }
    }
}

/// Whether the work may go to a bidder, as far as Pods have a say.
pub(super) type Verdict = Result<(), Unwelcome>;

/// What was found about a piece of work.
pub(super) struct Judged {
    /// For each bidder.
    pub verdicts: Vec<Verdict>,
    /// The number of the work of which all this holds; `None` where it holds of this one alone.
    pub group: Option<usize>,
}

/// The Pods that matter.
#[derive(Debug, Default)]
pub(super) struct Company<'a> {
    /// Those that are there.
    residents: Vec<Resident<'a>>,
    /// Those placed since, in this order.
    placed: Vec<Placed<'a>>,
    /// Those of them that must not have others near.
    guards: Vec<usize>,
    /// What was asked for so far.
    groups: HashMap<(bool, &'a Key), Group<'a>>,
}

#[derive(Debug)]
struct Placed<'a> {
    likeness: Likeness<'a>,
    apart: &'a [PodTerm],
    node: &'a NodeRecord,
}

/// How many Pods are near, by the value of a label.
type Counts<'a> = HashMap<&'a str, i64>;

/// The work of one process, or a Task: all that is alike.
#[derive(Debug)]
struct Group<'a> {
    likeness: Likeness<'a>,
    needs: &'a PodNeeds,
    /// By term: those that all terms mean.
    near: Vec<Counts<'a>>,
    /// By term: those that it means.
    apart: Vec<Counts<'a>>,
    /// Those that must not have it near, by label.
    kept_off: HashMap<&'a str, Counts<'a>>,
    /// What it has already, by instance.
    own: Vec<(Option<i32>, &'a NodeRecord)>,
    /// So many of those placed since are counted, and so many of the guards.
    seen: (usize, usize),
    number: usize,
}

impl<'a> Company<'a> {
    pub fn new(residents: Vec<Resident<'a>>) -> Self {
        Company {
            residents,
            ..Company::default()
        }
    }

    /// Which bidders the work may go to; `None` where no Pod has any say.
    pub fn judge(&mut self, ask: &Ask<'a>, bidders: &[Bidder<'a>]) -> Option<Judged> {
        let (name, index) = match ask.work {
            Work::Lrp { process, index } => ((false, process), Some(*index)),
            Work::Task(key) => ((true, key), None),
        };
        let (residents, number) = (&self.residents, self.groups.len() + 1);
        let group = self.groups.entry(name);
        let group = group.or_insert_with(|| Group::new(ask, residents, number));
        group.catch_up(&self.placed, &self.guards);
        if group.needs.is_empty() && group.kept_off.is_empty() {
            return None;
        }
        let mut own = Own::default();
        let mine = group.own.iter().filter(|(of, _)| *of == index);
        for (_, node) in mine {
            own.count(group, node);
        }
        let verdict = |bidder: &Bidder<'a>| match (bidder.executor, bidder.node) {
            (
                ExecutorKind::Pods,
                Some(Ground {
                    record: Some(node), ..
                }),
            ) => group.verdict(node, &own),
            (ExecutorKind::Process | ExecutorKind::Pods, _) => Ok(()),
        };
        Some(Judged {
            verdicts: bidders.iter().map(verdict).collect(),
            group: Some(group.number).filter(|_| own.nodes == 0),
        })
    }

    /// The work goes to this Cell.
    pub fn note(&mut self, ask: &Ask<'a>, bidder: &Bidder<'a>) {
        let (ExecutorKind::Pods, Some(ground)) = (bidder.executor, bidder.node) else {
            return;
        };
        let Some(node) = ground.record else { return };
        let apart = &ask.demand.pods.apart;
        if !apart.is_empty() {
            self.guards.push(self.placed.len());
        }
        self.placed.push(Placed {
            likeness: likeness(ask),
            apart,
            node,
        });
    }
}

fn likeness<'a>(ask: &Ask<'a>) -> Likeness<'a> {
    let (key, of) = match ask.work {
        Work::Lrp { process, .. } => (process, Of::Process(&process.name)),
        Work::Task(key) => (key, Of::Task(&key.name)),
    };
    ask.demand.likeness(&key.namespace, of)
}

/// What a slot has already counts for nothing.
#[derive(Default)]
struct Own<'a> {
    nodes: usize,
    near: Vec<Counts<'a>>,
    apart: Vec<Counts<'a>>,
    kept_off: HashMap<&'a str, Counts<'a>>,
}

impl<'a> Own<'a> {
    fn count(&mut self, group: &Group<'a>, node: &'a NodeRecord) {
        self.nodes += 1;
        let Group {
            likeness, needs, ..
        } = group;
        add_needs(
            (&mut self.near, &mut self.apart),
            (likeness, needs),
            likeness,
            node,
        );
        add_kept_off(&mut self.kept_off, likeness, likeness, &needs.apart, node);
    }
}

impl<'a> Group<'a> {
    fn new(ask: &Ask<'a>, residents: &[Resident<'a>], number: usize) -> Self {
        let likeness = likeness(ask);
        let mut group = Group {
            likeness,
            needs: &ask.demand.pods,
            near: Vec::new(),
            apart: Vec::new(),
            kept_off: HashMap::new(),
            own: Vec::new(),
            seen: (0, 0),
            number,
        };
        for resident in residents {
            for (_, node) in &resident.places {
                group.count(&resident.likeness, node);
                group.count_guard(&resident.likeness, resident.apart, node);
            }
            let Likeness { namespace, of, .. } = resident.likeness;
            if (namespace, of) == (likeness.namespace, likeness.of) {
                group.own.extend(resident.places.iter().copied());
            }
        }
        group
    }

    /// Counts what was placed since the last time.
    fn catch_up(&mut self, placed: &[Placed<'a>], guards: &[usize]) {
        let (seen, seen_guards) = self.seen;
        if !self.needs.is_empty() {
            for one in &placed[seen..] {
                self.count(&one.likeness, one.node);
            }
        }
        for one in guards[seen_guards..].iter().map(|at| &placed[*at]) {
            self.count_guard(&one.likeness, one.apart, one.node);
        }
        self.seen = (placed.len(), guards.len());
    }

    fn count(&mut self, other: &Likeness<'_>, node: &'a NodeRecord) {
        let counts = (&mut self.near, &mut self.apart);
        add_needs(counts, (&self.likeness, self.needs), other, node);
    }

    fn count_guard(&mut self, other: &Likeness<'_>, apart: &'a [PodTerm], node: &'a NodeRecord) {
        add_kept_off(&mut self.kept_off, &self.likeness, other, apart, node);
    }

    fn verdict(&self, node: &NodeRecord, own: &Own<'_>) -> Verdict {
        let has = |counts: Option<&Counts<'_>>, own: Option<&Counts<'_>>, value: &str| {
            let of = |counts: Option<&Counts<'_>>| counts.and_then(|all| all.get(value).copied());
            of(counts).unwrap_or(0) > of(own).unwrap_or(0)
        };
        let mut near = true;
        for (i, term) in self.needs.near.iter().enumerate() {
            match node.labels.get(&term.topology) {
                Some(value) => near &= has(self.near.get(i), own.near.get(i), value),
                None => return Err(Unwelcome::Far),
            }
        }
        if !near && !self.is_first(own) {
            return Err(Unwelcome::Far);
        }
        for (i, term) in self.needs.apart.iter().enumerate() {
            let value = node.labels.get(&term.topology);
            if value.is_some_and(|value| has(self.apart.get(i), own.apart.get(i), value)) {
                return Err(Unwelcome::Close);
            }
        }
        let kept_off = self.kept_off.iter().any(|(label, counts)| {
            let value = node.labels.get(*label);
            value.is_some_and(|value| has(Some(counts), own.kept_off.get(label), value))
        });
        match kept_off {
            true => Err(Unwelcome::KeptOff),
            false => Ok(()),
        }
    }

    /// The first of Pods that ask for each other may go anywhere.
    fn is_first(&self, own: &Own<'_>) -> bool {
        let all = |counts: &[Counts<'_>]| -> i64 { counts.iter().flat_map(HashMap::values).sum() };
        let is_one_of_them = all_mean(&self.needs.near, self.likeness.namespace, &self.likeness);
        all(&self.near) == all(&own.near) && is_one_of_them
    }
}

fn all_mean(terms: &[PodTerm], own: &str, other: &Likeness<'_>) -> bool {
    terms.iter().all(|term| term.means(own, other))
}

/// Counts `other`, on this node, for each term of `needs` that means it; near are only those that all terms mean.
fn add_needs<'a>(
    (near, apart): (&mut Vec<Counts<'a>>, &mut Vec<Counts<'a>>),
    (likeness, needs): (&Likeness<'_>, &PodNeeds),
    other: &Likeness<'_>,
    node: &'a NodeRecord,
) {
    let own = likeness.namespace;
    if !needs.near.is_empty() && all_mean(&needs.near, own, other) {
        for (i, term) in needs.near.iter().enumerate() {
            add(near, i, node.labels.get(&term.topology));
        }
    }
    for (i, term) in needs.apart.iter().enumerate() {
        if term.means(own, other) {
            add(apart, i, node.labels.get(&term.topology));
        }
    }
}

fn add<'a>(counts: &mut Vec<Counts<'a>>, i: usize, value: Option<&'a String>) {
    if let Some(value) = value {
        if counts.len() <= i {
            counts.resize_with(i + 1, HashMap::new);
        }
        *counts[i].entry(value).or_default() += 1;
    }
}

/// Counts `other`, on this node, for each of its terms that means `likeness`.
fn add_kept_off<'a>(
    kept_off: &mut HashMap<&'a str, Counts<'a>>,
    likeness: &Likeness<'_>,
    other: &Likeness<'_>,
    apart: &'a [PodTerm],
    node: &'a NodeRecord,
) {
    for term in apart
        .iter()
        .filter(|term| term.means(other.namespace, likeness))
    {
        if let Some(value) = node.labels.get(&term.topology) {
            let counts = kept_off.entry(&term.topology).or_default();
            *counts.entry(value).or_default() += 1;
        }
    }
}
