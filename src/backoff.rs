//! Pauses between tries: they double, they end at a maximum, and chance spreads them.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// A growing pause between tries of the same thing.
///
/// Without the random part, all the reps of a store that went away would come back at the same instants.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    tries: u32,
}

impl Backoff {
    /// Pauses that grow from about `min` to about `max`.
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max: max.max(min),
            tries: 0,
        }
    }

    /// The next pause: between half of the doubling value and all of it, by `chance` in `0.0..1.0`.
    pub(crate) fn pause(&mut self, chance: f64) -> Duration {
        // 2^20 is past every maximum in use; the bound keeps the shift from overflowing.
        let whole = self
            .min
            .saturating_mul(1 << self.tries.min(20))
            .min(self.max);
        self.tries = self.tries.saturating_add(1);
        whole.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }

    /// Starts again from the shortest pause.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

/// A random number in `0.0..1.0`, good enough to spread load.
pub(crate) fn chance() -> f64 {
    // Every `RandomState` hashes with a key of its own; 53 bits fill an f64.
    (RandomState::new().build_hasher().finish() >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let pauses: Vec<u128> = (0..7).map(|_| backoff.pause(1.0).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000]);
        backoff.reset();
        assert_eq!(backoff.pause(0.0), Duration::from_millis(50));
    }

    #[test]
    fn a_very_long_outage_does_not_overflow() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let last = (0..10_000).map(|_| backoff.pause(0.5)).last();
        assert_eq!(last, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn chance_stays_in_its_range_and_varies() {
        let drawn: Vec<f64> = (0..1000).map(|_| chance()).collect();
        assert!(drawn.iter().all(|x| (0.0..1.0).contains(x)));
        let mean = drawn.iter().sum::<f64>() / 1000.0;
        assert!((0.4..0.6).contains(&mean), "mean {mean}");
    }
}
