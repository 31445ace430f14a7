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
    /// Looked at when nobody is waiting; some of them may have been asked for since.
    idle: VecDeque<WorkKey>,
    queued_idle: HashSet<WorkKey>,
    running: HashSet<WorkKey>,
    /// Asked for while a look was under way.
    again: HashSet<WorkKey>,
    timers: BTreeSet<(Instant, WorkKey)>,
    due: HashMap<WorkKey, Instant>,
    failures: HashMap<WorkKey, u32>,
    /// Waiting to be tried again, with the version of the record that the call failed on: a call that fails changes what
    /// is known of its record and its Pods, which must not bring the next.
    pausing: HashMap<WorkKey, Option<u64>>,
}

impl Queue {
    /// This record has to be looked at, unless a call about it failed a moment ago.
    pub(super) fn ask(&mut self, work: WorkKey) {
        if self.pausing.contains_key(&work) {
            return;
        }
        if self.running.contains(&work) {
            self.again.insert(work);
        } else if self.queued.insert(work.clone()) {
            self.queued_idle.remove(&work);
            self.ready.push_back(work);
        }
    }

    /// The version of the record that a call failed on a moment ago.
    pub(super) fn pauses_on(&self, work: &WorkKey) -> Option<Option<u64>> {
        self.pausing.get(work).copied()
    }

    /// This record has to be looked at, whatever failed: what it fails on has changed.
    pub(super) fn ask_now(&mut self, work: WorkKey) {
        self.pausing.remove(&work);
        self.ask(work);
    }

    /// This record is to be looked at when nobody else has to be.
    pub(super) fn ask_idly(&mut self, work: WorkKey) {
        let busy = self.queued.contains(&work) || self.running.contains(&work);
        if !busy && !self.pausing.contains_key(&work) && self.queued_idle.insert(work.clone()) {
            self.idle.push_back(work);
        }
    }

    /// The next record; it is being looked at from now on.
    pub(super) fn take(&mut self) -> Option<WorkKey> {
        let work = match self.ready.pop_front() {
            Some(work) => work,
            None => self.next_idle()?,
        };
        self.queued.remove(&work);
        self.forget_timer(&work);
        self.running.insert(work.clone());
        Some(work)
    }

    fn next_idle(&mut self) -> Option<WorkKey> {
        while let Some(work) = self.idle.pop_front() {
            if self.queued_idle.remove(&work)
                && !self.running.contains(&work)
                && !self.pausing.contains_key(&work)
            {
                return Some(work);
            }
        }
        None
    }

    /// A look went well; time alone brings the next at `due`.
    pub(super) fn done(&mut self, work: &WorkKey, due: Option<Instant>) {
        self.failures.remove(work);
        self.ended(work, due);
    }

    /// A look has to be had again, since a call failed on this version of the record.
    pub(super) fn failed(&mut self, work: &WorkKey, version: Option<u64>, now: Instant) {
        let failures = self.failures.entry(work.clone()).or_default();
        let pause = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(*failures));
        *failures = failures.saturating_add(1);
        // What is asked for meanwhile would only fail the same way.
        self.again.remove(work);
        self.pausing.insert(work.clone(), version);
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
            queue.failed(&work("a"), None, start);
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

    #[test]
    fn a_pause_is_broken_by_what_has_changed_and_by_nothing_else() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        queue.ask(work("a"));
        queue.take().expect("it was asked for");
        queue.failed(&work("a"), Some(7), start);
        assert_eq!(queue.pauses_on(&work("a")), Some(Some(7)));
        queue.ask(work("a"));
        queue.ask_idly(work("a"));
        assert_eq!(queue.take(), None, "an echo");
        queue.ask_now(work("a"));
        assert_eq!(queue.take(), Some(work("a")));
        assert_eq!(queue.next_due(), None, "and its timer is gone");
        queue.failed(&work("a"), Some(8), start);
        let due = queue.next_due().expect("it is tried again");
        assert_eq!((due - start).as_millis(), 200, "the pauses go on growing");
    }

    #[test]
    fn who_is_waited_for_comes_before_who_is_merely_looked_at() {
        let mut queue = Queue::default();
        for name in ["a", "b", "c"] {
            queue.ask_idly(work(name));
        }
        queue.ask(work("c"));
        queue.ask(work("d"));
        queue.ask_idly(work("d"));
        let order: Vec<_> = std::iter::from_fn(|| queue.take()).collect();
        assert_eq!(order, ["c", "d", "a", "b"].map(work), "each once");
    }
}
