use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::*;
use crate::api::{EvacuatingInstance, SuspectInstance};

const NOW: i64 = 10_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time in range")
}

fn instance(cell: &str, epoch: i64) -> Instance {
    Instance {
        cell: cell.into(),
        epoch,
        guid: format!("on-{cell}"),
    }
}

/// A slot in `state` on Cell a under epoch 5, since 100 s.
fn slot(state: State) -> ActualLRPStatus {
    let on_cell = state != State::Crashed;
    ActualLRPStatus {
        state,
        cell_name: on_cell.then(|| "a".into()),
        cell_epoch: on_cell.then_some(5),
        instance_guid: on_cell.then(|| "on-a".into()),
        state_transition_time: Some(MicroTime(at(NOW - 100))),
        address: (state == State::Running).then(|| "10.0.0.1".into()),
        crash_count: Some(1),
        ..ActualLRPStatus::default()
    }
}

fn suspect(cell: &str) -> SuspectInstance {
    SuspectInstance {
        cell_name: cell.into(),
        cell_epoch: 3,
        instance_guid: format!("on-{cell}"),
        state: State::Running,
        address: Some("10.0.0.9".into()),
        ..SuspectInstance::default()
    }
}

fn evacuating(cell: &str) -> EvacuatingInstance {
    EvacuatingInstance {
        cell_name: cell.into(),
        cell_epoch: 3,
        instance_guid: format!("on-{cell}"),
        address: Some("10.0.0.9".into()),
        ..EvacuatingInstance::default()
    }
}

/// Every shape of a record.
fn records() -> Vec<ActualLRPStatus> {
    let states = [
        slot(State::Unclaimed),
        slot(State::Claimed),
        slot(State::Running),
        slot(State::Crashed),
        ActualLRPStatus::default(),
    ];
    let mut records = Vec::new();
    for status in states {
        for (with_suspect, with_evacuating) in
            [(false, false), (true, false), (false, true), (true, true)]
        {
            records.push(ActualLRPStatus {
                suspect: with_suspect.then(|| suspect("s")),
                evacuating: with_evacuating.then(|| evacuating("e")),
                ..status.clone()
            });
        }
    }
    records
}

/// Every verb, said of and by every Cell that a record may know, and by one that it does not.
fn verbs() -> Vec<Verb> {
    let mut verbs = vec![
        Verb::Promote { epoch: 7 },
        Verb::EvacuateSuspect,
        Verb::RemoveSuspect,
        Verb::RemoveEvacuating,
    ];
    for keep in [Keep::Nothing, Keep::Suspect, Keep::Evacuating] {
        for place in [Ok(instance("b", 6)), Err("insufficient resources".into())] {
            verbs.push(Verb::Place {
                reason: StartReason::MissingCell,
                keep,
                place,
            });
        }
    }
    for cell in ["a", "s", "e", "x"] {
        let instance = instance(cell, 7);
        verbs.push(Verb::Claim(instance.clone()));
        verbs.push(Verb::Start {
            instance: instance.clone(),
            address: "10.0.0.2".into(),
            ports: Vec::new(),
        });
        verbs.push(Verb::Evacuate {
            instance: instance.clone(),
            address: "10.0.0.2".into(),
            ports: Vec::new(),
        });
        verbs.push(Verb::Stall {
            instance: instance.clone(),
            error: "waits".into(),
        });
        verbs.push(Verb::Crash {
            instance: instance.clone(),
            reason: "exited with status 1".into(),
        });
        for refused in [None, Some("no free port".to_owned())] {
            verbs.push(Verb::GiveBack {
                instance: instance.clone(),
                refused,
            });
        }
    }
    verbs
}

/// The table at the head of the module, `true` where the change is allowed.
fn allowed(from: &ActualLRPStatus, to: &ActualLRPStatus) -> bool {
    let key = |status: &ActualLRPStatus| status.cell_name.clone().zip(status.instance_guid.clone());
    let same = key(from) == key(to);
    match (from.state, to.state) {
        (State::Unclaimed, State::Unclaimed | State::Running) => true,
        (State::Unclaimed, State::Claimed) => same && key(to).is_some(),
        (State::Unclaimed, State::Crashed) => false,
        (State::Claimed | State::Running | State::Crashed, State::Unclaimed) => {
            !same || key(to).is_none()
        }
        (State::Claimed | State::Running, State::Claimed) => same,
        (State::Claimed, State::Running) => true,
        (State::Running, State::Running) => same,
        (State::Claimed | State::Running, State::Crashed) => key(to).is_none(),
        (State::Crashed, State::Running) => true,
        (State::Crashed, State::Claimed) => false,
        (State::Crashed, State::Crashed) => from == to,
    }
}

#[test]
fn every_verb_on_every_record_is_refused_or_allowed_by_the_table() {
    let (mut done, mut refused) = (0, 0);
    for from in records() {
        for verb in verbs() {
            match apply(&from, &verb, at(NOW)) {
                Err(_) => refused += 1,
                Ok(to) => {
                    done += 1;
                    // Only what is kept beside the ordinary instance may change without a change of state.
                    let beside = (&from.suspect, &from.evacuating) != (&to.suspect, &to.evacuating);
                    let promoted = matches!(verb, Verb::Promote { .. });
                    assert!(
                        promoted || allowed(&from, &to) || (beside && from.state == to.state),
                        "{verb:?}\nfrom {from:?}\nto {to:?}"
                    );
                    is_valid(&to, &verb);
                }
            }
        }
    }
    // 20 records, 38 verbs.
    assert_eq!(
        (done + refused, done > 200, refused > 200),
        (760, true, true),
        "{done} {refused}"
    );
}

/// What the API server would refuse (the CEL rules of ActualLRPStatus), and Diego's `Validate`.
fn is_valid(status: &ActualLRPStatus, verb: &Verb) {
    let on_cell = status.cell_name.is_some() && status.instance_guid.is_some();
    match status.state {
        State::Claimed | State::Running => assert!(on_cell, "{verb:?}: {status:?}"),
        State::Crashed => assert!(status.cell_name.is_none(), "{verb:?}: {status:?}"),
        State::Unclaimed => {}
    }
    assert!(
        status.state == State::Running || status.address.is_none(),
        "{verb:?}: {status:?}"
    );
    assert!(
        status.placement_error.is_none()
            || status.state == State::Unclaimed
            || matches!(verb, Verb::Stall { .. }),
        "{verb:?}: {status:?}"
    );
    assert!(
        status.next_restart_time.is_none() || status.state == State::Crashed,
        "{verb:?}: {status:?}"
    );
}

#[test]
fn what_is_claimed_once_more_is_recorded_under_the_present_epoch() {
    let claimed = slot(State::Claimed);
    let again = |epoch| apply(&claimed, &Verb::Claim(instance("a", epoch)), at(NOW));
    assert_eq!(again(5).as_ref(), Ok(&claimed));
    let expected = ActualLRPStatus {
        cell_epoch: Some(6),
        ..claimed.clone()
    };
    assert_eq!(again(6), Ok(expected), "nothing else changes");
}

#[test]
fn what_is_said_under_an_epoch_that_is_over_is_refused() {
    let old = |cell: &str, epoch| instance(cell, epoch);
    for state in [State::Unclaimed, State::Claimed, State::Running] {
        let record = ActualLRPStatus {
            suspect: Some(suspect("s")),
            evacuating: Some(evacuating("e")),
            ..slot(state)
        };
        for instance in [old("a", 4), old("s", 2), old("e", 2)] {
            for verb in [
                Verb::Claim(instance.clone()),
                Verb::Start {
                    instance: instance.clone(),
                    address: "h".into(),
                    ports: Vec::new(),
                },
                Verb::Crash {
                    instance: instance.clone(),
                    reason: "x".into(),
                },
                Verb::GiveBack {
                    instance: instance.clone(),
                    refused: None,
                },
            ] {
                let refusal = apply(&record, &verb, at(NOW)).expect_err("an old epoch");
                assert!(
                    matches!(refusal, Refusal::StaleEpoch { .. }),
                    "{verb:?}: {refusal}"
                );
            }
        }
    }
    let record = ActualLRPStatus {
        suspect: Some(suspect("s")),
        ..slot(State::Claimed)
    };
    let refusal = apply(&record, &Verb::Promote { epoch: 2 }, at(NOW)).expect_err("an old epoch");
    assert_eq!(
        refusal.to_string(),
        "epoch 2 of Cell s is over: the record has epoch 3"
    );
}

#[test]
fn a_crash_is_restarted_at_once_or_waits_or_never_is() {
    let crash = |count: i32, ran: i64| {
        let from = ActualLRPStatus {
            crash_count: Some(count),
            state_transition_time: Some(MicroTime(at(NOW - ran))),
            ..slot(State::Running)
        };
        let verb = Verb::Crash {
            instance: instance("a", 5),
            reason: "x".repeat(5000),
        };
        apply(&from, &verb, at(NOW)).expect("a crash")
    };
    for (before, ran, state, count, wait) in [
        (0, 10, State::Unclaimed, 1, None),
        (1, 10, State::Unclaimed, 2, None),
        (2, 10, State::Crashed, 3, Some(30)),
        (7, 10, State::Crashed, 8, Some(960)),
        (7, 300, State::Crashed, 8, Some(960)),
        (7, 301, State::Unclaimed, 1, None),
        (199, 10, State::Crashed, 200, None),
    ] {
        let to = crash(before, ran);
        assert_eq!(
            (to.state, to.crash_count),
            (state, Some(count)),
            "{before} crashes, ran {ran} s"
        );
        let next = to
            .next_restart_time
            .as_ref()
            .map(|time| time.0.as_second() - NOW);
        assert_eq!(next, wait, "{before} crashes, ran {ran} s");
        assert_eq!(
            to.crash_reason.as_ref().map(|reason| reason.len()),
            Some(MAX_REASON)
        );
        let waits = to.start_reason.as_deref() == Some("crashed-instance");
        assert_eq!(waits, state == State::Unclaimed);
    }
    let claimed = ActualLRPStatus {
        crash_count: Some(7),
        ..slot(State::Claimed)
    };
    let claimed = ActualLRPStatus {
        state_transition_time: Some(MicroTime(at(0))),
        ..claimed
    };
    let verb = Verb::Crash {
        instance: instance("a", 5),
        reason: "x".into(),
    };
    let to = apply(&claimed, &verb, at(NOW)).expect("a crash");
    assert_eq!(
        to.crash_count,
        Some(8),
        "it never ran, so nothing is forgotten"
    );
}

#[test]
fn running_drops_what_it_replaces_and_forgets_why_it_waited() {
    let from = ActualLRPStatus {
        suspect: Some(suspect("s")),
        evacuating: Some(evacuating("e")),
        rejection_count: Some(3),
        rejected_by: vec!["x".into()],
        ..slot(State::Claimed)
    };
    let verb = Verb::Start {
        instance: instance("a", 6),
        address: "10.0.0.2".into(),
        ports: Vec::new(),
    };
    let to = apply(&from, &verb, at(NOW)).expect("started");
    assert_eq!(
        (&to.suspect, &to.evacuating, to.rejection_count),
        (&None, &None, None)
    );
    assert_eq!(to.rejected_by, [""; 0]);
    assert_eq!(
        (to.cell_epoch, to.address.as_deref()),
        (Some(6), Some("10.0.0.2"))
    );
    let again = apply(&to, &verb, at(NOW + 9)).expect("said again");
    assert_eq!(again, to, "what is said twice changes nothing");
}

#[test]
fn a_refusal_by_the_cell_is_counted_and_a_waiting_slot_waits_since_it_began() {
    let verb = Verb::GiveBack {
        instance: instance("a", 5),
        refused: Some("no free port".into()),
    };
    let given_back = apply(&slot(State::Unclaimed), &verb, at(NOW)).expect("given back");
    assert_eq!(given_back.rejection_count, Some(1));
    assert_eq!(given_back.rejected_by, ["a"]);
    assert_eq!(given_back.placement_error.as_deref(), Some("no free port"));
    let wait = Verb::Place {
        reason: StartReason::MissingInstance,
        keep: Keep::Nothing,
        place: Err("insufficient resources: memory".into()),
    };
    let waiting = apply(&given_back, &wait, at(NOW + 50)).expect("waits");
    assert_eq!(waiting.state_transition_time, Some(MicroTime(at(NOW))));
    assert_eq!(waiting.rejected_by, ["a"], "until it runs");
    assert_eq!(apply(&waiting, &wait, at(NOW + 90)), Ok(waiting));
    let ended = Verb::GiveBack {
        instance: instance("a", 5),
        refused: None,
    };
    let to = apply(&slot(State::Running), &ended, at(NOW)).expect("given back");
    assert_eq!(to.rejected_by, [""; 0], "that is no refusal");
}
