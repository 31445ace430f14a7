//! The auction beside its rules: examples of each, and a property over random Cells and batches.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::converge::neighbours::{Likeness, Of, PodTerm, Resident};

mod company;
mod on_nodes;
mod reference;
mod strategies;

use reference::Reference;
use strategies::{asks, cells, others};

/// A Cell as a test gives it.
#[derive(Debug, Clone)]
struct Cell {
    name: String,
    zone: String,
    executor: ExecutorKind,
    required: Vec<String>,
    optional: Vec<String>,
    cordoned: bool,
    rests: bool,
    /// With executor Pods.
    standing: Standing,
    node: NodeRecord,
    room: Room,
}

impl Cell {
    fn new(name: &str, zone: &str) -> Cell {
        let resources = |amount| Resources {
            memory: amount,
            disk: amount,
            cpu: amount,
        };
        Cell {
            name: name.into(),
            zone: zone.into(),
            executor: ExecutorKind::Process,
            required: Vec::new(),
            optional: Vec::new(),
            cordoned: false,
            rests: false,
            standing: Standing::Open,
            node: NodeRecord::default(),
            room: Room {
                capacity: resources(100),
                containers: 100,
                ..Room::default()
            },
        }
    }
}

fn bidders(cells: &[Cell]) -> Vec<Bidder<'_>> {
    let mut names: Vec<&str> = cells.iter().map(|cell| &*cell.name).collect();
    names.sort();
    cells
        .iter()
        .map(|cell| Bidder {
            name: &cell.name,
            index: names.binary_search(&&*cell.name).unwrap(),
            epoch: 7,
            zone: &cell.zone,
            executor: cell.executor,
            required_tags: &cell.required,
            optional_tags: &cell.optional,
            cordoned: cell.cordoned,
            rests: cell.rests,
            node: (cell.executor == ExecutorKind::Pods).then(|| Ground {
                name: &cell.name,
                standing: cell.standing,
                record: (cell.standing != Standing::NotFound).then_some(&cell.node),
            }),
            room: cell.room,
        })
        .collect()
}

fn lrp(process: &str, index: i32) -> Work {
    Work::Lrp {
        process: Key::new("default", process),
        index,
    }
}

/// What is asked for, as a test gives it.
#[derive(Debug, Clone)]
struct Asked {
    work: Work,
    demand: Demand,
    avoid: Vec<String>,
}

/// A Pod that is there, as a test gives it.
#[derive(Debug, Clone)]
struct Other {
    namespace: String,
    labels: BTreeMap<String, String>,
    /// The instance of a process that it is.
    of: Option<(String, i32)>,
    apart: Vec<PodTerm>,
    node: NodeRecord,
}

fn residents(others: &[Other]) -> Vec<Resident<'_>> {
    others
        .iter()
        .map(|other| Resident {
            likeness: Likeness {
                namespace: &other.namespace,
                labels: &other.labels,
                of: other.of.as_ref().map(|(name, _)| Of::Process(name)),
            },
            apart: &other.apart,
            places: vec![(other.of.as_ref().map(|(_, index)| *index), &other.node)],
        })
        .collect()
}

fn asked(work: Work, demand: Demand) -> Asked {
    Asked {
        work,
        demand,
        avoid: Vec::new(),
    }
}

/// Where each of `asks` goes, in this order, when the processes run on the Cells in `there` already.
fn outcomes(
    cells: &[Cell],
    there: &BTreeMap<String, Vec<String>>,
    asks: &[Asked],
    knobs: Knobs,
) -> Vec<Result<String, String>> {
    let starting = cells.iter().map(|cell| i64::from(cell.room.starting)).sum();
    outcomes_of(Auction::new(bidders(cells), starting, knobs), there, asks)
}

fn outcomes_of<'a>(
    mut auction: Auction<'a>,
    there: &'a BTreeMap<String, Vec<String>>,
    asks: &'a [Asked],
) -> Vec<Result<String, String>> {
    asks.iter()
        .map(|asked| {
            let Asked {
                work,
                demand,
                avoid,
            } = asked;
            let cells_of = || match work {
                Work::Lrp { process, .. } => {
                    let cells = there.get(&process.name).into_iter().flatten();
                    cells.map(String::as_str).collect()
                }
                Work::Task(_) => Vec::new(),
            };
            let ask = Ask {
                work,
                demand,
                avoid,
            };
            let winner = auction.place(&ask, cells_of)?;
            assert_eq!(winner.epoch, 7);
            Ok(winner.cell.to_owned())
        })
        .collect()
}

fn placed(cells: &[Cell], works: &[Work], knobs: Knobs) -> Vec<String> {
    let asks: Vec<_> = works
        .iter()
        .map(|work| asked(work.clone(), Demand::default()))
        .collect();
    let outcomes = outcomes(cells, &BTreeMap::new(), &asks, knobs);
    outcomes
        .into_iter()
        .map(|outcome| outcome.unwrap_or_else(|error| error))
        .collect()
}

#[test]
fn a_cell_on_which_much_is_starting_is_spared() {
    let mut cells = [Cell::new("a", "z"), Cell::new("b", "z")];
    cells[0].room.starting = 1;
    cells[1].room.used.memory = 50;
    // A sixth more of b is used.
    let with_weight = |weight| {
        let knobs = Knobs {
            starting_container_weight: weight,
            ..Knobs::default()
        };
        placed(&cells, &[lrp("web", 0)], knobs)
    };
    assert_eq!(with_weight(0.25), ["b"]);
    assert_eq!(with_weight(0.1), ["a"]);
}

#[test]
fn bin_packing_fills_the_first_cells_first() {
    let mut cells = [Cell::new("b", "z"), Cell::new("a", "z")];
    cells[1].room.used.memory = 50;
    let with_weight = |weight| {
        let knobs = Knobs {
            bin_pack_first_fit_weight: weight,
            ..Knobs::default()
        };
        placed(&cells, &[lrp("web", 0)], knobs)
    };
    assert_eq!(with_weight(0.0), ["b"]);
    assert_eq!(with_weight(1.0), ["a"]);
}

#[test]
fn only_so_many_instances_start_at_once() {
    let mut cells = [Cell::new("a", "z"), Cell::new("b", "z")];
    cells[0].room.starting = 1;
    let knobs = Knobs {
        starting_container_count_maximum: 2,
        ..Knobs::default()
    };
    let task = Work::Task(Key::new("default", "t"));
    let works = [lrp("web", 0), lrp("web", 1), task];
    assert_eq!(placed(&cells, &works, knobs), ["b", START_LIMIT, "a"]);
}

#[test]
fn the_limit_is_no_excuse_for_what_no_cell_can_take() {
    let mut cells = [Cell::new("a", "z")];
    cells[0].room.starting = 1;
    let knobs = Knobs {
        starting_container_count_maximum: 1,
        ..Knobs::default()
    };
    assert_eq!(placed(&cells, &[lrp("web", 0)], knobs), [START_LIMIT]);
    cells[0].room.containers = 0;
    assert_eq!(
        placed(&cells, &[lrp("web", 0)], knobs),
        ["insufficient resources: containers"]
    );
}

#[test]
fn the_limit_is_told_only_while_there_is_room() {
    let mut cells = [Cell::new("a", "z")];
    cells[0].room.starting = 1;
    cells[0].room.containers = 1;
    let knobs = Knobs {
        starting_container_count_maximum: 1,
        ..Knobs::default()
    };
    let task = Work::Task(Key::new("default", "t"));
    let works = [lrp("web", 0), lrp("api", 0), task, lrp("web", 1)];
    let full = "insufficient resources: containers";
    let expected = [START_LIMIT, START_LIMIT, "a", full];
    assert_eq!(placed(&cells, &works, knobs), expected);
}

#[test]
fn what_a_cordoned_cell_runs_counts_for_its_zone() {
    let mut cells = [
        Cell::new("a1", "a"),
        Cell::new("a2", "a"),
        Cell::new("b1", "b"),
    ];
    cells[0].cordoned = true;
    cells[2].room.used.memory = 90;
    let there = BTreeMap::from([("web".to_owned(), vec!["a1".to_owned()])]);
    let asks = [asked(lrp("web", 1), Demand::default())];
    let outcomes = outcomes(&cells, &there, &asks, Knobs::default());
    assert_eq!(outcomes, [Ok("b1".to_owned())]);
}

/// Where one instance goes that these Cells gave back, the last one last.
fn given_back_by(cells: &[Cell], avoid: &[&str]) -> Result<String, String> {
    let there = BTreeMap::from([("web".to_owned(), vec!["b".to_owned()])]);
    let asks = [Asked {
        avoid: avoid.iter().map(|&name| name.to_owned()).collect(),
        ..asked(lrp("web", 1), Demand::default())
    }];
    let mut outcomes = outcomes(cells, &there, &asks, Knobs::default());
    outcomes.remove(0)
}

#[test]
fn who_gave_it_back_is_asked_last() {
    // By its zone, its room and its neighbours a goes before b.
    let mut cells = [Cell::new("a", "z1"), Cell::new("b", "z2")];
    cells[1].room.used.memory = 90;
    let on = |cells: &[Cell], avoid: &[&str]| given_back_by(cells, avoid).unwrap();
    assert_eq!(on(&cells, &[]), "a");
    assert_eq!(on(&cells, &["a"]), "b");
    assert_eq!(on(&cells, &["gone"]), "a");
    // Both did: who did it longest ago.
    assert_eq!(on(&cells, &["b", "a"]), "b");
    assert_eq!(on(&cells, &["a", "b"]), "a");
    // Nobody else has room, or none may.
    cells[1].room.containers = 0;
    assert_eq!(on(&cells, &["a"]), "a");
    cells[0].cordoned = true;
    let full = Err("insufficient resources: containers".to_owned());
    assert_eq!(given_back_by(&cells, &["a"]), full);
}

proptest! {
    #[test]
    fn it_does_what_the_rules_say(
        cells in cells(),
        asks in asks(),
        others in others(),
        there in proptest::collection::vec((1..4usize, 0..9usize), 0..12),
        weights in (0..4u8, 0..3u8),
        maximum in 0..12u32,
    ) {
        let knobs = Knobs {
            starting_container_weight: f64::from(weights.0) * 0.25,
            bin_pack_first_fit_weight: f64::from(weights.1) * 0.1,
            starting_container_count_maximum: maximum,
        };
        let mut running: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (process, cell) in there {
            running.entry(format!("p{process}")).or_default().push(format!("cell-{cell}"));
        }
        let mut reference = Reference {
            cells: cells.clone(),
            knobs,
            starting: cells.iter().map(|cell| i64::from(cell.room.starting)).sum(),
            there: BTreeMap::new(),
            others: others.clone(),
            placed: Vec::new(),
        };
        for (process, cells) in &running {
            for cell in cells {
                *reference.there.entry((process, cell.clone())).or_default() += 1;
            }
        }
        let expected: Vec<_> = asks.iter().map(|asked| reference.place(asked)).collect();
        let starting = cells.iter().map(|cell| i64::from(cell.room.starting)).sum();
        let auction = Auction::new(bidders(&cells), starting, knobs).among(residents(&others));
        prop_assert_eq!(outcomes_of(auction, &running, &asks), expected);
    }
}
