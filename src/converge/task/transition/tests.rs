//! Every verb in every state, and what the allowed ones leave in the record.

use super::*;
use crate::api::conditions::get;

const NOW: i64 = 1000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time in range")
}

/// A Task on Cell a, under epoch 5, in run g; Pending may also be on no Cell.
fn status(state: State, placed: bool) -> TaskStatus {
    TaskStatus {
        state,
        cell_name: placed.then(|| "a".to_owned()),
        cell_epoch: placed.then_some(5),
        instance_guid: placed.then(|| "g".to_owned()),
        state_transition_time: Some(MicroTime(at(NOW - 100))),
        first_completed_time: matches!(state, State::Completed | State::Resolving)
            .then(|| MicroTime(at(NOW - 100))),
        ..Default::default()
    }
}

fn instance(cell: &str, epoch: i64, guid: &str) -> Instance {
    Instance {
        cell: cell.into(),
        epoch,
        guid: guid.into(),
    }
}

fn run(status: &TaskStatus, verb: &Verb) -> Result<TaskStatus, Refusal> {
    apply(status, verb, 3, at(NOW))
}

fn verbs() -> Vec<Verb> {
    let mine = instance("a", 5, "g");
    vec![
        Verb::Place {
            place: Ok(instance("b", 9, "h")),
        },
        Verb::Place {
            place: Err("no room".into()),
        },
        Verb::Start {
            instance: mine.clone(),
        },
        Verb::Complete {
            instance: mine.clone(),
            outcome: Outcome::Succeeded(None),
        },
        Verb::Reject {
            instance: mine,
            reason: "draining".into(),
        },
        Verb::Fail {
            kind: FailureKind::Cancelled,
            reason: "task was cancelled".into(),
        },
        Verb::Resolve,
        Verb::Demote,
        Verb::Settle {
            how: Settlement::Answered { status: 200 },
        },
    ]
}

#[test]
fn every_verb_in_every_state() {
    use State::{Completed, Pending, Resolving, Running};
    let states = [Pending, Running, Completed, Resolving];
    // One row per verb, one column per state: the state after it, or nothing where it is refused.
    let table: [[Option<State>; 4]; 9] = [
        [Some(Pending), None, None, None],
        [Some(Pending), None, None, None],
        [Some(Running), Some(Running), None, None],
        [None, Some(Completed), None, None],
        [Some(Pending), None, None, None],
        [Some(Completed), Some(Completed), None, None],
        [None, None, Some(Resolving), None],
        [None, None, None, Some(Completed)],
        [None, None, None, Some(Completed)],
    ];
    let verbs = verbs();
    assert_eq!(verbs.len(), table.len());
    for (verb, row) in verbs.iter().zip(table) {
        for (from, expected) in states.into_iter().zip(row) {
            let result = run(&status(from, true), verb);
            match expected {
                Some(to) => assert_eq!(result.map(|next| next.state), Ok(to), "{verb:?} {from:?}"),
                None => {
                    let to = verb.target();
                    let refusal = Refusal::InvalidStateTransition { from, to };
                    assert_eq!(result, Err(refusal.clone()), "{verb:?} {from:?}");
                    let words = format!("Cannot transition from {from:?} to {to:?}");
                    assert_eq!(refusal.to_string(), words);
                }
            }
        }
    }
}

#[test]
fn only_the_recorded_run_speaks_for_a_task() {
    let cases: [(Instance, Option<&str>); 5] = [
        (instance("a", 5, "g"), None),
        // The Cell has registered anew since, in the same incarnation.
        (instance("a", 6, "g"), None),
        (
            instance("a", 4, "g"),
            Some("epoch 4 of Cell a is over: the record has epoch 5"),
        ),
        (instance("a", 5, "h"), Some("Its run is g not h")),
        (instance("b", 5, "g"), Some("Running on cell a not b")),
    ];
    for (instance, refused) in cases {
        let complete = Verb::Complete {
            instance: instance.clone(),
            outcome: Outcome::Succeeded(None),
        };
        let result = run(&status(State::Running, true), &complete);
        let words = result.err().map(|refusal| refusal.to_string());
        assert_eq!(words.as_deref(), refused, "{instance:?}");

        let reject = Verb::Reject {
            instance: instance.clone(),
            reason: "draining".into(),
        };
        let result = run(&status(State::Pending, true), &reject);
        let words = result.err().map(|refusal| refusal.to_string());
        let refused = match refused {
            Some("Running on cell a not b") => Some("Not placed on cell b"),
            other => other,
        };
        assert_eq!(words.as_deref(), refused, "{instance:?}");
    }
    let reject = Verb::Reject {
        instance: instance("a", 5, "g"),
        reason: "draining".into(),
    };
    let taken_back = run(&status(State::Pending, false), &reject);
    assert_eq!(
        taken_back
            .err()
            .map(|refusal| refusal.to_string())
            .as_deref(),
        Some("Not placed on cell a")
    );
}

#[test]
fn a_task_starts_once() {
    let start = |cell: &str, epoch, guid: &str| Verb::Start {
        instance: instance(cell, epoch, guid),
    };
    let started = run(&status(State::Pending, true), &start("a", 6, "g")).expect("allowed");
    assert_eq!(
        (started.state, started.cell_epoch),
        (State::Running, Some(6))
    );
    assert_eq!(started.state_transition_time, Some(MicroTime(at(NOW))));
    // Said again, it changes nothing at all.
    assert_eq!(run(&started, &start("a", 6, "g")), Ok(started.clone()));
    assert_eq!(
        run(&started, &start("a", 7, "g")).map(|next| next.state_transition_time),
        Ok(started.state_transition_time.clone())
    );
    for other in [start("b", 6, "g"), start("a", 6, "h")] {
        let refusal = run(&started, &other).map(|next| next.state);
        let (from, to) = (State::Running, State::Running);
        assert_eq!(refusal, Err(Refusal::InvalidStateTransition { from, to }));
    }
    for (state, placed) in [(State::Pending, true), (State::Running, true)] {
        let refusal = run(&status(state, placed), &start("a", 4, "g")).map(|next| next.state);
        assert!(
            matches!(refusal, Err(Refusal::StaleEpoch { .. })),
            "{state:?}"
        );
    }
    // A process that is there beats a plan to run it elsewhere.
    let elsewhere = run(&status(State::Pending, true), &start("b", 1, "x")).expect("allowed");
    assert_eq!(elsewhere.cell_name.as_deref(), Some("b"));
}

#[test]
fn a_place_and_the_wait_for_one() {
    let ok = |epoch| Verb::Place {
        place: Ok(instance("a", epoch, "h")),
    };
    let no_room = Verb::Place {
        place: Err("x".repeat(5000)),
    };
    let placed = run(&status(State::Pending, false), &ok(5)).expect("allowed");
    assert_eq!(placed.cell_name.as_deref(), Some("a"));
    assert_eq!(placed.instance_guid.as_deref(), Some("h"));
    assert_eq!(succeeded(&placed), ("Unknown".into(), "Placed".into()));
    assert!(matches!(
        run(&status(State::Pending, true), &ok(4)),
        Err(Refusal::StaleEpoch { .. })
    ));

    let waits = run(&placed, &no_room).expect("allowed");
    assert_eq!((&waits.cell_name, &waits.instance_guid), (&None, &None));
    assert_eq!(waits.state_transition_time, Some(MicroTime(at(NOW))));
    assert_eq!(waits.rejection_count, None, "no room is no rejection");
    assert_eq!(
        waits.rejection_reason.as_deref().map(str::len),
        Some(MAX_REASON)
    );
    assert_eq!(
        succeeded(&waits),
        ("Unknown".into(), "WaitingForCell".into())
    );
    let later = apply(&waits, &no_room, 3, at(NOW + 50)).expect("allowed");
    assert_eq!(later, waits, "it waits since it began to");
}

#[test]
fn a_rejection_is_counted_and_told() {
    let mut before = status(State::Pending, true);
    for count in 1..=4 {
        let reject = Verb::Reject {
            instance: instance("a", 6, "g"),
            reason: "x".repeat(5000),
        };
        let after = run(&before, &reject).expect("allowed");
        assert_eq!(after.rejection_count, Some(count));
        assert_eq!(
            after.rejection_reason.as_deref().map(str::len),
            Some(MAX_REASON)
        );
        assert_eq!((&after.cell_name, &after.instance_guid), (&None, &None));
        assert_eq!(
            after.cell_epoch,
            Some(6),
            "the presence it was written under"
        );
        assert_eq!(succeeded(&after), ("Unknown".into(), "Rejected".into()));
        assert_eq!(after.rejected_by, ["a"]);
        before.rejection_count = after.rejection_count;
        before.rejected_by = after.rejected_by;
    }
    let start = Verb::Start {
        instance: instance("b", 1, "h"),
    };
    let started = run(&before, &start).expect("allowed");
    assert_eq!(started.rejected_by, [""; 0], "it runs");
    before.rejection_count = Some(i32::MAX);
    let reject = Verb::Reject {
        instance: instance("a", 6, "g"),
        reason: "draining".into(),
    };
    let after = run(&before, &reject).expect("allowed");
    assert_eq!(after.rejection_count, Some(i32::MAX));
}

#[test]
fn an_end_is_told_with_its_outcome() {
    let running = status(State::Running, true);
    let complete = |outcome| Verb::Complete {
        instance: instance("a", 6, "g"),
        outcome,
    };
    let good = run(&running, &complete(Outcome::Succeeded(Some("42".into())))).expect("allowed");
    assert_eq!(
        (good.failed, good.result.as_deref()),
        (Some(false), Some("42"))
    );
    assert_eq!(good.failure_reason, None);
    assert_eq!(succeeded(&good), ("True".into(), "Completed".into()));
    assert_eq!(good.cell_name.as_deref(), Some("a"), "where it ran stays");
    assert_eq!(good.cell_epoch, Some(6));
    assert_eq!(good.first_completed_time, Some(MicroTime(at(NOW))));
    assert_eq!(good.state_transition_time, good.first_completed_time);

    let failed = Outcome::Failed("exited with status 3".into());
    let bad = run(&running, &complete(failed)).expect("allowed");
    assert_eq!((bad.failed, &bad.result), (Some(true), &None));
    assert_eq!(bad.failure_reason.as_deref(), Some("exited with status 3"));
    assert_eq!(succeeded(&bad), ("False".into(), "Failed".into()));

    for kind in FailureKind::ALL {
        let fail = Verb::Fail {
            kind,
            reason: "x".repeat(5000),
        };
        let ended = run(&running, &fail).expect("allowed");
        assert_eq!(ended.failed, Some(true));
        assert_eq!(
            ended.failure_reason.as_deref().map(str::len),
            Some(MAX_REASON)
        );
        assert_eq!(succeeded(&ended), ("False".into(), kind.as_str().into()));
        assert_eq!(ended.cell_name.as_deref(), Some("a"));
    }
}

#[test]
fn delivering_leaves_the_outcome_alone() {
    let running = status(State::Running, true);
    let fail = Verb::Fail {
        kind: FailureKind::CellMissing,
        reason: "cell disappeared before completion".into(),
    };
    let completed = run(&running, &fail).expect("allowed");
    let mut next = completed.clone();
    for (second, verb) in [(1, Verb::Resolve), (2, Verb::Demote), (3, Verb::Resolve)] {
        next = apply(&next, &verb, 3, at(NOW + second)).expect("allowed");
        assert_eq!(
            next.state_transition_time,
            Some(MicroTime(at(NOW + second)))
        );
        assert_eq!(next.first_completed_time, completed.first_completed_time);
        assert_eq!(next.conditions, completed.conditions);
    }
    for (how, expected) in [
        (
            Settlement::Answered { status: 204 },
            ("True", "Delivered", "204"),
        ),
        (
            Settlement::Answered { status: 302 },
            ("False", "Refused", "302"),
        ),
        (
            Settlement::Answered { status: 500 },
            ("False", "Refused", "500"),
        ),
        (
            Settlement::HostNotAllowed {
                problem: "not listed".into(),
            },
            ("False", "HostNotAllowed", "not listed"),
        ),
        (
            Settlement::InvalidUrl {
                problem: "no host".into(),
            },
            ("False", "InvalidURL", "no host"),
        ),
    ] {
        let settled = run(&next, &Verb::Settle { how }).expect("allowed");
        let told = get(&settled.conditions, CALLBACK_DELIVERED).expect("it is told");
        assert_eq!((&*told.status, &*told.reason), (expected.0, expected.1));
        assert!(told.message.contains(expected.2), "{}", told.message);
        assert_eq!(told.observed_generation, Some(3));
        assert_eq!(succeeded(&settled), succeeded(&completed));
        assert_eq!(settled.failure_reason, completed.failure_reason);
    }
}

/// Status and reason of the condition `Succeeded`.
fn succeeded(status: &TaskStatus) -> (String, String) {
    let condition = get(&status.conditions, SUCCEEDED).expect("every change is told");
    (condition.status.clone(), condition.reason.clone())
}
