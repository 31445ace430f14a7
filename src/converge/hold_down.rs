//! Hold-down: a Cell that is lost and comes back again and again takes no new work for a while, longer each time.
//!
//! What it runs stays, and so does what comes back with it: each flap moves an instance at most once, and the Cell
//! gets no new one that the next flap would move again.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::CellStatus;

/// A return this long after the one before is the first one again.
pub const WINDOW: SignedDuration = SignedDuration::from_secs(600);

/// The second return within [`WINDOW`] is held down for so long; each further one twice as long as the one before.
pub const FIRST: SignedDuration = SignedDuration::from_secs(30);

/// No hold-down is longer.
pub const LONGEST: SignedDuration = SignedDuration::from_secs(600);

/// For how long a Cell takes no new work that has come back so often; a single loss costs nothing.
pub fn pause(flaps: i32) -> Option<SignedDuration> {
    let doublings = u32::try_from(flaps.checked_sub(2)?).ok()?;
    let factor = 2_i32.checked_pow(doublings).unwrap_or(i32::MAX);
    Some(FIRST.saturating_mul(factor).min(LONGEST))
}

/// Enters that a lost Cell is back.
pub fn returned(status: &mut CellStatus, now: Timestamp) {
    let again = status
        .last_return_time
        .as_ref()
        .is_some_and(|last| now.duration_since(last.0) < WINDOW);
    let before = if again { status.flaps.unwrap_or(0) } else { 0 };
    let flaps = before.saturating_add(1);
    status.flaps = Some(flaps);
    status.last_return_time = Some(MicroTime(now));
    status.held_down_until = pause(flaps)
        .and_then(|pause| now.checked_add(pause).ok())
        .map(MicroTime);
}

/// Takes away what is over.
pub fn expire(status: &mut CellStatus, now: Timestamp) {
    if until(status, now).is_some() {
        return;
    }
    status.held_down_until = None;
    let last = status.last_return_time.as_ref();
    if last.is_some_and(|last| now.duration_since(last.0) >= WINDOW) {
        status.flaps = None;
        status.last_return_time = None;
    }
}

/// Until when the Cell takes no new work, if that is not over. A time further away than any hold-down lasts was written
/// by a clock that was wrong.
pub fn until(status: &CellStatus, now: Timestamp) -> Option<Timestamp> {
    let until = status.held_down_until.as_ref()?.0;
    let left = until.duration_since(now);
    (left.is_positive() && left <= LONGEST).then_some(until)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Returns at these seconds; for how long each is held down.
    fn pauses(returns: &[i64]) -> Vec<i64> {
        let mut status = CellStatus::default();
        let pause = |second: &i64| {
            returned(&mut status, at(*second));
            let until = until(&status, at(*second));
            until.map_or(0, |until| until.duration_since(at(*second)).as_secs())
        };
        returns.iter().map(pause).collect()
    }

    #[test]
    fn one_loss_is_free_and_each_flap_doubles_up_to_ten_minutes() {
        let flaps: Vec<i64> = (1..10).map(|n| n * 12).collect();
        assert_eq!(pauses(&flaps), [0, 30, 60, 120, 240, 480, 600, 600, 600]);
        assert_eq!(pauses(&[0, 599]), [0, 30]);
        assert_eq!(pauses(&[0, 600, 1200]), [0, 0, 0], "long apart");
        assert_eq!(
            pauses(&[0, 500, 1000]),
            [0, 30, 60],
            "each by the one before"
        );
        for flaps in [i32::MIN, -1, 0, 1] {
            assert_eq!(pause(flaps), None);
        }
        assert_eq!(pause(i32::MAX), Some(LONGEST));
    }

    #[test]
    fn what_is_over_is_taken_away() {
        let mut status = CellStatus::default();
        returned(&mut status, at(0));
        returned(&mut status, at(10));
        let mut later = status.clone();
        expire(&mut later, at(39));
        assert_eq!(later, status, "still held down");
        expire(&mut later, at(40));
        assert_eq!(
            (later.held_down_until.as_ref(), later.flaps),
            (None, Some(2))
        );
        expire(&mut later, at(610));
        assert_eq!(later, CellStatus::default());
    }

    #[test]
    fn a_clock_that_was_wrong_holds_nothing_down_for_long() {
        let mut status = CellStatus::default();
        returned(&mut status, at(100_000));
        returned(&mut status, at(100_001));
        assert_eq!(until(&status, at(50)), None);
        expire(&mut status, at(50));
        assert_eq!(status.held_down_until, None);
    }
}
