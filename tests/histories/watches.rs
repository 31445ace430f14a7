//! Watches: events in order, late, and lost when a watch breaks, until it lists again.

use std::collections::VecDeque;

use crate::history::{Event, Sim};
use crate::store::{Change, KINDS, Kind, Object};

/// Whose watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Controller(usize),
    Rep(usize),
}

/// What a watch delivers.
#[derive(Debug, Clone)]
pub enum Item {
    Seen(Object),
    /// Deleted, or, for a rep, no longer assigned to it.
    Gone(Object),
    Listed(Vec<Object>),
}

/// One watch of one kind.
#[derive(Debug, Default)]
pub struct Watch {
    pub connected: bool,
    pub queue: VecDeque<(i64, Item)>,
    last: i64,
}

impl Watch {
    fn push(&mut self, due: i64, item: Item) -> i64 {
        self.last = due.max(self.last);
        self.queue.push_back((self.last, item));
        self.last
    }

    /// What has arrived by now.
    pub fn arrived(&mut self, now: i64) -> Option<Item> {
        let due = self.queue.front().is_some_and(|(due, _)| *due <= now);
        if due {
            self.queue.pop_front().map(|(_, item)| item)
        } else {
            None
        }
    }
}

pub fn index(kind: Kind) -> usize {
    match kind {
        Kind::Cell => 0,
        Kind::Desired => 1,
        Kind::Lrp => 2,
        Kind::Task => 3,
    }
}

impl Sim {
    pub fn watch(&mut self, owner: Owner, kind: Kind) -> &mut Watch {
        match owner {
            Owner::Controller(one) => &mut self.controllers[one].watches[index(kind)],
            Owner::Rep(one) => &mut self.reps[one].watches[index(kind)],
        }
    }

    pub fn life(&self, owner: Owner) -> u64 {
        match owner {
            Owner::Controller(one) => self.controllers[one].life,
            Owner::Rep(one) => self.reps[one].life,
        }
    }

    /// Tells the observer and every watch what was stored.
    pub fn tell_changes(&mut self) {
        for change in std::mem::take(&mut self.store.changes) {
            if let Err(violation) = self.observer.stored(&change, &self.presence) {
                self.violated(violation);
            }
            self.log_change(&change);
            self.collect_later(&change);
            let kind = match (&change.old, &change.new) {
                (Some(object), _) | (None, Some(object)) => object.kind(),
                (None, None) => continue,
            };
            for one in 0..self.controllers.len() {
                let item = match (&change.new, &change.old) {
                    (Some(new), _) => Item::Seen(new.clone()),
                    (None, Some(old)) => Item::Gone(old.clone()),
                    (None, None) => continue,
                };
                self.send(Owner::Controller(one), kind, item);
            }
            if matches!(kind, Kind::Lrp | Kind::Task) {
                for one in 0..self.reps.len() {
                    if let Some(item) = self.selected(one, &change) {
                        self.send(Owner::Rep(one), kind, item);
                    }
                }
            }
        }
    }

    /// The garbage collector also finds what was made for an owner that is gone already.
    fn collect_later(&mut self, change: &Change) {
        let (None, Some(Object::Lrp(lrp))) = (&change.old, &change.new) else {
            return;
        };
        let owner = lrp.record.owner.clone().unwrap_or_default();
        let mut there = self.store.desired.values();
        if there.any(|desired| desired.version.uid == owner) {
            return;
        }
        let wait = self.rng.between(10, 5000);
        self.schedule(self.now + wait, Event::Collect(owner));
    }

    /// What the field selector of a rep's watch makes of a change.
    fn selected(&self, rep: usize, change: &Change) -> Option<Item> {
        let cell = Some(self.reps[rep].cell.as_str());
        let was = change.old.as_ref().filter(|old| old.assigned() == cell);
        match (&change.new, was) {
            (Some(new), _) if new.assigned() == cell => Some(Item::Seen(new.clone())),
            (Some(new), Some(_)) => Some(Item::Gone(new.clone())),
            (None, Some(old)) => Some(Item::Gone(old.clone())),
            (_, None) => None,
        }
    }

    fn send(&mut self, owner: Owner, kind: Kind, item: Item) {
        let delay = self.network.watch_delay(&mut self.rng);
        let due = self.now + delay;
        let life = self.life(owner);
        let watch = self.watch(owner, kind);
        if !watch.connected {
            return;
        }
        let due = watch.push(due, item);
        self.schedule(due, Event::Watch(owner, kind, life));
    }

    /// The watch breaks: what was under way is lost. It lists again later, by itself if `again` is given.
    pub fn break_watch(&mut self, owner: Owner, kind: Kind, again: Option<i64>) {
        let watch = self.watch(owner, kind);
        watch.connected = false;
        let lost = watch.queue.len() as u64;
        watch.queue.clear();
        self.coverage.add("watch events lost", lost);
        if let Some(again) = again {
            let life = self.life(owner);
            self.schedule(self.now + again, Event::Relist(owner, kind, life));
        }
    }

    /// Lists, and watches from there.
    pub fn relist(&mut self, owner: Owner, kind: Kind) {
        let mut list = self.store.list(kind);
        if let Owner::Rep(one) = owner {
            let rep = &self.reps[one];
            if rep.cut_api || self.breaks(crate::faults::Mutation::NeverList) && rep.listed {
                return;
            }
            list.retain(|object| object.assigned() == Some(rep.cell.as_str()));
        }
        self.coverage.add("lists", 1);
        let watch = self.watch(owner, kind);
        watch.queue.clear();
        watch.connected = true;
        self.send(owner, kind, Item::Listed(list));
    }

    pub fn relist_all(&mut self, owner: Owner, within: i64) {
        for kind in KINDS {
            if matches!(owner, Owner::Rep(_)) && matches!(kind, Kind::Cell | Kind::Desired) {
                continue;
            }
            let wait = self.rng.between(1, within);
            let life = self.life(owner);
            self.schedule(self.now + wait, Event::Relist(owner, kind, life));
        }
    }
}
