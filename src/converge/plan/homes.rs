//! Whether a Cell that lost its containers and is back can start an instance anew where it was.

use std::collections::HashMap;

use crate::api::{ExecutorKind, template::Resources};
use crate::converge::demand::Demand;
use crate::converge::world::{Foreign, Load, World};

use super::batch::bidder;

/// What is taken of the Cells in question, as it was before the first of their instances was looked at: a Pod that its
/// record does not name any more since then is on its way out, and must not drive away the others.
#[derive(Default)]
pub(super) struct Homes(HashMap<String, Home>);

struct Home {
    resources: Resources,
    containers: i32,
    foreign: Foreign,
}

impl Homes {
    /// Whether what `demand` says, and is charged to the Cell already, may begin there anew. A Cell that is a node must be
    /// one that the auction could choose; any other machine has what it had before.
    pub(super) fn take_back(&mut self, world: &World, cell: &str, demand: &Demand) -> bool {
        let Some(record) = world.cells().get(cell) else {
            return true;
        };
        match record.executor {
            ExecutorKind::Process => return true,
            ExecutorKind::Pods => {}
        }
        let home = self.0.entry(cell.to_owned()).or_insert_with(|| {
            let load = world.load(cell);
            let node = record.node.as_ref().map(|node| world.foreign(&node.name));
            Home {
                resources: load.map(|load| load.resources).unwrap_or_default(),
                containers: load.map_or(0, |load| load.containers),
                foreign: node.unwrap_or_default(),
            }
        });
        let wanted = demand.resources;
        let others = Load {
            resources: Resources {
                memory: home.resources.memory.saturating_sub(wanted.memory),
                disk: home.resources.disk.saturating_sub(wanted.disk),
                cpu: home.resources.cpu.saturating_sub(wanted.cpu),
            },
            containers: home.containers.saturating_sub(1),
            ..Load::default()
        };
        let takes = demand.scheduler.is_none()
            && bidder(world, 0, cell, record, &others, home.foreign).takes(demand);
        if !takes {
            (home.resources, home.containers) = (others.resources, others.containers);
        }
        takes
    }
}
