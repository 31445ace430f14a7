//! A model of the protocol, searched for counterexamples in every order of events within small bounds.
//!
//! The rules are the product's own, called as they are; the model adds what is between them: who knows what when,
//! and what is on its way. `docs/model.md` tells what is modelled and what is not. `make model` searches further.

mod controller;
mod decide;
mod fence;
mod machine;
mod open;
mod protocol;
mod reached;
mod real;
mod rep;
mod rules;
mod settle;
mod state;

use std::sync::Arc;
use std::time::Instant;

use diego_operator::api::{ActualLRPState, TaskState};
use stateright::{Checker, HasDiscoveries, Model};

use protocol::{Fault, Protection, Protocol, Step};
use reached::{Reached, What};
use state::{Job, Record, Slot};

const LRP: Record = Record::Lrp(Slot {
    state: ActualLRPState::Unclaimed,
    run: None,
    suspect: None,
    crashes: 0,
    waits: false,
});

const TASK: Record = Record::Task(Job {
    state: TaskState::Pending,
    run: None,
    failed: None,
    lost: false,
    waits: false,
});

const ALL: [Fault; 4] = [Fault::Die, Fault::Pause, Fault::Cut, Fault::Crash];

/// Two Cells, two controllers that both act, one record, one fault.
fn small(record: Record, kinds: &[Fault]) -> Protocol {
    Protocol {
        cells: 2,
        controllers: 2,
        records: vec![record],
        placed: true,
        faults: 1,
        kinds: kinds.to_vec(),
        duplicates: false,
        strict: false,
        fenced: false,
        without: None,
        settle_one_in: 50,
        reached: Arc::new(Reached::default()),
    }
}

fn strict(fenced: bool, kinds: &[Fault]) -> Protocol {
    Protocol {
        strict: true,
        fenced,
        ..small(LRP, kinds)
    }
}

/// What a search came to.
struct Found {
    /// Every rule that is broken, and by which steps.
    broken: Vec<(&'static str, Vec<Step>)>,
    /// Interesting states that exist.
    exist: Vec<&'static str>,
    reached: Arc<Reached>,
}

/// After so many steps a search ends, if nobody says otherwise: seconds in the dev profile.
const STEPS: usize = 100_000;

/// `MODEL_STEPS`: after so many steps a search ends; 0 for never.
fn limit() -> usize {
    let limit = std::env::var("MODEL_STEPS").ok();
    limit.map_or(STEPS, |limit| limit.parse().expect("a number"))
}

/// Looks at every state that can be reached, the nearest first, up to the limit, and stops at the first that breaks a rule.
fn search(model: Protocol) -> Found {
    let reached = model.reached.clone();
    let told = format!(
        "{} Cells, {} controllers, {} (placed {}), {} fault(s) of {:?}, strict {}, fenced {}, duplicates {}, without {:?}",
        model.cells,
        model.controllers,
        match model.records[..] {
            [Record::Lrp(_)] => "an LRP",
            [Record::Task(_)] => "a Task",
            _ => "several records",
        },
        model.placed,
        model.faults,
        model.kinds,
        model.strict,
        model.fenced,
        model.duplicates,
        model.without,
    );
    let began = Instant::now();
    let checker = model
        .checker()
        .threads(std::thread::available_parallelism().map_or(1, usize::from))
        .finish_when(HasDiscoveries::AnyFailures)
        .target_state_count(limit())
        .spawn_bfs()
        .join();
    let all = limit() == 0 || checker.state_count() < limit();
    println!(
        "{told}: {} {} states by {} steps, at most {} deep, in {:.1} s",
        if all { "all" } else { "the first" },
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64(),
    );
    let (mut broken, mut exist) = (Vec::new(), Vec::new());
    for (name, path) in checker.discoveries() {
        match checker.discovery_classification(name) {
            stateright::DiscoveryClassification::Counterexample => {
                broken.push((name, path.into_actions()));
            }
            stateright::DiscoveryClassification::Example => exist.push(name),
        }
    }
    Found {
        broken,
        exist,
        reached,
    }
}

/// Every rule holds in every state, and the states that matter are among them.
#[track_caller]
fn holds(model: Protocol, reached: &[What], exist: &[&str]) {
    let found = search(model);
    assert_eq!(found.broken, [], "a rule is broken");
    let never = |what: &&What| found.reached.count(**what) == 0;
    let never: Vec<&What> = reached.iter().filter(never).collect();
    assert!(never.is_empty(), "never reached: {never:?}");
    for name in exist {
        assert!(
            found.exist.contains(name),
            "there is no state in which {name}"
        );
    }
}

/// Without this protection a rule is broken, and it is one of these.
#[track_caller]
fn missed(without: Protection, model: Protocol, rules: &[&str]) {
    let found = search(Protocol {
        without: Some(without),
        settle_one_in: u64::from(rules == ["L1"]),
        ..model
    });
    let (rule, steps) = found
        .broken
        .first()
        .unwrap_or_else(|| panic!("nobody misses {without:?}"));
    println!("without {without:?}: {rule}: {steps:?}");
    assert!(
        rules.iter().any(|name| rule.starts_with(name)),
        "{without:?} is taken for something else: {rule}"
    );
}

/// From nothing placed on.
fn unplaced(model: Protocol) -> Protocol {
    Protocol {
        placed: false,
        ..model
    }
}

#[test]
fn an_lrp_survives_a_cut() {
    let reached = [
        What::Lost,
        What::Returned,
        What::VerdictWithdrawn,
        What::StaleWriteRefused,
        What::MadeSuspect,
        What::Promoted,
    ];
    let exist = ["an instance is Suspect"];
    holds(small(LRP, &[Fault::Cut]), &reached, &exist);
}

#[test]
fn an_lrp_survives_a_death() {
    let reached = [What::Lost, What::NewIncarnation, What::StaleWriteRefused];
    holds(small(LRP, &[Fault::Die]), &reached, &[]);
}

#[test]
fn an_lrp_survives_whatever_it_is_while_it_is_placed() {
    holds(unplaced(small(LRP, &ALL)), &[What::StaleWriteRefused], &[]);
}

#[test]
fn a_task_that_runs_does_not_run_again() {
    let reached = [What::Lost, What::TaskFailedByLoss, What::TaskSucceeded];
    let exist = ["a Task failed with its Cell"];
    holds(small(TASK, &ALL), &reached, &exist);
}

#[test]
fn a_task_that_is_placed_runs_at_most_once() {
    let reached = [What::StaleWriteRefused];
    holds(unplaced(small(TASK, &ALL)), &reached, &[]);
}

#[test]
fn a_strict_lrp_behind_a_fence_runs_once() {
    holds(
        strict(true, &[Fault::Cut]),
        &[What::Lost, What::Returned],
        &[],
    );
}

#[test]
fn a_strict_lrp_without_a_fence_runs_once() {
    let reached = [What::Lost, What::Returned, What::MadeSuspect];
    holds(strict(false, &[Fault::Cut]), &reached, &[]);
}

#[test]
fn a_loss_that_is_not_confirmed_is_noticed() {
    let model = small(LRP, &[Fault::Cut]);
    missed(Protection::ConfirmingRead, model, &["S3"]);
}

#[test]
fn a_ledger_that_is_read_after_the_presence_is_noticed() {
    let model = small(LRP, &[Fault::Cut]);
    missed(Protection::LedgerBeforePresence, model, &["S3"]);
}

#[test]
fn writes_that_are_bound_to_no_version_are_noticed() {
    let model = small(LRP, &[Fault::Cut]);
    missed(Protection::CompareAndSwap, model, &["S1", "S3", "S4"]);
    let model = unplaced(small(TASK, &[]));
    missed(Protection::CompareAndSwap, model, &["S1", "S2"]);
}

#[test]
fn a_write_under_an_old_epoch_is_noticed() {
    let model = unplaced(small(LRP, &[Fault::Cut]));
    missed(Protection::EpochInWrite, model, &["S4"]);
}

#[test]
fn a_reboot_that_goes_unnoticed_is_noticed() {
    let model = small(LRP, &[Fault::Die]);
    missed(Protection::Incarnation, model, &["L1"]);
}

#[test]
fn a_task_that_runs_before_its_record_says_so_is_noticed() {
    let model = unplaced(small(TASK, &[Fault::Cut]));
    missed(Protection::RecordBeforeProcess, model, &["S2"]);
}

#[test]
fn a_process_that_is_never_stopped_is_noticed() {
    let model = small(LRP, &[Fault::Cut]);
    missed(Protection::StopStrangers, model, &["S1", "L1"]);
}

#[test]
fn a_missing_fence_is_noticed() {
    missed(Protection::Fence, strict(true, &[Fault::Cut]), &["S6"]);
}

#[test]
fn a_replacement_that_does_not_wait_is_noticed() {
    missed(Protection::HoldBack, strict(false, &[Fault::Cut]), &["S6"]);
}

/// `make model`: two faults of every kind, and writes that arrive twice.
#[test]
#[ignore = "takes minutes; make model runs it"]
fn within_larger_bounds() {
    for model in [
        small(LRP, &ALL),
        small(TASK, &ALL),
        unplaced(small(TASK, &ALL)),
    ] {
        let model = Protocol {
            faults: 2,
            duplicates: true,
            ..model
        };
        holds(
            model,
            &[What::Lost, What::Returned, What::NewIncarnation],
            &[],
        );
    }
    for fenced in [true, false] {
        let model = Protocol {
            faults: 2,
            ..strict(fenced, &[Fault::Die, Fault::Cut, Fault::Pause])
        };
        holds(model, &[What::Lost, What::Returned], &[]);
    }
}
