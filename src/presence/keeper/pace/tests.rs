//! The rule, case by case and by chance.

use proptest::prelude::*;

use super::*;

const LEASES: Grain = Grain {
    whole: false,
    renewals: 200,
};

const ETCD: Grain = Grain {
    whole: true,
    renewals: 2000,
};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A rep, and its clock.
struct Rep {
    pace: Pace,
    now: Instant,
    changes: Vec<Change>,
}

impl Rep {
    fn new(bounds: Bounds, grain: Grain, ttl: Duration) -> Self {
        let now = Instant::now();
        Self {
            pace: Pace::new(bounds, grain, ttl, now),
            now,
            changes: Vec::new(),
        }
    }

    /// One renewal, answered so long after it was due; whatever is chosen is granted.
    fn renews(&mut self, delay: Duration, cells: u32) {
        self.now += self.pace.ttl() / 3 + delay;
        if let Some(change) = self.pace.renewed(delay, cells, self.now) {
            self.pace.granted(change.ttl, change.ttl, self.now);
            self.changes.push(change);
        }
    }

    fn for_long(&mut self, span: Duration, delay: Duration, cells: u32) {
        let until = self.now + span;
        while self.now < until {
            self.renews(delay, cells);
        }
    }
}

#[test]
fn where_all_is_well_it_falls_to_the_shortest_step_by_step_and_stays() {
    let bounds = Bounds {
        min: millis(500),
        ..Bounds::default()
    };
    let mut rep = Rep::new(bounds, LEASES, seconds(5));
    rep.for_long(seconds(55), millis(5), 3);
    assert_eq!(rep.changes, [], "not before its time");
    rep.for_long(seconds(3600), millis(5), 3);
    assert_eq!(rep.pace.ttl(), millis(500));
    assert!(rep.changes.iter().all(|change| change.why == Reason::Calm));
    let ttls: Vec<Duration> = rep.changes.iter().map(|change| change.ttl).collect();
    assert!(ttls.is_sorted_by(|one, next| one > next), "{ttls:?}");
    assert_eq!(ttls[0], millis(3333));
}

#[test]
fn an_answer_that_is_slow_raises_it_before_one_is_missing() {
    let mut rep = Rep::new(Bounds::default(), ETCD, seconds(5));
    rep.renews(millis(600), 0);
    assert_eq!(rep.changes, []);
    // The limit of a try is 1 s.
    rep.renews(millis(700), 0);
    let why = Reason::Late(millis(700));
    let ttl = seconds(8);
    assert_eq!(rep.changes, [Change { ttl, why }], "by half at least");
    // A second slow one is within what was chosen.
    rep.renews(millis(900), 0);
    assert_eq!(rep.changes.len(), 1);
}

#[test]
fn what_was_too_short_is_not_tried_again_while_that_is_remembered() {
    let mut rep = Rep::new(Bounds::default(), LEASES, seconds(2));
    rep.renews(millis(500), 0);
    assert_eq!(rep.pace.ttl(), seconds(4));
    rep.for_long(seconds(290), millis(5), 0);
    assert_eq!(rep.pace.ttl(), seconds(4));
    rep.for_long(seconds(300), millis(5), 0);
    assert_eq!(rep.pace.ttl(), seconds(2));
}

#[test]
fn the_number_of_cells_bounds_it() {
    for (grain, cells, least) in [
        (LEASES, 100, 2_000),
        (LEASES, 300, 4_500),
        (LEASES, 1000, 15_000),
        (LEASES, 5000, 30_000),
        (ETCD, 1000, 2_000),
        (ETCD, 5000, 8_000),
    ] {
        let mut rep = Rep::new(Bounds::default(), grain, seconds(5));
        rep.for_long(seconds(3600), millis(1), cells);
        let ttl = rep.pace.ttl();
        let near = millis(least)..=millis(least).mul_f64(1.0 / NEAR).max(millis(least));
        assert!(near.contains(&ttl), "{grain:?} {cells}: {ttl:?}");
    }
    let mut rep = Rep::new(Bounds::default(), LEASES, seconds(5));
    rep.renews(millis(1), 1000);
    assert_eq!(rep.changes[0].why, Reason::Cells(1000));
}

#[test]
fn a_store_that_does_no_shorter_one_is_asked_once() {
    let now = Instant::now();
    let mut pace = Pace::new(Bounds::default(), ETCD, seconds(5), now);
    let at = |n: u64| now + seconds(61 * n);
    assert_eq!(
        pace.renewed(millis(1), 0, at(1)).map(|change| change.ttl),
        Some(seconds(4))
    );
    pace.granted(seconds(4), seconds(5), at(1));
    for n in 2..100 {
        assert_eq!(pace.renewed(millis(1), 0, at(n)), None);
    }
}

#[test]
fn what_the_store_did_not_take_is_chosen_again() {
    let now = Instant::now();
    let mut pace = Pace::new(Bounds::default(), ETCD, seconds(5), now);
    let first = pace.renewed(seconds(1), 0, now);
    assert!(first.is_some());
    assert_eq!(pace.renewed(millis(1), 0, now), first);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens: it is within its bounds and what the store counts in, it is raised with the renewal that was too
    /// late for it and not otherwise, and never lowered soon after it was changed, nor below what is remembered.
    #[test]
    fn it_is_bounded_and_raised_in_time_and_lowered_slowly(
        whole: bool,
        (min, span) in (1..10_u64, 0..60_u64),
        first in 1..100_u64,
        renewals in proptest::collection::vec((0..4000_u64, 0..3_u32, 1..30_u32), 1..60),
    ) {
        let bounds = Bounds { min: seconds(min), max: seconds(min + span), patience: seconds(60) };
        let grain = Grain { whole, renewals: 200 };
        let first = seconds(first).clamp(bounds.min, bounds.max);
        let mut rep = Rep::new(bounds, grain, first);
        let mut changed = rep.now;
        // When, and how late.
        let mut late: Vec<(Instant, Duration)> = Vec::new();
        for (delay, hundreds, times) in renewals {
            for _ in 0..times {
                let (before, changes) = (rep.pace.ttl(), rep.changes.len());
                rep.renews(millis(delay), hundreds * 100);
                late.push((rep.now, millis(delay)));
                let ttl = rep.pace.ttl();
                prop_assert!((bounds.min..=bounds.max).contains(&ttl), "{ttl:?}");
                prop_assert!(!whole || ttl.subsec_nanos() == 0, "{ttl:?}");
                prop_assert!(ttl == bounds.max || ttl >= millis(delay) * MARGIN, "{ttl:?} after {delay} ms");
                if rep.changes.len() == changes {
                    prop_assert_eq!(ttl, before);
                    continue;
                }
                prop_assert!(ttl != before, "a change that is none");
                if ttl < before {
                    prop_assert!(rep.now - changed >= bounds.patience, "lowered too soon");
                    let remembered = late.iter().filter(|(at, _)| rep.now - *at <= bounds.patience * (MEMORY - 1));
                    let longest = remembered.map(|(_, delay)| *delay).max().unwrap_or_default();
                    prop_assert!(ttl >= (longest * MARGIN).min(bounds.max), "{ttl:?} after {longest:?}");
                }
                changed = rep.now;
            }
        }
    }

    /// Once nothing changes any more outside, it does not either: no flapping, and an end.
    #[test]
    fn it_comes_to_rest(
        whole: bool,
        before in proptest::collection::vec(0..2000_u64, 0..50),
        delay in 0..3000_u64,
        cells in 0..2000_u32,
    ) {
        let grain = Grain { whole, renewals: 200 };
        let mut rep = Rep::new(Bounds::default(), grain, seconds(5));
        before.into_iter().for_each(|delay| rep.renews(millis(delay), 0));
        let begun = rep.changes.len();
        rep.for_long(seconds(3600), millis(delay), cells);
        let (changes, ttl) = (rep.changes.len(), rep.pace.ttl());
        prop_assert!(changes - begun <= 12, "{:?}", rep.changes);
        rep.for_long(seconds(3600), millis(delay), cells);
        prop_assert_eq!((rep.changes.len(), rep.pace.ttl()), (changes, ttl));
    }
}
