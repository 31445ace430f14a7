//! What the controller's watches of objects tell, entered into its world.

use std::collections::{BTreeSet, HashSet};

use diego_operator::api::{ActualLRPState, TaskState};
use diego_operator::converge::plan::Scope;
use diego_operator::converge::world::{CellRecord, Key, Version};

use crate::controller::Target;
use crate::faults::Mutation;
use crate::history::{Event, Sim};
use crate::lanes::Then;
use crate::store::{Kind, Object, StoredLrp};
use crate::watches::Item;

/// Changes that only counts depend on are looked at so much later.
const FLUSH: i64 = 200;

impl Sim {
    pub fn controller_hears(&mut self, one: usize, kind: Kind, item: Item) {
        match item {
            Item::Seen(object) => self.controller_sees(one, object),
            Item::Gone(object) => self.controller_misses(one, object),
            Item::Listed(objects) => self.controller_lists(one, kind, objects),
        }
    }

    pub fn controller_lists(&mut self, one: usize, kind: Kind, objects: Vec<Object>) {
        let world = &mut self.controllers[one].world;
        match kind {
            Kind::Lrp => self.controllers[one].since_lrps = world.begin_relist(),
            Kind::Task => self.controllers[one].since_tasks = world.begin_relist(),
            Kind::Cell | Kind::Desired => {}
        }
        let (mut cells, mut desired) = (HashSet::new(), HashSet::new());
        for object in objects {
            match &object {
                Object::Cell(name, _) => drop(cells.insert(name.clone())),
                Object::Desired(key, _) => drop(desired.insert(key.clone())),
                Object::Lrp(_) | Object::Task(_) => {}
            }
            self.controller_sees(one, object);
        }
        let controller = &mut self.controllers[one];
        match kind {
            Kind::Cell => {
                for name in controller.world.retain_cells(&cells) {
                    self.cell_object_gone(one, &name);
                }
            }
            Kind::Desired => {
                let mut gone = controller.world.retain_desired(&desired);
                gone.sort();
                for key in gone {
                    self.orphaned(one, key);
                }
            }
            Kind::Lrp => {
                let mut gone = controller.world.end_lrp_relist(controller.since_lrps);
                gone.sort_by(|a, b| a.0.cmp(&b.0));
                for (key, lrp) in gone {
                    self.lrp_gone(one, &key, &lrp.process);
                }
            }
            Kind::Task => drop(controller.world.end_task_relist(controller.since_tasks)),
        }
        let controller = &mut self.controllers[one];
        controller.listed.insert(kind);
        if !controller.synced && controller.listed.len() == 4 {
            controller.synced = true;
            let mut orphans = controller.world.slots_without_desired();
            orphans.sort();
            for key in orphans {
                self.orphaned(one, key);
            }
        }
    }

    pub fn controller_sees(&mut self, one: usize, object: Object) {
        let promote_by_name = self.breaks(Mutation::PromoteByName);
        let world = &mut self.controllers[one].world;
        match object {
            Object::Cell(name, cell) => {
                let mut record = (*cell).clone();
                if promote_by_name {
                    forget_incarnations(&mut record);
                }
                world.put_cell(&name, record);
                self.wake_if_new(one, Target::Cell(name), &cell.version);
            }
            Object::Desired(key, desired) => {
                world.put_desired(&key, (*desired).clone());
                self.wake_if_new(one, Target::Desired(key), &desired.version);
            }
            Object::Task(task) => {
                world.put_task(&task.key, task.record.clone());
                self.wake(one, Target::Task(task.key.clone()));
                if task.record.status.state == TaskState::Completed {
                    self.wake_waiting(one);
                }
            }
            Object::Lrp(lrp) => self.controller_sees_lrp(one, &lrp),
        }
    }

    /// What only the controller itself writes needs no look: the generation is the same.
    fn wake_if_new(&mut self, one: usize, target: Target, version: &Version) {
        let seen = (version.uid.clone(), version.generation);
        let known = (self.controllers[one].seen).insert(target.clone(), seen.clone());
        if known != Some(seen) {
            self.wake(one, target);
        }
    }

    pub fn controller_sees_lrp(&mut self, one: usize, lrp: &StoredLrp) {
        let world = &mut self.controllers[one].world;
        let known = world
            .lrp(&lrp.key)
            .map(|known| known.status.cell_name.is_some());
        let news = world.put_lrp(&lrp.key, lrp.record.clone());
        let status = &lrp.record.status;
        let process = Key::new(&*lrp.key.namespace, &*lrp.record.process);
        if news && known == Some(true) && status.cell_name.is_none() {
            self.wake_waiting(one);
        }
        let later = match status.state {
            ActualLRPState::Crashed => 0,
            ActualLRPState::Unclaimed if status.cell_name.is_none() => 0,
            ActualLRPState::Unclaimed | ActualLRPState::Claimed | ActualLRPState::Running => FLUSH,
        };
        self.wake_at(one, Target::Desired(process), self.now + later);
    }

    pub fn controller_misses(&mut self, one: usize, object: Object) {
        let world = &mut self.controllers[one].world;
        match object {
            Object::Cell(name, cell) => {
                if world.remove_cell(&name, &cell.version.uid) {
                    self.cell_object_gone(one, &name);
                }
            }
            Object::Desired(key, desired) => {
                if world.remove_desired(&key, &desired.version.uid) {
                    self.orphaned(one, key);
                }
            }
            Object::Lrp(lrp) => {
                world.remove_lrp(&lrp.key, &lrp.record.version.uid);
                self.lrp_gone(one, &lrp.key, &lrp.record.process);
            }
            Object::Task(task) => {
                world.remove_task(&task.key, &task.record.version.uid);
                self.wake_waiting(one);
            }
        }
    }

    pub fn cell_object_gone(&mut self, one: usize, name: &str) {
        let world = &self.controllers[one].world;
        let load = world.load(name).cloned().unwrap_or_default();
        let processes: BTreeSet<Key> = (load.lrps.iter())
            .filter_map(|key| Some(Key::new(&*key.namespace, &*world.lrp(key)?.process)))
            .collect();
        for key in processes {
            self.wake(one, Target::Desired(key));
        }
        for key in load.tasks {
            self.wake(one, Target::Task(key));
        }
    }

    pub fn lrp_gone(&mut self, one: usize, key: &Key, process: &str) {
        self.wake_waiting(one);
        self.wake(one, Target::Desired(Key::new(&*key.namespace, process)));
    }

    /// A DesiredLRP is gone and its instances are not.
    pub fn orphaned(&mut self, one: usize, key: Key) {
        let life = self.controllers[one].life;
        self.schedule(self.now, Event::Orphaned(one, life, key));
    }

    pub fn orphan(&mut self, one: usize, key: Key) {
        if self.controllers[one].synced {
            return self.converge(one, Scope::Desired(key), Then::Nobody);
        }
        let life = self.controllers[one].life;
        self.schedule(self.now + 100, Event::Orphaned(one, life, key));
    }

    // The watch of presences
}

/// A ledger that says nothing of incarnations.
pub fn forget_incarnations(record: &mut CellRecord) {
    record.status.incarnation_epoch = record.status.incarnation_epoch.map(|_| 0);
}
