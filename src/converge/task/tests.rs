//! Decisions about Tasks as tables: what has ended, what waits, what runs.

use super::transition::{Verb, apply};
use super::*;
use crate::api::TaskStatus;
use crate::converge::world::Version;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time in range")
}

/// Created at 0, ended at 1000, in this state since `since`.
fn ended(state: State, since: i64) -> TaskRecord {
    TaskRecord {
        version: Version::default(),
        created: at(0),
        cancelled: false,
        callback: Some("cc.example.com:80".into()),
        seen_finished: None,
        keep: None,
        demand: Ok(Default::default()),
        status: TaskStatus {
            state,
            state_transition_time: Some(MicroTime(at(since))),
            first_completed_time: Some(MicroTime(at(1000))),
            ..Default::default()
        },
    }
}

fn facts(life: &dyn Fn(&str, Option<i64>) -> Life) -> Facts<'_> {
    Facts {
        life,
        kept: false,
        delivering: false,
    }
}

fn decided(task: &TaskRecord, now: i64) -> Act {
    decide(
        task,
        &facts(&|_, _| Life::Alive),
        &Limits::default(),
        at(now),
    )
}

#[test]
fn without_a_callback_a_task_is_deleted_at_its_age() {
    for (keep, expires) in [
        (None, 1120),
        (Some(0), 1000),
        (Some(7), 1007),
        (Some(600), 1600),
    ] {
        let task = TaskRecord {
            callback: None,
            keep: super::keep(keep),
            ..ended(State::Completed, 1000)
        };
        if expires > 1000 {
            assert_eq!(decided(&task, expires - 1), Act::Wait(Some(at(expires))));
        }
        assert_eq!(decided(&task, expires), Act::Delete(DeleteReason::Expired));
    }
}

#[test]
fn a_cell_whose_clock_is_behind_costs_no_task_its_result() {
    // Ended at 1000 by the Cell's clock; seen by the controller's.
    for (seen, expires) in [
        (None, 1120),
        (Some(900), 1120),
        (Some(1000), 1120),
        (Some(1300), 1420),
    ] {
        for (callback, reason) in [
            (None, DeleteReason::Expired),
            (
                Some("cc.example.com:80".into()),
                DeleteReason::CallbackUndelivered,
            ),
        ] {
            let task = TaskRecord {
                callback,
                seen_finished: seen.map(at),
                ..ended(State::Completed, 1050)
            };
            assert_ne!(decided(&task, expires - 1), Act::Delete(reason), "{seen:?}");
            assert_eq!(decided(&task, expires), Act::Delete(reason), "{seen:?}");
        }
    }
}

#[test]
fn a_callback_is_due_at_once_and_tried_however_late_it_is() {
    for keep in [None, Some(0), Some(600)] {
        for now in [1000, 1119, 100_000] {
            let task = TaskRecord {
                keep: super::keep(keep),
                ..ended(State::Completed, 1000)
            };
            assert_eq!(decided(&task, now), Act::Deliver, "{keep:?} at {now}");
        }
    }
}

#[test]
fn a_task_whose_delivery_hangs_is_kicked_then_delivered_again_then_given_up() {
    let resolving = ended(State::Resolving, 1001);
    assert_eq!(decided(&resolving, 1030), Act::Wait(Some(at(1031))));
    assert_eq!(decided(&resolving, 1031), Act::Demote);
    assert_eq!(decided(&resolving, 1119), Act::Demote);
    // Nobody delivers it again at its age, so it is not promised either.
    let gone = Act::Delete(DeleteReason::CallbackUndelivered);
    assert_eq!(decided(&resolving, 1120), gone);
    let late = ended(State::Resolving, 1119);
    assert_eq!(decided(&late, 1148), Act::Wait(Some(at(1149))));
    assert_eq!(decided(&late, 1149), gone);
    let demoted = ended(State::Completed, 1031);
    assert_eq!(decided(&demoted, 1032), Act::Deliver);
    assert_eq!(decided(&demoted, 1119), Act::Deliver);
    assert_eq!(decided(&demoted, 1120), gone);
    let kept = TaskRecord {
        keep: super::keep(Some(600)),
        ..demoted
    };
    assert_eq!(decided(&kept, 1599), Act::Deliver);
    assert_eq!(decided(&kept, 1600), gone);
}

#[test]
fn nothing_is_done_about_a_task_that_this_process_is_delivering() {
    for state in [State::Completed, State::Resolving] {
        let task = ended(state, 1001);
        let limits = Limits::default();
        let alive = |_: &str, _| Life::Alive;
        let delivering = Facts {
            delivering: true,
            ..facts(&alive)
        };
        let act = decide(&task, &delivering, &limits, at(100_000));
        assert_eq!(act, Act::Wait(None), "{state:?}");
    }
}

#[test]
fn what_is_settled_is_never_delivered_again() {
    let refused = |problem: &str| Settlement::HostNotAllowed {
        problem: problem.into(),
    };
    for how in [
        Settlement::Answered { status: 200 },
        Settlement::Answered { status: 500 },
        refused("not listed"),
    ] {
        let resolving = ended(State::Resolving, 1001);
        let verb = Verb::Settle { how: how.clone() };
        let status = apply(&resolving.status, &verb, 1, at(1002)).expect("allowed");
        for (keep, expires) in [(None, 1120), (Some(600), 1600)] {
            let task = TaskRecord {
                keep: super::keep(keep),
                status: status.clone(),
                ..resolving.clone()
            };
            assert_eq!(
                decided(&task, 1003),
                Act::Wait(Some(at(expires))),
                "{how:?}"
            );
            assert_eq!(decided(&task, expires), Act::Delete(DeleteReason::Expired));
        }
    }
}

#[test]
fn an_answer_ends_the_task_unless_it_is_to_be_kept() {
    let answered = |status| Settlement::Answered { status };
    let problem = String::from("no host");
    for (keep, how, expected) in [
        (None, answered(200), Settled::Delete),
        (None, answered(500), Settled::Delete),
        (Some(0), answered(200), Settled::Keep),
        (Some(600), answered(500), Settled::Keep),
        (None, Settlement::InvalidUrl { problem }, Settled::Keep),
    ] {
        let task = TaskRecord {
            keep: super::keep(keep),
            ..ended(State::Resolving, 1001)
        };
        assert_eq!(settled(&task, &how), expected, "{keep:?} {how:?}");
    }
}

#[test]
fn a_running_task_fails_only_with_its_cell() {
    use Life::{Alive, Draining, Left, Lost, Superseded, Unknown};
    let fails = Act::Fail {
        kind: FailureKind::CellMissing,
        reason: CELL_DISAPPEARED.into(),
    };
    for cancelled in [false, true] {
        let mut task = ended(State::Running, 900);
        task.cancelled = cancelled;
        task.status.first_completed_time = None;
        task.status.cell_name = Some("a".into());
        for (life, expected) in [
            // The rep ends a cancelled one itself.
            (Alive, Act::Wait(None)),
            (Draining, Act::Wait(None)),
            (Unknown, Act::Wait(None)),
            (Lost, fails.clone()),
            (Left, fails.clone()),
            (Superseded { epoch: 2 }, fails.clone()),
        ] {
            let act = decide(&task, &facts(&|_, _| life), &Limits::default(), at(5000));
            assert_eq!(act, expected, "{life:?}");
            // While losses are held back no loss is believed; what is certain is certain.
            let of_cell = |_: &str, _| life;
            let held = Facts {
                kept: true,
                ..facts(&of_cell)
            };
            let kept = match life {
                Lost => Act::Wait(None),
                Alive | Draining | Unknown | Left | Superseded { .. } => expected,
            };
            let act = decide(&task, &held, &Limits::default(), at(5000));
            assert_eq!(act, kept, "{life:?} while losses are held back");
        }
    }
}

#[test]
fn a_pending_task_is_rejected_three_times_and_fails_with_the_fourth() {
    let mut task = ended(State::Pending, 1000);
    task.created = at(990);
    task.status.first_completed_time = None;
    task.status.rejection_reason = Some("no free port".into());
    for (count, due) in [(1, 1001), (2, 1002), (3, 1004)] {
        task.status.rejection_count = Some(count);
        assert_eq!(decided(&task, due - 1), Act::Wait(Some(at(due))), "{count}");
        assert_eq!(decided(&task, due), Act::Place, "{count}");
    }
    task.status.rejection_count = Some(4);
    let failed = Act::Fail {
        kind: FailureKind::Rejected,
        reason: "no free port".into(),
    };
    assert_eq!(decided(&task, 1000), failed);
}
