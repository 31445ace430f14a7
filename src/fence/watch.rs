//! When to fence, pure: what the deadline file said at each look, and the time, make the order of the moment.
//!
//! What can't be read changes nothing: a deadline that was known counts on, since a rep whose file went away may have died
//! with it. Only a rep that says so takes a deadline back.
//!
//! A Pod that was met while fencing may be replaced by then, so it is stopped whenever it starts something again.

use std::collections::BTreeSet;

use super::stamp::Deadline;
use crate::converge::fence::BootTime;

/// What the file said at one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// What a rep of this boot wrote.
    Deadline(Deadline),
    /// Nothing that counts, and why.
    Nothing(String),
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// There is no deadline.
    Idle,
    /// Look again at this time of the boot's clock at the latest.
    Wait(BootTime),
    /// Stop what must not run any more.
    Fence,
}

/// What is new, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// There was no deadline at the first look, and why.
    NotArmed(String),
    /// The first deadline, or one after it was taken back.
    Armed,
    /// The deadline was taken back.
    Disarmed,
    /// The deadline has passed.
    Fencing,
    /// It moves on after it had passed.
    MovedOn,
    /// A deadline was known, and can't be read any more, and why.
    Blind(String),
}

/// The memory between looks.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    deadline: Option<BootTime>,
    fencing: bool,
    blind: bool,
    looked: bool,
    /// The uids of the Pods that were met while fencing.
    met: BTreeSet<String>,
}

impl Watch {
    /// Takes one look at `now`.
    pub fn look(&mut self, said: Said, now: BootTime) -> (Order, Option<Change>) {
        let first = !std::mem::replace(&mut self.looked, true);
        let known = self.deadline;
        let unread = match said {
            Said::Deadline(Deadline::At(at)) => {
                self.deadline = Some(at);
                None
            }
            Said::Deadline(Deadline::Off) => {
                self.deadline = None;
                None
            }
            Said::Nothing(why) => Some(why),
        };
        let was_blind = std::mem::replace(&mut self.blind, unread.is_some());
        let order = match self.deadline {
            None => Order::Idle,
            Some(deadline) if now < deadline => Order::Wait(deadline),
            Some(_) => Order::Fence,
        };
        let was_fencing = std::mem::replace(&mut self.fencing, order == Order::Fence);
        let change = match (order, known, unread) {
            (Order::Fence, _, _) if !was_fencing => Some(Change::Fencing),
            (Order::Wait(_), _, _) if was_fencing => Some(Change::MovedOn),
            (Order::Wait(_), None, _) => Some(Change::Armed),
            (Order::Idle, Some(_), _) => Some(Change::Disarmed),
            (Order::Idle, None, Some(why)) if first => Some(Change::NotArmed(why)),
            (Order::Wait(_) | Order::Fence, Some(_), Some(why)) if !was_blind => {
                Some(Change::Blind(why))
            }
            (Order::Idle | Order::Wait(_) | Order::Fence, _, _) => None,
        };
        (order, change)
    }

    /// Remembers the Pods that there were while fencing; at any other time nothing.
    pub fn met<'a>(&mut self, uids: impl IntoIterator<Item = &'a str>) {
        if self.fencing {
            self.met.extend(uids.into_iter().map(ToOwned::to_owned));
        }
    }

    /// Whether there may be something to stop.
    pub fn stops_any(&self) -> bool {
        self.fencing || !self.met.is_empty()
    }

    /// Whether what this Pod runs is to be stopped.
    pub fn stops(&self, uid: &str) -> bool {
        self.fencing || self.met.contains(uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: f64) -> BootTime {
        BootTime::from_nanos((seconds * 1e9) as u64)
    }

    fn at(seconds: f64) -> Said {
        Said::Deadline(Deadline::At(s(seconds)))
    }

    fn nothing() -> Said {
        Said::Nothing("it does not exist".into())
    }

    #[test]
    fn without_a_deadline_nothing_is_stopped_and_that_is_said_once() {
        let mut watch = Watch::default();
        let (order, change) = watch.look(nothing(), s(1e6));
        assert_eq!(order, Order::Idle);
        assert_eq!(change, Some(Change::NotArmed("it does not exist".into())));
        assert_eq!(watch.look(nothing(), s(2e6)), (Order::Idle, None));
        let off = Said::Deadline(Deadline::Off);
        assert_eq!(watch.look(off, s(3e6)), (Order::Idle, None));
    }

    #[test]
    fn a_deadline_that_is_not_renewed_passes() {
        let mut watch = Watch::default();
        let armed = (Order::Wait(s(4.0)), Some(Change::Armed));
        assert_eq!(watch.look(at(4.0), s(0.0)), armed);
        assert_eq!(watch.look(at(5.6), s(1.6)), (Order::Wait(s(5.6)), None));
        assert_eq!(watch.look(at(5.6), s(5.599)), (Order::Wait(s(5.6)), None));
        let fencing = (Order::Fence, Some(Change::Fencing));
        assert_eq!(watch.look(at(5.6), s(5.6)), fencing);
        assert_eq!(watch.look(at(5.6), s(9.0)), (Order::Fence, None));
        let on = (Order::Wait(s(20.0)), Some(Change::MovedOn));
        assert_eq!(watch.look(at(20.0), s(16.0)), on);
    }

    /// The container was restarted, or came late: what the file says counts from the first look on.
    #[test]
    fn one_that_has_passed_at_the_first_look_is_acted_on() {
        let mut watch = Watch::default();
        let fencing = (Order::Fence, Some(Change::Fencing));
        assert_eq!(watch.look(at(4.0), s(100.0)), fencing);
    }

    #[test]
    fn a_file_that_goes_away_does_not_take_the_deadline_back() {
        let mut watch = Watch::default();
        watch.look(at(4.0), s(0.0));
        let blind = Some(Change::Blind("it does not exist".into()));
        assert_eq!(watch.look(nothing(), s(1.0)), (Order::Wait(s(4.0)), blind));
        assert_eq!(watch.look(nothing(), s(2.0)), (Order::Wait(s(4.0)), None));
        assert_eq!(watch.look(nothing(), s(4.0)).0, Order::Fence);
        assert_eq!(watch.look(nothing(), s(5.0)), (Order::Fence, None));
    }

    #[test]
    fn a_rep_that_hands_over_takes_it_back() {
        let mut watch = Watch::default();
        watch.look(at(4.0), s(0.0));
        let off = Said::Deadline(Deadline::Off);
        let disarmed = (Order::Idle, Some(Change::Disarmed));
        assert_eq!(watch.look(off.clone(), s(1.0)), disarmed);
        assert_eq!(watch.look(off, s(50.0)), (Order::Idle, None));
        // It was superseded, and holds the Cell again.
        let armed = (Order::Wait(s(64.0)), Some(Change::Armed));
        assert_eq!(watch.look(at(64.0), s(60.0)), armed);
    }

    #[test]
    fn what_was_met_while_fencing_is_stopped_for_good() {
        let mut watch = Watch::default();
        watch.look(at(4.0), s(0.0));
        watch.met(["before"]);
        assert!(!watch.stops_any() && !watch.stops("before"));
        watch.look(at(4.0), s(4.0));
        assert!(watch.stops("old") && watch.stops("before"));
        watch.met(["old"]);
        let off = Said::Deadline(Deadline::Off);
        for (said, now) in [(at(20.0), 16.0), (off, 17.0), (nothing(), 18.0)] {
            watch.look(said, s(now));
            watch.met(["new"]);
            assert!(watch.stops_any() && watch.stops("old"));
            assert!(!watch.stops("new") && !watch.stops("before"));
        }
    }

    #[test]
    fn also_while_it_is_stopping_pods() {
        let mut watch = Watch::default();
        watch.look(at(4.0), s(5.0));
        let off = Said::Deadline(Deadline::Off);
        let disarmed = (Order::Idle, Some(Change::Disarmed));
        assert_eq!(watch.look(off, s(6.0)), disarmed);
    }
}
