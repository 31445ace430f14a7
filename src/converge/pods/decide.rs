//! The one next step for a record and its Pods.
//!
//! Every guid that the record names, or that a Pod bears, is looked up in the harmonisation table, as a rep does with
//! its containers. What is recorded under a life of its Cell that is over is left alone while the record names it: its
//! end is for the plan to decide. What no record names any more is deleted, without grace where that life is over.

use k8s_openapi::jiff::Timestamp;

use super::scheduled::SHORT_PAUSE;
use super::state::{End, Seen, StartLimit, observe};
use super::step::{DeleteWhy, Facts, Local, Record, Step};
use super::{PodRecord, WorkKind};
use crate::api::{ActualLRPState, TaskState};
use crate::converge::harmony::{self, ContainerState, LrpRecord, Mode};
use crate::converge::life::Life;
use crate::converge::lrp::transition::Instance;
use crate::converge::world::{Lrp, TaskRecord};

/// The next step for a record. With nothing to do, when to look again.
pub fn decide(facts: &Facts<'_>) -> Step {
    let mut due: Option<Timestamp> = None;
    for guid in guids(facts) {
        match facts.about(&guid) {
            Step::Wait(None) => {}
            Step::Wait(Some(time)) => due = Some(due.map_or(time, |known| known.min(time))),
            step => return step,
        }
    }
    match facts.ask_scheduler() {
        Step::Wait(None) => Step::Wait(due),
        Step::Wait(Some(time)) => Step::Wait(Some(due.map_or(time, |known| known.min(time)))),
        step => step,
    }
}

/// The guids to look at, those that the record names first: they hurry.
fn guids(facts: &Facts<'_>) -> Vec<String> {
    let named: Vec<&str> = match facts.record {
        Record::None => Vec::new(),
        Record::Lrp(lrp) => lrp.status.named().filter_map(|one| one.guid).collect(),
        Record::Task(task) => task.status.instance_guid.as_deref().into_iter().collect(),
    };
    let mut all: Vec<String> = Vec::new();
    let with_pods = facts.pods.iter().map(|pod| pod.guid.as_str());
    let held = facts.local.keys().map(String::as_str);
    for guid in named.into_iter().chain(with_pods).chain(held) {
        if !all.iter().any(|known| known == guid) {
            all.push(guid.to_owned());
        }
    }
    all
}

/// One guid, with what is known of it.
pub(super) struct One<'a> {
    pub(super) guid: &'a str,
    pub(super) pod: Option<&'a PodRecord>,
    pub(super) local: Option<&'a Local>,
    /// The record names it.
    pub(super) named: bool,
    pub(super) cell: &'a str,
    pub(super) life: Life,
}

impl One<'_> {
    pub(super) fn mode(&self) -> Mode {
        match self.life {
            Life::Draining => Mode::Draining,
            Life::Alive | Life::Superseded { .. } | Life::Lost | Life::Left | Life::Unknown => {
                Mode::Ordinary
            }
        }
    }

    pub(super) fn observe(&self, limit: Option<StartLimit>, strict: bool, now: Timestamp) -> Seen {
        let (state, end) = match (self.pod, self.local) {
            // Of what must not run twice a grace that is over proves nothing.
            (Some(pod), _) if strict && pod.deleting.is_some() && !pod.phase.is_over() => {
                let due = observe(pod, limit, now).due;
                return Seen {
                    due,
                    ..Seen::now(ContainerState::Stopping)
                };
            }
            (Some(pod), Some(Local::Crashed(words))) if pod.deleting.is_some() => {
                return Seen::over(End::Crashed(words.clone()));
            }
            (None, Some(Local::Crashed(words))) => {
                return Seen::over(End::Crashed(words.clone()));
            }
            (Some(pod), _) => return observe(pod, limit, now),
            (None, None) => (ContainerState::None, None),
            (None, Some(Local::SetAside)) => (ContainerState::Reserved, None),
            (None, Some(Local::Refused(words))) => {
                (ContainerState::CompletedShutdown, Some(End::refused(words)))
            }
            // Of the slot, and no instance.
            (None, Some(Local::Paused(_))) => (ContainerState::None, None),
        };
        Seen {
            state,
            end,
            due: None,
        }
    }
}

impl Facts<'_> {
    /// Whether a Pod of this slot other than this run's may still run, of what must not run twice.
    pub(super) fn may_still_run(&self, guid: &str) -> bool {
        let mut others = self.pods.iter().filter(|pod| pod.guid != guid);
        self.strict && others.any(|pod| !pod.phase.is_over())
    }

    fn about(&self, guid: &str) -> Step {
        let pod = self.pods.iter().copied().find(|pod| pod.guid == guid);
        let recorded = self.recorded(guid);
        // The Pod of a record that had this name before: the record in hand is none of its business.
        let retired = pod.is_some_and(|pod| Some(pod.owner.as_str()) != self.uid());
        let found;
        let place = match (&recorded, pod) {
            (Some((cell, epoch)), _) => Some((cell.as_str(), *epoch)),
            (None, Some(pod)) if self.is_sought(pod) => return self.follow(pod),
            (None, Some(pod)) if self.wants_pause(pod) => return self.pause(SHORT_PAUSE),
            (None, Some(pod)) => match &pod.cell {
                Some(cell) => Some((cell.as_str(), pod.epoch)),
                // A scheduler bound it: then nothing but its node says where it is.
                None => {
                    found = pod.node.as_deref().and_then(self.cell_of);
                    found
                        .as_ref()
                        .map(|(cell, epoch)| (cell.as_str(), Some(*epoch)))
                }
            },
            (None, None) if self.scheduler_sought().is_some() => return Step::Wait(None),
            (None, None) => None,
        };
        let Some((cell, epoch)) = place else {
            return match pod {
                Some(_) => self.dispose(guid, pod, false, DeleteWhy::NotAssigned),
                None => Step::Forget(guid.to_owned()),
            };
        };
        let named = recorded.is_some() && !retired;
        if named && pod.is_none() && (self.epoch)(cell).is_none() {
            // Its Cell runs processes, or nothing is known of it.
            return Step::Wait(None);
        }
        let one = One {
            guid,
            pod,
            local: self.local.get(guid),
            named,
            cell,
            life: (self.life)(cell, epoch),
        };
        let unfinished = match self.record {
            Record::Task(task) => view_is_open(task),
            Record::Lrp(_) | Record::None => true,
        };
        let forged = pod
            .and_then(|pod| pod.node.as_deref())
            .is_some_and(|node| (self.is_elsewhere)(cell, node));
        match one.life {
            // It is not where it says, and so none that was made for this Cell.
            Life::Alive | Life::Draining if forged => {
                self.dispose(guid, pod, false, DeleteWhy::NotAssigned)
            }
            Life::Alive | Life::Draining => match self.record {
                Record::Lrp(lrp) => self.lrp(&one, Some(lrp).filter(|_| !retired)),
                Record::Task(task) => self.task(&one, Some(task).filter(|_| !retired)),
                Record::None => match self.work.kind {
                    WorkKind::Lrp => self.lrp(&one, None),
                    WorkKind::Task => self.task(&one, None),
                },
            },
            // Its end is the plan's to decide, and the record tells it.
            Life::Lost | Life::Left | Life::Superseded { .. } | Life::Unknown
                if named && unfinished =>
            {
                Step::Wait(None)
            }
            Life::Lost => self.dispose(guid, pod, true, DeleteWhy::LostCell),
            // What had not begun before its node booted again may begin since, and the kubelet that could end it is there.
            Life::Superseded { .. } => self.dispose(guid, pod, !self.strict, DeleteWhy::LostCell),
            // A finished Task's Pod stays for its reader, once nothing of it runs.
            Life::Left | Life::Unknown if named && pod.is_none_or(|pod| pod.phase.is_over()) => {
                Step::Wait(None)
            }
            Life::Left | Life::Unknown => self.dispose(guid, pod, false, DeleteWhy::NotAssigned),
        }
    }

    /// The Cell and epoch that the record has for a guid.
    pub(super) fn recorded(&self, guid: &str) -> Option<(String, Option<i64>)> {
        match self.record {
            Record::None => None,
            Record::Lrp(lrp) => {
                let mut named = lrp.status.named();
                let one = named.find(|one| one.guid == Some(guid))?;
                Some((one.cell.to_owned(), one.epoch))
            }
            Record::Task(task) => {
                let status = &task.status;
                let mine = status.instance_guid.as_deref() == Some(guid);
                let cell = status.cell_name.clone().filter(|_| mine)?;
                Some((cell, status.cell_epoch))
            }
        }
    }

    pub(super) fn is_recorded(&self, guid: &str) -> bool {
        self.recorded(guid).is_some()
    }

    pub(super) fn uid(&self) -> Option<&str> {
        match self.record {
            Record::None => None,
            Record::Lrp(lrp) => Some(&lrp.version.uid),
            Record::Task(task) => Some(&task.version.uid),
        }
    }

    pub(super) fn instance(&self, one: &One<'_>) -> Option<Instance> {
        Some(Instance {
            cell: one.cell.to_owned(),
            epoch: (self.epoch)(one.cell)?,
            guid: one.guid.to_owned(),
        })
    }

    /// Until when the instance must be ready, while its record has it starting.
    pub(super) fn limit(
        &self,
        one: &One<'_>,
        lrp: Option<&Lrp>,
        record: LrpRecord,
    ) -> Option<StartLimit> {
        let starts = matches!(record, LrpRecord::UnclaimedMine | LrpRecord::ClaimedMine);
        let (lrp, pod) = (lrp.filter(|_| starts)?, one.pod?);
        // By this controller's clock, or one like it.
        let claimed = lrp.status.state_transition_time.as_ref();
        let claimed = claimed.filter(|_| lrp.status.state == ActualLRPState::Claimed);
        Some(StartLimit {
            since: claimed.map_or(pod.created, |time| time.0),
            seconds: self.start_timeout?,
        })
    }

    /// What must be read before an act that a stale view would make wrong.
    pub(super) fn read_first(
        &self,
        one: &One<'_>,
        state: ContainerState,
        stops: bool,
        gives_up: bool,
    ) -> Option<Step> {
        if harmony::wants_live_read(state, stops) && !self.fresh.record {
            return Some(Step::ReadRecord);
        }
        let unseen = state == ContainerState::None && gives_up;
        if unseen && !self.fresh.pods.contains(one.guid) {
            return Some(Step::ReadPod(one.guid.to_owned()));
        }
        None
    }

    /// The last Pod of a slot that crashed stays until the next one does, for its logs.
    pub(super) fn is_last_crash(&self, one: &One<'_>, seen: &Seen, lrp: Option<&Lrp>) -> bool {
        let (Some(pod), Some(_), Life::Alive) = (one.pod, lrp, one.life) else {
            return false;
        };
        let crashed = matches!(seen.end, Some(End::Crashed(_)));
        let over = |pod: &PodRecord| pod.phase.is_over() && pod.deleting.is_none();
        let age = |pod: &PodRecord| (pod.created, pod.key.name.clone());
        let mut others = self.pods.iter().filter(|other| other.guid != pod.guid);
        let newest = !others.any(|other| over(other) && age(other) > age(pod));
        crashed && over(pod) && newest
    }

    pub(super) fn with(&self, one: &One<'_>, step: fn(Instance) -> Step) -> Step {
        self.instance(one).map_or(Step::Wait(None), step)
    }

    pub(super) fn stop(&self, one: &One<'_>, why: DeleteWhy) -> Step {
        let why = match (one.mode(), why) {
            (Mode::Draining, DeleteWhy::NotAssigned) => DeleteWhy::Evacuation,
            (Mode::Ordinary | Mode::Draining, why) => why,
        };
        self.remove(one.guid, one.pod, false, why)
    }

    /// Nothing of it runs, or nothing that anybody wants.
    pub(super) fn finish(&self, one: &One<'_>) -> Step {
        match (one.pod, one.local) {
            // A Task's outcome is in its Pod alone, until its record has it.
            (Some(pod), _) if pod.work.kind == WorkKind::Task && !one.named => {
                self.dispose(one.guid, one.pod, false, DeleteWhy::Ended)
            }
            (Some(_), _) => self.remove(one.guid, one.pod, false, DeleteWhy::Ended),
            (None, Some(_)) => Step::Forget(one.guid.to_owned()),
            (None, None) => Step::Wait(None),
        }
    }

    /// No record names it, as one more look at the record must say.
    fn dispose(&self, guid: &str, pod: Option<&PodRecord>, force: bool, why: DeleteWhy) -> Step {
        match self.remove(guid, pod, force, why) {
            Step::Delete { .. } if !self.fresh.record => Step::ReadRecord,
            step => step,
        }
    }

    pub(super) fn remove(
        &self,
        guid: &str,
        pod: Option<&PodRecord>,
        force: bool,
        why: DeleteWhy,
    ) -> Step {
        match pod.map(|pod| pod.deleting) {
            None if self.local.contains_key(guid) => Step::Forget(guid.to_owned()),
            None => Step::Wait(None),
            // It is on its way already, as fast as it may be.
            Some(Some(deleting)) if !force || deleting.grace == 0 => Step::Wait(None),
            Some(_) => Step::Delete {
                guid: guid.to_owned(),
                force,
                why,
            },
        }
    }
}

fn view_is_open(task: &TaskRecord) -> bool {
    match task.status.state {
        TaskState::Pending | TaskState::Running => true,
        TaskState::Completed | TaskState::Resolving => false,
    }
}
