//! The rule as a table and as properties, and how each Cell comes to stand as it does.

use proptest::prelude::*;

use super::Standing::{Gone, Lost, Overdue, Whole};
use super::*;
use crate::api::{CellStatus, LastRecovery};
use crate::converge::fixtures;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// Zones of Cells, one letter each: `w`hole, `o`verdue, `g`one, `l`ost.
fn ruled(zones: &[&str], threshold: u32) -> Ruling {
    let names = ["z1", "z2", "z3", "z4"];
    let members = zones.iter().zip(names).flat_map(|(cells, zone)| {
        cells.chars().map(move |letter| Member {
            zone,
            standing: match letter {
                'w' => Whole,
                'o' => Overdue,
                'g' => Gone,
                'l' => Lost,
                other => panic!("{other}"),
            },
        })
    });
    rule(&members.collect::<Vec<_>>(), threshold)
}

fn hold(lost: usize, population: usize) -> Ruling {
    Ruling::Hold(Count { lost, population })
}

#[test]
fn the_table_of_rulings() {
    use Ruling::{Doubt, Pass};
    for (zones, threshold, expected) in [
        // One Cell, also the only one.
        (&["g"][..], 33, Pass),
        (&["gw"], 33, Pass),
        (&["g", "w", "w"], 1, Pass),
        // All, or nearly all.
        (&["gg"], 33, hold(2, 2)),
        (&["g", "g"], 33, hold(2, 2)),
        (&["gg", "gg"], 99, hold(4, 4)),
        (&["gg", "gw"], 33, hold(3, 4)),
        // Two of three in one zone, and in three.
        (&["ggw"], 33, hold(2, 3)),
        (&["g", "g", "w"], 33, hold(2, 3)),
        // A whole zone while another has Cells; and what is more than that.
        (&["gggg", "w"], 33, Pass),
        (&["ggww", "w"], 33, Pass),
        (&["gggg", "wwwg"], 33, hold(5, 8)),
        (&["gggg", "wwww", "wwwg"], 33, hold(5, 12)),
        // A third, wherever they stand.
        (&["gwwwww", "gwwwww", "ggwwww"], 33, Pass),
        (&["gww", "gww", "gww"], 33, Pass),
        (&["ggwww", "ggwww", "ggwww"], 40, Pass),
        (&["ggwww", "ggwww", "ggwww"], 39, hold(6, 15)),
        // Whoever was lost just before counts.
        (&["l", "g", "w"], 33, hold(2, 3)),
        (&["lg", "ww"], 33, Pass),
        // Others are late: that may be how a mass loss begins.
        (&["g", "o", "o"], 33, Doubt),
        (&["go", "ww"], 33, Pass),
        (&["gwww", "owww"], 33, Pass),
        (&["gw", "ow"], 33, Doubt),
        (&["g", "g", "o"], 33, hold(2, 3)),
        (&["o", "o"], 33, Doubt),
        // No guard.
        (&["gg", "gg"], OFF, Pass),
        (&["go", "oo"], OFF, Pass),
        (&[], 33, Pass),
    ] {
        assert_eq!(ruled(zones, threshold), expected, "{zones:?} {threshold}");
    }
}

fn members() -> impl Strategy<Value = Vec<Member<'static>>> {
    let standing = prop_oneof![Just(Whole), Just(Overdue), Just(Gone), Just(Lost)];
    let zone = prop_oneof![Just("z1"), Just("z2"), Just("z3")];
    let member = (zone, standing).prop_map(|(zone, standing)| Member { zone, standing });
    prop::collection::vec(member, 0..24)
}

fn is_gone(member: &Member<'_>) -> bool {
    matches!(member.standing, Gone | Lost)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn one_cell_is_never_held(members in members(), one: prop::sample::Index, threshold in 1..=100_u32) {
        prop_assume!(!members.is_empty());
        let mut members = members;
        members.iter_mut().for_each(|member| member.standing = Whole);
        let one = one.index(members.len());
        members[one].standing = Gone;
        prop_assert_eq!(rule(&members, threshold), Ruling::Pass);
    }

    #[test]
    fn all_of_several_never_pass(members in members(), threshold in 1..OFF) {
        prop_assume!(members.len() > 1);
        let mut members = members;
        members.iter_mut().filter(|it| !is_gone(it)).for_each(|it| it.standing = Gone);
        let count = Count { lost: members.len(), population: members.len() };
        prop_assert_eq!(rule(&members, threshold), Ruling::Hold(count));
    }

    #[test]
    fn a_zone_passes_while_another_is_whole(members in members(), threshold in 1..=100_u32) {
        let mut members = members;
        for member in &mut members {
            member.standing = if member.zone == "z1" { Gone } else { Whole };
        }
        prop_assume!(members.iter().any(|member| member.zone != "z1"));
        prop_assert_eq!(rule(&members, threshold), Ruling::Pass);
    }

    /// Whoever comes back only makes it better, and a greater threshold too.
    #[test]
    fn what_passes_still_passes_with_fewer_lost(
        members in members(),
        back: prop::sample::Index,
        threshold in 1..=100_u32,
        more in 0..100_u32,
    ) {
        prop_assume!(!members.is_empty());
        let before = rule(&members, threshold);
        let mut fewer = members.clone();
        fewer[back.index(members.len())].standing = Whole;
        let severity = |ruling| match ruling {
            Ruling::Pass => 0,
            Ruling::Doubt => 1,
            Ruling::Hold(_) => 2,
        };
        prop_assert!(severity(rule(&fewer, threshold)) <= severity(before));
        prop_assert!(severity(rule(&members, (threshold + more).min(OFF))) <= severity(before));
    }

    /// Held ones come back one by one: at the latest with the last but one, what is left passes.
    #[test]
    fn a_hold_ends_by_itself_when_cells_come_back(members in members(), threshold in 1..=100_u32) {
        let mut members = members;
        let lost: Vec<usize> = (0..members.len()).filter(|n| members[*n].standing != Whole).collect();
        for n in lost.iter().skip(1) {
            members[*n].standing = Whole;
        }
        prop_assert_eq!(rule(&members, threshold), Ruling::Pass);
    }
}

fn cell(zone: &str, state: CellState) -> CellRecord {
    CellRecord {
        zone: zone.into(),
        status: CellStatus {
            state: Some(state),
            ..CellStatus::default()
        },
        ..fixtures::cell()
    }
}

/// Cells a, b, c, each in a zone of its own.
fn three() -> BTreeMap<String, CellRecord> {
    let cells = [("a", "z1"), ("b", "z2"), ("c", "z3")];
    (cells.into_iter())
        .map(|(name, zone)| (name.to_owned(), cell(zone, CellState::Present)))
        .collect()
}

/// On both clocks.
fn at(now: Instant) -> (Instant, Timestamp) {
    (now, Timestamp::UNIX_EPOCH)
}

fn roll(held: &[&str], overdue: &[&str]) -> RollCall {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    RollCall {
        held: names(held),
        overdue: names(overdue),
    }
}

#[test]
fn a_loss_counts_until_its_window_is_over() {
    let (mut brake, mut cells, began) = (Brake::default(), three(), Instant::now());
    let after = |seconds| at(began + Duration::from_secs(seconds));
    brake.noticed("a", false);
    assert_eq!(brake.ruling(&cells, None, 33, at(began)), Ruling::Pass);
    brake.lost("a", began);
    cells.insert("a".into(), cell("z1", CellState::Missing));
    brake.noticed("b", false);
    assert_eq!(brake.ruling(&cells, None, 33, after(9)), hold(2, 3));
    assert_eq!(brake.ruling(&cells, None, 33, after(10)), Ruling::Pass);
    // All that are left.
    brake.noticed("c", false);
    assert_eq!(brake.ruling(&cells, None, 33, after(10)), hold(2, 2));
    brake.heard("c", false);
    assert_eq!(brake.ruling(&cells, None, 33, after(10)), Ruling::Pass);
}

#[test]
fn a_roll_call_knows_better_than_what_was_noticed() {
    let (mut brake, cells, now) = (Brake::default(), three(), Instant::now());
    let ruling = |brake: &Brake, roll: &RollCall| brake.ruling(&cells, Some(roll), 33, at(now));
    brake.noticed("a", false);
    // Nobody told of b and c yet.
    assert_eq!(ruling(&brake, &roll(&[], &[])), hold(3, 3));
    assert_eq!(
        ruling(&brake, &roll(&["b", "c"], &["b", "c"])),
        Ruling::Doubt
    );
    assert_eq!(ruling(&brake, &roll(&["b", "c"], &[])), Ruling::Pass);
    // Noticed before it came back.
    brake.noticed("b", false);
    assert_eq!(ruling(&brake, &roll(&["b", "c"], &[])), Ruling::Pass);
}

#[test]
fn who_gave_its_presence_back_is_not_lost() {
    let (mut brake, mut cells, now) = (Brake::default(), three(), Instant::now());
    brake.noticed("a", false);
    brake.heard("b", true);
    brake.noticed("c", true);
    assert_eq!(
        brake.ruling(&cells, Some(&roll(&[], &[])), 33, at(now)),
        Ruling::Pass
    );
    // It had begun to leave, and nobody heard its last words.
    let (mut brake, draining) = (Brake::default(), cell("z2", CellState::Evacuating));
    cells.insert("b".into(), draining);
    brake.noticed("a", false);
    let seen = roll(&["c"], &[]);
    assert_eq!(brake.ruling(&cells, Some(&seen), 33, at(now)), Ruling::Pass);
    brake.noticed("b", false);
    assert_eq!(brake.ruling(&cells, Some(&seen), 33, at(now)), hold(2, 3));
}

#[test]
fn another_controller_knows_what_is_held_from_the_cells() {
    let (mut brake, mut cells, now) = (Brake::default(), three(), Instant::now());
    let count = Count {
        lost: 2,
        population: 3,
    };
    for name in ["a", "b"] {
        let record = &cells[name];
        let status = cell::held(name, record, count, Timestamp::UNIX_EPOCH);
        let record = CellRecord {
            status,
            ..record.clone()
        };
        cells.insert(name.into(), record);
    }
    assert_eq!(brake.ruling(&cells, None, 33, at(now)), hold(2, 3));
    brake.heard("b", false);
    assert_eq!(brake.ruling(&cells, None, 33, at(now)), Ruling::Pass);
}

#[test]
fn what_the_former_leader_judged_lost_counts_until_its_window_is_over() {
    let (mut brake, mut cells, now) = (Brake::default(), three(), Instant::now());
    let wall = |seconds| Timestamp::from_second(seconds).expect("a time");
    let mut lost = cell("z1", CellState::Missing);
    lost.status.last_recovery = Some(LastRecovery {
        epoch: 7,
        lost_time: None,
        detected_time: Some(MicroTime(wall(100))),
        recovered_time: None,
        actual_lrps: 0,
        waiting_actual_lrps: 0,
        tasks: 0,
        source: None,
        confirmed: None,
    });
    cells.insert("a".into(), lost);
    brake.noticed("b", false);
    let ruling = |seconds| brake.ruling(&cells, None, 33, (now, wall(seconds)));
    assert_eq!(ruling(109), hold(2, 3));
    assert_eq!(ruling(110), Ruling::Pass);
    // The former leader's clock may be ahead, and by hours: then it says nothing.
    assert_eq!(ruling(99), hold(2, 3));
    assert_eq!(ruling(1), Ruling::Pass);
}

#[test]
fn a_held_cell_whose_object_was_deleted_counts_as_lost() {
    let (mut brake, mut cells, now) = (Brake::default(), three(), Instant::now());
    for name in ["a", "b", "c"] {
        brake.noticed(name, false);
        brake.held(name, cells[name].zone.clone());
    }
    let after = |seconds| at(now + Duration::from_secs(seconds));
    cells.remove("a");
    cells.remove("b");
    // Nobody looked at that yet.
    assert_eq!(brake.ruling(&cells, None, 33, after(60)), hold(3, 3));
    brake.deleted("a", now);
    brake.deleted("b", now);
    assert_eq!(brake.ruling(&cells, None, 33, after(9)), hold(3, 3));
    assert_eq!(brake.ruling(&cells, None, 33, after(10)), Ruling::Pass);
    // One that was not held: nothing to count.
    brake.deleted("unknown", now);
    assert_eq!(brake.ruling(&cells, None, 33, after(10)), Ruling::Pass);
}

#[test]
fn a_proven_death_passes_and_is_no_doubt_for_others() {
    let (now, wall) = (
        Instant::now(),
        Timestamp::from_second(1_000).expect("a time"),
    );
    let present = || CellRecord {
        status: CellStatus {
            state: Some(CellState::Present),
            ..CellStatus::default()
        },
        ..fixtures::cell()
    };
    let mut cells: BTreeMap<String, CellRecord> = ["a", "b", "c", "d"]
        .map(|name| (name.to_owned(), present()))
        .into();
    let ruled = |brake: &Brake, cells: &BTreeMap<String, CellRecord>| {
        brake.ruling(cells, None, 33, (now, wall))
    };
    let mut brake = Brake::default();
    ["a", "b", "c"].iter().for_each(|cell| brake.proven(cell));
    brake.noticed("d", false);
    assert_eq!(ruled(&brake, &cells), Ruling::Pass, "one that is gone");
    // After the verdicts, in this process and in the next one.
    for cell in ["a", "b", "c"] {
        brake.lost(cell, now);
        let status = &mut cells.get_mut(cell).expect("there").status;
        status.state = Some(CellState::Missing);
        status.last_recovery = Some(LastRecovery {
            detected_time: Some(MicroTime(wall)),
            ..fixtures::last_recovery("proof")
        });
    }
    assert_eq!(ruled(&brake, &cells), Ruling::Pass);
    let mut next = Brake::default();
    next.noticed("d", false);
    assert_eq!(ruled(&next, &cells), Ruling::Pass);
    // The same without a proof is held.
    for cell in ["a", "b", "c"] {
        let last = &mut cells.get_mut(cell).expect("there").status.last_recovery;
        last.as_mut().expect("there").source = Some("watch".into());
    }
    assert_eq!(ruled(&next, &cells), hold(4, 4));
}

#[test]
fn a_cell_that_is_back_after_a_proven_death_counts_again() {
    let mut brake = Brake::default();
    brake.proven("a");
    brake.heard("a", false);
    brake.noticed("a", false);
    assert!(brake.is_gone("a", &fixtures::cell()));
    assert!(!brake.proven.contains("a"));
}
