//! What is planned: entered before it is sent, and settled by the answer.

use crate::api::{ActualLRPStatus, TaskStatus};
use crate::converge::pods::WorkKey;

use super::{Key, Kind, Lrp, TaskRecord, World, older};

impl World {
    /// Enters a planned status: the write is under way from now on.
    pub fn plan_lrp(&mut self, key: &Key, status: ActualLRPStatus) {
        if let Some(mut record) = self.lrp(key).cloned() {
            record.status = status;
            self.enter_lrp(key, record, true);
        }
    }

    /// Enters an ActualLRP that is about to be created.
    pub fn plan_new_lrp(&mut self, key: &Key, record: Lrp) {
        self.enter_lrp(key, record, true);
    }

    /// Marks a Task as being deleted.
    pub fn plan_task_removal(&mut self, key: &Key) {
        if let Some(entry) = self.tasks.get_mut(key) {
            entry.in_flight = true;
        }
    }

    /// Marks an ActualLRP as being deleted.
    pub fn plan_lrp_removal(&mut self, key: &Key) {
        if let Some(entry) = self.lrps.get_mut(key) {
            entry.in_flight = true;
        }
    }

    /// Enters a planned status: the write is under way from now on.
    pub fn plan_task(&mut self, key: &Key, status: TaskStatus) {
        if let Some(mut record) = self.task(key).cloned() {
            record.status = status;
            self.enter_task(key, record, true);
        }
    }

    /// The write on an ActualLRP has an answer: this is what is stored now (`None`: no such object).
    pub fn settle_lrp(&mut self, key: &Key, stored: Option<Lrp>) {
        // Whoever met a write under way waits for this, also where the record names no Cell.
        self.touch(WorkKey::lrp(key.clone()));
        let buried = self.buried.remove(&(Kind::Lrp, key.clone()));
        match stored {
            Some(record) if buried.as_ref() == Some(&record.version.uid) => {}
            // The watch may have brought a newer version while the answer was on its way.
            Some(record)
                if self
                    .lrp(key)
                    .is_some_and(|known| older(&record.version, &known.version)) =>
            {
                if let Some(entry) = self.lrps.get_mut(key) {
                    entry.in_flight = false;
                }
            }
            Some(record) => self.enter_lrp(key, record, false),
            None => {
                self.drop_lrp(key);
            }
        }
    }

    /// The write on a Task has an answer.
    pub fn settle_task(&mut self, key: &Key, stored: Option<TaskRecord>) {
        self.touch(WorkKey::task(key.clone()));
        let buried = self.buried.remove(&(Kind::Task, key.clone()));
        match stored {
            Some(record) if buried.as_ref() == Some(&record.version.uid) => {}
            Some(record)
                if self
                    .task(key)
                    .is_some_and(|known| older(&record.version, &known.version)) =>
            {
                if let Some(entry) = self.tasks.get_mut(key) {
                    entry.in_flight = false;
                }
            }
            Some(record) => self.enter_task(key, record, false),
            None => self.drop_task(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Version;
    use super::*;
    use crate::api::ActualLRPState;

    #[test]
    fn the_end_of_a_write_wakes_also_where_the_record_names_no_cell() {
        let (mut world, key) = (World::default(), Key::new("default", "web-0"));
        let record = |revision| Lrp {
            version: Version {
                uid: "lrp-1".into(),
                revision,
                ..Version::default()
            },
            process: "web".into(),
            index: 0,
            owner: None,
            status: ActualLRPStatus {
                state: ActualLRPState::Crashed,
                ..Default::default()
            },
        };
        world.put_lrp(&key, record(1));
        world.plan_lrp(&key, record(1).status);
        world.take_touched();
        for stored in [Some(record(2)), Some(record(1)), None] {
            world.settle_lrp(&key, stored);
            let touched = world.take_touched().unwrap_or_default();
            assert!(touched.works.contains(&WorkKey::lrp(key.clone())));
        }
    }
}
