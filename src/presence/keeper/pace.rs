//! Which TTL a rep chooses by itself: a function of how late its renewals were answered, and of how many Cells there
//! are. Pure: time is an argument.
//!
//! A TTL is raised at once, by half at least, before renewals get tight; it is lowered by a third at most, when all has
//! been well for long enough. What was too short once is not tried again for as long as that is remembered.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use super::super::ttl::{Bounds, rounded_up};

/// A TTL is so many times the longest delay of a renewal. A try may take a fifth of the TTL, so it is raised by an answer
/// that was slow, and not only by one that did not come.
const MARGIN: u32 = 8;

/// So many times in a TTL a presence is renewed.
const RENEWALS: u32 = 3;

/// A delay is remembered for so many times the patience.
const MEMORY: u32 = 5;

/// A TTL that is this near to what is wanted stays, unless the shortest of all is wanted.
const NEAR: f64 = 0.8;

/// How far a TTL falls at once.
const STEP_DOWN: f64 = 2.0 / 3.0;

/// How far it rises at least.
const STEP_UP: f64 = 1.5;

/// What a presence store makes of a TTL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grain {
    /// It counts in whole seconds.
    pub whole: bool,
    /// So many renewals a second are no burden to it.
    pub renewals: u32,
}

/// Why a TTL is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A renewal was answered so long after it was due.
    Late(Duration),
    /// So many Cells renew.
    Cells(u32),
    /// All has been well for long enough.
    Calm,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late(delay) => {
                let millis = delay.as_millis();
                write!(f, "a renewal was answered {millis} ms after it was due")
            }
            Self::Cells(cells) => write!(f, "{cells} Cells renew in this store"),
            Self::Calm => f.write_str("renewals have been answered soon for long enough"),
        }
    }
}

/// What is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub ttl: Duration,
    pub why: Reason,
}

/// The rule, and what it remembers.
#[derive(Debug)]
pub(super) struct Pace {
    bounds: Bounds,
    grain: Grain,
    ttl: Duration,
    /// When that began.
    since: Instant,
    /// The longest delay of each span of the patience, the oldest first.
    delays: VecDeque<(Instant, Duration)>,
}

impl Pace {
    pub(super) fn new(bounds: Bounds, grain: Grain, ttl: Duration, now: Instant) -> Self {
        let max = bounds.max.max(bounds.min);
        Self {
            bounds: Bounds { max, ..bounds },
            grain,
            ttl,
            since: now,
            delays: VecDeque::new(),
        }
    }

    /// The TTL that counts.
    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// The store took this TTL, which may be longer than what it was asked for: then it does none that is shorter.
    pub(super) fn granted(&mut self, asked: Duration, ttl: Duration, now: Instant) {
        if ttl > asked {
            self.bounds.min = self.bounds.min.max(ttl);
            self.bounds.max = self.bounds.max.max(ttl);
        }
        if self.ttl != ttl {
            (self.ttl, self.since) = (ttl, now);
        }
    }

    /// A renewal was answered so long after it was due, at `now`, while there are `cells` Cells (0 when that is not known).
    /// Gives another TTL, if there is to be one; again and again until it is granted.
    pub(super) fn renewed(&mut self, delay: Duration, cells: u32, now: Instant) -> Option<Change> {
        self.remember(delay, now);
        let (wanted, why) = self.wanted(cells);
        if wanted > self.ttl {
            let ttl = self.fitted(wanted.max(self.ttl.mul_f64(STEP_UP)));
            return Some(Change { ttl, why });
        }
        let calm = now.saturating_duration_since(self.since) >= self.bounds.patience;
        let near = wanted > self.ttl.mul_f64(NEAR) && wanted > self.bounds.min;
        if !calm || near {
            return None;
        }
        let ttl = self.fitted(wanted.max(self.ttl.mul_f64(STEP_DOWN)));
        let why = Reason::Calm;
        (ttl < self.ttl).then_some(Change { ttl, why })
    }

    fn remember(&mut self, delay: Duration, now: Instant) {
        let patience = self.bounds.patience;
        let age = |at: Instant| now.saturating_duration_since(at);
        while let Some((at, _)) = self.delays.front()
            && age(*at) > patience * MEMORY
        {
            self.delays.pop_front();
        }
        match self.delays.back_mut() {
            // Counted from its end.
            Some((at, longest)) if age(*at) < patience && delay <= *longest => {}
            Some((at, longest)) if age(*at) < patience => (*at, *longest) = (now, delay),
            Some(_) | None => self.delays.push_back((now, delay)),
        }
    }

    /// The shortest TTL that can be kept.
    fn wanted(&self, cells: u32) -> (Duration, Reason) {
        let longest = self.delays.iter().map(|(_, delay)| *delay).max();
        let longest = longest.unwrap_or_default();
        let late = longest.saturating_mul(MARGIN);
        let millis = u64::from(cells) * u64::from(RENEWALS) * 1000;
        let load = Duration::from_millis(millis / u64::from(self.grain.renewals.max(1)));
        let why = match load > late {
            true => Reason::Cells(cells),
            false => Reason::Late(longest),
        };
        (self.fitted(late.max(load)), why)
    }

    /// In what the store counts in, and within the bounds.
    fn fitted(&self, ttl: Duration) -> Duration {
        // Rounded up beyond what any store is told, a time-out of years would overflow.
        let ttl = ttl.min(self.bounds.max);
        rounded_up(ttl, self.grain.whole).clamp(self.bounds.min, self.bounds.max)
    }
}

#[cfg(test)]
mod tests;
