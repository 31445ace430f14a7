//! Random histories of the whole system: the real rules between a simulated API server, a simulated presence store,
//! simulated controllers and reps, with time, loss, death and return; and an observer that knows what must never be.
//!
//! `HISTORIES=n` plays n of them, `HISTORY_SEED=s` plays one and prints its log. `make histories` plays 100,000.

mod calls;
mod controller;
mod coverage;
mod dispatch;
mod execute;
mod faults;
mod hears;
mod history;
mod lanes;
mod ledger;
mod listens;
mod log;
mod machine;
mod moves;
mod observer;
mod outcome;
mod perform;
mod presence;
mod process;
mod rep;
mod rng;
mod schema;
mod settle;
mod settle_task;
mod store;
mod users;
mod watches;
mod work;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use k8s_openapi::jiff::Timestamp;

use coverage::Coverage;
use faults::Mutation;
use history::History;

/// How many histories are played when nobody says otherwise: about 20 s in the dev profile.
const HISTORIES: u64 = 3_000;

/// The wall clock at a simulated millisecond.
pub fn at(millisecond: i64) -> Timestamp {
    Timestamp::from_millisecond(1_700_000_000_000 + millisecond).expect("a time in range")
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{variable}={value} is not a number")),
    )
}

/// Plays histories on every core. Returns what was exercised, and the first history that ends badly.
fn play(
    seeds: std::ops::Range<u64>,
    mutation: Option<Mutation>,
) -> (Coverage, Option<(History, String)>) {
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let coverage = Mutex::new(Coverage::default());
    let bad: Mutex<Option<(History, String)>> = Mutex::new(None);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let mut own = Coverage::default();
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let history = History {
                        mutation,
                        ..History::random(seed)
                    };
                    let ended = history.play(false);
                    own.merge(&ended.coverage);
                    if let Some(violation) = ended.violation {
                        stop.store(true, Ordering::Relaxed);
                        bad.lock()
                            .expect("no panic")
                            .get_or_insert((history, violation));
                    }
                }
                coverage.lock().expect("no panic").merge(&own);
            });
        }
    });
    let coverage = coverage.into_inner().expect("no panic");
    (coverage, bad.into_inner().expect("no panic"))
}

fn tell(history: &History) -> String {
    let shrunk = history.shrunk();
    let ended = shrunk.play(true);
    format!(
        "seed {}, {} of {} stimuli are enough: {:?}\n{}\n",
        history.seed,
        shrunk.script.len(),
        history.script.len(),
        shrunk.script,
        ended.lines.join("\n"),
    )
}

#[test]
fn every_invariant_holds_in_every_history() {
    if let Some(seed) = number("HISTORY_SEED") {
        let history = History::random(seed);
        let ended = history.play(true);
        println!("{}", ended.lines.join("\n"));
        if ended.violation.is_some() {
            println!("{}", tell(&history));
        }
        assert_eq!(ended.violation, None, "seed {seed}");
        return;
    }
    let count = number("HISTORIES").unwrap_or(HISTORIES);
    let began = std::time::Instant::now();
    let (coverage, bad) = play(0..count, None);
    if let Some((history, violation)) = bad {
        panic!("{violation}\n{}", tell(&history));
    }
    println!(
        "{count} histories in {:.1} s\n{coverage}",
        began.elapsed().as_secs_f64()
    );
    if count >= HISTORIES {
        let rare = if count >= ENOUGH_FOR_RARE {
            &RARE[..]
        } else {
            &[]
        };
        let never: Vec<&str> = (INTERESTING.iter().chain(rare).copied())
            .filter(|what| coverage.get(what) == 0)
            .collect();
        assert_eq!(
            never,
            Vec::<&str>::new(),
            "never happened in {count} histories"
        );
    }
}

/// What must have happened, or the histories have tested nothing.
const INTERESTING: [&str; 45] = [
    "absences found by the resync",
    "answers lost",
    "calls lost",
    "cells cut off from the API server",
    "cells cut off from the presence store",
    "cells drained",
    "cells killed",
    "claims",
    "conflicts",
    "containers retired",
    "crashes",
    "drains ended",
    "drains that ran out of time",
    "evacuating instances dropped",
    "give-backs",
    "instances created",
    "instances deleted",
    "losses confirmed",
    "losses not confirmed",
    "placed",
    "placed beside a suspect",
    "placed beside an evacuating instance",
    "presence events lost",
    "presences expired",
    "processes ended",
    "processes stopped",
    "promotions",
    "refusals",
    "reps came back with their containers",
    "reps replaced their former life's presence",
    "restarted here",
    "starts",
    "suspects dropped",
    "task completions",
    "task rejections",
    "task starts",
    "tasks deleted",
    "tasks failed",
    "tasks waiting",
    "verdicts: evacuated",
    "verdicts: evacuating",
    "verdicts: lost",
    "verdicts: new incarnation",
    "verdicts: returned",
    "watch events lost",
];

/// From so many histories on, these must have happened as well.
const ENOUGH_FOR_RARE: u64 = 50_000;

const RARE: [&str; 5] = [
    "cells without a ledger that are gone",
    "kept as evacuating by the rep",
    "records made again by a rep",
    "records: suspect with an evacuating instance",
    "suspects evacuated",
];

/// How many histories may pass before a broken rule is noticed.
const NOTICED_WITHIN: u64 = 20_000;

/// A rule that is broken on purpose is noticed, and as the breach that it is.
#[track_caller]
fn caught(mutation: Mutation, as_one_of: &[&str]) {
    let (_, bad) = play(0..NOTICED_WITHIN, Some(mutation));
    let (history, violation) =
        bad.unwrap_or_else(|| panic!("{mutation:?} goes unnoticed in {NOTICED_WITHIN} histories"));
    println!("{mutation:?}: seed {}: {violation}", history.seed);
    let named = as_one_of.iter().any(|name| violation.starts_with(name));
    assert!(
        named,
        "{mutation:?} is taken for something else: {violation}"
    );
}

#[test]
fn the_observer_catches_a_loss_that_was_not_confirmed() {
    caught(Mutation::SkipConfirm, &["S3"]);
}

#[test]
fn the_observer_catches_a_promotion_by_name_alone() {
    caught(Mutation::PromoteByName, &["S1", "L1"]);
}

#[test]
fn the_observer_catches_writes_that_are_bound_to_no_version() {
    caught(Mutation::WriteBlindly, &["S1", "S2", "S3", "S4"]);
}

#[test]
fn the_observer_catches_a_write_under_an_old_epoch() {
    caught(Mutation::IgnoreEpoch, &["S4"]);
}

#[test]
fn the_observer_catches_a_task_that_runs_before_its_record_says_so() {
    caught(Mutation::RunTaskFirst, &["S1", "S2"]);
}

#[test]
fn the_observer_catches_a_process_that_is_never_stopped() {
    caught(Mutation::NeverStop, &["S1", "L1"]);
}

#[test]
fn the_observer_catches_a_hot_loop_of_refusals() {
    caught(Mutation::RefuseUncounted, &["S7"]);
}

#[test]
fn the_observer_catches_a_rep_that_never_lists_again() {
    caught(Mutation::NeverList, &["S1", "L1"]);
}

#[test]
fn the_observer_catches_a_controller_without_a_periodic_pass() {
    caught(Mutation::NoResync, &["L1"]);
}

#[test]
fn the_observer_catches_an_instance_that_is_forgotten() {
    caught(Mutation::ForgetUnread, &["L1"]);
}
