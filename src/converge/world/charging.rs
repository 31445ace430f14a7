//! Who takes room where: every record is charged to the Cells it names, and the books balance at any time.

use crate::api::{ActualLRPState, ActualLRPStatus, TaskState, template::Resources};

use crate::converge::pods::WorkKey;

use super::kin::Whose;
use super::{Charge, Entry, Key, Load, Lrp, TaskRecord, Waiting, World};

impl World {
    pub(super) fn enter_lrp(&mut self, key: &Key, record: Lrp, in_flight: bool) {
        let was_starting = self.uncharge_lrp(key);
        let process = Key::new(&*key.namespace, &*record.process);
        let resources = self
            .desired
            .get(&process)
            .and_then(|desired| desired.demand.as_ref().ok())
            .map(|demand| demand.resources)
            .unwrap_or_default();
        let charges = lrp_charges(&record.status, resources);
        for charge in &charges {
            self.charge(charge, 1, |load| load.lrps.insert(key.clone()));
        }
        self.touch_charged(&charges, || WorkKey::lrp(key.clone()));
        self.starts_ended += u64::from(was_starting && !is_starting(&charges));
        let scheduled = self.has_scheduler(&process);
        self.slots.entry(process).or_default().insert(record.index);
        if record.status.state == ActualLRPState::Unclaimed && record.status.cell_name.is_none() {
            if scheduled {
                self.touch(WorkKey::lrp(key.clone()));
            }
            self.waiting.insert(Waiting::Lrp(key.clone()));
        } else {
            self.waiting.remove(&Waiting::Lrp(key.clone()));
        }
        self.lrps.insert(
            key.clone(),
            Entry {
                record,
                charges,
                in_flight,
                seen: self.relist,
            },
        );
        self.review_pods(|| WorkKey::lrp(key.clone()));
    }

    /// Takes an ActualLRP off the Cells it takes room on. Returns whether it was starting.
    pub(super) fn uncharge_lrp(&mut self, key: &Key) -> bool {
        let Some(entry) = self.lrps.get_mut(key) else {
            return false;
        };
        let charges = std::mem::take(&mut entry.charges);
        self.touch_charged(&charges, || WorkKey::lrp(key.clone()));
        for charge in &charges {
            self.charge(charge, -1, |load| load.lrps.remove(key));
        }
        is_starting(&charges)
    }

    /// Books `charge` on its Cell, or off it with a `sign` of -1; `member` enters or removes who is charged.
    pub(super) fn charge(
        &mut self,
        charge: &Charge,
        sign: i32,
        member: impl FnOnce(&mut Load) -> bool,
    ) {
        let load = self.loads.entry(charge.cell.clone()).or_default();
        load.add(charge, sign);
        member(load);
        if load.containers == 0 && load.lrps.is_empty() && load.tasks.is_empty() {
            self.loads.remove(&charge.cell);
        }
        self.changed_loads.insert(charge.cell.clone());
    }

    pub(super) fn drop_lrp(&mut self, key: &Key) -> Option<Lrp> {
        self.starts_ended += u64::from(self.uncharge_lrp(key));
        self.waiting.remove(&Waiting::Lrp(key.clone()));
        let entry = self.lrps.remove(key)?;
        self.review_pods(|| WorkKey::lrp(key.clone()));
        self.touch(WorkKey::lrp(key.clone()));
        let process = Key::new(&*key.namespace, &*entry.record.process);
        if let Some(slots) = self.slots.get_mut(&process) {
            slots.remove(&entry.record.index);
            if slots.is_empty() {
                self.slots.remove(&process);
            }
        }
        Some(entry.record)
    }

    pub(super) fn enter_task(&mut self, key: &Key, record: TaskRecord, in_flight: bool) {
        self.drop_task(key);
        let resources = record
            .demand
            .as_ref()
            .map(|demand| demand.resources)
            .unwrap_or_default();
        let charges: Vec<Charge> = match (&record.status.cell_name, record.status.state) {
            (Some(cell), TaskState::Pending | TaskState::Running) => {
                vec![Charge {
                    cell: cell.clone(),
                    resources,
                    starting: false,
                }]
            }
            _ => Vec::new(),
        };
        for charge in &charges {
            self.charge(charge, 1, |load| load.tasks.insert(key.clone()));
        }
        self.touch_charged(&charges, || WorkKey::task(key.clone()));
        if record.status.state == TaskState::Pending && record.status.cell_name.is_none() {
            self.waiting.insert(Waiting::Task(key.clone()));
        }
        let needs = record.demand.as_ref().ok().map(|demand| &demand.pods);
        self.minders.note(needs, || Whose::Task(key.clone()));
        self.tasks.insert(
            key.clone(),
            Entry {
                record,
                charges,
                in_flight,
                seen: self.relist,
            },
        );
        self.review_pods(|| WorkKey::task(key.clone()));
    }

    pub(super) fn drop_task(&mut self, key: &Key) {
        let Some(entry) = self.tasks.remove(key) else {
            return;
        };
        self.minders.note(None, || Whose::Task(key.clone()));
        self.review_pods(|| WorkKey::task(key.clone()));
        self.waiting.remove(&Waiting::Task(key.clone()));
        self.touch(WorkKey::task(key.clone()));
        for charge in &entry.charges {
            self.charge(charge, -1, |load| load.tasks.remove(key));
        }
    }

    /// A DesiredLRP came after its ActualLRPs: now it is known what they take.
    pub(super) fn recharge_instances(&mut self, desired: &Key) {
        let indices: Vec<i32> = self
            .slots
            .get(desired)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        for index in indices {
            let key = desired.instance(index);
            if let Some(entry) = self.lrps.get(&key) {
                let (record, in_flight, seen) = (entry.record.clone(), entry.in_flight, entry.seen);
                self.enter_lrp(&key, record, in_flight);
                if let Some(entry) = self.lrps.get_mut(&key) {
                    entry.seen = seen;
                }
            }
        }
    }
}

impl Load {
    fn add(&mut self, charge: &Charge, sign: i32) {
        self.resources.memory += charge.resources.memory * i64::from(sign);
        self.resources.disk += charge.resources.disk * i64::from(sign);
        self.resources.cpu += charge.resources.cpu * i64::from(sign);
        self.containers += sign;
        self.starting += sign * i32::from(charge.starting);
    }
}

/// Where an ActualLRP takes room.
fn lrp_charges(status: &ActualLRPStatus, resources: Resources) -> Vec<Charge> {
    let starting = matches!(
        status.state,
        ActualLRPState::Unclaimed | ActualLRPState::Claimed
    );
    let ordinary = status.cell_name.iter().map(|cell| (cell, starting));
    let suspect = status
        .suspect
        .iter()
        .map(|instance| (&instance.cell_name, false));
    let evacuating = status
        .evacuating
        .iter()
        .map(|instance| (&instance.cell_name, false));
    ordinary
        .chain(suspect)
        .chain(evacuating)
        .map(|(cell, starting)| Charge {
            cell: cell.clone(),
            resources,
            starting,
        })
        .collect()
}

fn is_starting(charges: &[Charge]) -> bool {
    charges.iter().any(|charge| charge.starting)
}
