//! Placement that is left to a scheduler: the slot has one Pod without a node, and its record follows where that goes.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::state::observe;
use super::step::{DeleteWhy, Facts, Local, Record, Step};
use super::{PodRecord, WorkKind};
use crate::api::{ActualLRPState, TaskState};
use crate::converge::harmony::ContainerState;
use crate::converge::life::Life;
use crate::converge::lrp::transition::{Instance, Keep, Verb as LrpVerb};
use crate::converge::lrp::{StartReason, rejected_until};
use crate::converge::task::FailureKind;
use crate::converge::task::transition::Verb as TaskVerb;

/// What is held of the slot itself stands under this guid.
pub(super) const SLOT: &str = "";

/// After a Pod that could not be made, or that was sent where no Cell is, the next one waits so long.
const LONG_PAUSE: SignedDuration = SignedDuration::from_secs(30);

/// And after one that ended.
pub(super) const SHORT_PAUSE: SignedDuration = SignedDuration::from_secs(1);

/// What is told is no longer than this, in characters.
const MAX_WORDS: usize = 1000;

/// What a Task fails with whose Pod was made and is gone before its record could follow it.
const SPENT: &str = "its Pod is gone, and may have run";

fn waiting_for(scheduler: &str) -> String {
    format!("waiting for scheduler {scheduler:?}")
}

/// Whether two reasons to wait differ in nothing but numbers, which change with every Pod that comes and goes.
fn same(one: &str, other: &str) -> bool {
    let waits = |text: &str| text.starts_with("waiting for scheduler");
    let words = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
    one == other || waits(one) && waits(other) && words(one) == words(other)
}

impl Facts<'_> {
    /// The scheduler that the record waits for.
    pub(super) fn scheduler_sought(&self) -> Option<&str> {
        let waits = match self.record {
            Record::None => false,
            Record::Lrp(lrp) => {
                let status = &lrp.status;
                let placed = status.state != ActualLRPState::Unclaimed;
                // Nothing replaces what must not run twice while it may still run.
                let held_back = self.strict && status.suspect.is_some();
                !placed && !held_back && status.cell_name.is_none() && !lrp.version.deleting
            }
            Record::Task(task) => {
                let status = &task.status;
                let open = status.state == TaskState::Pending && !task.cancelled;
                open && status.cell_name.is_none() && !task.version.deleting
            }
        };
        self.scheduler.filter(|_| waits)
    }

    /// Whether a Pod is the one that the record waits for: the first that it may follow.
    pub(super) fn is_sought(&self, pod: &PodRecord) -> bool {
        if self.scheduler_sought().is_none() {
            return false;
        }
        let mut all = self.pods.iter();
        let first = all.find(|pod| self.may_be_followed(pod));
        first.is_some_and(|first| first.uid == pod.uid)
    }

    /// Whether the record may follow a Pod: one that it has not followed before, and that can still be an instance.
    fn may_be_followed(&self, pod: &PodRecord) -> bool {
        if !self.is_unbound_by_us(pod) || self.is_recorded(&pod.guid) {
            return false;
        }
        // What a Task has run is told, however it ended.
        let spent = pod.work.kind == WorkKind::Task;
        let runs = || {
            let state = observe(pod, None, self.now).state;
            matches!(state, ContainerState::Starting | ContainerState::Running)
        };
        pod.node.is_none() || spent || runs()
    }

    /// Whether a Pod of this slot has ended: the next one waits a little, lest one that no node takes is made in a hot
    /// loop.
    pub(super) fn wants_pause(&self, pod: &PodRecord) -> bool {
        let over = matches!(
            observe(pod, None, self.now).state,
            ContainerState::CompletedCrashed | ContainerState::CompletedShutdown
        );
        let ours = self.scheduler_sought().is_some() && self.is_unbound_by_us(pod);
        ours && over && pod.deleting.is_none() && !self.local.contains_key(SLOT)
    }

    fn is_unbound_by_us(&self, pod: &PodRecord) -> bool {
        pod.cell.is_none() && Some(&*pod.owner) == self.uid()
    }

    /// Follows the Pod that the record waits for.
    pub(super) fn follow(&self, pod: &PodRecord) -> Step {
        let scheduler = self.scheduler_sought().unwrap_or_default();
        let Some(node) = &pod.node else {
            if pod.deleting.is_some() {
                return Step::Wait(None);
            }
            if pod.phase.is_over() {
                return self.remove(&pod.guid, Some(pod), false, DeleteWhy::Ended);
            }
            let opening = waiting_for(scheduler);
            let words = match &pod.unscheduled {
                Some(why) => format!("{opening}: {why}"),
                None => opening,
            };
            return self.tell(&words).unwrap_or(Step::Wait(None));
        };
        let cell = (self.cell_of)(node);
        let life = cell
            .as_ref()
            .map(|(cell, epoch)| (self.life)(cell, Some(*epoch)));
        let task = pod.work.kind == WorkKind::Task;
        let why = match (life, cell) {
            (Some(Life::Alive), Some((cell, epoch))) => {
                let guid = pod.guid.clone();
                return self.placed(Instance { cell, epoch, guid });
            }
            // It runs to its end there.
            (Some(Life::Draining), Some((cell, epoch))) if task => {
                let guid = pod.guid.clone();
                return self.placed(Instance { cell, epoch, guid });
            }
            (Some(_), Some(_)) => "whose Cell takes no work: it is lost or being emptied",
            (None, _) | (_, None) => "which is no Cell: run a rep there or keep its Pods away",
        };
        let words = format!("scheduler {scheduler:?} chose node {node}, {why}");
        if task {
            return self.fail(words);
        }
        if let Some(Local::Paused(_)) = self.local.get(SLOT) {
            let (force, reason) = match life {
                Some(Life::Lost) => (true, DeleteWhy::LostCell),
                _ => (false, DeleteWhy::NotAssigned),
            };
            let delete = self.remove(&pod.guid, Some(pod), force, reason);
            return self.tell(&words).unwrap_or(delete);
        }
        self.pause(LONG_PAUSE)
    }

    /// The run of a Task is spent when its Pod is bound: with that it is Running, and never Pending on a Cell.
    fn placed(&self, instance: Instance) -> Step {
        match self.work.kind {
            WorkKind::Lrp => self.place(Ok(instance)),
            WorkKind::Task => Step::Task {
                done: "placed by its scheduler",
                verb: TaskVerb::Start { instance },
                end: None,
            },
        }
    }

    /// A Task whose Pod is gone, or was never seen to be bound: it may have run. `guid` is that of its Pod.
    pub(super) fn fail_spent(&self, guid: &str) -> Step {
        if !self.fresh.pods.contains(guid) {
            return Step::ReadPod(guid.to_owned());
        }
        self.fail(SPENT.into())
    }

    fn fail(&self, reason: String) -> Step {
        Step::Task {
            done: "failed",
            verb: TaskVerb::Fail {
                kind: FailureKind::CellMissing,
                reason,
            },
            end: None,
        }
    }

    /// What to do where there is no such Pod.
    pub(super) fn ask_scheduler(&self) -> Step {
        let open = |pod: &&PodRecord| {
            let unbound = self.is_unbound_by_us(pod) && pod.node.is_none();
            unbound || self.may_be_followed(pod)
        };
        let Some(scheduler) = self.scheduler_sought() else {
            return Step::Wait(None);
        };
        if self.pods.iter().any(open) || self.may_still_run(self.new_guid) {
            return Step::Wait(None);
        }
        let has_pod = |guid: &String| self.pods.iter().any(|pod| pod.guid == *guid);
        let held = self.local.iter();
        let mut held = held.filter(|(guid, _)| *guid != SLOT && !has_pod(guid));
        match (self.local.get(SLOT), held.next()) {
            (Some(Local::Paused(until)), Some((guid, Local::Refused(words))))
                if self.now < *until =>
            {
                self.tell(words).unwrap_or(Step::Forget(guid.clone()))
            }
            (Some(Local::Paused(until)), _) if self.now < *until => Step::Wait(Some(*until)),
            (Some(_), _) => Step::Forget(SLOT.into()),
            (None, Some((guid, Local::SetAside))) => {
                // A Task's record says that there is a Pod before there is one: that is made once.
                let first = Some(waiting_for(scheduler)).filter(|_| self.is_task());
                let tell = first.filter(|_| !self.may_be_spent(scheduler));
                let tell = tell.and_then(|words| self.tell(&words));
                tell.unwrap_or(Step::CreateUnbound(guid.clone()))
            }
            (None, Some((guid, Local::Crashed(_)))) => Step::Forget(guid.clone()),
            (None, Some((_, Local::Refused(_) | Local::Paused(_)))) => self.pause(LONG_PAUSE),
            (None, None) => match self.rejected_until().filter(|due| self.now < *due) {
                Some(due) => Step::Wait(Some(due)),
                None if self.is_task() && self.may_be_spent(scheduler) => {
                    self.fail_spent(self.new_guid)
                }
                None => Step::SetAside(self.new_guid.to_owned()),
            },
        }
    }

    fn is_task(&self) -> bool {
        self.work.kind == WorkKind::Task
    }

    /// Whether the record says that its Pod was made.
    fn may_be_spent(&self, scheduler: &str) -> bool {
        let told = self.told().unwrap_or_default();
        told.starts_with(&waiting_for(scheduler))
    }

    pub(super) fn pause(&self, pause: SignedDuration) -> Step {
        let until = self.now.checked_add(pause);
        Step::Pause(until.unwrap_or(Timestamp::MAX))
    }

    /// Writes why it waits, unless the record has it already, but for its numbers.
    fn tell(&self, words: &str) -> Option<Step> {
        let words: String = words.chars().take(MAX_WORDS).collect();
        if matches!(self.record, Record::None) {
            return None;
        }
        let known = self.told().is_some_and(|told| same(told, &words));
        (!known).then(|| self.place(Err(words)))
    }

    fn told(&self) -> Option<&str> {
        match self.record {
            Record::None => None,
            Record::Lrp(lrp) => lrp.status.placement_error.as_deref(),
            Record::Task(task) => task.status.rejection_reason.as_deref(),
        }
    }

    fn place(&self, place: Result<Instance, String>) -> Step {
        let done = match place {
            Ok(_) => "placed by its scheduler",
            Err(_) => "waits for its scheduler",
        };
        match self.work.kind {
            WorkKind::Lrp => {
                let reason = match self.record {
                    Record::Lrp(lrp) => lrp.status.start_reason.as_deref(),
                    Record::Task(_) | Record::None => None,
                };
                let verb = LrpVerb::Place {
                    reason: reason
                        .and_then(StartReason::parse)
                        .unwrap_or(StartReason::MissingInstance),
                    keep: Keep::Nothing,
                    place,
                };
                let end = None;
                Step::Lrp { done, verb, end }
            }
            WorkKind::Task => Step::Task {
                done,
                verb: TaskVerb::Place { place },
                end: None,
            },
        }
    }

    fn rejected_until(&self) -> Option<Timestamp> {
        let (count, since) = match self.record {
            Record::None => return None,
            Record::Lrp(lrp) => (
                lrp.status.rejection_count,
                &lrp.status.state_transition_time,
            ),
            Record::Task(task) => (
                task.status.rejection_count,
                &task.status.state_transition_time,
            ),
        };
        rejected_until(count, since.as_ref()?.0)
    }
}
