//! A run as a value: what it waits for, what counts as its time, and what only the interval is a reason for.

use super::*;
use prometheus_client::registry::Registry;

const INTERVAL: Duration = Duration::from_secs(30);

fn cell(name: &str) -> Object {
    Object::Cell(name.into())
}

fn all(names: &[&str]) -> HashSet<Object> {
    names.iter().map(|name| cell(name)).collect()
}

/// Looks at a Cell from one second to another.
fn look(runs: &mut Runs, name: &str, look: Look, from: Instant, to: Instant) -> Option<Ended> {
    runs.enter(&cell(name), from);
    runs.leave(&cell(name), look, INTERVAL, to)
}

#[test]
fn it_ends_with_the_last_object_and_its_time_is_that_of_the_looks() {
    let zero = Instant::now();
    let at = |seconds| zero + Duration::from_secs(seconds);
    let mut runs = Runs::default();
    assert!(runs.is_due(INTERVAL, at(0)));
    runs.begin(Trigger::Startup, all(&["a", "b"]), at(0));
    assert_eq!(look(&mut runs, "a", Look::Idle, at(1), at(3)), None);
    assert_eq!(look(&mut runs, "a", Look::Idle, at(4), at(5)), None);
    // Two at once count once.
    runs.enter(&cell("a"), at(10));
    runs.enter(&cell("b"), at(11));
    assert_eq!(runs.leave(&cell("a"), Look::Idle, INTERVAL, at(12)), None);
    let ended = runs.leave(&cell("b"), Look::Due, INTERVAL, at(13));
    let expected = Ended {
        trigger: Trigger::Startup,
        busy: Duration::from_secs(2 + 1 + 3),
        well: true,
    };
    assert_eq!(ended, Some(expected));
    assert!(!runs.is_due(INTERVAL, at(29)), "at most one per interval");
    assert!(runs.is_due(INTERVAL, at(30)));
}

#[test]
fn a_look_that_outlasts_a_run_counts_for_both() {
    let zero = Instant::now();
    let at = |seconds| zero + Duration::from_secs(seconds);
    let mut runs = Runs::default();
    runs.begin(Trigger::Leader, all(&["a"]), at(0));
    runs.enter(&cell("new"), at(1));
    let ended = look(&mut runs, "a", Look::Idle, at(2), at(3)).expect("it is over");
    assert_eq!(ended.busy, Duration::from_secs(2));
    runs.begin(Trigger::Resync, all(&["new"]), at(30));
    let ended = runs.leave(&cell("new"), Look::Idle, INTERVAL, at(31));
    assert_eq!(ended.expect("it is over").busy, Duration::from_secs(1));
}

#[test]
fn an_error_that_is_not_made_good_is_no_success() {
    let now = Instant::now();
    let mut runs = Runs::default();
    runs.begin(Trigger::Resync, all(&["a", "b"]), now);
    assert_eq!(look(&mut runs, "a", Look::Failed, now, now), None);
    let ended = look(&mut runs, "b", Look::Idle, now, now);
    assert!(!ended.expect("it is over").well);
    runs.begin(Trigger::Resync, all(&["a", "b"]), now);
    assert_eq!(look(&mut runs, "a", Look::Failed, now, now), None);
    assert_eq!(look(&mut runs, "a", Look::Idle, now, now), None);
    let ended = look(&mut runs, "b", Look::Idle, now, now);
    assert!(ended.expect("it is over").well, "tried again, and well");
}

#[test]
fn what_is_gone_is_not_waited_for() {
    let now = Instant::now();
    let mut runs = Runs::default();
    runs.begin(Trigger::Resync, all(&["a", "b"]), now);
    assert_eq!(look(&mut runs, "a", Look::Idle, now, now), None);
    assert_eq!(runs.forget(|_| true, now), None);
    assert!(runs.forget(|object| *object != cell("b"), now).is_some());
    runs.begin(Trigger::Resync, HashSet::new(), now);
    assert!(runs.forget(|_| true, now).is_some(), "nothing to look at");
}

#[test]
fn only_what_nothing_else_asked_for_is_found_by_the_interval() {
    let now = Instant::now();
    let mut runs = Runs::default();
    runs.begin(Trigger::Startup, all(&["a"]), now);
    assert!(!runs.enter(&cell("a"), now), "the first look of all");
    runs.leave(&cell("a"), Look::Idle, INTERVAL, now);
    let soon = now + Duration::from_secs(1);
    assert!(!runs.enter(&cell("a"), soon), "a change");
    runs.leave(&cell("a"), Look::Due, INTERVAL, soon);
    assert!(!runs.enter(&cell("a"), soon + INTERVAL), "it was due");
    runs.leave(&cell("a"), Look::Idle, INTERVAL, soon + INTERVAL);
    assert!(runs.enter(&cell("a"), soon + INTERVAL * 2));
    runs.leave(&cell("a"), Look::Failed, INTERVAL, soon + INTERVAL * 2);
    assert!(!runs.enter(&cell("a"), soon + INTERVAL * 3), "tried again");
}

#[tokio::test]
async fn a_panic_is_counted_and_goes_no_further() {
    let metrics = ControllerMetrics::new(&mut Registry::default());
    assert_eq!(guarded(&metrics, "cell", async { 7 }).await, Some(7));
    let panics = async { panic!("a poisoned object") };
    assert_eq!(guarded::<()>(&metrics, "task", panics).await, None);
    let count = |controller| {
        let label = ControllerLabel { controller };
        metrics.reconcile_panics.get_or_create(&label).get()
    };
    assert_eq!((count("cell"), count("task")), (0, 1));
}
