//! The deadline set, case by case and by chance.

use proptest::prelude::*;

use super::super::super::{PresencePhase, PresenceValue};
use super::super::Said;
use super::*;

const TTL: u32 = 6;

fn at(start: Instant, seconds: f64) -> Instant {
    start + Duration::from_secs_f64(seconds)
}

fn seen(cell: &str, version: i64, epoch: i64) -> Sighting {
    let value = PresenceValue {
        cell_id: cell.into(),
        incarnation: "i".into(),
        ttl_seconds: TTL,
        phase: PresencePhase::Held,
        owner: "o".into(),
        holder: "h".into(),
        first_epoch: None,
        epoch_base: 0,
        epoch: Some(epoch),
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
    deadlines.relisted([&seen("a", 1, 1), &seen("b", 2, 2)], start);
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
    deadlines.relisted([&seen("a", 1, 1)], at(start, 7.0));
    deadlines.did_not_write();
    assert!(deadlines.is_over("a") && deadlines.has_ended("a"));
    deadlines.observe(&seen("a", 2, 1), at(start, 20.0));
    assert!(!deadlines.is_over("a") && !deadlines.has_ended("a"));
    // As another object it is another life, whatever its version.
    let mut again = seen("a", 2, 1);
    again.uid = "uid-2".into();
    deadlines.relisted([&again], at(start, 21.0));
    assert!(!deadlines.is_over("a"));
}

#[test]
fn after_an_outage_everybody_has_a_full_ttl() {
    let start = Instant::now();
    let mut deadlines = Deadlines::default();
    deadlines.observe(&seen("a", 1, 1), start);
    well(&mut deadlines, start, 0, 2);
    deadlines.did_not_write();
    assert_eq!(deadlines.next(), None);
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
    deadlines.relisted([&seen("a", 1, 1)], at(start, 5.0));
    well(&mut deadlines, start, 6, 10);
    assert!(!deadlines.is_over("a") && !deadlines.is_over("gone"));
    well(&mut deadlines, start, 11, 11);
    assert!(deadlines.is_over("a"));
    assert!(!deadlines.is_over("gone"), "there is no such Lease");
}

#[test]
fn a_lease_that_is_gone_is_nobodys_deadline() {
    let start = Instant::now();
    let mut deadlines = Deadlines::default();
    well(&mut deadlines, start, 0, 0);
    deadlines.observe(&seen("a", 5, 1), start);
    deadlines.gone("a", 4);
    assert!(deadlines.next().is_some(), "an older life of it went");
    deadlines.gone("a", 6);
    assert_eq!(deadlines.next(), None);
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
    DidNotWrite,
    End(u8),
}

fn events() -> impl Strategy<Value = Vec<(f64, Event)>> {
    let event = prop_oneof![
        4 => (0..3u8).prop_map(Event::Renew),
        1 => Just(Event::List),
        8 => Just(Event::Wrote),
        1 => Just(Event::DidNotWrite),
        4 => (0..3u8).prop_map(Event::End),
    ];
    proptest::collection::vec((0.0..2.0f64, event), 1..120)
}

proptest! {
    /// Whoever is told to be over was silent for a full TTL, in which every write of ours went through, none was missing
    /// for long, and the last of which was sent after that TTL.
    #[test]
    fn nobody_is_over_who_may_live(events in events()) {
        let start = Instant::now();
        let ttl = f64::from(TTL);
        let mut deadlines = Deadlines::default();
        let mut versions = [1i64, 2, 3];
        let mut version = 3;
        let mut changed = [0.0f64; 3];
        let mut ended = [false; 3];
        let list = |versions: [i64; 3]| -> Vec<Sighting> {
            (0..3).map(|n| seen(&format!("c{n}"), versions[n], 1)).collect()
        };
        deadlines.relisted(&list(versions), start);
        let (mut now, mut writes, mut unwell, mut listed) = (0.0, Vec::new(), 0.0, 0.0);
        for (pause, event) in events {
            now += pause;
            match event {
                Event::Renew(n) => {
                    version += 1;
                    let n = usize::from(n);
                    (versions[n], changed[n], ended[n]) = (version, now, false);
                    deadlines.observe(&seen(&format!("c{n}"), version, 1), at(start, now));
                }
                Event::List => {
                    listed = now;
                    deadlines.relisted(&list(versions), at(start, now));
                }
                Event::Wrote => {
                    if writes.last().is_some_and(|last| now - last > ttl * GAP) {
                        unwell = now;
                    }
                    writes.push(now);
                    deadlines.wrote(at(start, now), at(start, now));
                }
                Event::DidNotWrite => {
                    unwell = now;
                    deadlines.did_not_write();
                }
                Event::End(n) => {
                    let cell = format!("c{n}");
                    let n = usize::from(n);
                    if deadlines.end(&cell) {
                        prop_assert!(!ended[n], "told twice");
                        ended[n] = true;
                        let last = *writes.last().expect("a write went through");
                        let since = changed[n].max(unwell).max(listed);
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
