//! How waiting ends.

use super::*;
use crate::plugin::fixtures::cell_in;

fn wait(names: &[&str], doubted: &[&str]) -> Wait {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let doubted: Vec<String> = owned(doubted);
    let names: Vec<String> = owned(names);
    let command = "kubectl diego --context prod".into();
    Wait::new(&names, doubted.into_iter().collect(), command)
}

fn failed(ends: Vec<(String, End)>, words: &str) {
    match &ends[..] {
        [(_, End::Failed(told))] => assert!(told.contains(words), "{told}"),
        other => panic!("{words}: {other:?}"),
    }
}

fn evacuated(name: &str) -> Vec<(String, End)> {
    vec![(name.into(), End::Evacuated)]
}

#[test]
fn an_evacuation_ends_well_or_is_told_otherwise() {
    let mut wait = wait(&["a", "b", "c"], &[]);
    let mut heard = |name, state, evacuate| wait.take(Event::Apply(cell_in(name, state, evacuate)));
    assert_eq!(heard("other", CellState::Evacuated, true), []);
    assert_eq!(heard("a", CellState::Present, true), []);
    assert_eq!(heard("a", CellState::Evacuating, true), []);
    // Taken back while it is under way it goes on all the same.
    assert_eq!(heard("a", CellState::Evacuating, false), []);
    failed(heard("b", CellState::Missing, true), "b was lost");
    failed(heard("c", CellState::Present, false), "before it began");
    let words = "a: Evacuating, 2 instances and 0 Tasks left";
    assert_eq!(wait.words(), words);
    let overdue = wait.overdue(Duration::from_secs(5));
    for part in [
        words,
        "wait again with kubectl diego --context prod evacuate a;",
        "kubectl diego --context prod uncordon a it takes work again when it has ended",
    ] {
        assert!(overdue.contains(part), "{part}: {overdue}");
    }
    assert!(wait.interrupted().contains("goes on by itself"));
    let last = cell_in("a", CellState::Evacuated, false);
    assert_eq!(wait.take(Event::Apply(last)), evacuated("a"));
    assert!(wait.is_over());
}

#[test]
fn a_deleted_cell_does_not_end_the_waiting_for_others() {
    let mut wait = wait(&["a", "b", "c"], &["c"]);
    let present = |name| cell_in(name, CellState::Evacuating, true);
    for name in ["a", "b"] {
        wait.take(Event::Apply(present(name)));
    }
    failed(wait.take(Event::Delete(present("a"))), "a is gone");
    let done = cell_in("b", CellState::Evacuated, true);
    assert_eq!(wait.take(Event::Delete(done)), evacuated("b"));
    // Evacuated from before, and nothing more will come of it.
    let done = cell_in("c", CellState::Evacuated, true);
    assert_eq!(wait.take(Event::Delete(done)), evacuated("c"));
    assert!(wait.is_over());
}

#[test]
fn what_a_new_list_lacks_is_gone() {
    let mut wait = wait(&["a", "b"], &[]);
    let all = ["a", "b"].map(|name| cell_in(name, CellState::Evacuating, true));
    let mut list = |cells: &[Cell]| {
        assert_eq!(wait.take(Event::Init), []);
        for cell in cells {
            assert_eq!(wait.take(Event::InitApply(cell.clone())), []);
        }
        wait.take(Event::InitDone)
    };
    assert_eq!(list(&all), []);
    failed(list(&all[..1]), "b is gone");
    assert!(!wait.is_over());
}

#[test]
fn evacuated_from_before_counts_only_when_it_stays_so() {
    let evacuated_before = || cell_in("a", CellState::Evacuated, true);
    let mut one = wait(&["a"], &["a"]);
    assert_eq!(one.take(Event::InitApply(evacuated_before())), []);
    assert_eq!(one.believe(), evacuated("a"));

    let mut other = wait(&["a"], &["a"]);
    assert_eq!(other.take(Event::InitApply(evacuated_before())), []);
    let back = cell_in("a", CellState::Present, true);
    assert_eq!(other.take(Event::Apply(back)), []);
    assert_eq!(other.believe(), []);
    let end = other.take(Event::Apply(evacuated_before()));
    assert_eq!(end, evacuated("a"));
}
