//! Every verdict, as a table: ledger x observation.

use super::*;
use crate::api::{ExecutorKind, template::Resources};
use crate::converge::world::Version;
use crate::presence::PresenceValue;

fn ledger(state: Option<CellState>) -> CellRecord {
    CellRecord {
        version: Version::default(),
        generation: 1,
        zone: "z1".into(),
        executor: ExecutorKind::Process,
        node: None,
        capacity: Resources::default(),
        containers: 1,
        required_tags: Vec::new(),
        optional_tags: Vec::new(),
        unschedulable: false,
        evacuate: false,
        status: CellStatus {
            state,
            epoch: state.map(|_| 7),
            incarnation: state.map(|_| "first".into()),
            incarnation_epoch: state.map(|_| 5),
            ..CellStatus::default()
        },
    }
}

fn held(epoch: i64, incarnation: &str, phase: PresencePhase) -> Observation {
    let value = PresenceValue {
        cell_id: "a".into(),
        incarnation: incarnation.into(),
        ttl_seconds: 5,
        phase,
        owner: String::new(),
        holder: String::new(),
        first_epoch: None,
        epoch_base: 0,
        epoch: None,
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
        phase,
    }
}

#[test]
fn the_table_of_verdicts() {
    use CellState::{Evacuated, Evacuating, Missing, Present};
    use PresencePhase::{Draining, Held, Released, Restarting};
    let unreadable = Observation::Held(Presence {
        cell: "a".into(),
        epoch: 9,
        value: None,
    });
    for (state, seen, expected) in [
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
