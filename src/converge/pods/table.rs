//! An instance, and a Task's run, looked up in the harmonisation table: what its step means for a Pod.

use super::decide::One;
use super::state::{End, Seen};
use super::step::{DeleteWhy, Facts, Local, Step};
use crate::converge::fence;
use crate::converge::harmony::said::{self, LrpFacts, TaskFacts};
use crate::converge::harmony::{
    self, ContainerState, LrpAction, LrpRecord, TaskAction, TaskRecord as TaskView, view,
};
use crate::converge::lrp::transition::Verb;
use crate::converge::task::CANCELLED;
use crate::converge::task::transition::Outcome;
use crate::converge::world::{Lrp, TaskRecord};

/// Why a placement can't be taken on by a Cell that is being drained.
const DRAINING: &str = "the Cell is being evacuated";

/// What a Task fails with that is recorded as running and has no Pod.
const MISSING: &str = "task container does not exist";

impl Facts<'_> {
    /// As the rep does: what must not run twice is recorded under the epoch that it begins under.
    fn claims_before_run(&self, one: &One<'_>) -> bool {
        let recorded = self.recorded(one.guid).and_then(|(_, epoch)| epoch);
        let epoch = self.instance(one).map(|instance| instance.epoch);
        harmony::claims_before_run(recorded, epoch)
    }

    pub(super) fn lrp(&self, one: &One<'_>, lrp: Option<&Lrp>) -> Step {
        let lrp = lrp.filter(|lrp| !lrp.version.deleting);
        let record = match lrp {
            // A Pod is gone with its record: there is none to be made again.
            None => LrpRecord::None { desired: false },
            Some(lrp) => view::lrp(&lrp.status, one.cell, one.guid),
        };
        let seen = one.observe(self.limit(one, lrp, record), self.strict, self.now);
        let table = if self.strict {
            harmony::strict_lrp
        } else {
            harmony::lrp
        };
        let action = match table(record, seen.state, one.mode()) {
            LrpAction::Run if self.strict && self.claims_before_run(one) => LrpAction::Claim,
            action => action,
        };
        if self.strict
            && let Some(step) = self.ends_first(one, lrp, action, &seen)
        {
            return step;
        }
        let gives_up = matches!(
            action,
            LrpAction::Unclaim | LrpAction::DropSuspect | LrpAction::DropEvacuating
        );
        if let Some(read) = self.read_first(one, seen.state, action == LrpAction::Stop, gives_up) {
            return read;
        }
        match action {
            LrpAction::Nothing | LrpAction::CreateRecord => Step::Wait(seen.due),
            LrpAction::Reserve => Step::SetAside(one.guid.to_owned()),
            LrpAction::Run => self.with(one, Step::Create),
            LrpAction::Stop => self.stop(one, DeleteWhy::NotAssigned),
            LrpAction::Delete if self.is_last_crash(one, &seen, lrp) => Step::Wait(None),
            LrpAction::Delete => self.finish(one),
            LrpAction::Claim
            | LrpAction::ReportRunning
            | LrpAction::ReportEvacuating
            | LrpAction::ReportCrash
            | LrpAction::Unclaim
            | LrpAction::Refuse
            | LrpAction::DropSuspect
            | LrpAction::DropEvacuating => {
                let said = self
                    .instance(one)
                    .and_then(|instance| said::lrp(action, instance, lrp_facts(one, &seen)));
                match said {
                    Some((done, verb)) => Step::Lrp {
                        done,
                        verb,
                        end: seen.end,
                    },
                    None => Step::Wait(seen.due),
                }
            }
        }
    }

    /// What comes before the table's step for an instance that must not run twice: nothing begins, and nothing is told to
    /// have ended, before all of the slot's Pods have.
    fn ends_first(
        &self,
        one: &One<'_>,
        lrp: Option<&Lrp>,
        action: LrpAction,
        seen: &Seen,
    ) -> Option<Step> {
        match action {
            LrpAction::Reserve | LrpAction::Run => {
                self.may_still_run(one.guid).then_some(Step::Wait(None))
            }
            LrpAction::ReportCrash
            | LrpAction::Unclaim
            | LrpAction::DropSuspect
            | LrpAction::DropEvacuating => {
                let pod = one.pod.filter(|pod| !pod.phase.is_over())?;
                let Some(End::Crashed(words)) = &seen.end else {
                    return None;
                };
                Some(match one.local {
                    Some(Local::Crashed(_)) => {
                        self.remove(one.guid, Some(pod), false, DeleteWhy::Ended)
                    }
                    Some(_) | None => Step::NoteCrash {
                        guid: one.guid.to_owned(),
                        words: words.clone(),
                    },
                })
            }
            LrpAction::Nothing if seen.state == ContainerState::Stopping => {
                let pod = one.pod?;
                // Its grace, and what the kubelet may need beyond it, is over.
                let overdue = pod.deleting.is_some() && seen.due.is_none();
                let status = &lrp.filter(|_| overdue)?.status;
                let ordinary = status.instance_guid.as_deref() == Some(one.guid);
                let error = fence::waits_for_pod(one.cell, &pod.key.name, pod.node.as_deref());
                let news = ordinary && status.placement_error.as_ref() != Some(&error);
                let instance = self.instance(one).filter(|_| news)?;
                Some(Step::Lrp {
                    done: "waits for its Pod to end",
                    verb: Verb::Stall { instance, error },
                    end: None,
                })
            }
            LrpAction::Nothing
            | LrpAction::Claim
            | LrpAction::ReportRunning
            | LrpAction::ReportEvacuating
            | LrpAction::CreateRecord
            | LrpAction::Refuse
            | LrpAction::Stop
            | LrpAction::Delete => None,
        }
    }

    pub(super) fn task(&self, one: &One<'_>, task: Option<&TaskRecord>) -> Step {
        let task = task.filter(|task| !task.version.deleting);
        let record = match task {
            None => TaskView::None,
            Some(task) => view::task(&task.status, task.cancelled, one.cell, one.guid),
        };
        let cancelled = record == TaskView::CancelledMine;
        if record == TaskView::PendingMine && one.pod.is_none() && self.scheduler.is_some() {
            // It was placed where its Pod was bound: that was its run.
            return self.fail_spent(one.guid);
        }
        let seen = one.observe(None, false, self.now);
        let mut action = harmony::task(record, seen.state, one.mode());
        let refused = one.local.filter(|_| one.pod.is_none());
        if let (TaskView::PendingMine, Some(Local::Refused(_))) = (record, refused) {
            // It never ran, and nothing says that it does: it may go elsewhere.
            action = TaskAction::Reject;
        }
        let missing = action == TaskAction::FailMissing;
        if let Some(read) = self.read_first(one, seen.state, action == TaskAction::Stop, missing) {
            return read;
        }
        match action {
            TaskAction::Nothing => Step::Wait(seen.due),
            TaskAction::Reserve => self.with(one, Step::Try),
            TaskAction::Run => self.with(one, Step::Create),
            TaskAction::Stop if cancelled => self.stop(one, DeleteWhy::Cancelled),
            TaskAction::Stop => self.stop(one, DeleteWhy::NotAssigned),
            // Kept for its logs until the Task goes, whose Pod the garbage collector takes.
            TaskAction::Delete if one.named && record == TaskView::Ended => match one.pod {
                Some(pod) if pod.phase.is_over() => Step::Wait(None),
                Some(_) | None => self.finish(one),
            },
            TaskAction::Delete => self.finish(one),
            TaskAction::Reject
            | TaskAction::ReportRunning
            | TaskAction::Complete
            | TaskAction::FailMissing => {
                let facts = task_facts(&seen, cancelled);
                let said = self
                    .instance(one)
                    .and_then(|instance| said::task(action, instance, facts));
                match said {
                    Some((done, verb)) => Step::Task {
                        done,
                        verb,
                        end: seen.end,
                    },
                    None => Step::Wait(seen.due),
                }
            }
        }
    }
}

fn lrp_facts(one: &One<'_>, seen: &Seen) -> LrpFacts {
    let ip = one.pod.and_then(|pod| pod.ip.clone());
    LrpFacts {
        address: ip.unwrap_or_default(),
        ports: one.pod.map(|pod| pod.ports.clone()).unwrap_or_default(),
        end: seen.end.as_ref().map(End::reason).unwrap_or_default(),
        taken_away: match &seen.end {
            Some(End::Rejected(_, words)) => Some(words.clone()),
            Some(End::Crashed(_) | End::Succeeded(_) | End::Deleted) | None => None,
        },
        refusal: DRAINING.into(),
    }
}

fn task_facts(seen: &Seen, cancelled: bool) -> TaskFacts {
    let outcome = seen.end.as_ref().map(|end| match end {
        End::Succeeded(result) => Outcome::Succeeded(result.clone()),
        End::Deleted if cancelled => Outcome::Failed(CANCELLED.into()),
        End::Crashed(_) | End::Rejected(..) | End::Deleted => Outcome::Failed(end.reason()),
    });
    let refusal = match &seen.end {
        Some(End::Rejected(_, words)) => words.clone(),
        Some(End::Crashed(_) | End::Succeeded(_) | End::Deleted) | None => DRAINING.into(),
    };
    TaskFacts {
        outcome,
        missing: if cancelled { CANCELLED } else { MISSING }.into(),
        refusal,
    }
}
