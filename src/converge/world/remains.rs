//! What may still run of one instance whose Cell is lost.

use super::{Key, World};
use crate::converge::fence::Remains;
use crate::converge::node::Standing;
use crate::converge::pods::WorkKey;

impl World {
    /// What may still run of this ActualLRP on a Cell, if that is lost. A fencer on a node finds Pods by their label, which
    /// those bear that were made since there are fencers.
    pub fn remains_of(&self, lrp: &Key, cell: &str) -> Remains {
        let remains = self.remains(cell);
        let node = self.cells.get(cell).and_then(|cell| cell.node.as_ref());
        let (Remains::Fenced, Some(node)) = (&remains, node) else {
            return remains;
        };
        let work = WorkKey::lrp(lrp.clone());
        let named = self.lrp(lrp).into_iter().flat_map(|lrp| lrp.status.named());
        let mut guids = named
            .filter(|one| one.cell == cell)
            .filter_map(|one| one.guid);
        let own = &self.nodes.own;
        let unread = node.standing == Standing::NotRead;
        match unread || guids.any(|guid| own.is_unfenced(&work, guid)) {
            true => Remains::Unknown {
                node: Some(node.name.clone()),
            },
            false => remains,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::{CellRecord, Lrp, Version};
    use super::*;
    use crate::api::{ActualLRPState, ActualLRPStatus, CellState, CellStatus, ExecutorKind};
    use crate::converge::fixtures;
    use crate::converge::neighbours::PodKin;
    use crate::converge::node::{CellNode, NodeRecord};

    fn cell(standing: Standing) -> CellRecord {
        CellRecord {
            executor: ExecutorKind::Pods,
            node: Some(CellNode {
                name: "n1".into(),
                standing,
            }),
            status: CellStatus {
                state: Some(CellState::Missing),
                epoch: Some(7),
                fenced: Some(true),
                ..CellStatus::default()
            },
            ..fixtures::cell()
        }
    }

    fn world() -> World {
        let mut world = World::default();
        world.put_node("n1", NodeRecord::default());
        world.end_node_list(&HashSet::from(["n1".to_owned()]));
        let since = world.begin_relist();
        world.end_foreign_list(since);
        world.put_cell("a", cell(Standing::Open));
        let status = ActualLRPStatus {
            state: ActualLRPState::Running,
            cell_name: Some("a".into()),
            cell_epoch: Some(7),
            instance_guid: Some("one".into()),
            ..ActualLRPStatus::default()
        };
        let lrp = Lrp {
            version: Version::default(),
            process: "web".into(),
            index: 0,
            owner: None,
            status,
        };
        world.put_lrp(&slot(), lrp);
        world
    }

    fn slot() -> Key {
        Key::new("ns", "web").instance(0)
    }

    #[test]
    fn a_pod_without_the_label_for_fencers_may_still_run() {
        let unknown = Remains::Unknown {
            node: Some("n1".into()),
        };
        let mut world = world();
        assert_eq!(world.remains_of(&slot(), "a"), Remains::Fenced);
        let none = Default::default();
        let work = || WorkKey::lrp(slot());
        world.put_own(1, "n1", none, work(), "one", PodKin::default());
        assert_eq!(world.remains_of(&slot(), "a"), unknown, "made before");
        world.mark_strict(1);
        assert_eq!(world.remains_of(&slot(), "a"), Remains::Fenced);
        // Another instance of the slot is another matter.
        world.put_own(2, "n1", none, work(), "two", PodKin::default());
        assert_eq!(world.remains_of(&slot(), "a"), Remains::Fenced);
    }
}
