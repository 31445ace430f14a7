//! Between the model's small values and the product's own types: every decision in the model is made by the product.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;

use diego_operator::api::{
    ActualLRPState, ActualLRPStatus, SuspectInstance, TaskState, TaskStatus,
};
use diego_operator::converge::harmony::said::{self, LrpFacts, TaskFacts};
use diego_operator::converge::harmony::{LrpAction, TaskAction};
use diego_operator::converge::lrp::transition as lrps;
use diego_operator::converge::task::transition as tasks;
use diego_operator::converge::task::{CELL_DISAPPEARED, transition::Outcome};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

use crate::state::{CellId, Job, Run, Slot};

/// When everything happened that has happened.
pub fn then() -> Timestamp {
    Timestamp::from_second(1_700_000_000).expect("a time in range")
}

/// Now: at once, or after every wait is over.
pub fn now(late: bool) -> Timestamp {
    let later = if late { 1_000 } else { 0 };
    Timestamp::from_second(1_700_000_000 + later).expect("a time in range")
}

pub fn cell_name(cell: CellId) -> String {
    format!("cell-{cell}")
}

fn cell_id(name: &str) -> CellId {
    let number = name.strip_prefix("cell-").expect("a Cell of the model");
    number.parse().expect("a number")
}

pub fn guid_name(guid: u8) -> String {
    guid.to_string()
}

fn guid(name: &str) -> u8 {
    name.parse().expect("a guid of the model")
}

fn instance(run: Run) -> lrps::Instance {
    lrps::Instance {
        cell: cell_name(run.cell),
        epoch: run.epoch.into(),
        guid: guid_name(run.guid),
    }
}

fn run(cell: &Option<String>, epoch: Option<i64>, name: &Option<String>) -> Option<Run> {
    Some(Run {
        cell: cell_id(cell.as_deref()?),
        epoch: small(epoch.unwrap_or_default()),
        guid: guid(name.as_deref()?),
    })
}

pub fn small(number: i64) -> u8 {
    u8::try_from(number).expect("small numbers only")
}

// Records

pub fn lrp_status(slot: &Slot) -> ActualLRPStatus {
    let Slot {
        state,
        run,
        suspect,
        crashes,
        waits,
    } = *slot;
    ActualLRPStatus {
        state,
        cell_name: run.map(|run| cell_name(run.cell)),
        cell_epoch: run.map(|run| run.epoch.into()),
        instance_guid: run.map(|run| guid_name(run.guid)),
        state_transition_time: Some(MicroTime(then())),
        crash_count: (crashes > 0).then_some(crashes.into()),
        placement_error: waits.then(|| "waits".into()),
        suspect: suspect.map(|(run, state)| SuspectInstance {
            cell_name: cell_name(run.cell),
            cell_epoch: run.epoch.into(),
            instance_guid: guid_name(run.guid),
            state,
            since: Some(MicroTime(then())),
            ..SuspectInstance::default()
        }),
        ..ActualLRPStatus::default()
    }
}

pub fn slot(status: &ActualLRPStatus) -> Slot {
    let small = Slot {
        state: status.state,
        run: run(&status.cell_name, status.cell_epoch, &status.instance_guid),
        suspect: status.suspect.as_ref().map(|one| {
            let run = Run {
                cell: cell_id(&one.cell_name),
                epoch: small(one.cell_epoch),
                guid: guid(&one.instance_guid),
            };
            (run, one.state)
        }),
        crashes: small(status.crash_count.unwrap_or_default().into()),
        waits: status.placement_error.is_some(),
    };
    // A field that the model knows nothing of is a hole in the model.
    let mut known = status.clone();
    known.state_transition_time = Some(MicroTime(then()));
    (known.crash_reason, known.last_crash_time) = (None, None);
    (known.next_restart_time, known.start_reason) = (None, None);
    known.address = None;
    if let Some(suspect) = &mut known.suspect {
        suspect.since = Some(MicroTime(then()));
        suspect.address = None;
    }
    known.placement_error = known.placement_error.map(|_| "waits".into());
    assert_eq!(lrp_status(&small), known, "the model lacks a field");
    small
}

pub fn task_status(job: &Job) -> TaskStatus {
    let Job {
        state,
        run,
        failed,
        lost,
        waits,
    } = *job;
    TaskStatus {
        state,
        cell_name: run.map(|run| cell_name(run.cell)),
        cell_epoch: run.map(|run| run.epoch.into()),
        instance_guid: run.map(|run| guid_name(run.guid)),
        state_transition_time: Some(MicroTime(then())),
        failed,
        failure_reason: match (failed, lost) {
            (Some(true), true) => Some(CELL_DISAPPEARED.into()),
            (Some(true), false) => Some("failed".into()),
            (_, _) => None,
        },
        first_completed_time: (state == TaskState::Completed).then(|| MicroTime(then())),
        rejection_reason: waits.then(|| "waits".into()),
        ..TaskStatus::default()
    }
}

pub fn job(status: &TaskStatus) -> Job {
    let small = Job {
        state: status.state,
        run: run(&status.cell_name, status.cell_epoch, &status.instance_guid),
        failed: status.failed,
        lost: status.failure_reason.as_deref() == Some(CELL_DISAPPEARED),
        waits: status.rejection_reason.is_some(),
    };
    let mut known = status.clone();
    known.conditions.clear();
    known.state_transition_time = Some(MicroTime(then()));
    known.first_completed_time = known.first_completed_time.map(|_| MicroTime(then()));
    known.rejection_reason = known.rejection_reason.map(|_| "waits".into());
    if !small.lost {
        known.failure_reason = known.failure_reason.map(|_| "failed".into());
    }
    assert_eq!(task_status(&small), known, "the model lacks a field");
    small
}

// What reps say

/// What becomes of the slot when a rep says so, or `None` where that is refused.
pub fn say_lrp(from: &Slot, action: LrpAction, who: Run) -> Result<Slot, lrps::Refusal> {
    let facts = LrpFacts {
        address: "address".into(),
        end: "ended".into(),
        ..LrpFacts::default()
    };
    let (_, verb) = said::lrp(action, instance(who), facts).expect("a write");
    let mut from = lrp_status(from);
    if from.state == ActualLRPState::Running {
        from.address = Some("address".into());
    }
    lrps::apply(&from, &verb, then()).map(|to| slot(&to))
}

/// The same for a Task. `done` is whether its process has ended well.
pub fn say_task(
    from: &Job,
    action: TaskAction,
    who: Run,
    done: bool,
) -> Result<Job, tasks::Refusal> {
    let facts = TaskFacts {
        outcome: done.then_some(Outcome::Succeeded(None)),
        missing: "missing".into(),
        refusal: "refused".into(),
    };
    let (_, verb) = said::task(action, instance(who), facts).expect("a write");
    tasks::apply(&task_status(from), &verb, 1, then()).map(|to| job(&to))
}

// The same question again

pub type Known<Q, A> = RefCell<HashMap<Q, A>>;

/// The product's rules are functions of values: the same question has the same answer.
pub fn recall<Q: Hash + Eq, A: Clone>(
    known: &'static std::thread::LocalKey<Known<Q, A>>,
    question: Q,
    answer: impl FnOnce() -> A,
) -> A {
    if let Some(answer) = known.with_borrow(|known| known.get(&question).cloned()) {
        return answer;
    }
    let answer = answer();
    known.with_borrow_mut(|known| known.insert(question, answer.clone()));
    answer
}
