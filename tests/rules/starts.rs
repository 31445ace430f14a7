//! What the world counts as the end of a start: whoever waits for the in-flight start limit is woken by it.

use diego_operator::api::{ActualLRPState, ActualLRPStatus, CellState};
use diego_operator::converge::plan::Scope;

use crate::world::{Sandbox, at, key};

fn status(state: ActualLRPState, cell: Option<&str>) -> ActualLRPStatus {
    ActualLRPStatus {
        state,
        cell_name: cell.map(str::to_owned),
        cell_epoch: cell.map(|_| 1),
        ..Default::default()
    }
}

#[test]
fn every_end_of_a_start_is_counted_once_and_nothing_else() {
    let mut sandbox = Sandbox::default();
    let cell = sandbox.cell("a", "z1", CellState::Present, 1, 1);
    sandbox.world.put_cell("a", cell);
    let desired = sandbox.desired("web", 3);
    sandbox.world.put_desired(&key("web"), desired);
    let plan = sandbox.converge(&Scope::Desired(key("web")), at(100));
    assert_eq!(
        (plan.writes.len(), sandbox.world.starts_ended()),
        (3, 0),
        "placed is not started"
    );
    let mut enter = |index: i32, state, cell| {
        let record = sandbox.lrp("web", index, status(state, cell));
        sandbox.world.put_lrp(&key("web").instance(index), record);
        sandbox.world.starts_ended()
    };
    assert_eq!(enter(0, ActualLRPState::Claimed, Some("a")), 0);
    assert_eq!(enter(0, ActualLRPState::Running, Some("a")), 1);
    assert_eq!(enter(0, ActualLRPState::Running, Some("a")), 1);
    assert_eq!(enter(0, ActualLRPState::Crashed, None), 1, "it ran before");
    assert_eq!(enter(1, ActualLRPState::Crashed, None), 2);
    assert_eq!(enter(1, ActualLRPState::Unclaimed, Some("a")), 2);
    assert_eq!(enter(1, ActualLRPState::Unclaimed, None), 3, "given back");
    assert!(sandbox.world.remove_lrp(&key("web-2"), "lrp-web-2"));
    assert_eq!(sandbox.world.starts_ended(), 4, "deleted");
}
