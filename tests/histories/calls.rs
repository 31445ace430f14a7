//! A rep's calls to the API server, one per record at a time, and what their answers mean.

use std::rc::Rc;

use diego_operator::api::{ActualLRPStatus, MissingCellPolicy, TaskStatus};
use diego_operator::converge::harmony::{ContainerState, LrpAction};
use diego_operator::converge::world::{Desired, Key};
use diego_operator::rep::records::differ;

use crate::faults::Fate;
use crate::history::{Event, Sim};
use crate::rep::{Container, Meanwhile, Record, Took, Work};
use crate::store::{Bound, Kind, Refused, Writer};

/// The next status of either kind.
#[derive(Debug, Clone)]
pub enum Status {
    Lrp(Box<ActualLRPStatus>),
    Task(Box<TaskStatus>),
}

/// A call.
#[derive(Debug, Clone)]
pub enum Job {
    Read,
    Reserve {
        guid: String,
        desired: Key,
    },
    Create {
        guid: String,
    },
    Write {
        guid: String,
        uid: String,
        revision: u64,
        status: Status,
    },
}

/// An answer.
#[derive(Debug, Clone)]
pub enum Answer {
    Read(Option<Record>, Option<String>),
    Desired(Option<Rc<Desired>>),
    Created,
    Written(Record),
    Refused(Refused),
}

impl Sim {
    pub fn read(&mut self, rep: usize, work: &Work) {
        self.spawn(rep, work, Job::Read);
    }

    pub fn call(&mut self, rep: usize, work: &Work, job: Job) -> Took {
        if self.reps[rep].stamp().is_none() {
            return Took::Nothing;
        }
        self.spawn(rep, work, job);
        Took::Call
    }

    fn spawn(&mut self, rep: usize, work: &Work, job: Job) {
        if let Some(meanwhile) = self.reps[rep].busy.get_mut(work) {
            *meanwhile = Meanwhile::Doubted;
            return;
        }
        self.reps[rep].busy.insert(work.clone(), Meanwhile::Nothing);
        let delay = self.network.call_delay(&mut self.rng);
        let life = self.reps[rep].life;
        self.schedule(
            self.now + delay,
            Event::RepCall(rep, life, work.clone(), Box::new(job)),
        );
    }

    /// The call arrives, or not. A rep that died meanwhile had sent it all the same.
    pub fn rep_call(&mut self, rep: usize, life: u64, work: Work, job: Job) {
        let fate = self.network.fate(&mut self.rng, self.reps[rep].cut_api);
        let mut answer = Answer::Refused(Refused::Failed);
        if fate != Fate::Lost {
            let carried_out = self.carry_out(rep, &work, &job);
            if fate == Fate::Answered {
                answer = carried_out;
            }
        }
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
        let delay = match fate {
            Fate::Answered => self.network.call_delay(&mut self.rng),
            Fate::AnswerLost | Fate::Lost => self.rng.between(50, 2000),
        };
        let event = Event::RepAnswer(rep, life, work, Box::new((job, answer)));
        self.schedule(self.now + delay, event);
    }

    fn carry_out(&mut self, rep: usize, work: &Work, job: &Job) -> Answer {
        let writer = Writer::Rep(rep);
        let key = &work.1;
        match job {
            Job::Read => {
                let record = match work.0 {
                    Kind::Task => self.store.tasks.get(key).cloned().map(Record::Task),
                    Kind::Lrp | Kind::Cell | Kind::Desired => {
                        self.store.lrps.get(key).cloned().map(Record::Lrp)
                    }
                };
                let slot = self.reps[rep]
                    .containers
                    .values()
                    .find(|one| one.work == *work);
                let wanted_by = match (&record, slot) {
                    (None, Some(slot)) if slot.owner.is_some() => {
                        let desired = Key::new(&*key.namespace, &*slot.process);
                        (self.store.desired.get(&desired))
                            .filter(|desired| (0..desired.instances).contains(&slot.index))
                            .map(|desired| desired.version.uid.clone())
                    }
                    (_, _) => None,
                };
                Answer::Read(record, wanted_by)
            }
            Job::Reserve { desired, .. } => {
                Answer::Desired(self.store.desired.get(desired).cloned())
            }
            Job::Create { guid } => {
                let slot = self.reps[rep].containers.get(guid);
                let slot =
                    slot.and_then(|one| Some((one.process.clone(), one.owner.clone()?, one.index)));
                if let Some((process, owner, index)) = slot {
                    let desired = Key::new(&*key.namespace, process);
                    let wanted = self.store.desired.get(&desired).is_some_and(|desired| {
                        desired.version.uid == owner && (0..desired.instances).contains(&index)
                    });
                    if wanted
                        && self
                            .store
                            .create_lrp(writer, &desired, &owner, index)
                            .is_ok()
                    {
                        self.coverage.add("records made again by a rep", 1);
                    }
                }
                self.wrote(key, None);
                Answer::Created
            }
            Job::Write {
                uid,
                revision,
                status,
                ..
            } => {
                let bound = Bound {
                    uid,
                    revision: *revision,
                };
                let written = match status {
                    Status::Lrp(status) => {
                        let stored =
                            self.store
                                .write_lrp_status(writer, key, bound, (**status).clone());
                        stored.map(Record::Lrp)
                    }
                    Status::Task(status) => {
                        let stored =
                            self.store
                                .write_task_status(writer, key, bound, (**status).clone());
                        stored.map(Record::Task)
                    }
                };
                self.wrote(key, written.as_ref().err());
                match written {
                    Ok(record) => Answer::Written(record),
                    Err(refused) => Answer::Refused(refused),
                }
            }
        }
    }

    pub fn rep_answered(&mut self, rep: usize, work: Work, job: Job, answer: Answer) {
        let one = &mut self.reps[rep];
        let meanwhile = one.busy.remove(&work).unwrap_or(Meanwhile::Nothing);
        let answer = if one.cut_api {
            Answer::Refused(Refused::Failed)
        } else {
            answer
        };
        match (job, answer) {
            (_, Answer::Read(record, wanted_by)) => {
                one.failures.remove(&work);
                if meanwhile != Meanwhile::Doubted {
                    self.retire(rep, &work, record.as_ref());
                }
                let records = &mut self.reps[rep].records;
                match record {
                    Some(record) => records.insert(work.clone(), record),
                    None => records.remove(&work),
                };
                self.settle(rep, &work, true, wanted_by.as_deref());
            }
            (Job::Write { guid, .. }, Answer::Written(record)) => {
                one.failures.remove(&work);
                if let Some(container) = one.containers.get_mut(&guid) {
                    container.uid = record.uid().to_owned();
                }
                one.remember(work.clone(), record);
                self.settle(rep, &work, false, None);
            }
            (_, Answer::Written(_)) => {}
            (Job::Reserve { guid, .. }, Answer::Desired(desired)) => {
                self.reserve(rep, &work, &guid, desired);
            }
            (_, Answer::Created | Answer::Desired(_)) => self.read(rep, &work),
            (Job::Write { .. }, Answer::Refused(Refused::Conflict | Refused::NotFound)) => {
                self.read(rep, &work);
            }
            (_, Answer::Refused(_)) => self.try_again(rep, &work),
        }
        match meanwhile {
            Meanwhile::Nothing => {}
            Meanwhile::Changed => self.settle(rep, &work, false, None),
            Meanwhile::Doubted => self.read(rep, &work),
        }
    }

    /// A record that left the watch and is not there, or only under another uid, was deleted.
    fn retire(&mut self, rep: usize, work: &Work, found: Option<&Record>) {
        let one = &mut self.reps[rep];
        let Some(uid) = one.left.remove(work) else {
            return;
        };
        if found.is_some_and(|found| found.uid() == uid) {
            return;
        }
        for container in one.containers.values_mut() {
            if container.work == *work && container.uid == uid {
                container.retired = true;
                self.coverage.add("containers retired", 1);
            }
        }
    }

    fn try_again(&mut self, rep: usize, work: &Work) {
        let life = self.reps[rep].life;
        let failures = self.reps[rep].failures.entry(work.clone()).or_insert(0);
        *failures = failures.saturating_add(1);
        let pause = (100 << (*failures - 1).min(10)).min(5000);
        self.reps[rep].busy.insert(work.clone(), Meanwhile::Nothing);
        self.schedule(self.now + pause, Event::RepRetry(rep, life, work.clone()));
    }

    /// Sets room aside for an instance of a DesiredLRP, or refuses the placement.
    fn reserve(&mut self, rep: usize, work: &Work, guid: &str, desired: Option<Rc<Desired>>) {
        let one = &self.reps[rep];
        let Some(Record::Lrp(lrp)) = one.records.get(work) else {
            return;
        };
        let lrp = lrp.clone();
        let status = &lrp.record.status;
        let mine = status.cell_name.as_deref() == Some(&one.cell)
            && status.instance_guid.as_deref() == Some(guid);
        if !mine || one.containers.contains_key(guid) {
            return self.settle(rep, work, false, None);
        }
        let uid = desired.as_ref().map(|desired| desired.version.uid.clone());
        if differ(lrp.record.owner.as_deref(), uid.as_deref()) {
            return;
        }
        if one.refuses || desired.is_none() {
            if one.stamp().is_some() {
                self.lrp_write(rep, work, guid, LrpAction::Refuse, "no room");
            }
            return;
        }
        let container = Container {
            work: work.clone(),
            process: lrp.record.process.clone(),
            index: lrp.record.index,
            uid: lrp.record.version.uid.clone(),
            owner: uid,
            strict: desired.is_some_and(|desired| desired.policy == MissingCellPolicy::Strict),
            retired: false,
            state: ContainerState::Reserved,
            cancelled: false,
            outcome: None,
        };
        self.reps[rep].containers.insert(guid.to_owned(), container);
        self.settle(rep, work, false, None);
    }
}
