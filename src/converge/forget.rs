//! When a Cell that is gone for good loses its object, too.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::CellState;
use crate::api::conditions::{self, READY};

use super::node::Standing;
use super::world::{CellRecord, Load};

/// Why a Cell's object is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forget {
    /// Its Node was removed from the cluster.
    NodeGone,
    /// It did not come back for so long.
    Retention,
}

/// Whether a Cell's object is to be deleted. One whose presence is held, or on which work is recorded, never is: that
/// is treated by the rules first. An operator's wish (`spec.unschedulable`, `spec.evacuate`) outlasts the retention, or a
/// machine that comes back would not know of it; it ends with the Node.
pub fn decide(
    cell: &CellRecord,
    load: Option<&Load>,
    retention: SignedDuration,
    now: Timestamp,
) -> Option<Forget> {
    match cell.status.state {
        None | Some(CellState::Present | CellState::Evacuating) => return None,
        Some(CellState::Missing | CellState::Evacuated) => {}
    }
    let busy = load.is_some_and(|load| !load.lrps.is_empty() || !load.tasks.is_empty());
    if busy || cell.version.deleting {
        return None;
    }
    if cell
        .node
        .as_ref()
        .is_some_and(|node| node.standing == Standing::NotFound)
    {
        return Some(Forget::NodeGone);
    }
    let wished = cell.unschedulable || cell.evacuate;
    let since = gone_since(cell)?;
    (!wished && now.duration_since(since) >= retention).then_some(Forget::Retention)
}

/// Since when it is gone: its node may have made it not ready long before.
fn gone_since(cell: &CellRecord) -> Option<Timestamp> {
    let unready = conditions::get(&cell.status.conditions, READY)?;
    let lost = cell
        .status
        .last_recovery
        .as_ref()
        .filter(|_| cell.status.state == Some(CellState::Missing))
        .and_then(|last| last.lost_time.as_ref());
    let unready = unready.last_transition_time.0;
    Some(lost.map_or(unready, |lost| unready.max(lost.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::conditions::Truth;
    use crate::api::{CellStatus, ExecutorKind, LastRecovery};
    use crate::converge::fixtures;
    use crate::converge::node::CellNode;
    use crate::converge::world::Key;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    /// Gone since second 100.
    fn cell(state: Option<CellState>, standing: Option<Standing>) -> CellRecord {
        let mut status = CellStatus {
            state,
            ..CellStatus::default()
        };
        let gone = &mut status.conditions;
        conditions::set(gone, READY, Truth::False, "Gone", "", None, at(100));
        CellRecord {
            executor: ExecutorKind::Pods,
            node: standing.map(|standing| CellNode {
                name: "n1".into(),
                standing,
            }),
            status,
            ..fixtures::cell()
        }
    }

    fn decided(cell: &CellRecord, now: i64) -> Option<Forget> {
        decide(cell, None, SignedDuration::from_secs(60), at(now))
    }

    #[test]
    fn only_what_is_gone_is_forgotten() {
        use CellState::{Evacuated, Evacuating, Missing, Present};
        use Standing::{NotFound, NotRead, NotReady, Open};
        let standings = [
            None,
            Some(NotFound),
            Some(NotRead),
            Some(NotReady),
            Some(Open),
        ];
        for standing in standings {
            for state in [None, Some(Present), Some(Evacuating)] {
                let cell = cell(state, standing);
                assert_eq!(decided(&cell, 1_000_000), None, "{state:?} {standing:?}");
            }
            for state in [Missing, Evacuated] {
                let cell = cell(Some(state), standing);
                let gone = (standing == Some(NotFound)).then_some(Forget::NodeGone);
                assert_eq!(decided(&cell, 159), gone, "{state:?} {standing:?}");
                let later = gone.or(Some(Forget::Retention));
                assert_eq!(decided(&cell, 160), later, "{state:?} {standing:?}");
            }
        }
    }

    #[test]
    fn work_is_treated_first() {
        let mut load = Load::default();
        load.lrps.insert(Key::new("default", "web-0"));
        let cell = cell(Some(CellState::Missing), Some(Standing::NotFound));
        let retention = SignedDuration::from_secs(60);
        assert_eq!(decide(&cell, Some(&load), retention, at(1000)), None);
        let idle = Load::default();
        let decided = decide(&cell, Some(&idle), retention, at(1000));
        assert_eq!(decided, Some(Forget::NodeGone));
    }

    #[test]
    fn an_operators_wish_outlasts_the_retention_and_ends_with_the_node() {
        let wishes: [fn(&mut CellRecord); 2] = [
            |cell| cell.unschedulable = true,
            |cell| cell.evacuate = true,
        ];
        for wish in wishes {
            let mut kept = cell(Some(CellState::Missing), Some(Standing::NotReady));
            wish(&mut kept);
            assert_eq!(decided(&kept, 1000), None);
            let mut gone = cell(Some(CellState::Missing), Some(Standing::NotFound));
            wish(&mut gone);
            assert_eq!(decided(&gone, 1000), Some(Forget::NodeGone));
        }
    }

    #[test]
    fn the_time_counts_from_the_loss() {
        let mut cell = cell(Some(CellState::Missing), None);
        cell.status.last_recovery = Some(LastRecovery {
            epoch: 1,
            lost_time: Some(MicroTime(at(150))),
            detected_time: None,
            recovered_time: None,
            actual_lrps: 0,
            waiting_actual_lrps: 0,
            tasks: 0,
            source: None,
            confirmed: None,
        });
        assert_eq!(decided(&cell, 209), None);
        assert_eq!(decided(&cell, 210), Some(Forget::Retention));
    }
}
