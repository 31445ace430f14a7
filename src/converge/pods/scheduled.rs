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
use crate::converge::task::transition::Verb as TaskVerb;

/// What is held of the slot itself stands under this guid.
pub(super) const SLOT: &str = "";

/// After a Pod that could not be made, or that was sent where no Cell is, the next one waits so long.
const LONG_PAUSE: SignedDuration = SignedDuration::from_secs(30);

/// And after one that ended.
pub(super) const SHORT_PAUSE: SignedDuration = SignedDuration::from_secs(1);

/// What is told is no longer than this, in characters.
const MAX_WORDS: usize = 1000;

impl Facts<'_> {
    /// The scheduler that the record waits for.
    pub(super) fn scheduler_sought(&self) -> Option<&str> {
        let waits = match self.record {
            Record::None => false,
            Record::Lrp(lrp) => {
                let status = &lrp.status;
                let placed = status.state != ActualLRPState::Unclaimed;
                !placed && status.cell_name.is_none() && !lrp.version.deleting
            }
            Record::Task(task) => {
                let status = &task.status;
                let open = status.state == TaskState::Pending && !task.cancelled;
                open && status.cell_name.is_none() && !task.version.deleting
            }
        };
        self.scheduler.filter(|_| waits)
    }

    /// Whether a Pod is the one that the record waits for: the first that may still get a Cell.
    pub(super) fn is_sought(&self, pod: &PodRecord) -> bool {
        let mut all = self.pods.iter();
        let first = all.find(|pod| self.may_get_a_cell(pod));
        self.scheduler_sought().is_some() && first.is_some_and(|first| first.uid == pod.uid)
    }

    /// Whether the record could follow a Pod: not one that it has followed before, nor to where nothing can be.
    fn may_get_a_cell(&self, pod: &PodRecord) -> bool {
        if !self.is_unbound_by_us(pod) || self.is_recorded(&pod.guid) {
            return false;
        }
        let Some((cell, epoch)) = pod.node.as_deref().and_then(self.cell_of) else {
            return true;
        };
        let runs = matches!(
            observe(pod, None, self.now).state,
            ContainerState::Starting | ContainerState::Running
        );
        // What a Task has run is told, however it ended.
        let counts = runs || pod.work.kind == WorkKind::Task;
        counts && (self.life)(&cell, Some(epoch)) == Life::Alive
    }

    /// Whether a Pod of this slot has ended, or is where no Cell is alive: the next one waits a little, lest one that no
    /// node takes is made in a hot loop.
    pub(super) fn wants_pause(&self, pod: &PodRecord) -> bool {
        let over = matches!(
            observe(pod, None, self.now).state,
            ContainerState::CompletedCrashed | ContainerState::CompletedShutdown
        );
        let cell = pod.node.as_deref().and_then(self.cell_of);
        let alive = |(cell, epoch): (String, i64)| (self.life)(&cell, Some(epoch)) == Life::Alive;
        let lost = cell.is_some_and(|cell| !alive(cell));
        let ours = self.scheduler_sought().is_some() && self.is_unbound_by_us(pod);
        ours && (over || lost) && pod.deleting.is_none() && !self.local.contains_key(SLOT)
    }

    fn is_unbound_by_us(&self, pod: &PodRecord) -> bool {
        pod.cell.is_none() && Some(&*pod.owner) == self.uid()
    }

    /// Follows the Pod that the record waits for.
    pub(super) fn follow(&self, pod: &PodRecord) -> Step {
        let scheduler = self.scheduler_sought().unwrap_or_default();
        if pod.deleting.is_some() {
            return Step::Wait(None);
        }
        let Some(node) = &pod.node else {
            if pod.phase.is_over() {
                return self.remove(&pod.guid, Some(pod), false, DeleteWhy::Ended);
            }
            let words = match &pod.unscheduled {
                Some(why) => format!("waiting for scheduler {scheduler:?}: {why}"),
                None => format!("waiting for scheduler {scheduler:?}"),
            };
            return self.tell(&words).unwrap_or(Step::Wait(None));
        };
        if let Some((cell, epoch)) = (self.cell_of)(node) {
            let guid = pod.guid.clone();
            return self.place(Ok(Instance { cell, epoch, guid }));
        }
        if let Some(Local::Paused(_)) = self.local.get(SLOT) {
            let words = format!(
                "scheduler {scheduler:?} chose node {node}, which is no Cell: run a rep there or keep its Pods away"
            );
            let delete = self.remove(&pod.guid, Some(pod), false, DeleteWhy::NotAssigned);
            return self.tell(&words).unwrap_or(delete);
        }
        self.pause(LONG_PAUSE)
    }

    /// What to do where there is no such Pod.
    pub(super) fn ask_scheduler(&self) -> Step {
        let open = |pod: &&PodRecord| {
            let unbound = self.is_unbound_by_us(pod) && pod.node.is_none();
            unbound || self.may_get_a_cell(pod)
        };
        if self.scheduler_sought().is_none() || self.pods.iter().any(open) {
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
            (None, Some((guid, Local::SetAside))) => Step::CreateUnbound(guid.clone()),
            (None, Some((_, Local::Refused(_) | Local::Paused(_)))) => self.pause(LONG_PAUSE),
            (None, None) => match self.rejected_until().filter(|due| self.now < *due) {
                Some(due) => Step::Wait(Some(due)),
                None => Step::SetAside(self.new_guid.to_owned()),
            },
        }
    }

    pub(super) fn pause(&self, pause: SignedDuration) -> Step {
        let until = self.now.checked_add(pause);
        Step::Pause(until.unwrap_or(Timestamp::MAX))
    }

    /// Writes why it waits, unless the record has it already.
    fn tell(&self, words: &str) -> Option<Step> {
        let words: String = words.chars().take(MAX_WORDS).collect();
        let told = match self.record {
            Record::None => return None,
            Record::Lrp(lrp) => lrp.status.placement_error.as_deref(),
            Record::Task(task) => task.status.rejection_reason.as_deref(),
        };
        (told != Some(&*words)).then(|| self.place(Err(words)))
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
