//! What must always hold: the invariants of the design, asked of every state and of every write that takes effect.

use diego_operator::api::{ActualLRPState, TaskState};
use stateright::Property;

use crate::protocol::{Protocol, Who};
use crate::rep::Doing;
use crate::state::{CellId, Job, Ledger, Record, Rule, Slot, Standing, State};

pub fn always() -> Vec<Property<Protocol>> {
    vec![
        Property::always("S1 no process outlives its record where its rep knows", s1),
        Property::always(
            "S2 a Task runs at most once, its end never changes",
            |_, state: &State| {
                state.broken != Some(Rule::S2) && state.starts.iter().all(|starts| *starts < 2)
            },
        ),
        Property::always(
            "S3 nothing is lost while its presence is there",
            |model: &Protocol, state: &State| {
                state.broken != Some(Rule::S3) && !lost_while_present(model, state)
            },
        ),
        Property::always("S4 epochs only grow", |_, state: &State| {
            state.broken != Some(Rule::S4)
        }),
        Property::always("S7 no mass loss is believed", |_, state: &State| {
            state.broken != Some(Rule::S7)
        }),
        Property::always("S5 at most one instance is routable", |_, state: &State| {
            state.records.iter().all(one_routable)
        }),
        Property::always(
            "S6 with Strict at most one process runs",
            |model: &Protocol, state: &State| {
                !model.strict
                    || (0..state.records.len()).all(|record| processes(state, record) <= 1)
            },
        ),
    ]
}

/// One record has one ordinary instance by its shape. So what is left of S1 is that no other process goes on where its
/// rep knows better: the record is as it read it, its presence is held, and it would still do nothing.
fn s1(model: &Protocol, state: &State) -> bool {
    state.reps.iter().enumerate().all(|(cell, rep)| {
        rep.containers.iter().all(|one| {
            let record = &state.records[one.record];
            let known = rep.seen[one.record].is_none();
            let idle = rep.alive && !rep.paused && rep.writes[one.record].is_none();
            let named = is_named(record, one.guid);
            let knows = known && idle && state.holds_presence(cell);
            !one.has_process()
                || named
                || !knows
                || model.doing_about(state, cell, one.record, one.guid) != Doing::Nothing
        })
    })
}

fn is_named(record: &Record, guid: u8) -> bool {
    let ended = matches!(record, Record::Task(job) if job.state == TaskState::Completed);
    !ended && record.runs().any(|run| run.guid == guid)
}

/// The ledger says that an epoch is lost, and its presence is there. A verdict from before the store lost its data may
/// have a greater epoch than the registration after that: then the rep hears of it, and registers once more.
fn lost_while_present(model: &Protocol, state: &State) -> bool {
    (0..model.cells).any(|cell| {
        let ledger = state.ledgers[cell];
        let lost = ledger.state == Standing::Missing
            && state.keys[cell].is_some_and(|key| key.epoch <= ledger.epoch);
        lost && !(state.wiped && model.hears_of_its_loss(state, cell))
    })
}

fn one_routable(record: &Record) -> bool {
    match record {
        Record::Lrp(slot) => slot.state != ActualLRPState::Running || slot.suspect.is_none(),
        Record::Task(_) => true,
    }
}

fn processes(state: &State, record: usize) -> usize {
    let all = state.reps.iter().flat_map(|rep| &rep.containers);
    all.filter(|one| one.record == record && one.has_process())
        .count()
}

/// A verdict takes effect.
pub fn ledger_written(state: &mut State, cell: CellId, next: Ledger) {
    let before = std::mem::replace(&mut state.ledgers[cell], next);
    if next.epoch < before.epoch {
        state.broken = Some(Rule::S4);
    }
}

/// A write to a record takes effect.
pub fn record_written(state: &mut State, who: Who, record: usize, to: Record) {
    let before = state.records[record];
    let broken = match (before, to) {
        (Record::Lrp(before), Record::Lrp(to)) => lrp_written(state, who, &before, &to),
        (Record::Task(before), Record::Task(to)) => task_written(state, who, &before, &to),
        (_, _) => unreachable!("a record stays what it is"),
    };
    state.broken = state.broken.or(broken);
}

fn lrp_written(state: &State, who: Who, before: &Slot, to: &Slot) -> Option<Rule> {
    let (was, is) = (Record::Lrp(*before), Record::Lrp(*to));
    let went_back = was.runs().any(|run| {
        let mut same = is
            .runs()
            .filter(|one| (one.cell, one.guid) == (run.cell, run.guid));
        same.any(|one| one.epoch < run.epoch)
    });
    if went_back {
        return Some(Rule::S4);
    }
    let promoted = before.suspect.map(|(run, _)| run.guid) == to.run.map(|run| run.guid)
        && before.suspect.is_some();
    // An instance that its rep took on is moved for no other reason than that its Cell is gone.
    let taken_on = matches!(
        before.state,
        ActualLRPState::Claimed | ActualLRPState::Running
    );
    let moved = before
        .run
        .filter(|run| taken_on && !promoted && to.run.is_none_or(|now| now.guid != run.guid));
    match (who, moved) {
        (Who::Controller, Some(run)) if state.gone[run.cell] < run.epoch => Some(Rule::S3),
        (_, _) => None,
    }
}

fn task_written(state: &State, who: Who, before: &Job, to: &Job) -> Option<Rule> {
    let ended = |job: &Job| matches!(job.state, TaskState::Completed | TaskState::Resolving);
    if ended(before) && (!ended(to) || (before.failed, before.lost) != (to.failed, to.lost)) {
        return Some(Rule::S2);
    }
    let runs_again = before.state == TaskState::Running
        && !ended(to)
        && before.run.map(|run| run.guid) != to.run.map(|run| run.guid);
    if runs_again {
        return Some(Rule::S2);
    }
    match (who, before.run) {
        (Who::Controller, Some(run)) if to.lost && state.gone[run.cell] < run.epoch => {
            Some(Rule::S3)
        }
        (_, _) => None,
    }
}
