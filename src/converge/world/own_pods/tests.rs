//! What Pods of ours count for beside the charges of their records.

use super::super::{CellRecord, Desired, Key, Lrp, Version};
use super::*;
use crate::api::{ActualLRPState, ActualLRPStatus, ExecutorKind, MissingCellPolicy};
use crate::converge::demand::Demand;
use crate::converge::fixtures;
use crate::converge::node::CellNode;

fn cpu(cpu: i64) -> Resources {
    Resources {
        cpu,
        ..Resources::default()
    }
}

fn version(revision: u64) -> Version {
    Version {
        uid: "u".into(),
        revision,
        ..Version::default()
    }
}

fn web() -> Key {
    Key::new("ns", "web")
}

/// The instance asks for 100 thousandths, and runs `guid` on `cell-1`.
fn says(world: &mut World, revision: u64, guid: &str) {
    let demand = Demand {
        resources: cpu(100),
        ..Demand::default()
    };
    let desired = Desired {
        version: version(1),
        instances: 1,
        domain: None,
        policy: MissingCellPolicy::Strict,
        demand: Ok(Arc::new(demand)),
        status: Default::default(),
    };
    world.put_desired(&web(), desired);
    let status = ActualLRPStatus {
        state: ActualLRPState::Running,
        cell_name: Some("cell-1".into()),
        instance_guid: Some(guid.into()),
        ..ActualLRPStatus::default()
    };
    let lrp = Lrp {
        version: version(revision),
        process: "web".into(),
        index: 0,
        owner: None,
        status,
    };
    world.put_lrp(&web().instance(0), lrp);
}

/// The Cell `cell-1` is this node.
fn stands_on(world: &mut World, revision: u64, node: &str) {
    let record = CellRecord {
        version: version(revision),
        executor: ExecutorKind::Pods,
        node: Some(CellNode {
            name: node.into(),
            ..CellNode::default()
        }),
        ..fixtures::cell()
    };
    world.put_cell("cell-1", record);
}

fn on_n1() -> World {
    let mut world = World::default();
    stands_on(&mut world, 1, "n1");
    world
}

fn work() -> WorkKey {
    WorkKey::lrp(web().instance(0))
}

fn beside(world: &World) -> (i32, i64) {
    let foreign = world.foreign("n1");
    (foreign.pods, foreign.resources.cpu)
}

#[test]
fn a_pod_counts_for_what_its_records_charge_does_not() {
    let mut world = on_n1();
    says(&mut world, 1, "one");
    world.put_own(1, "n1", cpu(100), work(), "one", PodKin::default());
    assert_eq!(beside(&world), (0, 0), "charged");
    // A LimitRange gave it more, or less.
    world.put_own(1, "n1", cpu(130), work(), "one", PodKin::default());
    assert_eq!(beside(&world), (0, 30));
    world.put_own(1, "n1", cpu(70), work(), "one", PodKin::default());
    assert_eq!(beside(&world), (0, 0));
}

#[test]
fn a_pod_that_no_record_names_counts_in_full_until_it_is_gone() {
    let mut world = on_n1();
    says(&mut world, 1, "one");
    world.put_own(1, "n1", cpu(130), work(), "one", PodKin::default());
    assert_eq!(world.nodes.own.unnamed().count(), 0);
    // Its successor.
    says(&mut world, 2, "two");
    assert_eq!(beside(&world), (1, 130));
    assert_eq!(world.nodes.own.unnamed().count(), 1);
    world.put_own(2, "n1", cpu(130), work(), "two", PodKin::default());
    assert_eq!(beside(&world), (1, 160));
    assert!(world.remove_lrp(&work().key, "u"), "scaled down");
    assert_eq!(beside(&world), (2, 260));
    world.remove_foreign(1);
    let since = world.begin_relist();
    world.put_own(3, "n1", cpu(1), work(), "three", PodKin::default());
    world.end_foreign_list(since);
    assert_eq!(beside(&world), (1, 1));
    world.remove_foreign(3);
    assert_eq!(beside(&world), (0, 0));
    let own = &world.nodes.own;
    assert!(own.pods.is_empty() && own.by_work.is_empty() && own.unnamed.is_empty());
    assert_eq!(world.nodes.kins.len(), 0);
}

#[test]
fn a_pod_on_another_node_than_its_cell_counts_there_in_full() {
    let mut world = on_n1();
    says(&mut world, 1, "one");
    world.put_own(1, "n2", cpu(100), work(), "one", PodKin::default());
    let on_n2 = |world: &World| {
        let foreign = world.foreign("n2");
        (foreign.pods, foreign.resources.cpu)
    };
    assert_eq!(on_n2(&world), (1, 100));
    assert_eq!(world.nodes.own.unnamed().count(), 1);
    // The Cell is that node, after all; and then none any more.
    stands_on(&mut world, 2, "n2");
    assert_eq!(on_n2(&world), (0, 0));
    world.remove_cell("cell-1", "u");
    assert_eq!(on_n2(&world), (1, 100));
    stands_on(&mut world, 3, "n2");
    assert_eq!(on_n2(&world), (0, 0));
}

#[test]
fn a_pod_may_be_seen_before_its_record() {
    let mut world = on_n1();
    world.put_own(1, "n1", cpu(100), work(), "one", PodKin::default());
    assert_eq!(beside(&world), (1, 100));
    says(&mut world, 1, "one");
    assert_eq!(beside(&world), (0, 0));
}
