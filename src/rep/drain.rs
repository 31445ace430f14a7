//! Leaving, to stop or because the Cell is evacuated: what to do next, as a function of what is left and of the time.
//!
//! The rep publishes that it drains, takes nothing new on, and waits until the controller has moved its instances
//! away and its Tasks have ended. What is still there when the time is up is stopped; the presence is given back
//! last, when nothing runs here any more.

use std::time::{Duration, Instant};

/// What a Task that did not end in time fails with.
pub const TIMED_OUT: &str = "timed out during cell evacuation";

/// After a forced stop the records are still to be written; no longer than this is waited for the API server. A
/// container's own grace period comes on top.
pub const LAST_WRITES: Duration = Duration::from_secs(10);

/// With the operator in a hurry, a process has this long between SIGTERM and SIGKILL.
pub const HURRY_GRACE: Duration = Duration::from_secs(1);

/// What a rep knows that leaves.
#[derive(Debug, Clone, Copy)]
pub struct Draining {
    /// When it began.
    pub since: Instant,
    /// `--evacuation-timeout-seconds`.
    pub timeout: Duration,
    /// The store knows that it drains, or was given up on: giving the presence back may follow.
    pub told: bool,
    /// When the rest was told to stop, and until when that is waited for.
    pub forced_until: Option<Instant>,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Wait: for the controller, for Tasks, for processes to end, for writes.
    Wait,
    /// The time is up: stop the rest.
    StopAll,
    /// Nothing is left, or nothing more is waited for.
    Done,
}

impl Draining {
    /// When time alone changes the answer of [`Draining::next`].
    pub fn deadline(&self) -> Instant {
        self.forced_until.unwrap_or(self.since + self.timeout)
    }

    /// The next step. `left` is whether a container or a write under way is left; `hurry`, whether the operator
    /// asked twice.
    pub fn next(&self, left: bool, hurry: bool, now: Instant) -> Step {
        let over = now >= self.deadline();
        let left = left || !self.told;
        match (left, self.forced_until.is_some()) {
            (false, _) => Step::Done,
            (true, false) if hurry || over => Step::StopAll,
            (true, true) if over => Step::Done,
            (true, _) => Step::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_then_stops_then_goes() {
        let since = Instant::now();
        let at = |seconds| since + Duration::from_secs(seconds);
        let draining = Draining {
            since,
            timeout: Duration::from_secs(600),
            told: true,
            forced_until: None,
        };
        let untold = Draining {
            told: false,
            ..draining
        };
        let forced = Draining {
            forced_until: Some(at(640)),
            ..draining
        };
        for (state, left, hurry, now, expected) in [
            (untold, false, false, at(0), Step::Wait),
            (draining, false, false, at(0), Step::Done),
            (draining, true, false, at(599), Step::Wait),
            (draining, true, false, at(600), Step::StopAll),
            (draining, true, true, at(1), Step::StopAll),
            (forced, true, true, at(601), Step::Wait),
            (forced, false, false, at(601), Step::Done),
            (forced, true, false, at(640), Step::Done),
        ] {
            assert_eq!(
                state.next(left, hurry, now),
                expected,
                "{state:?} {left} {hurry}"
            );
        }
    }
}
