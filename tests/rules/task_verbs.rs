//! What holds of a Task whatever is asked of it, in whatever order.

use diego_operator::api::{TaskState, TaskStatus};
use diego_operator::converge::task::transition::{Instance, Outcome, Verb, apply};
use diego_operator::converge::task::{FailureKind, Settlement};
use proptest::prelude::*;

use crate::world::at;

fn instance() -> impl Strategy<Value = Instance> {
    (0..2usize, 1..4i64, 0..2usize).prop_map(|(cell, epoch, guid)| Instance {
        cell: ["a", "b"][cell].into(),
        epoch,
        guid: ["g", "h"][guid].into(),
    })
}

fn verb() -> impl Strategy<Value = Verb> {
    let place = prop_oneof![instance().prop_map(Ok), Just(Err("no room".to_owned()))];
    let outcome = prop_oneof![
        Just(Outcome::Succeeded(Some("42".into()))),
        Just(Outcome::Failed("exited with status 3".into())),
    ];
    let reason = "cell disappeared before completion";
    prop_oneof![
        place.prop_map(|place| Verb::Place { place }),
        instance().prop_map(|instance| Verb::Start { instance }),
        (instance(), outcome).prop_map(|(instance, outcome)| Verb::Complete { instance, outcome }),
        instance().prop_map(|instance| Verb::Reject {
            instance,
            reason: "draining".into()
        }),
        Just(Verb::Fail {
            kind: FailureKind::CellMissing,
            reason: reason.into()
        }),
        Just(Verb::Resolve),
        Just(Verb::Demote),
        Just(Verb::Settle {
            how: Settlement::Answered { status: 200 }
        }),
    ]
}

/// Where it runs, or ran.
fn run(status: &TaskStatus) -> (Option<&String>, Option<&String>) {
    (status.cell_name.as_ref(), status.instance_guid.as_ref())
}

fn outcome(status: &TaskStatus) -> (Option<bool>, Option<&String>, Option<&String>) {
    let (reason, result) = (&status.failure_reason, &status.result);
    (status.failed, reason.as_ref(), result.as_ref())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_task_runs_at_most_once_and_its_end_stands(verbs in proptest::collection::vec(verb(), 1..40)) {
        use TaskState::{Completed, Pending, Resolving, Running};
        let mut status = TaskStatus::default();
        for (second, verb) in (1..).zip(&verbs) {
            let Ok(next) = apply(&status, verb, 1, at(second)) else { continue };
            let ended = |state| matches!(state, Completed | Resolving);
            match status.state {
                Pending => prop_assert!(next.state != Resolving, "{verb:?}"),
                Running => {
                    prop_assert!(next.state == Running || next.state == Completed, "{verb:?}");
                    prop_assert_eq!(run(&next), run(&status), "{:?}", verb);
                    prop_assert!(next.cell_epoch >= status.cell_epoch, "{verb:?}");
                }
                Completed | Resolving => {
                    prop_assert!(ended(next.state), "{verb:?}");
                    prop_assert_eq!(run(&next), run(&status), "{:?}", verb);
                    prop_assert_eq!(outcome(&next), outcome(&status), "{:?}", verb);
                    prop_assert_eq!(&next.first_completed_time, &status.first_completed_time);
                }
            }
            prop_assert_eq!(ended(next.state), next.failed.is_some(), "{:?}", verb);
            prop_assert_eq!(ended(next.state), next.first_completed_time.is_some());
            let placed = next.cell_name.is_some();
            prop_assert_eq!(placed, next.instance_guid.is_some(), "{:?}", verb);
            prop_assert!(placed || next.state != Running, "{verb:?}");
            status = next;
        }
    }
}
