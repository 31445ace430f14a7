//! What of the watcher's troubles is worth a line in the log: each change of state once, however many sessions it
//! takes. The sessions themselves are counted by [`PresenceEvent::WatchRestarted`](super::PresenceEvent).

use std::time::Duration;

/// A watch that was served for so long is well. Shorter, and a store that serves each for a moment would count as well
/// and as broken in turns.
const WELL_AFTER: Duration = Duration::from_secs(10);

/// The one break that is no news: an endpoint restarted, a compaction, a network that changed.
const BREAKS_ALLOWED: u32 = 1;

/// The state that the log knows of. Each call is told what happened, and says whether that is to be told.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Watches that broke since one was last well.
    breaks: u32,
    /// It was told that watches break.
    breaking: bool,
    /// It was told that the store can't be heard.
    unheard: bool,
}

impl Health {
    /// A watch broke.
    pub(super) fn broke(&mut self) -> bool {
        self.breaks = self.breaks.saturating_add(1);
        self.breaks > BREAKS_ALLOWED && !std::mem::replace(&mut self.breaking, true)
    }

    /// The store can't be heard any more.
    pub(super) fn unheard(&mut self) -> bool {
        !std::mem::replace(&mut self.unheard, true)
    }

    /// The store is heard again, which is told only where watches did not break meanwhile: else it is not well yet.
    pub(super) fn heard(&mut self) -> bool {
        !self.breaking && std::mem::take(&mut self.unheard)
    }

    /// A watch has been served for so long.
    pub(super) fn served(&mut self, time: Duration) -> bool {
        if time < WELL_AFTER {
            return false;
        }
        self.breaks = 0;
        self.unheard = false;
        std::mem::take(&mut self.breaking)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_secs(1);

    #[test]
    fn watches_that_break_for_ever_are_told_once_and_their_end_once() {
        let mut health = Health::default();
        for round in 0..1000 {
            assert_eq!(health.broke(), round == 1, "round {round}");
            assert!(!health.served(MOMENT), "not well for a moment's service");
        }
        assert!(health.served(WELL_AFTER));
        assert!(!health.served(WELL_AFTER), "told once");
        assert!(!health.broke(), "the first break is no news again");
        assert!(health.broke());
    }

    #[test]
    fn breaks_far_apart_are_not_told() {
        let mut health = Health::default();
        for _ in 0..10 {
            assert!(!health.broke() && !health.served(WELL_AFTER));
        }
    }

    #[test]
    fn an_outage_and_its_end_are_told() {
        let mut health = Health::default();
        for _ in 0..3 {
            assert!(health.unheard() && !health.unheard());
            assert!(health.heard() && !health.heard());
        }
    }

    /// One endpoint is dead, and the other one lists but breaks every watch.
    #[test]
    fn outages_and_breaks_in_turns_are_told_once() {
        let mut health = Health::default();
        let mut lines = 0;
        for _ in 0..1000 {
            lines += usize::from(health.unheard());
            lines += usize::from(health.heard());
            lines += usize::from(health.broke());
        }
        assert!(lines <= 6, "{lines} lines");
        assert!(health.served(WELL_AFTER));
        assert!(health.unheard(), "the next outage is news");
    }
}
