//! What a rep hears from its watches, and what it asks for by itself.

use crate::faults::Mutation;
use crate::history::{Event, Sim};
use crate::machine::Tick;
use crate::rep::{Record, Work};
use crate::store::{Kind, Object, Writer};
use crate::watches::Item;

/// How often a rep compares everything.
const SYNC: i64 = 30_000;

impl Sim {
    pub fn rep_hears(&mut self, rep: usize, kind: Kind, item: Item) {
        match item {
            Item::Seen(object) => {
                if let Some((work, record)) = record_of(object) {
                    self.reps[rep].remember(work.clone(), record);
                    self.settle(rep, &work, false, None);
                }
            }
            Item::Gone(object) => {
                if let Some((work, record)) = record_of(object) {
                    self.reps[rep]
                        .left
                        .insert(work.clone(), record.uid().to_owned());
                    self.doubt(rep, &work);
                }
            }
            Item::Listed(objects) => {
                self.reps[rep].listed = true;
                let mut listed = Vec::new();
                for (work, record) in objects.into_iter().filter_map(record_of) {
                    self.reps[rep].remember(work.clone(), record);
                    self.settle(rep, &work, false, None);
                    listed.push(work);
                }
                self.doubt_all_but(rep, &listed, |work| work.0 == kind);
            }
        }
    }

    /// What is known of a record no longer holds: read it, if it matters here.
    pub fn doubt(&mut self, rep: usize, work: &Work) {
        let one = &mut self.reps[rep];
        if one.holds(work) {
            self.read(rep, work);
        } else if !one.busy.contains_key(work) {
            one.records.remove(work);
            one.left.remove(work);
        }
    }

    pub fn doubt_all_but(&mut self, rep: usize, listed: &[Work], applies: impl Fn(&Work) -> bool) {
        let one = &self.reps[rep];
        let held = one.containers.values().map(|container| &container.work);
        let mut unlisted: Vec<Work> = (one.records.keys().chain(held))
            .filter(|work| applies(work) && !listed.contains(work))
            .cloned()
            .collect();
        unlisted.sort();
        unlisted.dedup();
        for work in unlisted {
            self.doubt(rep, &work);
        }
    }

    pub fn sync(&mut self, rep: usize) {
        let life = self.reps[rep].life;
        self.schedule(self.now + SYNC, Event::RepTick(rep, life, Tick::Sync));
        let one = &self.reps[rep];
        if one.cut_api || self.breaks(Mutation::NeverList) {
            return;
        }
        let (cell, zone, room) = (one.cell.clone(), one.zone.clone(), one.containers_max);
        // It sees to it that its Cell object is there.
        self.store
            .register_cell(Writer::Rep(rep), &cell, &zone, room);
        let mut list = self.store.list(Kind::Lrp);
        list.extend(self.store.list(Kind::Task));
        list.retain(|object| object.assigned() == Some(&cell));
        let delay = self.network.call_delay(&mut self.rng);
        self.schedule(self.now + delay, Event::RepSynced(rep, life, list));
    }

    pub fn synced(&mut self, rep: usize, list: Vec<Object>) {
        let mut listed = Vec::new();
        for (work, record) in list.into_iter().filter_map(record_of) {
            self.reps[rep].remember(work.clone(), record);
            listed.push(work);
        }
        self.doubt_all_but(rep, &listed, |_| true);
        self.settle_all(rep);
    }

    /// The watch shows only records whose ordinary instance is assigned here; the others are asked after.
    pub fn look_after_the_unwatched(&mut self, rep: usize) {
        self.reps[rep].unwatched_due = false;
        for work in self.unwatched(rep) {
            self.read(rep, &work);
        }
    }

    pub fn unwatched(&self, rep: usize) -> Vec<Work> {
        let one = &self.reps[rep];
        let mut all: Vec<Work> = (one.containers.values())
            .filter(|container| !one.shown(&container.work))
            .map(|container| container.work.clone())
            .collect();
        all.sort();
        all.dedup();
        all
    }

    /// The clock that looks after the unwatched runs only while there are any.
    pub fn wind_up(&mut self, rep: usize) {
        let one = &self.reps[rep];
        if !one.alive || one.unwatched_due || self.unwatched(rep).is_empty() {
            return;
        }
        let life = one.life;
        self.reps[rep].unwatched_due = true;
        self.schedule(self.now + 2000, Event::RepTick(rep, life, Tick::Unwatched));
    }
}

pub fn record_of(object: Object) -> Option<(Work, Record)> {
    match object {
        Object::Lrp(lrp) => Some(((Kind::Lrp, lrp.key.clone()), Record::Lrp(lrp))),
        Object::Task(task) => Some(((Kind::Task, task.key.clone()), Record::Task(task))),
        Object::Cell(..) | Object::Desired(..) => None,
    }
}
