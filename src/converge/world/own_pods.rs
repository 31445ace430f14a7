//! What Pods of ours take of their nodes beyond what their records are charged for.
//!
//! A record charges its Cell before its Pod exists, for what the template asks. The Pod may ask for more (a LimitRange, a
//! RuntimeClass), and may be there longer than the record names it: what the kubelet counts must be counted here, too,
//! or it refuses what the auction places.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::api::template::Resources;
use crate::converge::neighbours::PodKin;
use crate::converge::pods::{WorkKey, WorkKind};

use super::{Foreign, World};

/// A Pod of ours.
#[derive(Debug, Clone)]
pub(super) struct OwnPod {
    pub node: Arc<str>,
    work: WorkKey,
    guid: Box<str>,
    requests: Resources,
    /// What is counted beside the records.
    pub booked: Foreign,
    /// Which Pods it is like.
    pub kin: u32,
    /// It bears the label by which fencers know what must not run twice.
    strict: bool,
    /// The re-list it was last seen in.
    pub seen: u32,
}

/// The Pods of ours that take room, by uid and by record.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnPods {
    pub pods: HashMap<u128, OwnPod>,
    by_work: HashMap<WorkKey, BTreeSet<u128>>,
    /// Those that no record names.
    unnamed: BTreeSet<u128>,
}

impl OwnPods {
    fn enter(&mut self, uid: u128, pod: OwnPod) {
        let of_work = self.by_work.entry(pod.work.clone()).or_default();
        of_work.insert(uid);
        self.pods.insert(uid, pod);
        self.sort(uid);
    }

    /// Notes whether a record names it.
    fn sort(&mut self, uid: u128) {
        match self.pods.get(&uid) {
            Some(pod) if pod.booked.pods > 0 => drop(self.unnamed.insert(uid)),
            Some(_) | None => drop(self.unnamed.remove(&uid)),
        }
    }

    /// Those that no record names.
    pub fn unnamed(&self) -> impl Iterator<Item = &OwnPod> {
        self.unnamed.iter().filter_map(|uid| self.pods.get(uid))
    }

    /// Whether a Pod that runs `guid` for this record bears no label for fencers.
    pub fn is_unfenced(&self, work: &WorkKey, guid: &str) -> bool {
        let of_work = self.by_work.get(work).into_iter().flatten();
        let mut pods = of_work.filter_map(|uid| self.pods.get(uid));
        pods.any(|pod| &*pod.guid == guid && !pod.strict)
    }

    pub fn remove(&mut self, uid: u128) -> Option<OwnPod> {
        let pod = self.pods.remove(&uid)?;
        self.unnamed.remove(&uid);
        if let Some(of_work) = self.by_work.get_mut(&pod.work) {
            of_work.remove(&uid);
            if of_work.is_empty() {
                self.by_work.remove(&pod.work);
            }
        }
        Some(pod)
    }
}

/// What a Pod counts for beside the charge of the record that names it, if any does.
fn beside(requests: Resources, charge: Option<Resources>) -> Foreign {
    match charge {
        Some(charge) => {
            let more = |asked: i64, charged: i64| asked.saturating_sub(charged).max(0);
            Foreign {
                resources: Resources {
                    memory: more(requests.memory, charge.memory),
                    disk: more(requests.disk, charge.disk),
                    cpu: more(requests.cpu, charge.cpu),
                },
                pods: 0,
            }
        }
        None => Foreign {
            resources: requests,
            pods: 1,
        },
    }
}

impl World {
    /// Enters a Pod of ours that runs `guid` for this record, or what it is now. Returns whether that may let something in
    /// that waits.
    pub fn put_own(
        &mut self,
        uid: u128,
        node: &str,
        requests: Resources,
        work: WorkKey,
        guid: &str,
        kin: PodKin,
    ) -> bool {
        let booked = beside(requests, self.charged(&work, guid, node));
        let node = self.book_on(node, booked);
        // Before the old one leaves, which would free its number for the new one.
        let kin = self.nodes.kins.enter(kin, None);
        let before = self.remove_pod(uid);
        let changed = before.as_ref().is_none_or(|before| before.kin != kin);
        let frees = self.frees(before.as_ref(), &node, booked);
        let pod = OwnPod {
            node,
            work,
            guid: guid.into(),
            requests,
            booked,
            kin,
            strict: false,
            seen: self.relist as u32,
        };
        self.nodes.own.enter(uid, pod);
        frees || changed && self.pods_may_let_in()
    }

    /// A Pod of ours bears the label of what must not run twice.
    pub fn mark_strict(&mut self, uid: u128) {
        if let Some(pod) = self.nodes.own.pods.get_mut(&uid) {
            pod.strict = true;
        }
    }

    /// A record has changed: counts its Pods anew.
    pub(super) fn review_pods(&mut self, work: impl FnOnce() -> WorkKey) {
        if self.nodes.own.pods.is_empty() {
            return;
        }
        let Some(of_work) = self.nodes.own.by_work.get(&work()) else {
            return;
        };
        for uid in of_work.clone() {
            let Some(pod) = self.nodes.own.pods.get(&uid) else {
                continue;
            };
            let now = beside(pod.requests, self.charged(&pod.work, &pod.guid, &pod.node));
            if now == pod.booked {
                continue;
            }
            let (node, was) = (pod.node.clone(), pod.booked);
            self.unbook(&node, was);
            self.book_on(&node, now);
            if let Some(pod) = self.nodes.own.pods.get_mut(&uid) {
                pod.booked = now;
            }
            self.nodes.own.sort(uid);
        }
    }

    /// What the record that names this guid is charged for it, if its Cell is this node: a Pod that is elsewhere takes
    /// room there, and nobody is charged for that.
    fn charged(&self, work: &WorkKey, guid: &str, node: &str) -> Option<Resources> {
        let (cell, charges) = match work.kind {
            WorkKind::Lrp => {
                let entry = self.lrps.get(&work.key)?;
                let mut named = entry.record.status.named();
                let named = named.find(|one| one.guid == Some(guid))?;
                (named.cell, &entry.charges)
            }
            WorkKind::Task => {
                let entry = self.tasks.get(&work.key)?;
                let status = &entry.record.status;
                if status.instance_guid.as_deref() != Some(guid) {
                    return None;
                }
                (status.cell_name.as_deref()?, &entry.charges)
            }
        };
        let ground = self.cells.get(cell)?.node.as_ref()?;
        if ground.name != node {
            return None;
        }
        // All instances that one record names are charged alike.
        charges.first().map(|charge| charge.resources)
    }

    /// A Cell is another node than before, or none any more: counts the Pods anew of the records that name it.
    pub(super) fn review_pods_of(&mut self, cell: &str) {
        if self.nodes.own.pods.is_empty() {
            return;
        }
        for work in self.works_on(cell) {
            self.review_pods(|| work);
        }
    }
}

#[cfg(test)]
mod tests;
