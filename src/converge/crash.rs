//! When a crashed instance may start again (Diego's restart policy, `bbs/models/restart_calculator.go`).

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// So many crashes in a row are followed by a restart at once.
pub const IMMEDIATE_RESTARTS: i32 = 3;

/// From so many crashes in a row on there is no restart any more.
pub const MAX_RESTARTS: i32 = 200;

/// The first wait; every further crash doubles it.
const MIN_BACKOFF: SignedDuration = SignedDuration::from_secs(30);

/// The longest wait.
const MAX_BACKOFF: SignedDuration = SignedDuration::from_secs(960);

/// An instance that ran longer than this before it crashed counts as crashed for the first time.
pub const RESET_AFTER: SignedDuration = SignedDuration::from_secs(300);

/// When to start an instance again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// At this time, which may be in the past.
    At(Timestamp),
    /// Never: it crashed [`MAX_RESTARTS`] times in a row.
    Never,
}

/// The next restart of an instance that has crashed `count` times in a row, the last time at `since`.
pub fn next_restart(count: i32, since: Timestamp) -> Restart {
    if count >= MAX_RESTARTS {
        return Restart::Never;
    }
    if count < IMMEDIATE_RESTARTS {
        return Restart::At(since);
    }
    // 30 s doubled five times is 960 s already; the bound keeps the shift from overflowing.
    let doublings = (count - IMMEDIATE_RESTARTS).min(5) as u32;
    let wait = MIN_BACKOFF
        .checked_mul(1 << doublings)
        .unwrap_or(MAX_BACKOFF)
        .min(MAX_BACKOFF);
    Restart::At(since.checked_add(wait).unwrap_or(Timestamp::MAX))
}

/// The crash count after one more crash: `ran_since` is since when it was Running, if it was.
pub fn count_after(count: i32, ran_since: Option<Timestamp>, now: Timestamp) -> i32 {
    match ran_since {
        Some(since) if now.duration_since(since) > RESET_AFTER => 1,
        _ => count.saturating_add(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_waits() {
        let since = Timestamp::from_second(1000).unwrap();
        for (count, wait) in [
            (1, 0),
            (2, 0),
            (3, 30),
            (4, 60),
            (5, 120),
            (6, 240),
            (7, 480),
            (8, 960),
            (9, 960),
            (199, 960),
        ] {
            let expected = Timestamp::from_second(1000 + wait).unwrap();
            assert_eq!(
                next_restart(count, since),
                Restart::At(expected),
                "after {count} crashes"
            );
        }
        assert_eq!(next_restart(200, since), Restart::Never);
        assert_eq!(next_restart(i32::MAX, since), Restart::Never);
    }

    #[test]
    fn more_than_five_minutes_of_running_forgets_the_crashes_before() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(count_after(7, Some(at(0)), at(300)), 8);
        assert_eq!(count_after(7, Some(at(0)), at(301)), 1);
        assert_eq!(count_after(7, None, at(301)), 8);
    }
}
