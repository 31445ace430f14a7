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
        let is_new = !self.nodes.own.pods.contains_key(&uid);
        let before = self.remove_pod(uid);
        let booked = beside(requests, self.charged(&work, guid));
        let node = self.book_on(node, booked);
        let frees = self.frees(before, &node, booked);
        let kin = self.nodes.kins.enter(kin, None);
        let pod = OwnPod {
            node,
            work,
            guid: guid.into(),
            requests,
            booked,
            kin,
            seen: self.relist as u32,
        };
        self.nodes.own.enter(uid, pod);
        frees || is_new && self.pods_may_let_in()
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
            let now = beside(pod.requests, self.charged(&pod.work, &pod.guid));
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

    /// What the record that names this guid is charged for it.
    fn charged(&self, work: &WorkKey, guid: &str) -> Option<Resources> {
        let (named, charges) = match work.kind {
            WorkKind::Lrp => {
                let entry = self.lrps.get(&work.key)?;
                let mut named = entry.record.status.named();
                (named.any(|one| one.guid == Some(guid)), &entry.charges)
            }
            WorkKind::Task => {
                let entry = self.tasks.get(&work.key)?;
                let named = entry.record.status.instance_guid.as_deref() == Some(guid);
                (named, &entry.charges)
            }
        };
        // All instances that one record names are charged alike.
        let charge = charges.first().filter(|_| named)?;
        Some(charge.resources)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Desired, Key, Lrp, Version};
    use super::*;
    use crate::api::{ActualLRPState, ActualLRPStatus, MissingCellPolicy};
    use crate::converge::demand::Demand;

    fn cpu(cpu: i64) -> Resources {
        Resources {
            cpu,
            ..Resources::default()
        }
    }

    fn version(revision: u64) -> Version {
        Version {
            uid: "u".into(),
            revision,
            ..Version::default()
        }
    }

    fn web() -> Key {
        Key::new("ns", "web")
    }

    /// The instance asks for 100 thousandths, and runs `guid` on n1.
    fn says(world: &mut World, revision: u64, guid: &str) {
        let demand = Demand {
            resources: cpu(100),
            ..Demand::default()
        };
        let desired = Desired {
            version: version(1),
            instances: 1,
            domain: None,
            policy: MissingCellPolicy::Strict,
            demand: Ok(Arc::new(demand)),
            status: Default::default(),
        };
        world.put_desired(&web(), desired);
        let status = ActualLRPStatus {
            state: ActualLRPState::Running,
            cell_name: Some("n1".into()),
            instance_guid: Some(guid.into()),
            ..ActualLRPStatus::default()
        };
        let lrp = Lrp {
            version: version(revision),
            process: "web".into(),
            index: 0,
            owner: None,
            status,
        };
        world.put_lrp(&web().instance(0), lrp);
    }

    fn work() -> WorkKey {
        WorkKey::lrp(web().instance(0))
    }

    fn beside(world: &World) -> (i32, i64) {
        let foreign = world.foreign("n1");
        (foreign.pods, foreign.resources.cpu)
    }

    #[test]
    fn a_pod_counts_for_what_its_records_charge_does_not() {
        let mut world = World::default();
        says(&mut world, 1, "one");
        world.put_own(1, "n1", cpu(100), work(), "one", PodKin::default());
        assert_eq!(beside(&world), (0, 0), "charged");
        // A LimitRange gave it more, or less.
        world.put_own(1, "n1", cpu(130), work(), "one", PodKin::default());
        assert_eq!(beside(&world), (0, 30));
        world.put_own(1, "n1", cpu(70), work(), "one", PodKin::default());
        assert_eq!(beside(&world), (0, 0));
    }

    #[test]
    fn a_pod_that_no_record_names_counts_in_full_until_it_is_gone() {
        let mut world = World::default();
        says(&mut world, 1, "one");
        world.put_own(1, "n1", cpu(130), work(), "one", PodKin::default());
        assert_eq!(world.nodes.own.unnamed().count(), 0);
        // Its successor.
        says(&mut world, 2, "two");
        assert_eq!(beside(&world), (1, 130));
        assert_eq!(world.nodes.own.unnamed().count(), 1);
        world.put_own(2, "n1", cpu(130), work(), "two", PodKin::default());
        assert_eq!(beside(&world), (1, 160));
        assert!(world.remove_lrp(&work().key, "u"), "scaled down");
        assert_eq!(beside(&world), (2, 260));
        world.remove_foreign(1);
        let since = world.begin_relist();
        world.put_own(3, "n1", cpu(1), work(), "three", PodKin::default());
        world.end_foreign_list(since);
        assert_eq!(beside(&world), (1, 1));
        world.remove_foreign(3);
        assert_eq!(beside(&world), (0, 0));
        let own = &world.nodes.own;
        assert!(own.pods.is_empty() && own.by_work.is_empty() && own.unnamed.is_empty());
        assert_eq!(world.nodes.kins.len(), 0);
    }

    #[test]
    fn a_pod_may_be_seen_before_its_record() {
        let mut world = World::default();
        world.put_own(1, "n1", cpu(100), work(), "one", PodKin::default());
        assert_eq!(beside(&world), (1, 100));
        says(&mut world, 1, "one");
        assert_eq!(beside(&world), (0, 0));
    }
}
