//! The rule of the election: what to do next, by what was seen of the lease and when. Pure.
//!
//! The times in the lease are only compared with each other for being the same: somebody else's lease has expired when
//! it has not changed for its duration by our own clock. The leader's own time ends earlier, counted from before it sent
//! its last answered renewal.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;

/// How long everything takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A lease that did not change for so long is free.
    pub duration: Duration,
    /// The leader stops so long after it sent its last answered renewal.
    pub deadline: Duration,
    /// The leader renews, or tries again, so often.
    pub retry: Duration,
}

impl Timing {
    /// A standby looks so often: twice per renewal, so that it sees the last one soon.
    pub fn look(&self) -> Duration {
        self.retry / 2
    }

    /// One call may take so long: less than the pause between two renewals.
    pub fn call(&self) -> Duration {
        self.retry.mul_f64(0.9)
    }
}

/// What the lease says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who has it; `None` when it was given up.
    pub holder: Option<String>,
    /// For how long after each change.
    pub duration: Duration,
    /// When the holder got it, by its clock.
    pub acquired: Option<Timestamp>,
    /// When the holder renewed it, by its clock.
    pub renewed: Option<Timestamp>,
    /// How often it went from one to another.
    pub transitions: i32,
}

/// What was seen last.
#[derive(Debug, Clone)]
struct Seen {
    /// `None`: there is no lease.
    record: Option<Record>,
    /// Since when it says so, by our own clock: not earlier than it was written.
    since: Instant,
}

/// One who wants to lead.
#[derive(Debug, Clone)]
pub struct Candidate {
    me: String,
    timing: Timing,
    /// `None` when it has to be looked at again before anything is done.
    seen: Option<Seen>,
    /// While it leads: the end of that.
    leads_until: Option<Instant>,
    /// No call before.
    next: Instant,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Read the lease.
    Look,
    /// Write it: it is free.
    Acquire,
    /// Write it again.
    Renew,
    /// Nothing until then.
    Wait(Instant),
    /// Stop leading.
    Lost,
}

impl Candidate {
    /// Nothing is known yet.
    pub fn new(me: String, timing: Timing, now: Instant) -> Self {
        Candidate {
            me,
            timing,
            seen: None,
            leads_until: None,
            next: now,
        }
    }

    /// What to do at `now`.
    pub fn step(&self, now: Instant) -> Step {
        match self.leads_until {
            Some(until) => self.step_of_leader(until, now),
            None => self.step_of_standby(now),
        }
    }

    fn step_of_leader(&self, until: Instant, now: Instant) -> Step {
        // Also where the lease is gone: whoever makes it anew leads from then on.
        let deposed = self.seen.as_ref().is_some_and(|seen| !seen.is_of(&self.me));
        if until <= now || deposed {
            Step::Lost
        } else if now < self.next {
            Step::Wait(self.next.min(until))
        } else if self.seen.is_none() {
            Step::Look
        } else {
            Step::Renew
        }
    }

    fn step_of_standby(&self, now: Instant) -> Step {
        if now < self.next {
            return Step::Wait(self.next);
        }
        match &self.seen {
            None => Step::Look,
            Some(seen) if self.free_at(seen) <= now => Step::Acquire,
            Some(_) => Step::Look,
        }
    }

    /// From when on it may be taken.
    fn free_at(&self, seen: &Seen) -> Instant {
        match &seen.record {
            Some(record) if record.holder.as_ref().is_some_and(|it| *it != self.me) => {
                seen.since + record.duration
            }
            // Gone, given up, or our own from before it ran out.
            Some(_) | None => seen.since,
        }
    }

    /// The lease was read; the answer is here at `now`.
    pub fn looked(&mut self, record: Option<Record>, now: Instant) {
        let since = match &self.seen {
            Some(seen) if seen.record == record => seen.since,
            Some(_) | None => now,
        };
        let seen = Seen { record, since };
        self.next = self.free_at(&seen).clamp(now, now + self.timing.look());
        self.seen = Some(seen);
    }

    /// It was written with a request that was sent at `sent`; the answer is here at `now`.
    pub fn wrote(&mut self, record: Record, sent: Instant, now: Instant) {
        self.seen = Some(Seen {
            record: Some(record),
            since: now,
        });
        self.leads_until = Some(sent + self.timing.deadline);
        self.next = (sent + self.timing.retry).max(now);
    }

    /// Somebody else was faster, or a call of our own whose answer is missing.
    pub fn met_a_conflict(&mut self, now: Instant) {
        self.seen = None;
        self.next = now;
    }

    /// A call that was sent at `sent` had no answer that says anything.
    pub fn failed(&mut self, sent: Instant, now: Instant) {
        let pause = match self.leads_until {
            Some(_) => self.timing.retry,
            None => self.timing.look(),
        };
        self.next = (sent + pause).max(now);
    }

    /// It does not lead any more.
    pub fn stopped(&mut self, now: Instant) {
        self.leads_until = None;
        self.next = now;
    }

    /// Under what name.
    pub fn me(&self) -> &str {
        &self.me
    }

    /// Until when it leads.
    pub fn leads_until(&self) -> Option<Instant> {
        self.leads_until
    }

    /// Who has the lease, as far as is known.
    pub fn holder(&self) -> Option<&str> {
        self.seen.as_ref()?.record.as_ref()?.holder.as_deref()
    }

    /// What the lease says when we write it at `now`.
    pub fn claim(&self, now: Timestamp) -> Record {
        let record = self.seen.as_ref().and_then(|seen| seen.record.as_ref());
        let mine = record.filter(|record| record.holder.as_ref() == Some(&self.me));
        Record {
            holder: Some(self.me.clone()),
            duration: self.timing.duration,
            acquired: mine.map_or(Some(now), |record| record.acquired),
            renewed: Some(now),
            transitions: match (record, mine) {
                (None, _) => 0,
                (Some(record), Some(_)) => record.transitions,
                (Some(record), None) => record.transitions.saturating_add(1),
            },
        }
    }
}

impl Seen {
    fn is_of(&self, who: &str) -> bool {
        let record = self.record.as_ref();
        record.is_some_and(|record| record.holder.as_deref() == Some(who))
    }
}

#[cfg(test)]
mod tests;
