//! The books of nodes and of the Pods of others on them.

use k8s_openapi::jiff::Timestamp;

use super::super::{Key, TaskRecord, Version};
use super::*;
use crate::api::ExecutorKind;
use crate::converge::demand::Demand;
use crate::converge::fixtures;
use crate::converge::neighbours::{Namespaces, PodNeeds, PodTerm};

fn takes(cpu: i64) -> Resources {
    Resources {
        memory: 10 * cpu,
        disk: 0,
        cpu,
    }
}

#[test]
fn the_books_of_foreign_pods_balance() {
    let mut world = World::default();
    world.put_foreign(1, "n1", takes(100), PodKin::default());
    world.put_foreign(2, "n1", takes(50), PodKin::default());
    world.put_foreign(2, "n1", takes(20), PodKin::default());
    let foreign = world.foreign("n1");
    assert_eq!((foreign.pods, foreign.resources), (2, takes(120)));
    world.remove_foreign(1);
    world.remove_foreign(1);
    assert_eq!(world.foreign("n1").resources, takes(20));
    world.put_foreign(2, "n2", takes(20), PodKin::default());
    assert_eq!(world.foreign("n1"), Foreign::default());
    let since = world.begin_relist();
    world.put_foreign(3, "n2", takes(1), PodKin::default());
    world.end_foreign_list(since);
    let foreign = world.foreign("n2");
    assert_eq!((foreign.pods, foreign.resources), (1, takes(1)));
    world.remove_foreign(3);
    assert!(world.nodes.taken.is_empty() && world.nodes.pods.is_empty());
    assert_eq!(world.nodes.kins.len(), 0);
}

fn cell(node: &str, revision: u64) -> CellRecord {
    CellRecord {
        version: Version {
            uid: "u".into(),
            revision,
            ..Version::default()
        },
        executor: ExecutorKind::Pods,
        node: Some(CellNode {
            name: node.into(),
            standing: Standing::NotRead,
        }),
        ..fixtures::cell()
    }
}

#[test]
fn the_cell_of_a_node_is_known_however_it_comes_and_goes() {
    let mut world = World::default();
    let of = |world: &World, node| world.cell_of_node(node).map(str::to_owned);
    world.put_cell("a", cell("n1", 1));
    assert_eq!(of(&world, "n1").as_deref(), Some("a"));
    world.put_cell("a", cell("n2", 2));
    assert_eq!(
        (of(&world, "n1"), of(&world, "n2")),
        (None, Some("a".into()))
    );
    world.put_cell("a", cell("n1", 1));
    assert_eq!(of(&world, "n2").as_deref(), Some("a"), "older");
    world.remove_cell("a", "u");
    assert_eq!(of(&world, "n2"), None);
    world.put_cell("b", cell("n1", 3));
    world.retain_cells(&HashSet::new());
    assert_eq!((of(&world, "n1"), world.nodes_of_cells().len()), (None, 0));
}

fn app(name: &str, apart: Vec<PodTerm>) -> PodKin {
    PodKin::new("ns", &[("app".to_owned(), name.to_owned())].into(), apart)
}

fn apart() -> Vec<PodTerm> {
    vec![PodTerm {
        topology: "zone".into(),
        selector: Some(Vec::new()),
        namespaces: Namespaces::All,
    }]
}

/// A Task waits; `minds` says whether it must not have others near.
fn waits(world: &mut World, minds: bool) {
    let demand = Demand {
        pods: PodNeeds {
            near: Vec::new(),
            apart: if minds { apart() } else { Vec::new() },
        },
        ..Demand::default()
    };
    let task = TaskRecord {
        version: Version::default(),
        created: Timestamp::UNIX_EPOCH,
        cancelled: false,
        callback: None,
        seen_finished: None,
        keep: None,
        demand: Ok(Arc::new(demand)),
        status: Default::default(),
    };
    world.enter_task(&Key::new("ns", "t"), task, false);
}

#[test]
fn what_waits_is_woken_by_a_pod_that_leaves_a_node_that_is_no_cell() {
    for (minds, kin, woken) in [
        (true, app("web", Vec::new()), true),
        (false, app("db", apart()), true),
        (false, app("web", Vec::new()), false),
    ] {
        let mut world = World::default();
        world.put_foreign(1, "n1", takes(1), kin.clone());
        assert!(!world.remove_foreign(1), "nothing waits");
        waits(&mut world, minds);
        world.put_foreign(1, "n1", takes(1), kin.clone());
        assert_eq!(world.remove_foreign(1), woken, "{minds} {kin:?}");
    }
}

#[test]
fn what_waits_is_woken_by_other_labels_of_the_only_pod_of_its_kind() {
    let mut world = World::default();
    waits(&mut world, true);
    let mut put = |name| world.put_foreign(1, "n1", takes(1), app(name, Vec::new()));
    assert!(put("web"));
    assert!(!put("web"), "as before");
    assert!(put("db"));
    assert_eq!(world.nodes.kins.len(), 1);
}

/// A hash table is between 7/16 and 7/8 full, and needs one byte more for each place.
#[test]
fn a_foreign_pod_takes_at_most_150_bytes() {
    let place = std::mem::size_of::<(u128, ForeignPod)>() + 1;
    assert!(place * 16 / 7 <= 150, "{place} bytes a place");
}
