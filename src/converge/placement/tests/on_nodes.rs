//! Cells that are nodes: their room, and the words when there is none.

use super::*;

const GIB: i64 = 1 << 30;

fn node(cpu: i64, gib: i64, pods: i32) -> NodeRecord {
    NodeRecord {
        ready: true,
        allocatable: Resources {
            cpu,
            memory: gib * GIB,
            disk: 10 * GIB,
        },
        pods,
        ..NodeRecord::default()
    }
}

fn foreign(cpu: i64, gib: i64, pods: i32) -> Foreign {
    Foreign {
        resources: Resources {
            cpu,
            memory: gib * GIB,
            disk: 0,
        },
        pods,
    }
}

/// What the Cell offers and what ours have taken of it.
fn cell(gib: i64, containers: i32, used_gib: i64) -> Room {
    let resources = |gib: i64| Resources {
        cpu: 0,
        memory: gib * GIB,
        disk: 10 * GIB,
    };
    Room {
        capacity: resources(gib),
        containers,
        used: Resources {
            disk: 0,
            ..resources(used_gib)
        },
        ..Room::default()
    }
}

fn wants(cpu: i64, gib: i64) -> Resources {
    Resources {
        cpu,
        memory: gib * GIB,
        disk: 0,
    }
}

#[test]
fn pods_of_others_take_of_the_node_and_ours_of_both() {
    let room = cell(8, 250, 2).on_node(&node(4000, 8, 110), foreign(3000, 3, 10));
    assert!(room.fits(wants(1000, 3)));
    assert!(!room.fits(wants(1001, 3)) && room.lacks_cpu(wants(1001, 3)));
    assert!(!room.fits(wants(0, 4)) && room.lacks_memory(wants(0, 4)));
    assert_eq!((room.containers, room.used_containers), (110, 10));
}

#[test]
fn a_cell_may_offer_less_than_its_node_has() {
    // 8 GiB are free on the node, but ours get 2 of them.
    let room = cell(2, 5, 1).on_node(&node(4000, 16, 110), foreign(0, 8, 10));
    assert!(room.fits(wants(0, 1)) && !room.fits(wants(0, 2)));
    assert_eq!(room.containers - room.used_containers, 5);
}

#[test]
fn what_asks_for_none_of_what_is_overdrawn_fits() {
    let room = cell(8, 250, 0).on_node(&node(1000, 8, 110), foreign(2000, 1, 1));
    assert!(room.fits(wants(0, 1)) && !room.fits(wants(1, 1)));
}

#[test]
fn a_nodes_cpu_counts_for_how_full_it_is() {
    let mut cells = [Cell::new("a", "z"), Cell::new("b", "z")];
    for cell in &mut cells {
        cell.executor = ExecutorKind::Pods;
        cell.room.counts_cpu = true;
    }
    cells[0].room.used.cpu = 50;
    assert_eq!(placed(&cells, &[lrp("web", 0)], Knobs::default()), ["b"]);
}

#[test]
fn what_names_a_scheduler_is_left_to_it() {
    let cells = [Cell::new("a", "z")];
    let demand = Demand {
        scheduler: Some("volcano".into()),
        ..Demand::default()
    };
    let outcomes = outcomes(
        &cells,
        &BTreeMap::new(),
        &[asked(lrp("web", 0), demand)],
        Knobs::default(),
    );
    let expected = "left to scheduler \"volcano\" by spec.template.spec.schedulerName";
    assert_eq!(outcomes, [Err(expected.to_owned())]);
}

#[test]
fn numbers_alone_are_no_news() {
    let one = "insufficient resources: memory; 0/3 nodes are available: 3 Insufficient memory";
    for (other, same) in [
        (one, true),
        (
            "insufficient resources: memory; 0/12 nodes are available: 10 Insufficient memory",
            true,
        ),
        (
            "insufficient resources; 0/3 nodes are available: 3 Insufficient memory",
            false,
        ),
        (
            "insufficient resources: memory; 0/3 nodes are available: 2 Insufficient memory, 1 Too many pods",
            false,
        ),
        ("insufficient resources: memory", false),
    ] {
        assert_eq!(says_the_same(one, other), same, "{other}");
    }
    assert!(!says_the_same(
        "with placement tag \"v1\"",
        "with placement tag \"v2\""
    ));
}
