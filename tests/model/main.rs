//! A model of the protocol, searched for counterexamples in every order of events within small bounds.
//!
//! The rules are the product's own, called as they are; the model adds what is between them: who knows what when,
//! and what is on its way. `docs/model.md` tells what is modelled and what is not. `make model` searches further.
//! Here are the starts, the bounds and the search; `found.rs` has what holds, `missed.rs` what each protection is for.

mod canonical;
mod controllers;
mod decide;
mod fence;
mod found;
mod guard;
mod machine;
mod missed;
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

/// Two Cells, any number of controllers that all act, one record, one fault.
fn small(record: Record, kinds: &[Fault]) -> Protocol {
    Protocol {
        cells: 2,
        records: vec![record],
        placed: true,
        containers: 2,
        faults: 1,
        kinds: kinds.to_vec(),
        strict: false,
        fenced: false,
        guard: false,
        without: None,
        settle_one_in: 1,
        reached: Arc::new(Reached::default()),
        resting: Arc::default(),
    }
}

/// Three Cells in three zones, of which two fall silent at once.
fn guarded(record: Record) -> Protocol {
    Protocol {
        cells: 3,
        guard: true,
        ..small(record, &[Fault::Blackout])
    }
}

/// From nothing placed on.
fn unplaced(model: Protocol) -> Protocol {
    Protocol {
        placed: false,
        ..model
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

/// After so many steps a search ends, if nobody says otherwise: no search of `make test` comes so far.
const STEPS: usize = 200_000;

/// `MODEL_STEPS`: after so many steps a search ends; 0 for never.
fn limit() -> usize {
    let limit = std::env::var("MODEL_STEPS").ok();
    limit.map_or(STEPS, |limit| limit.parse().expect("a number"))
}

/// Looks at every state that can be reached, the nearest first, up to the limit, and stops at the first that breaks a rule.
fn search(model: Protocol) -> Found {
    let reached = model.reached.clone();
    let told = format!(
        "{} Cells, {} (placed {}), {} fault(s) of {:?}, strict {}, fenced {}, guard {}, {} containers, without {:?}",
        model.cells,
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
        model.guard,
        model.containers,
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
    let (mut broken, mut exist) = (Vec::new(), Vec::new());
    for (name, path) in checker.discoveries() {
        match checker.discovery_classification(name) {
            stateright::DiscoveryClassification::Counterexample => {
                broken.push((name, path.into_actions()));
            }
            stateright::DiscoveryClassification::Example => exist.push(name),
        }
    }
    let how = match (broken.is_empty(), limit()) {
        (false, _) => "a counterexample among",
        (true, 0) => "all",
        (true, limit) if checker.state_count() < limit => "all",
        (true, _) => "the first",
    };
    println!(
        "{told}: {how} {} states by {} steps, at most {} deep, in {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64(),
    );
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
        settle_one_in: u64::from(rules.contains(&"L1")),
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
