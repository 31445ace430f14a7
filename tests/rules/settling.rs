//! The world between a plan and its answers: nothing older replaces anything newer, nothing deleted returns.

use diego_operator::api::{ActualLRPState, ActualLRPStatus, CellState};
use diego_operator::converge::plan::{Scope, Write};
use diego_operator::converge::world::Lrp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use crate::world::{Sandbox, at, key};

/// One DesiredLRP with one instance on a lost Cell, and a Cell with room.
fn lost_instance() -> Sandbox {
    let mut sandbox = Sandbox::default();
    for (name, state) in [("a", CellState::Present), ("b", CellState::Missing)] {
        let cell = sandbox.cell(name, "z1", state, 1, 1);
        sandbox.world.put_cell(name, cell);
    }
    let desired = sandbox.desired("web", 1);
    sandbox.world.put_desired(&key("web"), desired);
    let status = ActualLRPStatus {
        state: ActualLRPState::Running,
        cell_name: Some("b".into()),
        cell_epoch: Some(1),
        instance_guid: Some("old".into()),
        ..Default::default()
    };
    let lrp = sandbox.lrp("web", 0, status);
    sandbox.world.put_lrp(&key("web-0"), lrp);
    sandbox
}

#[test]
fn a_deletion_that_overtakes_the_answer_of_a_write_stays_a_deletion() {
    let mut sandbox = lost_instance();
    let plan = sandbox.plan(&Scope::Cell("b".into()), at(100));
    let [write @ Write::LrpStatus { version, .. }] = plan.writes.as_slice() else {
        panic!("{:?}", plan.writes)
    };
    let answered = {
        let mut server = sandbox.clone();
        server.succeed(write);
        server.world.lrp(&key("web-0")).cloned()
    };
    assert!(sandbox.world.remove_lrp(&key("web-0"), &version.uid));
    sandbox.world.settle_lrp(&key("web-0"), answered);
    assert_eq!(sandbox.world.lrp(&key("web-0")), None);
    assert_eq!(sandbox.world.load("a"), None, "and it takes no room");
    // The index is wanted: it is made anew.
    let plan = sandbox.plan(&Scope::Desired(key("web")), at(101));
    assert!(
        matches!(plan.writes.as_slice(), [Write::CreateLrp { .. }]),
        "{:?}",
        plan.writes
    );
}

#[test]
fn an_older_version_never_replaces_a_newer_one() {
    let mut sandbox = lost_instance();
    let old = sandbox.world.lrp(&key("web-0")).cloned().unwrap();
    sandbox.converge(&Scope::Cell("b".into()), at(100));
    let new = sandbox.world.lrp(&key("web-0")).cloned().unwrap();
    assert!(!sandbox.world.put_lrp(&key("web-0"), old));
    assert_eq!(sandbox.world.lrp(&key("web-0")), Some(&new));
}

#[test]
fn a_write_that_failed_is_decided_again() {
    let mut sandbox = lost_instance();
    let stored = sandbox.world.lrp(&key("web-0")).cloned();
    assert_eq!(
        sandbox.plan(&Scope::Cell("b".into()), at(100)).writes.len(),
        1
    );
    assert_eq!(
        sandbox.plan(&Scope::Cell("b".into()), at(100)).writes.len(),
        0,
        "under way"
    );
    sandbox.world.settle_lrp(&key("web-0"), stored);
    assert_eq!(
        sandbox.plan(&Scope::Cell("b".into()), at(100)).writes.len(),
        1,
        "decided again"
    );
}

#[test]
fn an_answer_older_than_what_the_watch_brought_changes_nothing() {
    let mut sandbox = lost_instance();
    let plan = sandbox.plan(&Scope::Cell("b".into()), at(100));
    let mut server = sandbox.clone();
    server.succeed(&plan.writes[0]);
    let answered = server.world.lrp(&key("web-0")).cloned().unwrap();
    // The rep of the new Cell has claimed it before the controller saw its own answer.
    let mut claimed = Lrp {
        version: server.version(&answered.version.uid),
        ..answered.clone()
    };
    claimed.status.state = ActualLRPState::Claimed;
    assert!(sandbox.world.put_lrp(&key("web-0"), claimed.clone()));
    sandbox.world.settle_lrp(&key("web-0"), Some(answered));
    assert_eq!(sandbox.world.lrp(&key("web-0")), Some(&claimed));
    assert!(!sandbox.world.lrp_in_flight(&key("web-0")));
}

#[test]
fn what_falls_due_after_a_write_under_way_is_looked_at_again() {
    let mut sandbox = lost_instance();
    let known = sandbox.world.lrp(&key("web-0")).cloned().unwrap();
    // The executor of Pods gives the instance back: it is auctioned again after a second.
    let given_back = ActualLRPStatus {
        state_transition_time: Some(MicroTime(at(100))),
        rejection_count: Some(1),
        rejected_by: vec!["b".into()],
        ..Default::default()
    };
    sandbox.world.plan_lrp(&key("web-0"), given_back.clone());
    let stored = Lrp {
        version: sandbox.version(&known.version.uid),
        status: given_back,
        ..known
    };
    // The watch is faster than the answer, and wakes the reconciler.
    assert!(sandbox.world.put_lrp(&key("web-0"), stored.clone()));
    let scope = Scope::Desired(key("web"));
    let look = sandbox.plan(&scope, at(100));
    assert!(look.writes.is_empty(), "{:?}", look.writes);
    assert_eq!(look.recheck, Some(at(101)), "nothing else wakes it");
    sandbox.world.settle_lrp(&key("web-0"), Some(stored));
    assert_eq!(sandbox.plan(&scope, at(101)).writes.len(), 1, "placed");
}
