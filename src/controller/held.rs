//! The losses that are held back: why, whether that is told, and when each is to be looked at again. Pure: time is an
//! argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::converge::brake::{Count, Ruling};

use super::recovery::Loss;

/// A loss that was let go and not judged since is let go again after this.
const AGAIN: Duration = Duration::from_secs(2);

/// The first pause before a hold that could not be written on its Cell is written again; it doubles up to the last.
const TELL_AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// For so much longer than half of its TTL a loss is doubted: the others' clocks, and the store's tick.
const SLACK: Duration = Duration::from_millis(500);

/// Cells that come back one after the other keep the rest held for so many TTLs at most.
const RETURNS: u32 = 3;

/// Why a loss is not believed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Too many are gone at once.
    Many(Count),
    /// It would be believed, but others are overdue.
    Overdue,
    /// It would be believed, but those that were held with it come back just now.
    Returning,
}

/// All of them, by Cell.
#[derive(Default)]
pub(super) struct Holds(BTreeMap<String, Held>);

struct Held {
    loss: Loss,
    ttl: Duration,
    /// Too many were gone with it: it is more than a doubt.
    counted: bool,
    /// Since when others that are overdue are all that keeps it from being believed.
    doubted: Option<Instant>,
    /// The first and the last return, so far, of those that were held with it.
    returns: Option<(Instant, Instant)>,
    /// It is written on the Cell.
    told: bool,
    /// It is not written again before.
    tell_at: Option<Instant>,
    pause: Duration,
    /// It is not held any more: its verdict is on the way.
    let_go: bool,
    /// When it was let go.
    again: Option<Instant>,
}

impl Held {
    /// What brought others back may bring this one back too, within a TTL of them.
    fn waits(&self, now: Instant) -> bool {
        self.returns.is_some_and(|(first, last)| {
            now < last + self.ttl && now < first + self.ttl.saturating_mul(RETURNS)
        })
    }

    /// Whoever died with it is gone by now too; who is still overdue is slow.
    fn is_doubted_enough(&self, now: Instant) -> bool {
        let limit = self.ttl / 2 + SLACK;
        let since = self.doubted;
        since.is_some_and(|since| now.saturating_duration_since(since) >= limit)
    }
}

impl Holds {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, cell: &str) -> bool {
        self.0.contains_key(cell)
    }

    /// Whether a Cell that is here was let go.
    pub fn is_let_go(&self, cell: &str) -> Option<bool> {
        self.0.get(cell).map(|held| held.let_go)
    }

    pub fn hold(&mut self, loss: &Loss, ttl: Duration, why: Why, now: Instant) {
        let held = self.0.entry(loss.cell.clone()).or_insert_with(|| Held {
            loss: loss.clone(),
            ttl,
            counted: false,
            doubted: None,
            returns: None,
            told: false,
            tell_at: None,
            pause: TELL_AGAIN.0,
            let_go: false,
            again: None,
        });
        held.let_go = false;
        match why {
            Why::Many(_) => {
                held.counted = true;
                held.doubted = None;
                held.tell_at = Some(now + held.pause);
                held.pause = (held.pause * 2).min(TELL_AGAIN.1);
            }
            Why::Overdue => drop(held.doubted.get_or_insert(now)),
            Why::Returning => {}
        }
    }

    /// It is written on the Cell.
    pub fn told(&mut self, cell: &str) {
        if let Some(held) = self.0.get_mut(cell) {
            held.told = true;
        }
    }

    /// There is nothing to hold back.
    pub fn remove(&mut self, cell: &str) {
        self.0.remove(cell);
    }

    /// The Cell is back. If it was more than doubted, those that were held with it may be about to come back.
    pub fn returned(&mut self, cell: &str, now: Instant) {
        if !self.0.remove(cell).is_some_and(|held| held.counted) {
            return;
        }
        for held in self.0.values_mut().filter(|held| held.counted) {
            let first = match held.returns {
                Some((first, last)) if now < last + held.ttl => first,
                Some(_) | None => now,
            };
            held.returns = Some((first, now));
        }
    }

    /// Whether a loss that would be believed waits for the return of the Cell, as others return.
    pub fn waits(&self, cell: &str, now: Instant) -> bool {
        self.0.get(cell).is_some_and(|held| held.waits(now))
    }

    /// Whether a loss was doubted for so long that it is to be believed.
    pub fn is_doubted_enough(&self, cell: &str, now: Instant) -> bool {
        let held = self.0.get(cell);
        held.is_some_and(|held| held.is_doubted_enough(now))
    }

    /// The losses that are to be looked at again after `ruling`. Who is `confirmed` is let go in any case.
    pub fn due(
        &mut self,
        ruling: Ruling,
        now: Instant,
        confirmed: impl Fn(&str) -> bool,
    ) -> Vec<Loss> {
        let mut due = Vec::new();
        for (name, held) in &mut self.0 {
            let (passes, to_tell) = match ruling {
                Ruling::Pass => (!held.waits(now), false),
                Ruling::Doubt => {
                    held.doubted.get_or_insert(now);
                    (held.is_doubted_enough(now) && !held.waits(now), false)
                }
                Ruling::Hold(_) => {
                    held.doubted = None;
                    let late = held.tell_at.is_none_or(|at| now >= at);
                    (false, !held.told && late)
                }
            };
            let again = held.again.is_none_or(|at| now >= at + AGAIN);
            if (passes || confirmed(name)) && again {
                (held.let_go, held.again) = (true, Some(now));
                due.push(held.loss.clone());
            } else if to_tell {
                held.tell_at = Some(now + held.pause);
                due.push(held.loss.clone());
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::converge::cell::Source;

    const TTL: Duration = Duration::from_secs(5);

    const MANY: Count = Count {
        lost: 3,
        population: 3,
    };

    fn loss(cell: &str, now: Instant) -> Loss {
        Loss {
            cell: cell.into(),
            phase: None,
            source: Source::Watch,
            noticed: now,
            noticed_time: Timestamp::UNIX_EPOCH,
            alive: now,
        }
    }

    fn names(due: &[Loss]) -> Vec<&str> {
        due.iter().map(|loss| loss.cell.as_str()).collect()
    }

    fn nobody(_: &str) -> bool {
        false
    }

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn who_was_held_with_one_that_returns_waits_and_nobody_else_does() {
        let (mut holds, now) = (Holds::default(), Instant::now());
        for cell in ["a", "b"] {
            holds.hold(&loss(cell, now), TTL, Why::Many(MANY), now);
        }
        holds.hold(&loss("doubted", now), TTL, Why::Overdue, now);
        holds.returned("a", now);
        // One that dies after the return is an ordinary loss, held or not.
        holds.hold(&loss("later", now), TTL, Why::Many(MANY), now);
        let waits = |cell, after| holds.waits(cell, now + seconds(after));
        assert!(waits("b", 0.0) && waits("b", 4.9) && !waits("b", 5.0));
        assert!(!waits("doubted", 0.0) && !waits("later", 0.0) && !waits("unknown", 0.0));
        // The same before it is let go.
        let due = holds.due(Ruling::Pass, now + seconds(1.0), nobody);
        assert_eq!(names(&due), ["doubted", "later"]);
        assert_eq!(holds.is_let_go("b"), Some(false));
        let due = holds.due(Ruling::Pass, now + seconds(1.0), |cell| cell == "b");
        assert_eq!(names(&due), ["b"], "an operator's word does not wait");
    }

    #[test]
    fn a_doubt_that_ends_is_no_return() {
        let (mut holds, now) = (Holds::default(), Instant::now());
        holds.hold(&loss("a", now), TTL, Why::Overdue, now);
        holds.hold(&loss("b", now), TTL, Why::Many(MANY), now);
        holds.returned("a", now);
        assert!(!holds.waits("b", now));
    }

    #[test]
    fn returns_one_after_the_other_keep_nobody_held_for_more_than_three_ttls() {
        let (mut holds, now) = (Holds::default(), Instant::now());
        let cells: Vec<String> = (0..20).map(|n| format!("c{n:02}")).collect();
        for cell in &cells {
            holds.hold(&loss(cell, now), TTL, Why::Many(MANY), now);
        }
        for (n, cell) in (0..8).zip(&cells) {
            holds.returned(cell, now + TTL.mul_f64(0.5) * n);
        }
        let waits = |holds: &Holds, ttls| holds.waits("c19", now + TTL.mul_f64(ttls));
        assert!(waits(&holds, 2.9) && !waits(&holds, 3.0));
        // Long after, others return: that is another beginning.
        holds.returned("c18", now + TTL * 10);
        assert!(waits(&holds, 10.9) && !waits(&holds, 11.0));
    }

    #[test]
    fn a_doubt_ends_after_half_a_ttl() {
        let (mut holds, now) = (Holds::default(), Instant::now());
        holds.hold(&loss("a", now), TTL, Why::Overdue, now);
        // Doubted again: that begins nothing anew.
        holds.hold(
            &loss("a", now),
            TTL,
            Why::Overdue,
            now + Duration::from_secs(2),
        );
        let enough = |holds: &Holds, after| holds.is_doubted_enough("a", now + seconds(after));
        assert!(!enough(&holds, 2.9) && enough(&holds, 3.0));
        assert!(
            holds
                .due(Ruling::Doubt, now + seconds(2.9), nobody)
                .is_empty()
        );
        // Those that were overdue are gone: then it is held, however long ago it was first doubted.
        assert_eq!(
            names(&holds.due(Ruling::Hold(MANY), now + seconds(2.95), nobody)),
            ["a"]
        );
        assert!(!enough(&holds, 100.0));
        assert!(
            holds
                .due(Ruling::Doubt, now + seconds(100.0), nobody)
                .is_empty()
        );
        let due = holds.due(Ruling::Doubt, now + seconds(103.0), nobody);
        assert_eq!(names(&due), ["a"]);
    }

    #[test]
    fn what_could_not_be_told_is_told_again_ever_more_seldom() {
        let (mut holds, now) = (Holds::default(), Instant::now());
        holds.hold(&loss("a", now), TTL, Why::Many(MANY), now);
        let mut tries = 0;
        for tick in 1..=4 * 600 {
            let at = now + Duration::from_millis(250) * tick;
            for loss in holds.due(Ruling::Hold(MANY), at, nobody) {
                holds.hold(&loss, TTL, Why::Many(MANY), at);
                tries += 1;
            }
        }
        assert!((10..=16).contains(&tries), "{tries} in ten minutes");
        holds.told("a");
        let later = now + Duration::from_secs(6000);
        assert!(holds.due(Ruling::Hold(MANY), later, nobody).is_empty());
    }
}
