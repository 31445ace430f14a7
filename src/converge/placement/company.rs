//! Required pod affinity and anti-affinity in an auction under way: which nodes the Pods that are there, and those placed
//! before, leave to a piece of work.
//!
//! The rules are those of the scheduler's filter InterPodAffinity. What a slot has already does not count for it: it is
//! what gets replaced. Where nothing asks and nothing keeps others off, none of this exists.

use std::collections::HashMap;

use super::{Ask, Bidder, Ground, Work};
use crate::api::ExecutorKind;
use crate::converge::neighbours::{Likeness, PodNeeds, PodTerm, Resident};
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
    /// Those that are there, and then those placed since: each of what is alike.
    kins: Vec<Resident<'a>>,
    /// So many of them are there.
    there: usize,
    /// Those of them that must not have others near.
    guards: Vec<usize>,
    /// What was placed since.
    placed: HashMap<Name<'a>, usize>,
    /// What was asked for so far.
    groups: HashMap<Name<'a>, Group<'a>>,
}

/// A process or a Task: all its work is alike.
type Name<'a> = (bool, &'a Key);

/// Which instance a Pod is, and where.
type Place<'a> = (Option<i32>, &'a NodeRecord);

/// How many Pods are near, by the value of a label.
type Counts<'a> = HashMap<&'a str, i64>;

/// The work of one process, or a Task: all that is alike.
#[derive(Debug)]
struct Group<'a> {
    likeness: Likeness<'a>,
    needs: &'a PodNeeds,
    tally: Tally<'a>,
    /// All that it asks to have near means Pods like itself.
    near_itself: bool,
    /// What it has already, and what that is to it: its labels may be of another time.
    own: Vec<(Vec<Place<'a>>, Ties<'a>)>,
    /// What others are to it.
    others: Vec<Other<'a>>,
    /// So many of the others, or of the guards where it asks for nothing, have been looked at.
    seen: usize,
    number: usize,
}

/// Pods that are something to a group.
#[derive(Debug)]
struct Other<'a> {
    kin: usize,
    ties: Ties<'a>,
    /// So many of them are counted.
    counted: usize,
}

/// What some Pods are to a group: decided once for all that are alike.
#[derive(Debug)]
struct Ties<'a> {
    /// All that it asks to have near means them.
    near: bool,
    /// The terms of what it must not have near that mean them.
    apart: Vec<usize>,
    /// Their terms that mean it.
    keep_off: Vec<&'a PodTerm>,
}

/// How many Pods are near.
#[derive(Debug, Default)]
struct Tally<'a> {
    /// By term: those that all terms mean.
    near: Vec<Counts<'a>>,
    /// By term: those that it means.
    apart: Vec<Counts<'a>>,
    /// Those that must not have it near, by label.
    kept_off: HashMap<&'a str, Counts<'a>>,
}

impl<'a> Company<'a> {
    pub fn new(residents: Vec<Resident<'a>>) -> Self {
        let mut company = Company::default();
        residents.into_iter().for_each(|one| company.enter(one));
        company.there = company.kins.len();
        company
    }

    fn enter(&mut self, kin: Resident<'a>) {
        if !kin.apart.is_empty() {
            self.guards.push(self.kins.len());
        }
        self.kins.push(kin);
    }

    /// Which bidders the work may go to; `None` where no Pod has any say.
    pub fn judge(&mut self, ask: &Ask<'a>, bidders: &[Bidder<'a>]) -> Option<Judged> {
        let index = match ask.work {
            Work::Lrp { index, .. } => Some(*index),
            Work::Task(_) => None,
        };
        let number = self.groups.len() + 1;
        let group = self.groups.entry(name(ask));
        let group = group.or_insert_with(|| Group::new(ask, &self.kins[..self.there], number));
        group.catch_up(&self.kins, &self.guards);
        if group.needs.is_empty() && group.tally.kept_off.is_empty() {
            return None;
        }
        let mut own = Tally::default();
        let mut is_alone = true;
        for (places, ties) in &group.own {
            for (_, node) in places.iter().filter(|(of, _)| *of == index) {
                is_alone = false;
                own.count(ties, group.needs, node);
            }
        }
        let is_first = group.is_first(&own);
        let verdict = |bidder: &Bidder<'a>| match (bidder.executor, bidder.node) {
            (
                ExecutorKind::Pods,
                Some(Ground {
                    record: Some(node), ..
                }),
            ) => group.verdict(node, &own, is_first),
            (ExecutorKind::Process | ExecutorKind::Pods, _) => Ok(()),
        };
        Some(Judged {
            verdicts: bidders.iter().map(verdict).collect(),
            group: Some(group.number).filter(|_| is_alone),
        })
    }

    /// The work goes to this Cell.
    pub fn note(&mut self, ask: &Ask<'a>, bidder: &Bidder<'a>) {
        let (ExecutorKind::Pods, Some(ground)) = (bidder.executor, bidder.node) else {
            return;
        };
        let Some(node) = ground.record else { return };
        let known = self.placed.get(&name(ask)).copied();
        match known.and_then(|known| self.kins.get_mut(known)) {
            Some(kin) => kin.places.push((None, node)),
            None => {
                self.placed.insert(name(ask), self.kins.len());
                self.enter(Resident {
                    likeness: ask.likeness(),
                    apart: &ask.demand.pods.apart,
                    places: vec![(None, node)],
                });
            }
        }
    }
}

fn name<'a>(ask: &Ask<'a>) -> Name<'a> {
    match ask.work {
        Work::Lrp { process, .. } => (false, process),
        Work::Task(key) => (true, key),
    }
}

impl<'a> Group<'a> {
    fn new(ask: &Ask<'a>, there: &[Resident<'a>], number: usize) -> Self {
        let (likeness, needs) = (ask.likeness(), &ask.demand.pods);
        let is_own = |other: &&Resident<'a>| {
            let Likeness { namespace, of, .. } = other.likeness;
            (namespace, of) == (likeness.namespace, likeness.of)
        };
        let own = there.iter().filter(is_own).map(|other| {
            let ties = Ties::between((&likeness, needs), &other.likeness, other.apart);
            (other.places.clone(), ties)
        });
        let own = own.collect();
        Group {
            likeness,
            needs,
            tally: Tally::default(),
            near_itself: Ties::between((&likeness, needs), &likeness, &needs.apart).near,
            own,
            others: Vec::new(),
            seen: 0,
            number,
        }
    }

    /// Counts what has come since the last time. To what asks for nothing only the guards are anything.
    fn catch_up(&mut self, kins: &[Resident<'a>], guards: &[usize]) {
        match self.needs.is_empty() {
            true => {
                let news = &guards[self.seen..];
                news.iter().for_each(|kin| self.meet(*kin, &kins[*kin]));
                self.seen = guards.len();
            }
            false => {
                let news = kins.iter().enumerate().skip(self.seen);
                news.for_each(|(kin, other)| self.meet(kin, other));
                self.seen = kins.len();
            }
        }
        for other in &mut self.others {
            let places = &kins[other.kin].places;
            for (_, node) in &places[other.counted..] {
                self.tally.count(&other.ties, self.needs, node);
            }
            other.counted = places.len();
        }
    }

    fn meet(&mut self, kin: usize, other: &Resident<'a>) {
        let ties = Ties::between((&self.likeness, self.needs), &other.likeness, other.apart);
        if ties.near || !ties.apart.is_empty() || !ties.keep_off.is_empty() {
            self.others.push(Other {
                kin,
                ties,
                counted: 0,
            });
        }
    }

    /// `own` is what the slot has already, which counts for nothing.
    fn verdict(&self, node: &NodeRecord, own: &Tally<'_>, is_first: bool) -> Verdict {
        let has = |counts: Option<&Counts<'_>>, own: Option<&Counts<'_>>, value: &str| {
            let of = |counts: Option<&Counts<'_>>| counts.and_then(|all| all.get(value).copied());
            of(counts).is_some_and(|count| count > of(own).unwrap_or(0))
        };
        let tally = &self.tally;
        let mut near = true;
        for (i, term) in self.needs.near.iter().enumerate() {
            match node.labels.get(&term.topology) {
                Some(value) => near &= has(tally.near.get(i), own.near.get(i), value),
                None => return Err(Unwelcome::Far),
            }
        }
        if !near && !is_first {
            return Err(Unwelcome::Far);
        }
        for (i, term) in self.needs.apart.iter().enumerate() {
            let value = node.labels.get(&term.topology);
            if value.is_some_and(|value| has(tally.apart.get(i), own.apart.get(i), value)) {
                return Err(Unwelcome::Close);
            }
        }
        let kept_off = tally.kept_off.iter().any(|(label, counts)| {
            let value = node.labels.get(*label);
            value.is_some_and(|value| has(Some(counts), own.kept_off.get(label), value))
        });
        match kept_off {
            true => Err(Unwelcome::KeptOff),
            false => Ok(()),
        }
    }

    /// The first of Pods that ask for each other may go anywhere.
    fn is_first(&self, own: &Tally<'_>) -> bool {
        let all = |counts: &[Counts<'_>]| -> i64 { counts.iter().flat_map(HashMap::values).sum() };
        self.near_itself && all(&self.tally.near) == all(&own.near)
    }
}

impl<'a> Ties<'a> {
    fn between(
        (likeness, needs): (&Likeness<'_>, &PodNeeds),
        other: &Likeness<'_>,
        apart: &'a [PodTerm],
    ) -> Self {
        let means = |term: &PodTerm| term.means(likeness.namespace, other);
        let terms = needs.apart.iter().enumerate();
        let means_it = |term: &&PodTerm| term.means(other.namespace, likeness);
        Ties {
            near: !needs.near.is_empty() && needs.near.iter().all(means),
            apart: terms
                .filter_map(|(i, term)| means(term).then_some(i))
                .collect(),
            keep_off: apart.iter().filter(means_it).collect(),
        }
    }
}

impl<'a> Tally<'a> {
    /// One more Pod that has these ties, on this node.
    fn count(&mut self, ties: &Ties<'a>, needs: &PodNeeds, node: &'a NodeRecord) {
        if ties.near {
            for (i, term) in needs.near.iter().enumerate() {
                add(&mut self.near, i, node.labels.get(&term.topology));
            }
        }
        for i in &ties.apart {
            add(
                &mut self.apart,
                *i,
                node.labels.get(&needs.apart[*i].topology),
            );
        }
        for term in &ties.keep_off {
            if let Some(value) = node.labels.get(&term.topology) {
                let counts = self.kept_off.entry(&term.topology).or_default();
                *counts.entry(value).or_default() += 1;
            }
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
