//! The deadline set, case by case and by chance.

use proptest::prelude::*;

use super::super::super::{PresencePhase, PresenceValue};
use super::super::Said;
use super::*;

const TTL: f64 = 6.0;

fn at(start: Instant, seconds: f64) -> Instant {
    start + Duration::from_secs_f64(seconds)
}

fn seen(cell: &str, version: i64, epoch: i64) -> Sighting {
    lasting(cell, version, epoch, TTL)
}

fn lasting(cell: &str, version: i64, epoch: i64, ttl_seconds: f64) -> Sighting {
    let value = PresenceValue {
        cell_id: cell.into(),
        incarnation: "i".into(),
        ttl: Duration::from_secs_f64(ttl_seconds),
        phase: PresencePhase::Held,
        owner: "o".into(),
        holder: "h".into(),
        first_epoch: None,
        epoch_base: 0,
        epoch: Some(epoch),
        fence: false,
    };
    Sighting {
        cell: cell.into(),
        uid: "uid-1".into(),
        version,
        said: Said::Value(value, epoch),
    }
}

/// Writes of ours went through once a second, from `from` to `to`.
fn well(deadlines: &mut Deadlines, start: Instant, from: u32, to: u32) {
    for second in from..=to {
        let sent = at(start, second.into());
        deadlines.wrote(sent, sent);
    }
}

#[test]
fn a_lease_that_does_not_change_is_over_after_a_full_ttl_and_one_that_does_is_not() {
    let start = Instant::now();
    let mut deadlines = Deadlines::default();
    deadlines.relisted([&seen("a", 1, 1), &seen("b", 2, 2)], 100, start);
    well(&mut deadlines, start, 0, 5);
    assert_eq!(deadlines.next(), Some(at(start, 6.0)));
    deadlines.observe(&seen("b", 3, 2), at(start, 5.0));
    assert_eq!(deadlines.due(at(start, 5.9)), Vec::<String>::new());
    assert_eq!(deadlines.due(at(start, 6.0)), ["a"]);
    assert!(!deadlines.is_over("a"), "nothing was written since");
    well(&mut deadlines, start, 6, 6);
    assert!(deadlines.is_over("a") && !deadlines.is_over("b"));
    assert!(deadlines.end("a") && !deadlines.end("a") && !deadlines.end("b"));
    assert_eq!(deadlines.next(), Some(at(start, 11.0)), "b is next");
}

#[test]
fn what_is_old_does_not_move_a_deadline() {
    let start = Instant::now();
    let mut deadlines = Deadlines::default();
    deadlines.observe(&seen("a", 5, 1), start);
    deadlines.observe(&seen("a", 5, 1), at(start, 3.0));
    deadlines.observe(&seen("a", 4, 1), at(start, 3.0));
    well(&mut deadlines, start, 0, 6);
    // The first write postpones nothing: the deadline was set in the same instant.
    assert!(deadlines.is_over("a"));
}

#[test]
fn the_dead_stay_dead_over_a_list_and_an_outage_until_their_lease_changes() {
    let start = Instant::now();
    let mut deadlines = Deadlines::default();
    deadlines.observe(&seen("a", 1, 1), start);
    well(&mut deadlines, start, 0, 6);
    assert!(deadlines.end("a"));
    deadlines.relisted([&seen("a", 1, 1)], 100, at(start, 7.0));
    assert!(deadlines.is_over("a") && deadlines.has_ended("a"));
    deadlines.observe(&seen("a", 2, 1), at(start, 20.0));
    assert!(!deadlines.is_over("a") && !deadlines.has_ended("a"));
    // As another object it is another life, whatever its version.
    let mut again = seen("a", 2, 1);
    again.uid = "uid-2".into();
    deadlines.relisted([&again], 100, at(start, 21.0));
    assert!(!deadlines.is_over("a"));
}

#[test]
fn after_an_outage_everybody_has_a_full_ttl() {
    let start = Instant::now();
    let mut deadlines = Deadlines::default();
    deadlines.observe(&seen("a", 1, 1), start);
    assert_eq!(deadlines.next(), None, "nothing was ever written");
    well(&mut deadlines, start, 0, 2);
    assert!(!deadlines.end("a"));
    assert!(deadlines.wrote(at(start, 100.0), at(start, 100.5)));
    assert_eq!(deadlines.next(), Some(at(start, 106.5)));
    well(&mut deadlines, start, 101, 106);
    assert!(!deadlines.is_over("a"));
    well(&mut deadlines, start, 107, 107);
    assert!(deadlines.is_over("a"));
}

/// This process was frozen, so nobody knows whether the store was well meanwhile.
#[test]
fn a_gap_between_writes_is_an_outage() {
    let start = Instant::now();
    let mut deadlines = Deadlines::default();
    deadlines.observe(&seen("a", 1, 1), start);
    well(&mut deadlines, start, 0, 2);
    assert!(deadlines.wrote(at(start, 60.0), at(start, 60.0)));
    assert!(!deadlines.is_over("a"));
    assert_eq!(deadlines.next(), Some(at(start, 66.0)));
}

#[test]
fn a_list_gives_everybody_a_full_ttl() {
    let start = Instant::now();
    let mut deadlines = Deadlines::default();
    deadlines.observe(&seen("a", 1, 1), start);
    deadlines.observe(&seen("gone", 2, 2), start);
    well(&mut deadlines, start, 0, 5);
    deadlines.relisted([&seen("a", 1, 1)], 100, at(start, 5.0));
    well(&mut deadlines, start, 6, 10);
    assert!(!deadlines.is_over("a") && !deadlines.is_over("gone"));
    assert_eq!(deadlines.live().count(), 2, "one without its Lease");
    well(&mut deadlines, start, 11, 11);
    assert!(deadlines.is_over("a") && deadlines.is_over("gone"));
    assert!(deadlines.end("gone"));
    deadlines.relisted([&seen("a", 1, 1)], 101, at(start, 12.0));
    assert!(!deadlines.has_ended("gone"), "forgotten");
}

fn phased(mut seen: Sighting, phase: PresencePhase) -> Sighting {
    if let Said::Value(value, _) = &mut seen.said {
        value.phase = phase;
    }
    seen
}

#[test]
fn a_lease_that_was_given_back_is_nobodys_deadline() {
    for phase in [PresencePhase::Released, PresencePhase::Restarting] {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        well(&mut deadlines, start, 0, 0);
        deadlines.observe(&phased(seen("a", 5, 1), phase), start);
        assert!(deadlines.deleted(&phased(seen("a", 6, 1), phase), start));
        assert_eq!(deadlines.next(), None, "{phase:?}");
        assert_eq!(deadlines.unannounced("a"), None);
    }
}

#[test]
fn a_deleted_lease_is_silence_until_its_rep_makes_it_anew() {
    for phase in [PresencePhase::Held, PresencePhase::Draining] {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        well(&mut deadlines, start, 0, 1);
        deadlines.observe(&phased(seen("a", 5, 1), phase), at(start, 1.0));
        let deleted = phased(seen("a", 6, 1), phase);
        assert!(!deadlines.deleted(&deleted, at(start, 2.0)), "{phase:?}");
        assert_eq!(deadlines.next(), Some(at(start, 7.0)), "it runs on");
        assert_eq!(deadlines.unannounced("a").map(|now| now.epoch), Some(1));
        // Made, which is nobody's sign of life, and registered, which is.
        let mut made = seen("a", 7, 7);
        (made.uid, made.said) = ("uid-2".into(), Said::Nothing);
        deadlines.observe(&made, at(start, 3.0));
        assert_eq!(deadlines.next(), Some(at(start, 7.0)));
        let presence = deadlines.presence(&made).expect("it is not over");
        assert_eq!(presence.epoch, 1);
        let mut again = seen("a", 8, 7);
        again.uid = "uid-2".into();
        deadlines.observe(&again, at(start, 4.0));
        assert_eq!(deadlines.next(), Some(at(start, 10.0)));
        assert_eq!(deadlines.unannounced("a").map(|now| now.epoch), Some(7));
    }
}

#[test]
fn who_does_not_make_its_deleted_lease_anew_is_over_with_its_deadline() {
    let start = Instant::now();
    let mut deadlines = Deadlines::default();
    deadlines.observe(&seen("a", 5, 1), start);
    assert!(!deadlines.deleted(&seen("a", 6, 1), at(start, 1.0)));
    well(&mut deadlines, start, 0, 6);
    deadlines.not_found("a", at(start, 6.0));
    assert!(deadlines.end("a") && !deadlines.end("a"));
    assert_eq!(deadlines.unannounced("a"), None);
    // A new life of it.
    deadlines.observe(&seen("a", 9, 9), at(start, 8.0));
    assert!(!deadlines.has_ended("a"));
}

/// The watch will tell whether it was given back.
#[test]
fn a_lease_that_a_read_does_not_find_is_waited_for_until_the_watch_told() {
    let start = Instant::now();
    let mut deadlines = Deadlines::default();
    deadlines.observe(&seen("a", 5, 1), start);
    well(&mut deadlines, start, 0, 6);
    deadlines.not_found("a", at(start, 6.0));
    assert!(!deadlines.end("a"));
    let released = phased(seen("a", 7, 1), PresencePhase::Released);
    assert!(deadlines.deleted(&released, at(start, 6.5)));
    assert_eq!(deadlines.next(), None);
}

#[test]
fn a_value_that_vanished_can_not_be_read() {
    let start = Instant::now();
    let mut deadlines = Deadlines::default();
    deadlines.observe(&seen("a", 5, 3), start);
    let mut vanished = seen("a", 6, 3);
    vanished.said = Said::Nothing;
    deadlines.observe(&vanished, start);
    for _ in 0..2 {
        let presence = deadlines.presence(&vanished).expect("present");
        assert_eq!((presence.epoch, presence.value), (3, None));
        vanished.version += 1;
        deadlines.observe(&vanished, start);
    }
    vanished.cell = "never-registered".into();
    deadlines.observe(&vanished, start);
    assert_eq!(deadlines.presence(&vanished), None);
}

/// The pace of the writes does for everybody but the one whose TTL is too short for it.
#[test]
fn a_cell_with_a_short_ttl_switches_the_detection_off_for_nobody() {
    let start = Instant::now();
    let mut deadlines = Deadlines::default();
    deadlines.observe(&lasting("hasty", 1, 1, 1.0), start);
    deadlines.observe(&seen("dead", 2, 2), start);
    assert_eq!(deadlines.shortest_ttl(), Duration::from_secs(1));
    for second in [0.0, 3.0, 6.0, 9.0] {
        deadlines.observe(
            &lasting("hasty", 10 + second as i64, 1, 1.0),
            at(start, second),
        );
        deadlines.wrote(at(start, second), at(start, second));
    }
    assert!(deadlines.end("dead"), "three writes in its TTL");
    assert!(!deadlines.is_over("hasty"));
}

/// A single write that failed, or was not answered in time, is no outage.
#[test]
fn writes_that_went_through_in_time_bridge_one_that_did_not() {
    let start = Instant::now();
    let mut deadlines = Deadlines::default();
    deadlines.observe(&seen("a", 1, 1), start);
    // The one at 4 s failed.
    for second in [0.0, 2.0, 5.5, 6.5] {
        deadlines.wrote(at(start, second), at(start, second + 0.1));
    }
    assert!(deadlines.end("a"));
}

/// Found by chance: the gap before the write at 3.8 s is too long, those after it are not.
#[test]
fn a_gap_moves_a_deadline_once() {
    let start = Instant::now();
    let mut deadlines = Deadlines::default();
    deadlines.observe(&seen("a", 1, 1), start);
    for (second, moved) in [(0.0, true), (3.8, true), (6.9, false)] {
        let sent = at(start, second);
        assert_eq!(deadlines.wrote(sent, sent), moved, "{second}");
    }
    assert!(!deadlines.end("a"));
    deadlines.wrote(at(start, 10.0), at(start, 10.0));
    assert!(deadlines.end("a"));
}

#[test]
fn a_value_that_can_not_be_read_keeps_the_epoch_it_had() {
    let start = Instant::now();
    let mut deadlines = Deadlines::default();
    deadlines.observe(&seen("a", 5, 3), start);
    let mut damaged = seen("a", 6, 3);
    damaged.said = Said::Unreadable;
    deadlines.observe(&damaged, start);
    damaged.version = 7;
    let presence = deadlines.presence(&damaged).expect("present");
    assert_eq!((presence.epoch, presence.value), (3, None));
    damaged.cell = "never-seen".into();
    let presence = deadlines.presence(&damaged).expect("present");
    assert_eq!(presence.epoch, 7);
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Renew(u8),
    List,
    Wrote,
    Delete(u8),
    End(u8),
}

fn events() -> impl Strategy<Value = Vec<(f64, Event)>> {
    let event = prop_oneof![
        4 => (0..3u8).prop_map(Event::Renew),
        1 => Just(Event::List),
        8 => Just(Event::Wrote),
        1 => (0..3u8).prop_map(Event::Delete),
        4 => (0..3u8).prop_map(Event::End),
    ];
    proptest::collection::vec((0.0..2.0f64, event), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// Whoever is told to be over was silent for a full TTL, in which no write of ours was missing for long, and after
    /// which the last one was sent. That its Lease was deleted meanwhile makes no difference.
    #[test]
    fn nobody_is_over_who_may_live(events in events()) {
        let start = Instant::now();
        let ttls = [TTL, 3.0, 0.5];
        let mut deadlines = Deadlines::default();
        let mut versions = [1i64, 2, 3];
        let mut version = 3;
        let mut changed = [0.0f64; 3];
        let (mut ended, mut there) = ([false; 3], [true; 3]);
        let list = |versions: [i64; 3], there: [bool; 3]| -> Vec<Sighting> {
            let there = (0..3).filter(|n| there[*n]);
            there.map(|n| lasting(&format!("c{n}"), versions[n], 1, ttls[n])).collect()
        };
        deadlines.relisted(&list(versions, there), version, start);
        let (mut now, mut writes, mut unwell, mut listed) = (0.0, Vec::new(), [0.0; 3], 0.0);
        for (pause, event) in events {
            now += pause;
            match event {
                Event::Renew(n) => {
                    version += 1;
                    let n = usize::from(n);
                    (versions[n], changed[n], ended[n], there[n]) = (version, now, false, true);
                    deadlines.observe(&lasting(&format!("c{n}"), version, 1, ttls[n]), at(start, now));
                }
                Event::Delete(n) => {
                    version += 1;
                    let n = usize::from(n);
                    if there[n] && !ended[n] {
                        there[n] = false;
                        let last = lasting(&format!("c{n}"), version, 1, ttls[n]);
                        prop_assert!(!deadlines.deleted(&last, at(start, now)));
                    }
                }
                Event::List => {
                    listed = now;
                    deadlines.relisted(&list(versions, there), version, at(start, now));
                    // Without a Lease, the dead are forgotten.
                    (0..3).for_each(|n| ended[n] &= there[n]);
                }
                Event::Wrote => {
                    for n in 0..3 {
                        if writes.last().is_some_and(|last| now - last > ttls[n] * GAP) {
                            unwell[n] = now;
                        }
                    }
                    writes.push(now);
                    deadlines.wrote(at(start, now), at(start, now));
                }
                Event::End(n) => {
                    let cell = format!("c{n}");
                    let n = usize::from(n);
                    let ttl = ttls[n];
                    if deadlines.end(&cell) {
                        prop_assert!(!ended[n], "told twice");
                        ended[n] = true;
                        let last = *writes.last().expect("a write went through");
                        let since = changed[n].max(unwell[n]).max(listed);
                        prop_assert!(last + 1e-6 >= since + ttl, "{last} is less than a TTL after {since}");
                        let window: Vec<f64> = writes.iter().copied().filter(|at| *at >= since).collect();
                        let gaps = window.windows(2).all(|two| two[1] - two[0] <= ttl * GAP + 1e-6);
                        prop_assert!(gaps, "writes were missing: {window:?}");
                    }
                    prop_assert_eq!(deadlines.has_ended(&cell), ended[n]);
                }
            }
        }
    }
}

#[test]
fn what_the_watch_told_is_fresh_for_half_of_the_shortest_ttl() {
    let (start, mut deadlines) = (Instant::now(), Deadlines::default());
    deadlines.relisted([&seen("a", 1, 1), &seen("b", 2, 2)], 100, start);
    assert!(!deadlines.is_fresh(start), "a list alone is no watch");
    deadlines.watched(start);
    deadlines.observe(&seen("b", 3, 2), at(start, 2.9));
    assert!(deadlines.is_fresh(at(start, 2.9)));
    assert!(!deadlines.is_fresh(at(start, 3.1)));
    // And then it says who is late.
    deadlines.watched(at(start, 4.0));
    assert!(deadlines.is_fresh(at(start, 4.0)));
    let late: Vec<&str> = deadlines.overdue(at(start, 4.0)).collect();
    assert_eq!(late, ["a"]);
}

#[test]
fn what_is_proven_to_be_dead_is_over_at_once_until_another_registers() {
    let dead = |version, epoch| {
        let mut seen = seen("a", version, epoch);
        if let Said::Value(value, _) = &mut seen.said {
            value.phase = PresencePhase::Dead;
        }
        seen
    };
    let (start, mut deadlines) = (Instant::now(), Deadlines::default());
    deadlines.relisted([&seen("a", 1, 1), &seen("b", 2, 2)], 100, start);
    // Without any write of ours: no clock has a part in it.
    deadlines.observe(&dead(3, 1), start);
    assert!(deadlines.is_over("a") && deadlines.has_ended("a"));
    let live: Vec<String> = deadlines.live().map(|presence| presence.cell).collect();
    assert_eq!(live, ["b"]);
    assert!(!deadlines.end("a"), "nothing to be told by the clock");
    // A renewal that was on its way, a new list, a deletion: it stays so.
    deadlines.observe(&dead(4, 1), start);
    deadlines.relisted([&dead(5, 1), &seen("b", 2, 2)], 101, start);
    assert!(deadlines.has_ended("a"));
    deadlines.observe(&seen("a", 6, 2), start);
    assert!(!deadlines.is_over("a"));
    deadlines.observe(&dead(7, 2), start);
    assert!(deadlines.deleted(&dead(8, 2), start));
    assert_eq!(deadlines.unannounced("a"), None);
}
