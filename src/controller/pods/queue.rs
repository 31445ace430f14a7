//! Whose turn it is: each record once, in the order it was asked for, and at most one look at a record at a time.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::converge::pods::WorkKey;

/// The first pause before a record is tried again; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Queue {
    ready: VecDeque<WorkKey>,
    queued: HashSet<WorkKey>,
    running: HashSet<WorkKey>,
    /// Asked for while a look was under way.
    again: HashSet<WorkKey>,
    timers: BTreeSet<(Instant, WorkKey)>,
    due: HashMap<WorkKey, Instant>,
    failures: HashMap<WorkKey, u32>,
    /// Waiting to be tried again: a call that fails changes what is known of its record, which must not bring the next.
    pausing: HashSet<WorkKey>,
}

impl Queue {
    /// This record has to be looked at.
    pub(super) fn ask(&mut self, work: WorkKey) {
        if self.pausing.contains(&work) {
            return;
        }
        if self.running.contains(&work) {
            self.again.insert(work);
        } else if self.queued.insert(work.clone()) {
            self.ready.push_back(work);
        }
    }

    /// The next record; it is being looked at from now on.
    pub(super) fn take(&mut self) -> Option<WorkKey> {
        let work = self.ready.pop_front()?;
        self.queued.remove(&work);
        self.forget_timer(&work);
        self.running.insert(work.clone());
        Some(work)
    }

    /// A look went well; time alone brings the next at `due`.
    pub(super) fn done(&mut self, work: &WorkKey, due: Option<Instant>) {
        self.failures.remove(work);
        self.ended(work, due);
    }

    /// A look has to be had again, since a call failed.
    pub(super) fn failed(&mut self, work: &WorkKey, now: Instant) {
        let failures = self.failures.entry(work.clone()).or_default();
        let pause = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(*failures));
        *failures = failures.saturating_add(1);
        // What is asked for meanwhile would only fail the same way.
        self.again.remove(work);
        self.pausing.insert(work.clone());
        self.ended(work, Some(now + pause.min(LONGEST_PAUSE)));
    }

    /// How many looks at this record failed in a row.
    pub(super) fn failures(&self, work: &WorkKey) -> u32 {
        self.failures.get(work).copied().unwrap_or(0)
    }

    /// When the next timer is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Asks for what is due.
    pub(super) fn ring(&mut self, now: Instant) {
        while let Some((due, work)) = self.timers.first().cloned() {
            if due > now {
                return;
            }
            self.forget_timer(&work);
            self.pausing.remove(&work);
            self.ask(work);
        }
    }

    fn ended(&mut self, work: &WorkKey, due: Option<Instant>) {
        self.running.remove(work);
        if let Some(due) = due {
            self.forget_timer(work);
            self.timers.insert((due, work.clone()));
            self.due.insert(work.clone(), due);
        }
        if self.again.remove(work) {
            self.ask(work.clone());
        }
    }

    fn forget_timer(&mut self, work: &WorkKey) {
        if let Some(due) = self.due.remove(work) {
            self.timers.remove(&(due, work.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::converge::world::Key;

    fn work(name: &str) -> WorkKey {
        WorkKey::lrp(Key::new("default", name))
    }

    #[test]
    fn a_record_is_looked_at_once_at_a_time_and_never_forgotten() {
        let mut queue = Queue::default();
        for name in ["a", "b", "a"] {
            queue.ask(work(name));
        }
        assert_eq!(queue.take(), Some(work("a")));
        queue.ask(work("a"));
        assert_eq!(queue.take(), Some(work("b")), "a is being looked at");
        assert_eq!(queue.take(), None);
        queue.done(&work("a"), None);
        assert_eq!(
            queue.take(),
            Some(work("a")),
            "it was asked for in the meantime"
        );
    }

    #[test]
    fn a_failure_is_tried_again_after_growing_pauses() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            queue.ask(work("a"));
            queue.take().expect("it was asked for");
            queue.failed(&work("a"), start);
            let due = queue.next_due().expect("it is tried again");
            pauses.push((due - start).as_millis());
            queue.ring(start);
            queue.ask(work("a"));
            assert_eq!(queue.take(), None, "not before its time");
            queue.ring(due);
            assert_eq!(queue.take(), Some(work("a")));
            queue.ended(&work("a"), None);
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        queue.done(&work("a"), None);
        assert_eq!(queue.next_due(), None);
    }
}
