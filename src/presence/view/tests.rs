//! The view against tables, and against random histories of a store.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::{PresencePhase, PresenceValue};
use super::*;

const STORE: u64 = 7;

fn presence(cell: &str, epoch: i64) -> Presence {
    valued(cell, epoch, PresencePhase::Held)
}

fn valued(cell: &str, epoch: i64, phase: PresencePhase) -> Presence {
    let value = PresenceValue {
        cell_id: cell.into(),
        incarnation: "i".into(),
        ttl: std::time::Duration::from_secs(5),
        phase,
        owner: String::new(),
        holder: String::new(),
        first_epoch: None,
        epoch_base: 0,
        epoch: None,
        fence: false,
    };
    Presence {
        cell: cell.into(),
        epoch,
        value: Some(value),
    }
}

/// The events in short: `+cell@epoch`, `-cell@epoch`, `synced`, `reset`.
fn short(events: &[PresenceEvent]) -> String {
    let words: Vec<String> = events
        .iter()
        .map(|event| match event {
            PresenceEvent::Held(now) => format!("+{}@{}", now.cell, now.epoch),
            PresenceEvent::Gone(departure) => {
                format!("-{}@{}", departure.last.cell, departure.last.epoch)
            }
            PresenceEvent::Synced { reset: false, .. } => "synced".into(),
            PresenceEvent::Synced { reset: true, .. } => "reset".into(),
            other => panic!("the view does not make {other:?}"),
        })
        .collect();
    words.join(" ")
}

/// A view that has listed a@10 and b@20 at revision 30.
fn listed(at: Instant) -> View {
    let mut view = View::new();
    let events = view.relist(vec![presence("a", 10), presence("b", 20)], 30, STORE, at);
    assert_eq!(short(&events), "+a@10 +b@20 synced");
    view
}

#[test]
fn the_first_list_has_no_departures_and_an_empty_one_none_either() {
    let at = Instant::now();
    assert_eq!(
        short(&View::new().relist(Vec::new(), 1, STORE, at)),
        "synced"
    );
    listed(at);
}

#[test]
fn a_second_list_is_told_as_the_changes_that_lead_to_it() {
    let at = Instant::now();
    let table = [
        (vec![presence("a", 10), presence("b", 20)], "synced"),
        (vec![presence("b", 20)], "-a@10 synced"),
        (vec![], "-a@10 -b@20 synced"),
        (
            vec![presence("a", 10), presence("b", 31)],
            "-b@20 +b@31 synced",
        ),
        (
            vec![presence("a", 10), presence("b", 20), presence("c", 31)],
            "+c@31 synced",
        ),
        (
            vec![valued("a", 10, PresencePhase::Draining), presence("b", 20)],
            "+a@10 synced",
        ),
    ];
    for (list, expected) in table {
        let events = listed(at).relist(list, 40, STORE, at);
        assert_eq!(short(&events), expected);
        for event in events {
            if let PresenceEvent::Gone(departure) = event {
                assert_eq!((departure.notice, departure.at), (Notice::Relist, at));
            }
        }
    }
}

#[test]
fn a_store_that_is_another_one_takes_nobody_away() {
    let at = Instant::now();
    let back = listed(at).relist(vec![], 29, STORE, at);
    assert_eq!(short(&back), "reset", "its revision went back");
    let other = listed(at).relist(vec![presence("b", 20)], 40, STORE + 1, at);
    assert_eq!(short(&other), "+b@20 reset", "its cluster id changed");
    let lower = listed(at).relist(vec![presence("b", 3)], 40, STORE, at);
    assert_eq!(short(&lower), "+b@3 reset", "an epoch went back");

    let mut view = listed(at);
    view.relist(vec![], 2, STORE, at);
    assert_eq!(
        short(&view.relist(vec![presence("a", 3)], 4, STORE, at)),
        "+a@3 synced",
        "from then on the new store counts, and those it never held are not lost by it"
    );
}

#[test]
fn a_watch_that_went_further_than_a_list_shows_that_the_store_went_back() {
    let at = Instant::now();
    let mut view = listed(at);
    view.put(presence("c", 50), 50, at);
    assert_eq!(
        short(&view.relist(vec![presence("a", 10)], 45, STORE, at)),
        "+a@10 reset"
    );
}

#[test]
fn changes_are_told_once_and_old_ones_not_at_all() {
    let at = Instant::now();
    let mut view = listed(at);
    assert_eq!(
        short(&view.put(presence("a", 10), 25, at)),
        "",
        "before the list"
    );
    assert_eq!(short(&view.delete("a", None, 30, at)), "", "in the list");
    assert_eq!(
        short(&view.delete("z", Some(presence("z", 9)), 30, at)),
        "",
        "gone when the list was made, so never held since"
    );
    assert_eq!(short(&view.put(presence("c", 31), 31, at)), "+c@31");
    assert_eq!(
        short(&view.put(presence("c", 31), 31, at)),
        "",
        "delivered twice"
    );
    assert_eq!(
        short(&view.put(presence("c", 31), 32, at)),
        "",
        "written, not changed"
    );
    assert_eq!(
        short(&view.put(valued("c", 31, PresencePhase::Draining), 33, at)),
        "+c@31"
    );
    assert_eq!(short(&view.delete("c", None, 34, at)), "-c@31");
    assert_eq!(
        short(&view.delete("c", None, 34, at)),
        "",
        "delivered twice"
    );
    assert_eq!(
        short(&view.put(presence("c", 31), 32, at)),
        "",
        "late: it is gone"
    );
    assert_eq!(short(&view.put(presence("c", 35), 35, at)), "+c@35");
}

#[test]
fn the_last_value_of_a_departure_is_the_stores_or_else_the_last_known() {
    let at = Instant::now();
    let phase = |events: Vec<PresenceEvent>| match &events[..] {
        [PresenceEvent::Gone(departure)] => {
            assert_eq!((departure.notice, departure.at), (Notice::Watch, at));
            departure.last.phase()
        }
        other => panic!("not one departure: {other:?}"),
    };
    let prev = valued("a", 10, PresencePhase::Draining);
    assert_eq!(
        phase(listed(at).delete("a", Some(prev), 31, at)),
        PresencePhase::Draining
    );
    assert_eq!(
        phase(listed(at).delete("a", None, 31, at)),
        PresencePhase::Held
    );
}

#[test]
fn a_life_that_began_and_ended_unseen_is_told_too() {
    let at = Instant::now();
    let mut view = listed(at);
    assert_eq!(short(&view.put(presence("a", 33), 33, at)), "-a@10 +a@33");
    assert_eq!(
        short(&view.delete("b", Some(presence("b", 34)), 35, at)),
        "-b@20 -b@34"
    );
    assert_eq!(
        short(&view.delete("c", Some(presence("c", 36)), 37, at)),
        "-c@36"
    );
    assert_eq!(
        short(&view.delete("d", None, 38, at)),
        "",
        "never heard of it"
    );
}

/// Its key was deleted by somebody, or it was judged lost by another controller: its containers live on.
#[test]
fn a_life_that_registers_again_is_no_departure() {
    let at = Instant::now();
    let again = |first, incarnation: &str| {
        let mut now = presence("a", 33);
        let value = now.value.as_mut().expect("it has one");
        (value.first_epoch, value.incarnation) = (Some(first), incarnation.into());
        now
    };
    assert_eq!(short(&listed(at).put(again(10, "i"), 33, at)), "+a@33");
    assert_eq!(
        short(&listed(at).put(again(11, "i"), 33, at)),
        "-a@10 +a@33"
    );
    assert_eq!(
        short(&listed(at).put(again(10, "j"), 33, at)),
        "-a@10 +a@33"
    );
}

#[test]
fn a_value_that_can_not_be_read_is_a_presence_all_the_same() {
    let at = Instant::now();
    let mut view = listed(at);
    let unknown = Presence {
        value: None,
        ..presence("a", 10)
    };
    assert_eq!(short(&view.put(unknown.clone(), 31, at)), "+a@10");
    assert_eq!(
        short(&view.relist(vec![unknown.clone(), presence("b", 20)], 40, STORE, at)),
        "synced"
    );
    assert_eq!(view.get("a"), Some(&unknown));
    assert_eq!(unknown.phase(), PresencePhase::Held);
}

/// One change of a store, which stamps it with the next revision.
#[derive(Debug, Clone)]
enum Change {
    Put(usize, PresencePhase),
    Delete(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let phase = prop_oneof![Just(PresencePhase::Held), Just(PresencePhase::Draining)];
    prop_oneof![
        (0..4_usize, phase).prop_map(|(cell, phase)| Change::Put(cell, phase)),
        (0..4_usize).prop_map(Change::Delete),
    ]
}

/// What a watch delivers of one change.
#[derive(Debug, Clone)]
enum Delivery {
    Put(Presence, i64),
    Delete(String, Presence, i64),
}

/// Plays changes on a store that begins at `revision`; gives what a watch would deliver, and what is there then.
fn play(
    held: &mut BTreeMap<String, Presence>,
    revision: &mut i64,
    changes: &[Change],
) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for change in changes {
        match change {
            Change::Put(cell, phase) => {
                *revision += 1;
                let cell = format!("cell-{cell}");
                let epoch = held.get(&cell).map_or(*revision, |known| known.epoch);
                let now = valued(&cell, epoch, *phase);
                held.insert(cell, now.clone());
                deliveries.push(Delivery::Put(now, *revision));
            }
            Change::Delete(cell) => {
                let cell = format!("cell-{cell}");
                if let Some(last) = held.remove(&cell) {
                    *revision += 1;
                    deliveries.push(Delivery::Delete(cell, last, *revision));
                }
            }
        }
    }
    deliveries
}

fn deliver(view: &mut View, delivery: Delivery, at: Instant) -> Vec<PresenceEvent> {
    match delivery {
        Delivery::Put(now, revision) => view.put(now, revision, at),
        Delivery::Delete(cell, prev, revision) => view.delete(&cell, Some(prev), revision, at),
    }
}

/// Checks the events against the rule that a listener keeps by them: after `events` it believes `held`.
#[derive(Debug, Default)]
struct Listener {
    held: BTreeMap<String, Presence>,
    departed: Vec<(String, i64)>,
}

impl Listener {
    fn hear(&mut self, events: &[PresenceEvent]) {
        for event in events {
            match event {
                PresenceEvent::Held(now) => {
                    self.held.insert(now.cell.clone(), now.clone());
                }
                PresenceEvent::Gone(Departure { last, .. }) => {
                    self.held.remove(&last.cell);
                    self.departed.push((last.cell.clone(), last.epoch));
                }
                PresenceEvent::Synced { reset, .. } => assert!(!reset, "the store never went back"),
                other => panic!("the view does not make {other:?}"),
            }
        }
    }
}

proptest! {
    /// Whatever of the news is lost, doubled or out of order: the next list ends in the store's own state, and a
    /// listener that only hears the events believes the same.
    #[test]
    fn a_list_makes_good_whatever_was_lost(
        before in prop::collection::vec(change(), 0..20),
        unheard in prop::collection::vec(change(), 0..20),
        heard in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
    ) {
        let at = Instant::now();
        let (mut store, mut revision) = (BTreeMap::new(), 1);
        let (mut view, mut listener) = (View::new(), Listener::default());
        play(&mut store, &mut revision, &before);
        listener.hear(&view.relist(store.values().cloned().collect(), revision, STORE, at));
        prop_assert_eq!(&listener.held, &store);

        let deliveries = play(&mut store, &mut revision, &unheard);
        if !deliveries.is_empty() {
            for index in heard {
                listener.hear(&deliver(&mut view, index.get(&deliveries).clone(), at));
            }
        }
        let told = listener.departed.len();
        let events = view.relist(store.values().cloned().collect(), revision, STORE, at);
        listener.hear(&events);
        prop_assert_eq!(&listener.held, &store);
        prop_assert_eq!(view.present().cloned().collect::<Vec<_>>(), store.values().cloned().collect::<Vec<_>>());
        for (cell, epoch) in &listener.departed[told..] {
            prop_assert!(store.get(cell).is_none_or(|now| now.epoch != *epoch), "{} is in the list", cell);
        }
    }

    /// Delivered in order and completely, every end of a life is told exactly once, and a list adds nothing.
    #[test]
    fn a_complete_watch_tells_every_departure_once(changes in prop::collection::vec(change(), 0..40)) {
        let at = Instant::now();
        let (mut store, mut revision) = (BTreeMap::new(), 1);
        let (mut view, mut listener) = (View::new(), Listener::default());
        listener.hear(&view.relist(Vec::new(), revision, STORE, at));
        let deliveries = play(&mut store, &mut revision, &changes);
        let expected: Vec<(String, i64)> = deliveries
            .iter()
            .filter_map(|delivery| match delivery {
                Delivery::Delete(cell, last, _) => Some((cell.clone(), last.epoch)),
                Delivery::Put(..) => None,
            })
            .collect();
        for delivery in deliveries {
            listener.hear(&deliver(&mut view, delivery, at));
        }
        prop_assert_eq!(&listener.departed, &expected);
        prop_assert_eq!(&listener.held, &store);
        let events = view.relist(store.values().cloned().collect(), revision, STORE, at);
        prop_assert_eq!(short(&events), "synced");
    }

    /// A departure of a Cell is never told while a newer life of it is already believed.
    #[test]
    fn no_order_of_delivery_takes_the_view_back(
        changes in prop::collection::vec(change(), 1..30),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let at = Instant::now();
        let (mut store, mut revision) = (BTreeMap::new(), 1);
        let mut view = View::new();
        view.relist(Vec::new(), revision, STORE, at);
        let deliveries = play(&mut store, &mut revision, &changes);
        let mut newest: BTreeMap<String, i64> = BTreeMap::new();
        for index in order {
            if deliveries.is_empty() {
                break;
            }
            for event in deliver(&mut view, index.get(&deliveries).clone(), at) {
                if let PresenceEvent::Held(now) = event {
                    let known = newest.insert(now.cell.clone(), now.epoch);
                    prop_assert!(known.is_none_or(|known| known <= now.epoch));
                }
            }
        }
    }
}

#[test]
fn a_last_word_ends_a_presence_once() {
    let at = Instant::now();
    let mut view = listed(at);
    let dead = |epoch| valued("a", epoch, PresencePhase::Dead);
    assert_eq!(
        short(&view.end(dead(10), 30, at)),
        "",
        "older than the list"
    );
    let events = view.end(dead(10), 31, at);
    assert!(
        matches!(&events[..], [PresenceEvent::Gone(gone)] if gone.last.phase() == PresencePhase::Dead)
    );
    assert_eq!(short(&view.end(dead(10), 31, at)), "", "told");
    assert_eq!(short(&view.delete("a", None, 32, at)), "", "told");
    // Registered again, and the registration was not delivered.
    let mut view = listed(at);
    assert_eq!(short(&view.end(dead(11), 31, at)), "-a@10 -a@11");
    assert_eq!(short(&view.put(presence("a", 12), 33, at)), "+a@12");
}
