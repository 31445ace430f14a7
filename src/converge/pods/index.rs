//! Our Pods as they were last heard of, by record and by Cell; and what is held of instances that have none yet.
//!
//! A plain synchronous value: the watch and the answers of calls feed it, and an older version never replaces a newer one.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::read::revision;
use super::scheduled::SLOT;
use super::{Local, PodRecord, WorkKey};
use crate::converge::world::Key;

/// So many Pods that are gone are remembered: the answer of a creation may come after the news of the end.
const BURIED: usize = 4096;

#[derive(Debug, Clone)]
struct Entry {
    pod: PodRecord,
    /// The re-list it was last seen in.
    seen: u64,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct PodIndex {
    pods: HashMap<Key, Entry>,
    of_work: HashMap<WorkKey, BTreeSet<Key>>,
    of_cell: HashMap<String, BTreeSet<Key>>,
    local: HashMap<WorkKey, BTreeMap<String, Local>>,
    /// Up to which version what is heard of a Pod that is gone, or not ours any more, is no news.
    buried: HashMap<String, u64>,
    burials: VecDeque<String>,
    relist: u64,
}

impl PodIndex {
    /// Enters a Pod as it is stored. Returns whether it was news.
    pub fn put(&mut self, pod: PodRecord) -> bool {
        let buried = self.buried.get(&pod.uid);
        if buried.is_some_and(|version| pod.revision <= *version) {
            return false;
        }
        if let Some(known) = self.pods.get_mut(&pod.key) {
            known.seen = self.relist;
            if known.pod.uid == pod.uid && known.pod.revision >= pod.revision {
                return false;
            }
        }
        self.drop_entry(&pod.key.clone());
        let held = self.local(&pod.work).and_then(|all| all.get(&pod.guid));
        // How it crashed is told when this Pod is over.
        if !matches!(held, Some(Local::Crashed(_))) {
            self.release(&pod.work, &pod.guid);
        }
        self.of_work
            .entry(pod.work.clone())
            .or_default()
            .insert(pod.key.clone());
        if let Some(cell) = &pod.cell {
            let pods = self.of_cell.entry(cell.clone()).or_default();
            pods.insert(pod.key.clone());
        }
        let seen = self.relist;
        self.pods.insert(pod.key.clone(), Entry { pod, seen });
        true
    }

    /// Enters a Pod as it is stored, or drops it where it is none of ours any more. Returns the record it concerns, if
    /// that was news.
    pub fn enter(&mut self, pod: &Pod) -> Option<WorkKey> {
        match PodRecord::read(pod) {
            Some(record) => {
                let work = record.work.clone();
                self.put(record).then_some(work)
            }
            None => self.leave(pod),
        }
    }

    /// A Pod is gone from what is watched: deleted, or its label was taken away and may come back.
    pub fn leave(&mut self, pod: &Pod) -> Option<WorkKey> {
        let meta = &pod.metadata;
        let key = Key::new(
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        );
        let uid = meta.uid.as_deref().unwrap_or_default();
        self.take_out(&key, uid, revision(meta))
    }

    /// This very Pod is gone for ever. Returns the record it ran, if it was known.
    pub fn remove(&mut self, key: &Key, uid: &str) -> Option<WorkKey> {
        self.take_out(key, uid, u64::MAX)
    }

    fn take_out(&mut self, key: &Key, uid: &str, version: u64) -> Option<WorkKey> {
        let known = self.pods.get(key);
        if known.is_some_and(|known| known.pod.uid == uid && known.pod.revision > version) {
            return None;
        }
        self.bury(uid, version);
        let known = self.pods.get(key).filter(|known| known.pod.uid == uid)?;
        let work = known.pod.work.clone();
        self.drop_entry(key);
        Some(work)
    }

    /// There is no Pod of that name any more. Returns the record it ran, if it was known.
    pub fn remove_name(&mut self, key: &Key) -> Option<WorkKey> {
        let uid = self.pods.get(key)?.pod.uid.clone();
        self.remove(key, &uid)
    }

    /// Starts a re-list; Pods not seen until its end are gone.
    pub fn begin_relist(&mut self) {
        self.relist += 1;
    }

    /// Drops what the re-list did not show. Returns the records of those Pods.
    pub fn end_relist(&mut self) -> Vec<WorkKey> {
        let gone: Vec<Key> = self
            .pods
            .iter()
            .filter(|(_, entry)| entry.seen < self.relist)
            .map(|(key, _)| key.clone())
            .collect();
        gone.iter()
            .filter_map(|key| self.remove_name(key))
            .collect()
    }

    /// The Pods of a record, by name.
    pub fn of(&self, work: &WorkKey) -> Vec<&PodRecord> {
        let keys = self.of_work.get(work).into_iter().flatten();
        keys.filter_map(|key| self.pods.get(key).map(|entry| &entry.pod))
            .collect()
    }

    /// The records that have Pods on a Cell.
    pub fn on_cell(&self, cell: &str) -> BTreeSet<WorkKey> {
        let keys = self.of_cell.get(cell).into_iter().flatten();
        keys.filter_map(|key| self.pods.get(key).map(|entry| entry.pod.work.clone()))
            .collect()
    }

    /// The Cells that have Pods.
    pub fn cells(&self) -> Vec<String> {
        self.of_cell.keys().cloned().collect()
    }

    /// The records that have Pods which bear no Cell's name, or for which something is held.
    pub fn off_cells(&self) -> BTreeSet<WorkKey> {
        let loose = self.pods.values().filter(|known| known.pod.cell.is_none());
        let loose = loose.map(|known| &known.pod.work);
        loose.chain(self.local.keys()).cloned().collect()
    }

    /// What is held of a record's instances that have no Pod.
    pub fn local(&self, work: &WorkKey) -> Option<&BTreeMap<String, Local>> {
        self.local.get(work)
    }

    /// Holds something of an instance that has no Pod.
    pub fn hold(&mut self, work: &WorkKey, guid: &str, local: Local) {
        self.local
            .entry(work.clone())
            .or_default()
            .insert(guid.to_owned(), local);
    }

    /// The slot gets no Pod for a scheduler before that time.
    pub fn hold_slot(&mut self, work: &WorkKey, until: Timestamp) {
        self.hold(work, SLOT, Local::Paused(until));
    }

    /// Nothing is held of an instance any more.
    pub fn release(&mut self, work: &WorkKey, guid: &str) {
        if let Some(held) = self.local.get_mut(work) {
            held.remove(guid);
            if held.is_empty() {
                self.local.remove(work);
            }
        }
    }

    /// Forgets what is held, as a controller does that no longer leads: the next leader may have gone on from there.
    pub fn release_all(&mut self) {
        self.local.clear();
    }

    fn drop_entry(&mut self, key: &Key) {
        let Some(entry) = self.pods.remove(key) else {
            return;
        };
        if let Some(keys) = self.of_work.get_mut(&entry.pod.work) {
            keys.remove(key);
            if keys.is_empty() {
                self.of_work.remove(&entry.pod.work);
            }
        }
        if let Some(cell) = &entry.pod.cell
            && let Some(keys) = self.of_cell.get_mut(cell)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.of_cell.remove(cell);
            }
        }
    }

    fn bury(&mut self, uid: &str, version: u64) {
        match self.buried.get_mut(uid) {
            Some(known) => *known = version.max(*known),
            None => {
                self.buried.insert(uid.to_owned(), version);
                self.burials.push_back(uid.to_owned());
            }
        }
        if self.burials.len() > BURIED
            && let Some(oldest) = self.burials.pop_front()
        {
            self.buried.remove(&oldest);
        }
    }
}
