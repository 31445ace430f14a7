//! One write at the simulated server, and what becomes of its answer.

use std::rc::Rc;

use diego_operator::converge::plan::{LrpChange, TaskChange, Write};
use diego_operator::converge::world::{Key, Lrp, TaskRecord};

use crate::execute::Stored;
use crate::faults::{Fate, Mutation};
use crate::history::{Event, Sim};
use crate::store::{Bound, Refused, Writer};

impl Sim {
    /// A write arrives at the server; whoever sent it may be dead by now.
    pub fn controller_write(&mut self, one: usize, life: u64, job: u64, write: Rc<Write>) {
        let fate = self.network.fate(&mut self.rng, false);
        let mut answer = Err(Refused::Failed);
        if fate != Fate::Lost {
            self.observer.judge_next(&write);
            let stored = self.perform(one, life, job, &write);
            self.tell_changes();
            self.observer.judged();
            let Some(stored) = stored else {
                // The object is made; its status follows.
                return;
            };
            if fate == Fate::Answered {
                answer = stored;
            }
        }
        self.answer(one, life, job, write, fate, answer);
    }

    pub fn answer(
        &mut self,
        one: usize,
        life: u64,
        job: u64,
        write: Rc<Write>,
        fate: Fate,
        answer: Result<Stored, Refused>,
    ) {
        if fate != Fate::Answered {
            self.coverage.add(
                if fate == Fate::Lost {
                    "calls lost"
                } else {
                    "answers lost"
                },
                1,
            );
            self.stimulus();
        }
        let delay = self.network.call_delay(&mut self.rng);
        let event = Event::WriteAnswer(one, life, job, write, Box::new(answer));
        self.schedule(self.now + delay, event);
    }

    /// `None` while a second step is to follow.
    pub fn perform(
        &mut self,
        one: usize,
        life: u64,
        job: u64,
        write: &Rc<Write>,
    ) -> Option<Result<Stored, Refused>> {
        let writer = Writer::Controller;
        let bound = |version: &'_ diego_operator::converge::world::Version| {
            (version.uid.clone(), version.revision)
        };
        let (key, result) = match &**write {
            Write::CreateLrp {
                key,
                desired,
                owner,
                index,
                ..
            } => {
                let created = self.store.create_lrp(writer, desired, owner, *index);
                if let Ok(created) = created {
                    self.wrote(key, None);
                    let version = bound(&created.record.version);
                    let delay = self.network.call_delay(&mut self.rng);
                    let event = Event::FirstStatus(one, life, job, write.clone(), version);
                    self.schedule(self.now + delay, event);
                    return None;
                }
                (key, created.map(|lrp| Stored::Lrp(Some(lrp))))
            }
            Write::LrpStatus {
                key, version, to, ..
            } => {
                let (uid, revision) = bound(version);
                let bound = Bound {
                    uid: &uid,
                    revision,
                };
                let stored = self
                    .store
                    .write_lrp_status(writer, key, bound, (**to).clone());
                (key, stored.map(|lrp| Stored::Lrp(Some(lrp))))
            }
            Write::DeleteLrp {
                key,
                version,
                orphan_of,
            } => {
                // An orphan only if its DesiredLRP, read now, is not there.
                let there = orphan_of
                    .as_ref()
                    .and_then(|key| Some((key, self.store.desired.get(key)?)));
                if let Some((desired, record)) = there {
                    let record = (**record).clone();
                    if self.controllers[one].life == life {
                        self.controllers[one].world.put_desired(desired, record);
                    }
                    return Some(Ok(Stored::Lrp(self.store.lrps.get(key).cloned())));
                }
                let (uid, revision) = bound(version);
                let bound = Bound {
                    uid: &uid,
                    revision,
                };
                let deleted = match self.store.delete_lrp(key, bound) {
                    Ok(()) | Err(Refused::NotFound) => Ok(Stored::Lrp(None)),
                    Err(refused) => Err(refused),
                };
                (key, deleted)
            }
            Write::TaskStatus {
                key, version, to, ..
            } => {
                let (uid, revision) = bound(version);
                let bound = Bound {
                    uid: &uid,
                    revision,
                };
                let stored = self
                    .store
                    .write_task_status(writer, key, bound, (**to).clone());
                (key, stored.map(|task| Stored::Task(Some(task))))
            }
            Write::DeleteTask { key, version, .. } => {
                let (uid, revision) = bound(version);
                let bound = Bound {
                    uid: &uid,
                    revision,
                };
                let deleted = match self.store.delete_task(writer, key, Some(bound)) {
                    Ok(()) | Err(Refused::NotFound) => Ok(Stored::Task(None)),
                    Err(refused) => Err(refused),
                };
                (key, deleted)
            }
        };
        if result.is_ok() {
            self.coverage.add(change_name(write), 1);
        }
        self.wrote(key, result.as_ref().err());
        Some(result)
    }

    /// The second step of a creation.
    pub fn first_status(
        &mut self,
        one: usize,
        life: u64,
        job: u64,
        write: Rc<Write>,
        version: (String, u64),
    ) {
        let Write::CreateLrp { key, status, .. } = &*write else {
            return;
        };
        let key = key.clone();
        // A controller that died in between leaves an instance without a status.
        if self.controllers[one].life != life {
            return;
        }
        let fate = self.network.fate(&mut self.rng, false);
        let mut answer = Err(Refused::Failed);
        if fate != Fate::Lost {
            let bound = Bound {
                uid: &version.0,
                revision: version.1,
            };
            let stored =
                self.store
                    .write_lrp_status(Writer::Controller, &key, bound, (**status).clone());
            self.wrote(&key, stored.as_ref().err());
            if stored.is_ok() {
                self.coverage.add(change_name(&write), 1);
            }
            if fate == Fate::Answered {
                answer = stored.map(|lrp| Stored::Lrp(Some(lrp)));
            }
        }
        self.answer(one, life, job, write, fate, answer);
    }

    pub fn write_answered(
        &mut self,
        one: usize,
        job: u64,
        write: Rc<Write>,
        answer: Result<Stored, Refused>,
    ) {
        let life = self.controllers[one].life;
        let refused = match answer {
            Ok(stored) => {
                self.settle_world(one, &write, Some(stored));
                return self.one_less(one, job, |_| {});
            }
            Err(refused) => refused,
        };
        // What is stored is read anew, since the write may or may not have taken effect.
        let (key, is_task) = object_of(&write);
        let live = if self.network.fate(&mut self.rng, false) != Fate::Answered {
            None
        } else if is_task {
            Some(Stored::Task(self.store.tasks.get(key).cloned()))
        } else {
            Some(Stored::Lrp(self.store.lrps.get(key).cloned()))
        };
        let delay = self.network.call_delay(&mut self.rng);
        let event = Event::Settle(one, life, job, write, Box::new((refused, live)));
        self.schedule(self.now + delay, event);
    }

    pub fn settle_write(
        &mut self,
        one: usize,
        job: u64,
        write: &Write,
        refused: &Refused,
        live: Option<Stored>,
    ) {
        self.settle_world(one, write, live);
        let conflict = matches!(
            refused,
            Refused::Conflict | Refused::AlreadyExists | Refused::NotFound
        );
        self.one_less(one, job, |attempt| {
            attempt.conflicts += u32::from(conflict);
            attempt.unfinished += u32::from(!conflict);
        });
    }

    /// `None`: nothing could be read, so what was known before stands.
    pub fn settle_world(&mut self, one: usize, write: &Write, stored: Option<Stored>) {
        let forgets = self.breaks(Mutation::ForgetUnread);
        let world = &mut self.controllers[one].world;
        let (key, _) = object_of(write);
        match (stored, write) {
            (Some(Stored::Lrp(lrp)), _) => {
                world.settle_lrp(key, lrp.map(|lrp| lrp.record.clone()));
            }
            (Some(Stored::Task(task)), _) => {
                world.settle_task(key, task.map(|task| task.record.clone()));
            }
            (None, Write::LrpStatus { version, from, .. }) => {
                let record = world.lrp(key).cloned().map(|known| Lrp {
                    version: version.clone(),
                    status: (**from).clone(),
                    ..known
                });
                world.settle_lrp(key, record);
            }
            (None, Write::TaskStatus { version, from, .. }) => {
                let record = world.task(key).cloned().map(|known| TaskRecord {
                    version: version.clone(),
                    status: (**from).clone(),
                    ..known
                });
                world.settle_task(key, record);
            }
            (None, Write::CreateLrp { .. } | Write::DeleteLrp { .. }) => {
                // What stands for an object that is being created has no uid.
                let known = world.lrp(key).cloned();
                let record = known.filter(|known| !forgets && !known.version.uid.is_empty());
                world.settle_lrp(key, record);
            }
            (None, Write::DeleteTask { version, .. }) => {
                let record = world.task(key).cloned().map(|known| TaskRecord {
                    version: version.clone(),
                    ..known
                });
                world.settle_task(key, record);
            }
        }
    }
}

/// What is written, and whether it is a Task.
pub fn object_of(write: &Write) -> (&Key, bool) {
    match write {
        Write::CreateLrp { key, .. }
        | Write::LrpStatus { key, .. }
        | Write::DeleteLrp { key, .. } => (key, false),
        Write::TaskStatus { key, .. } | Write::DeleteTask { key, .. } => (key, true),
    }
}

pub fn change_name(write: &Write) -> &'static str {
    match write {
        Write::CreateLrp { .. } => "instances created",
        Write::LrpStatus { change, to, .. } => match change {
            LrpChange::Placed { .. } if to.suspect.is_some() => "placed beside a suspect",
            LrpChange::Placed { .. } if to.evacuating.is_some() => {
                "placed beside an evacuating instance"
            }
            LrpChange::Placed { .. } => "placed",
            LrpChange::Waiting { .. } => "waiting",
            LrpChange::RestartedHere { .. } => "restarted here",
            LrpChange::Promoted { .. } => "promotions",
            LrpChange::SuspectEvacuated { .. } => "suspects evacuated",
            LrpChange::SuspectDropped => "suspects dropped",
            LrpChange::EvacuatingDropped => "evacuating instances dropped",
            LrpChange::Told { .. } => "said by the pods executor",
        },
        Write::DeleteLrp { .. } => "instances deleted",
        Write::TaskStatus { change, .. } => match change {
            TaskChange::Placed { .. } => "tasks placed",
            TaskChange::Waiting { .. } => "tasks waiting",
            TaskChange::Failed { .. } => "tasks failed",
            TaskChange::Resolving | TaskChange::Demoted | TaskChange::Settled => "callbacks",
            TaskChange::Told { .. } => "said by the pods executor",
        },
        Write::DeleteTask { .. } => "tasks deleted",
    }
}
