//! Every verdict, as a table: ledger x observation.

use super::*;
use crate::converge::fixtures;
use crate::converge::life::{self, Life};
use crate::presence::PresenceValue;

fn ledger(state: Option<CellState>) -> CellRecord {
    CellRecord {
        status: CellStatus {
            state,
            epoch: state.map(|_| 7),
            incarnation: state.map(|_| "first".into()),
            incarnation_epoch: state.map(|_| 5),
            ..CellStatus::default()
        },
        ..fixtures::cell()
    }
}

fn held(epoch: i64, incarnation: &str, phase: PresencePhase) -> Observation {
    let value = PresenceValue {
        cell_id: "a".into(),
        incarnation: incarnation.into(),
        ttl: std::time::Duration::from_secs(5),
        phase,
        owner: String::new(),
        holder: String::new(),
        first_epoch: None,
        epoch_base: 0,
        epoch: None,
        fence: false,
    };
    Observation::Held(Presence {
        cell: "a".into(),
        epoch,
        value: Some(value),
    })
}

/// Read when the ledger's epoch was `ledger_epoch`.
fn gone(ledger_epoch: i64, phase: Option<PresencePhase>) -> Observation {
    let ledger_epoch = Some(ledger_epoch);
    Observation::Gone {
        ledger_epoch,
        revision: 12,
        recorded: 0,
        phase,
        fence: None,
    }
}

#[test]
fn the_table_of_verdicts() {
    use CellState::{Evacuated, Evacuating, Missing, Present};
    use PresencePhase::{Dead, Draining, Held, Released, Restarting};
    let unreadable = Observation::Held(Presence {
        cell: "a".into(),
        epoch: 9,
        value: None,
    });
    for (state, seen, expected) in [
        // A proof of death: the end of the presence follows, and is a loss, whatever the rep was about to do.
        (Some(Present), held(7, "first", Dead), Verdict::Unchanged),
        (Some(Present), gone(7, Some(Dead)), Verdict::Lost),
        (Some(Evacuating), gone(7, Some(Dead)), Verdict::Lost),
        (Some(Missing), gone(7, Some(Dead)), Verdict::Unchanged),
        (None, gone(7, Some(Dead)), Verdict::Unchanged),
        // Joining: an absence is no loss.
        (None, held(1, "first", Held), Verdict::NewIncarnation),
        (None, gone(7, None), Verdict::Unchanged),
        // Nothing new, or older than the ledger.
        (Some(Present), held(7, "first", Held), Verdict::Unchanged),
        (Some(Present), held(6, "other", Held), Verdict::Unchanged),
        (Some(Present), gone(6, Some(Held)), Verdict::Unchanged),
        (Some(Present), unreadable.clone(), Verdict::Unchanged),
        // Registered again.
        (Some(Present), held(9, "first", Held), Verdict::Returned),
        (
            Some(Present),
            held(9, "second", Held),
            Verdict::NewIncarnation,
        ),
        (Some(Missing), held(9, "first", Held), Verdict::Returned),
        (
            Some(Missing),
            held(9, "second", Held),
            Verdict::NewIncarnation,
        ),
        (Some(Evacuated), held(9, "first", Held), Verdict::Returned),
        // A key that was read before it went away brings nobody back.
        (Some(Missing), held(7, "first", Held), Verdict::Unchanged),
        (
            Some(Evacuated),
            held(7, "first", Draining),
            Verdict::Unchanged,
        ),
        // A store that lost its data: its epochs are small again, and a loss is a loss all the same.
        (Some(Missing), held(3, "second", Held), Verdict::Unchanged),
        // A reboot is no evacuation: the next registration tells what it is.
        (
            Some(Present),
            held(7, "first", Restarting),
            Verdict::Unchanged,
        ),
        (
            Some(Missing),
            held(9, "first", Restarting),
            Verdict::Unchanged,
        ),
        // Leaving.
        (
            Some(Present),
            held(7, "first", Draining),
            Verdict::Evacuating,
        ),
        (
            Some(Evacuating),
            held(7, "first", Draining),
            Verdict::Unchanged,
        ),
        (
            Some(Evacuating),
            gone(7, Some(Released)),
            Verdict::Evacuated,
        ),
        (Some(Present), gone(7, Some(Released)), Verdict::Evacuated),
        (Some(Evacuating), gone(7, None), Verdict::Evacuated),
        // Lost, also while it was draining.
        (Some(Present), gone(7, Some(Held)), Verdict::Lost),
        (Some(Present), gone(7, None), Verdict::Lost),
        (Some(Evacuating), gone(7, Some(Draining)), Verdict::Lost),
        (Some(Missing), gone(7, Some(Held)), Verdict::Unchanged),
        (Some(Evacuated), gone(7, Some(Held)), Verdict::Unchanged),
    ] {
        assert_eq!(
            judge(&ledger(state), &seen),
            expected,
            "{state:?} x {seen:?}"
        );
    }
}

#[test]
fn a_loss_takes_along_registrations_that_nobody_told_of() {
    let cell = ledger(Some(CellState::Present));
    let now = Timestamp::from_second(1).unwrap();
    let next = apply(&cell, &gone(7, None), Verdict::Lost, None, now);
    assert_eq!(
        (next.state, next.epoch, next.incarnation_epoch),
        (Some(CellState::Missing), Some(12), Some(5))
    );
}

#[test]
fn an_incarnation_begins_with_its_first_registration() {
    let cell = ledger(None);
    let now = Timestamp::from_second(1).unwrap();
    let mut seen = held(9, "first", PresencePhase::Held);
    if let Observation::Held(Presence {
        value: Some(value), ..
    }) = &mut seen
    {
        value.first_epoch = Some(4);
    }
    let next = apply(&cell, &seen, Verdict::NewIncarnation, None, now);
    assert_eq!(
        (next.epoch, next.incarnation_epoch),
        (Some(9), Some(4)),
        "the ledger of a Cell that was deleted and is back"
    );
}

#[test]
fn a_cell_that_flaps_is_held_down_and_one_that_is_lost_once_is_not() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let mut cell = ledger(Some(CellState::Present));
    let reason = |cell: &CellRecord| {
        conditions::get(&cell.status.conditions, READY)
            .unwrap()
            .reason
            .clone()
    };
    let mut epoch = 7;
    for (second, expected) in [(100, "PresenceHeld"), (110, HELD_DOWN), (120, HELD_DOWN)] {
        let lost = Observation::Gone {
            ledger_epoch: Some(epoch),
            revision: epoch + 1,
            recorded: 0,
            phase: Some(PresencePhase::Held),
            fence: None,
        };
        cell.status = apply(&cell, &lost, Verdict::Lost, None, at(second));
        epoch += 2;
        let back = held(epoch, "first", PresencePhase::Held);
        let verdict = judge(&cell, &back);
        assert_eq!(verdict, Verdict::Returned);
        cell.status = apply(&cell, &back, verdict, None, at(second));
        assert_eq!(reason(&cell), expected, "{second}");
        assert_eq!(rests(&cell, at(second)), expected == HELD_DOWN);
    }
    assert_eq!(cell.status.flaps, Some(3));
    let message = &conditions::get(&cell.status.conditions, READY)
        .unwrap()
        .message;
    assert!(
        message.contains("3 times") && message.contains("1970-01-01T00:03:00Z"),
        "{message}"
    );
    // 60 s after the third return, by whatever look comes next.
    let still = held(epoch, "first", PresencePhase::Held);
    cell.status = apply(&cell, &still, judge(&cell, &still), None, at(179));
    assert_eq!(reason(&cell), HELD_DOWN);
    assert!(rests(&cell, at(179)) && !rests(&cell, at(180)));
    cell.status = apply(&cell, &still, judge(&cell, &still), None, at(180));
    assert_eq!(reason(&cell), "PresenceHeld");
    assert_eq!(cell.status.held_down_until, None);
    // An evacuation is no loss.
    let mut left = ledger(Some(CellState::Evacuated));
    for epoch in [9, 11] {
        left.status.state = Some(CellState::Evacuated);
        let back = held(epoch, "first", PresencePhase::Held);
        left.status = apply(&left, &back, judge(&left, &back), None, at(100));
    }
    assert_eq!((left.status.flaps, rests(&left, at(100))), (None, false));
}

#[test]
fn a_held_loss_is_told_with_the_remedy_and_is_over_when_the_cell_is_back() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let mut cell = ledger(Some(CellState::Present));
    let count = Count {
        lost: 3,
        population: 4,
    };
    cell.status = super::held("a", &cell, count, at(1));
    let ready = conditions::get(&cell.status.conditions, READY).unwrap();
    assert_eq!((&*ready.status, &*ready.reason), ("False", MASS_LOSS_HELD));
    for words in [
        "3 of 4",
        "kubectl annotate cell a diego.cloudfoundry.org/confirm-loss=true",
    ] {
        assert!(ready.message.contains(words), "{}", ready.message);
    }
    assert_eq!(cell.status.state, Some(CellState::Present));
    assert!(is_held(&cell.status) && rests(&cell, at(1)));
    let back = held(7, "first", PresencePhase::Held);
    let verdict = judge(&cell, &back);
    assert_eq!(verdict, Verdict::Unchanged);
    cell.status = apply(&cell, &back, verdict, None, at(2));
    assert!(!is_held(&cell.status) && !rests(&cell, at(2)));
}

#[test]
fn a_cell_that_drained_when_many_were_gone_is_lost_and_did_not_leave() {
    let mut draining = ledger(Some(CellState::Evacuating));
    assert_eq!(judge(&draining, &gone(7, None)), Verdict::Evacuated);
    let count = Count {
        lost: 3,
        population: 3,
    };
    draining.status = super::held("a", &draining, count, Timestamp::UNIX_EPOCH);
    assert_eq!(judge(&draining, &gone(7, None)), Verdict::Lost);
    let released = gone(7, Some(PresencePhase::Released));
    assert_eq!(judge(&draining, &released), Verdict::Evacuated);
}

#[test]
fn a_fence_that_was_taken_back_is_not_relied_on_although_the_ledger_has_it() {
    for (heard, fenced) in [
        (Some(false), None),
        (Some(true), Some(true)),
        (None, Some(true)),
    ] {
        let mut cell = ledger(Some(CellState::Present));
        cell.status.fenced = Some(true);
        let epoch = cell.status.epoch;
        let seen = Observation::Gone {
            ledger_epoch: epoch,
            revision: 12,
            recorded: 0,
            phase: Some(PresencePhase::Held),
            fence: heard,
        };
        let verdict = judge(&cell, &seen);
        assert_eq!(verdict, Verdict::Lost);
        let next = apply(&cell, &seen, verdict, None, Timestamp::UNIX_EPOCH);
        assert_eq!(next.fenced, fenced, "{heard:?}");
    }
}

#[test]
fn what_was_taken_on_in_a_return_that_nobody_wrote_is_lost_too() {
    use CellState::{Evacuated, Missing};
    use PresencePhase::{Held, Released};
    let gone = |ledger_epoch, recorded, phase| Observation::Gone {
        ledger_epoch: Some(ledger_epoch),
        revision: 12,
        recorded,
        phase: Some(phase),
        fence: None,
    };
    for (state, seen, expected) in [
        (Missing, gone(7, 9, Held), Verdict::Lost),
        (Evacuated, gone(7, 9, Held), Verdict::Lost),
        (Missing, gone(7, 9, Released), Verdict::Evacuated),
        (Missing, gone(7, 7, Held), Verdict::Unchanged),
        // Read before the last loss was written.
        (Missing, gone(5, 9, Held), Verdict::Unchanged),
    ] {
        let mut cell = ledger(Some(state));
        cell.status.epoch = Some(7);
        let verdict = judge(&cell, &seen);
        assert_eq!(verdict, expected, "{state:?} {seen:?}");
        let next = apply(&cell, &seen, verdict, None, Timestamp::UNIX_EPOCH);
        let life = life::of(
            Some(&CellRecord {
                status: next,
                ..cell
            }),
            9,
        );
        let ends = matches!(life, Life::Lost | Life::Left);
        assert_eq!(ends, expected != Verdict::Unchanged, "{life:?}");
    }
}
