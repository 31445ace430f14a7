//! What is stored, as watches and lists bring it: an older version never replaces a newer one.

use std::collections::HashSet;

use super::kin::Whose;
use super::{CellRecord, Desired, Key, Kind, Lrp, TaskRecord, World, stale};

impl World {
    /// Starts a re-list of one kind; entries not seen until its end are gone.
    pub fn begin_relist(&mut self) -> u64 {
        self.relist += 1;
        self.relist
    }

    /// Enters a Cell. Returns whether it was news.
    pub fn put_cell(&mut self, name: &str, mut record: CellRecord) -> bool {
        record.node = record.node.map(|node| self.standing_of(node));
        if record.status.state.is_some() {
            self.vanished.remove(name);
        }
        match self.cells.get(name) {
            Some(known) if stale(&known.version, &record.version) => false,
            _ => {
                let node = record.node.as_ref().map(|node| node.name.clone());
                let before = self.cells.insert(name.to_owned(), record);
                let former = before.as_ref().and_then(|before| before.node.as_ref());
                if former.map(|node| &node.name) != node.as_ref() {
                    let former = former.map(|node| node.name.clone());
                    self.stands_on(name, former.as_deref(), node.as_deref());
                }
                self.touch_cell_if_changed(name, before.as_ref());
                true
            }
        }
    }

    /// Removes a Cell.
    pub fn remove_cell(&mut self, name: &str, uid: &str) -> bool {
        let matches = self
            .cells
            .get(name)
            .is_some_and(|known| known.version.uid == uid);
        matches && self.drop_cell(name)
    }

    /// Enters a DesiredLRP. Returns whether it was news.
    pub fn put_desired(&mut self, key: &Key, record: Desired) -> bool {
        if self
            .desired
            .get(key)
            .is_some_and(|known| stale(&known.version, &record.version))
        {
            return false;
        }
        let demand_changed = self
            .desired
            .get(key)
            .is_none_or(|known| known.demand != record.demand);
        let needs = record.demand.as_ref().ok().map(|demand| &demand.pods);
        self.minders.note(needs, || Whose::Process(key.clone()));
        self.desired.insert(key.clone(), record);
        if demand_changed {
            self.recharge_instances(key);
        }
        true
    }

    /// Removes a DesiredLRP.
    pub fn remove_desired(&mut self, key: &Key, uid: &str) -> bool {
        let matches = self
            .desired
            .get(key)
            .is_some_and(|known| known.version.uid == uid);
        if matches {
            self.minders.note(None, || Whose::Process(key.clone()));
        }
        matches && self.desired.remove(key).is_some()
    }

    /// Enters an ActualLRP as it is stored. Returns whether it was news.
    pub fn put_lrp(&mut self, key: &Key, record: Lrp) -> bool {
        let seen = self.relist;
        if let Some(entry) = self.lrps.get_mut(key) {
            entry.seen = seen;
            if stale(&entry.record.version, &record.version) {
                return false;
            }
        }
        let in_flight = self.lrp_in_flight(key);
        self.enter_lrp(key, record, in_flight);
        true
    }

    /// Removes an ActualLRP.
    pub fn remove_lrp(&mut self, key: &Key, uid: &str) -> bool {
        let Some(entry) = self.lrps.get(key) else {
            return false;
        };
        // A placeholder for an object that is being created has no uid yet.
        if entry.record.version.uid != uid {
            return false;
        }
        if entry.in_flight {
            self.buried.insert((Kind::Lrp, key.clone()), uid.to_owned());
        }
        self.drop_lrp(key);
        true
    }

    /// Enters a Task as it is stored. Returns whether it was news.
    pub fn put_task(&mut self, key: &Key, record: TaskRecord) -> bool {
        let seen = self.relist;
        if let Some(entry) = self.tasks.get_mut(key) {
            entry.seen = seen;
            if stale(&entry.record.version, &record.version) {
                return false;
            }
        }
        let in_flight = self.task_in_flight(key);
        self.enter_task(key, record, in_flight);
        true
    }

    /// Removes a Task.
    pub fn remove_task(&mut self, key: &Key, uid: &str) -> bool {
        let Some(entry) = self
            .tasks
            .get(key)
            .filter(|entry| entry.record.version.uid == uid)
        else {
            return false;
        };
        if entry.in_flight {
            self.buried
                .insert((Kind::Task, key.clone()), uid.to_owned());
        }
        self.drop_task(key);
        true
    }

    /// Drops what a re-list did not show. Entries with a write under way stay: the write's answer decides.
    pub fn end_lrp_relist(&mut self, since: u64) -> Vec<(Key, Lrp)> {
        let gone: Vec<Key> = self
            .lrps
            .iter()
            .filter(|(_, entry)| entry.seen < since && !entry.in_flight)
            .map(|(key, _)| key.clone())
            .collect();
        gone.into_iter()
            .filter_map(|key| self.drop_lrp(&key).map(|record| (key, record)))
            .collect()
    }

    /// Drops what a re-list did not show.
    pub fn end_task_relist(&mut self, since: u64) -> Vec<Key> {
        let gone: Vec<Key> = self
            .tasks
            .iter()
            .filter(|(_, entry)| entry.seen < since && !entry.in_flight)
            .map(|(key, _)| key.clone())
            .collect();
        gone.iter().for_each(|key| self.drop_task(key));
        gone
    }

    /// Drops every Cell that is not in `live`. Returns their names.
    pub fn retain_cells(&mut self, live: &HashSet<String>) -> Vec<String> {
        let gone: Vec<String> = self
            .cells
            .keys()
            .filter(|name| !live.contains(*name))
            .cloned()
            .collect();
        gone.iter().for_each(|name| {
            self.drop_cell(name);
        });
        gone
    }

    fn drop_cell(&mut self, name: &str) -> bool {
        let Some(cell) = self.cells.remove(name) else {
            return false;
        };
        self.gone.remove(name);
        let node = cell.node.map(|node| node.name);
        self.stands_on(name, node.as_deref(), None);
        true
    }

    /// Drops every DesiredLRP that is not in `live`. Returns their keys.
    pub fn retain_desired(&mut self, live: &HashSet<Key>) -> Vec<Key> {
        let gone: Vec<Key> = self
            .desired
            .keys()
            .filter(|key| !live.contains(*key))
            .cloned()
            .collect();
        for key in &gone {
            self.desired.remove(key);
            self.minders.note(None, || Whose::Process(key.clone()));
        }
        gone
    }
}
