//! What is left to do about a callback whose delivery had to wait.

use super::*;
use crate::api::conditions::{self, CALLBACK_DELIVERED};
use crate::api::{TaskState, TaskStatus};
use crate::converge::world::{TaskRecord, Version};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time in range")
}

fn key() -> Key {
    Key::new("default", "t")
}

/// Ended at 1000, and not told to anybody yet.
fn ended() -> TaskRecord {
    TaskRecord {
        version: Version {
            uid: "first".into(),
            revision: 1,
            ..Version::default()
        },
        created: at(0),
        cancelled: false,
        callback: Some("cc.example.com:80".into()),
        seen_finished: None,
        keep: None,
        demand: Ok(Default::default()),
        status: TaskStatus {
            state: TaskState::Completed,
            state_transition_time: Some(MicroTime(at(1000))),
            first_completed_time: Some(MicroTime(at(1000))),
            ..TaskStatus::default()
        },
    }
}

fn settled() -> TaskRecord {
    let mut task = ended();
    let (truth, reason, message) = Settlement::Answered { status: 200 }.condition();
    let list = &mut task.status.conditions;
    let kind = CALLBACK_DELIVERED;
    conditions::set(list, kind, truth, reason, &message, None, at(1001));
    task
}

#[test]
fn a_delivery_that_waited_begins_only_if_it_is_still_due() {
    let changed = |change: &dyn Fn(&mut TaskRecord)| {
        let mut task = ended();
        change(&mut task);
        task
    };
    let due = "due";
    for (what, task, begins) in [
        (due, ended(), true),
        ("settled by another controller", settled(), false),
        (
            "another Task of that name",
            changed(&|task| task.version.uid = "second".into()),
            false,
        ),
        (
            "without a URL",
            changed(&|task| task.callback = None),
            false,
        ),
        (
            "being deleted",
            changed(&|task| task.version.deleting = true),
            false,
        ),
        (
            "owned by another controller",
            changed(&|task| task.status.state = TaskState::Resolving),
            false,
        ),
        (
            "tried before, and of age",
            changed(&|task| {
                task.status.state_transition_time = Some(MicroTime(at(1050)));
                task.keep = task::keep(Some(60));
            }),
            false,
        ),
        (
            "not ended",
            changed(&|task| task.status.state = TaskState::Pending),
            false,
        ),
    ] {
        let mut world = World::default();
        world.put_task(&key(), task);
        let write = resolve(&mut world, &key(), "first", &Limits::default(), at(1060));
        assert_eq!(write.is_some(), begins, "{what}");
        if what == due {
            let again = resolve(&mut world, &key(), "first", &Limits::default(), at(1060));
            assert_eq!(again, None, "its write is under way");
        }
    }
}

#[test]
fn what_is_settled_is_not_even_owned() {
    let refused = transition::apply(&settled().status, &Verb::Resolve, 1, at(1002));
    assert_eq!(refused, Err(transition::Refusal::Settled));
}

#[test]
fn a_task_with_a_write_under_way_is_looked_at_again() {
    let mut world = World::default();
    world.put_task(&key(), ended());
    world.plan_task(&key(), ended().status);
    let (mut plan, mut wanted) = (Plan::default(), Vec::new());
    let rules = Rules::default();
    decide(&mut world, &key(), &rules, at(1001), &mut plan, &mut wanted);
    assert_eq!(plan.recheck, Some(at(1002)));
}
