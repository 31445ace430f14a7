//! The Pods that are there, as the terms of others see them: what many have alike is kept once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::api::TaskState;
use crate::converge::life::Life;
use crate::converge::neighbours::{
    Likeness, Likenesses, Of, PodKin, PodNeeds, PodTerm, Resident, Terms,
};
use crate::converge::node::NodeRecord;

use super::{Key, World};

/// Pods that are alike, by number.
#[derive(Debug, Clone, Default)]
pub(super) struct Kins {
    by_number: Vec<Option<(Arc<PodKin>, u32)>>,
    numbers: HashMap<Arc<PodKin>, u32>,
    free: Vec<u32>,
    /// Those that must not have others near, and the nodes they are on.
    guards: BTreeMap<u32, HashMap<Arc<str>, u32>>,
}

impl Kins {
    /// One more Pod like this one. Returns their number. `node` is where it keeps others off; `None` where its record
    /// tells that.
    pub fn enter(&mut self, kin: PodKin, node: Option<&Arc<str>>) -> u32 {
        let number = match self.numbers.get(&kin) {
            Some(number) => *number,
            None => self.add(Arc::new(kin)),
        };
        let slot = self.by_number.get_mut(number as usize);
        if let Some((kin, count)) = slot.and_then(Option::as_mut) {
            *count += 1;
            if let Some(node) = node.filter(|_| !kin.apart.is_empty()) {
                let nodes = self.guards.entry(number).or_default();
                *nodes.entry(node.clone()).or_default() += 1;
            }
        }
        number
    }

    fn add(&mut self, kin: Arc<PodKin>) -> u32 {
        let number = self.free.pop().unwrap_or(self.by_number.len() as u32);
        self.numbers.insert(kin.clone(), number);
        let slot = Some((kin, 0));
        match self.by_number.get_mut(number as usize) {
            Some(free) => *free = slot,
            None => self.by_number.push(slot),
        }
        number
    }

    /// One fewer.
    pub fn leave(&mut self, number: u32, node: Option<&str>) {
        if let Some(nodes) = self.guards.get_mut(&number)
            && let Some(node) = node
            && let Some(count) = nodes.get_mut(node)
        {
            *count -= 1;
            if *count == 0 {
                nodes.remove(node);
            }
            if nodes.is_empty() {
                self.guards.remove(&number);
            }
        }
        let Some(slot) = self.by_number.get_mut(number as usize) else {
            return;
        };
        if let Some((kin, count)) = slot {
            *count -= 1;
            if *count == 0 {
                self.numbers.remove(kin);
                *slot = None;
                self.free.push(number);
            }
        }
    }

    /// Whether Pods of this number must not have others near.
    pub fn keeps_off(&self, number: u32) -> bool {
        self.get(number).is_some_and(|kin| !kin.apart.is_empty())
    }

    fn get(&self, number: u32) -> Option<&PodKin> {
        let slot = self.by_number.get(number as usize)?.as_ref();
        slot.map(|(kin, _)| kin.as_ref())
    }

    fn all(&self) -> impl Iterator<Item = (u32, &PodKin)> {
        let slots = (0..).zip(&self.by_number);
        slots.filter_map(|(number, slot)| Some((number, slot.as_ref()?.0.as_ref())))
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }
}

/// What of ours looks at the Pods near it.
#[derive(Debug, Clone, Default)]
pub(super) struct Minders {
    /// DesiredLRPs and Tasks that ask for Pods near them.
    near: BTreeSet<Whose>,
    /// Those that must not have others near.
    apart: BTreeSet<Whose>,
}

/// A DesiredLRP or a Task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whose {
    Process(Key),
    Task(Key),
}

impl Minders {
    fn is_empty(&self) -> bool {
        self.near.is_empty() && self.apart.is_empty()
    }

    /// Notes what a template asks for; `None` when it is gone.
    pub fn note(&mut self, needs: Option<&PodNeeds>, whose: impl FnOnce() -> Whose) {
        let (near, apart) = match needs {
            Some(needs) => (!needs.near.is_empty(), !needs.apart.is_empty()),
            None => (false, false),
        };
        if !near && !apart && self.is_empty() {
            return;
        }
        let whose = whose();
        for (set, asks) in [(&mut self.near, near), (&mut self.apart, apart)] {
            match asks {
                true => drop(set.insert(whose.clone())),
                false => drop(set.remove(&whose)),
            }
        }
    }
}

/// Work that is to be placed, and what it asks of the Pods near it: once for all that is of one template.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// As the terms of others see it.
    pub likeness: Likeness<'a>,
    /// What is asked for.
    pub needs: &'a PodNeeds,
}

/// What decides which Pods matter to a batch.
#[derive(Default)]
struct Matters<'a> {
    /// What it asks for.
    terms: Terms<'a>,
    /// What it is.
    likenesses: Likenesses<'a>,
}

impl<'a> Matters<'a> {
    fn of(asking: &[Asking<'a>]) -> Self {
        let mut matters = Matters::default();
        for one in asking {
            let namespace = one.likeness.namespace;
            let terms = one.needs.near.iter().chain(&one.needs.apart);
            terms.for_each(|term| matters.terms.add(namespace, term));
            matters.likenesses.add(one.likeness);
        }
        matters
    }

    /// Whether any of these terms of Pods that are there keeps some of the batch off.
    fn keeps_off(&self, namespace: &str, apart: &[PodTerm]) -> bool {
        let mut terms = apart.iter();
        terms.any(|term| self.likenesses.any_is_meant(namespace, term))
    }
}

impl World {
    /// Whether a Pod that comes, or whose labels change, may let something in that waits.
    pub(super) fn pods_may_let_in(&self) -> bool {
        !self.minders.is_empty() && !self.waiting.is_empty()
    }

    /// Whether any Pod must not have others near: what asks for nothing may be kept off all the same.
    pub fn any_keeps_off(&self) -> bool {
        let kins = &self.nodes.kins;
        let mut leaving = self.nodes.own.unnamed();
        !self.minders.apart.is_empty()
            || !kins.guards.is_empty()
            || leaving.any(|pod| kins.keeps_off(pod.kin))
    }

    /// The Pods that `asking` means, and those that must not have it near: all that the auction must know of.
    pub fn residents(&self, asking: &[Asking<'_>]) -> Vec<Resident<'_>> {
        if asking.is_empty() {
            return Vec::new();
        }
        let matters = Matters::of(asking);
        let mut residents = self.foreign_residents(&matters);
        self.own_residents(&matters, &mut residents);
        residents
    }

    fn foreign_residents(&self, matters: &Matters<'_>) -> Vec<Resident<'_>> {
        let kins = &self.nodes.kins;
        let place = |name: &str| self.node(name).map(|node| (None, node));
        let meant = |kin: &PodKin| matters.terms.any_means(&kin.likeness());
        let keeps_off = |kin: &PodKin| matters.keeps_off(&kin.namespace, &kin.apart);
        let mut places: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        if !matters.terms.is_empty() {
            let others = kins.all().filter(|(_, kin)| meant(kin));
            places.extend(others.map(|(number, _)| (number, Vec::new())));
        }
        if !places.is_empty() {
            for pod in self.nodes.pods.values() {
                if let Some(places) = places.get_mut(&pod.kin) {
                    places.extend(place(&pod.node));
                }
            }
        }
        for (number, nodes) in &kins.guards {
            if !kins.get(*number).is_some_and(keeps_off) {
                continue;
            }
            let guarded = places.entry(*number).or_default();
            if guarded.is_empty() {
                guarded.extend(nodes.keys().filter_map(|name| place(name)));
            }
        }
        // Pods of ours that no record names are on their way out, and still there.
        for pod in self.nodes.own.unnamed() {
            let Some(kin) = kins.get(pod.kin) else {
                continue;
            };
            if keeps_off(kin) || meant(kin) {
                let there = places.entry(pod.kin).or_default();
                there.extend(place(&pod.node));
            }
        }
        let residents = places.into_iter().filter(|(_, places)| !places.is_empty());
        let residents = residents.filter_map(|(number, places)| {
            let kin = kins.get(number)?;
            Some(Resident {
                likeness: kin.likeness(),
                apart: &kin.apart,
                places,
            })
        });
        residents.collect()
    }

    fn own_residents<'a>(&'a self, matters: &Matters<'_>, residents: &mut Vec<Resident<'a>>) {
        let mut look = |of: Of<'a>, key: &'a Key| {
            let demand = match of {
                Of::Process(_) => self.desired.get(key).map(|desired| &desired.demand),
                Of::Task(_) => self.task(key).map(|task| &task.demand),
            };
            let Some(Ok(demand)) = demand else { return };
            let likeness = demand.likeness(&key.namespace, of);
            let apart = &demand.pods.apart;
            if !matters.keeps_off(&key.namespace, apart) && !matters.terms.any_means(&likeness) {
                return;
            }
            let places = match of {
                Of::Process(_) => self.places_of(key),
                Of::Task(_) => self.place_of_task(key).into_iter().collect(),
            };
            if !places.is_empty() {
                residents.push(Resident {
                    likeness,
                    apart,
                    places,
                });
            }
        };
        if matters.terms.is_empty() {
            for whose in &self.minders.apart {
                match whose {
                    Whose::Process(key) => look(Of::Process(&key.name), key),
                    Whose::Task(key) => look(Of::Task(&key.name), key),
                }
            }
            return;
        }
        for key in self.desired.keys() {
            look(Of::Process(&key.name), key);
        }
        for key in self.tasks.keys() {
            look(Of::Task(&key.name), key);
        }
    }

    /// Where the instances of a process are, but for those on Cells that are lost.
    fn places_of(&self, process: &Key) -> Vec<(Option<i32>, &NodeRecord)> {
        let slots = self.slots.get(process).into_iter().flatten();
        let mut places = Vec::new();
        for index in slots {
            let Some(lrp) = self.lrp(&process.instance(*index)) else {
                continue;
            };
            let named = lrp.status.named();
            let nodes = named.filter_map(|one| self.node_of(one.cell, one.epoch));
            places.extend(nodes.map(|node| (Some(*index), node)));
        }
        places
    }

    fn place_of_task(&self, key: &Key) -> Option<(Option<i32>, &NodeRecord)> {
        let status = &self.task(key)?.status;
        let open = match status.state {
            TaskState::Pending | TaskState::Running => true,
            TaskState::Completed | TaskState::Resolving => false,
        };
        let cell = status.cell_name.as_deref().filter(|_| open)?;
        Some((None, self.node_of(cell, status.cell_epoch)?))
    }

    /// The node of a Cell on which work of this epoch may still be.
    fn node_of(&self, cell: &str, epoch: Option<i64>) -> Option<&NodeRecord> {
        match self.life(cell, epoch) {
            Life::Lost | Life::Left => None,
            Life::Alive | Life::Draining | Life::Superseded { .. } | Life::Unknown => {
                let node = self.cells.get(cell)?.node.as_ref()?;
                self.node(&node.name)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::converge::neighbours::Namespaces;

    fn kin(app: &str, guards: bool) -> PodKin {
        let labels = BTreeMap::from([("app".to_owned(), app.to_owned())]);
        let term = PodTerm {
            topology: "zone".into(),
            selector: Some(Vec::new()),
            namespaces: Namespaces::Own,
        };
        PodKin::new("ns", &labels, guards.then_some(term).into_iter().collect())
    }

    #[test]
    fn a_thousand_pods_of_one_replica_set_share_one_allocation() {
        let (mut kins, node) = (Kins::default(), Arc::from("n1"));
        let numbers: BTreeSet<u32> = (0..1000)
            .map(|_| kins.enter(kin("web", false), Some(&node)))
            .collect();
        assert_eq!((numbers.len(), kins.len()), (1, 1));
        let other = kins.enter(kin("db", false), Some(&node));
        assert!(!numbers.contains(&other));
        for _ in 0..1000 {
            kins.leave(numbers.first().copied().unwrap(), Some(&node));
        }
        assert_eq!(kins.len(), 1);
        // The number is free again.
        assert!(numbers.contains(&kins.enter(kin("cache", false), Some(&node))));
    }

    #[test]
    fn the_nodes_of_those_that_keep_others_off_are_known() {
        let (mut kins, one, two) = (Kins::default(), Arc::from("n1"), Arc::from("n2"));
        let number = kins.enter(kin("db", true), Some(&one));
        kins.enter(kin("db", true), Some(&one));
        kins.enter(kin("db", true), Some(&two));
        kins.enter(kin("web", false), Some(&two));
        assert_eq!(kins.guards.len(), 1);
        kins.leave(number, Some("n1"));
        assert_eq!(kins.guards[&number].len(), 2);
        kins.leave(number, Some("n1"));
        assert_eq!(kins.guards[&number].len(), 1);
        kins.leave(number, Some("n2"));
        assert!(kins.guards.is_empty());
    }
}
