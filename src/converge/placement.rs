//! The auction's terms: who bids, what is asked for, and the knobs.
//!
//! Filters first: executor, placement tags, cordon and rest, what the template asks of a node, resources. Then, for an LRP, the
//! zone with the fewest instances of the same process, then the lowest score: resources used, instances starting,
//! instances of the same process on the Cell. Ties go to the Cell whose name comes first, so the same batch gives the
//! same answer. A Cell that gave the work back is chosen only when no other is left. The rules are Diego's (`auction/auctionrunner`); [`Auction`] carries them out.

use std::cmp::Reverse;

use crate::api::{ExecutorKind, template::Resources};

use super::demand::Demand;
use super::neighbours::{Likeness, Of};
use super::node::{self, NodeRecord, Standing};
use super::world::{Foreign, Key};

mod auction;
mod company;
mod on_nodes;
mod refusal;
#[cfg(test)]
mod tests;

pub use auction::{Auction, Winner};
pub use refusal::{START_LIMIT, says_the_same};

/// Outweighs every resource: an instance goes beside one of its own process only when no other Cell is left
/// (Diego's `LocalityOffset`).
const LOCALITY_OFFSET: f64 = 1000.0;

/// What operators may change about the auction, under Diego's names and with its defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Knobs {
    /// What one starting instance weighs against resources, of which a full Cell has 1.
    pub starting_container_weight: f64,
    /// What one place further down the list of Cells, by name, weighs: more than 0 fills the first Cells first.
    pub bin_pack_first_fit_weight: f64,
    /// At most so many instances start at once, on all Cells together; 0 is no limit.
    pub starting_container_count_maximum: u32,
}

impl Default for Knobs {
    fn default() -> Self {
        Knobs {
            starting_container_weight: 0.25,
            bin_pack_first_fit_weight: 0.0,
            starting_container_count_maximum: 0,
        }
    }
}

/// A Cell that takes part in the auction.
#[derive(Debug, Clone, PartialEq)]
pub struct Bidder<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its place among all Cells, by name.
    pub index: usize,
    /// Its epoch.
    pub epoch: i64,
    /// Its zone.
    pub zone: &'a str,
    /// How it runs work.
    pub executor: ExecutorKind,
    /// Tags that work must carry.
    pub required_tags: &'a [String],
    /// Tags that work may carry.
    pub optional_tags: &'a [String],
    /// It takes no new work; what it runs counts for the spread over zones.
    pub cordoned: bool,
    /// It takes none for now: it was lost and came back again and again, or its loss is held back.
    pub rests: bool,
    /// The node that it is, with executor Pods.
    pub node: Option<Ground<'a>>,
    /// What it has and what is taken.
    pub room: Room,
}

/// The node that a Cell is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ground<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it takes Pods.
    pub standing: Standing,
    /// What is known of it.
    pub record: Option<&'a NodeRecord>,
}

/// What a Cell has to offer and what is taken of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Room {
    /// Memory and disk, in bytes; CPU in thousandths.
    pub capacity: Resources,
    /// CPU limits it and counts for how full it is: a node's does, that of other machines is not known.
    pub counts_cpu: bool,
    /// Containers at once.
    pub containers: i32,
    /// What is taken of that.
    pub used: Resources,
    /// Containers taken.
    pub used_containers: i32,
    /// Instances that are starting.
    pub starting: i32,
    /// Tasks on it.
    pub tasks: i32,
}

/// What is to be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// An instance of a process.
    Lrp {
        /// The DesiredLRP.
        process: Key,
        /// Which instance.
        index: i32,
    },
    /// A Task.
    Task(Key),
}

/// One piece of work and its needs.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// What it is.
    pub work: &'a Work,
    /// What it needs.
    pub demand: &'a Demand,
    /// Cells that gave it back, the last one last: others go before them, and the last one comes last.
    pub avoid: &'a [String],
}

impl<'a> Ask<'a> {
    /// The order of a batch: index 0 of every process first, then Tasks, then other indices; larger memory first;
    /// then by name.
    pub fn rank(&self) -> impl Ord + use<'a> {
        let (class, key, index) = match self.work {
            Work::Lrp { process, index: 0 } => (0, process, 0),
            Work::Task(key) => (1, key, 0),
            Work::Lrp { process, index } => (2, process, *index),
        };
        (class, Reverse(self.demand.resources.memory), key, index)
    }

    /// Its Pods as the terms of others see them.
    pub fn likeness(&self) -> Likeness<'a> {
        let (key, of) = match self.work {
            Work::Lrp { process, .. } => (process, Of::Process(&process.name)),
            Work::Task(key) => (key, Of::Task(&key.name)),
        };
        self.demand.likeness(&key.namespace, of)
    }
}

impl Bidder<'_> {
    /// Whether it could win such work now.
    pub fn takes(&self, demand: &Demand) -> bool {
        !self.is_closed() && self.compatible(demand) && self.room.fits(demand.resources)
    }

    /// Whether it may run such work at all, room or not.
    fn compatible(&self, demand: &Demand) -> bool {
        self.runs(demand) && self.tags_match(&demand.tags) && self.stands_right(demand)
    }

    /// Whether its executor can give what the template asks for.
    fn runs(&self, demand: &Demand) -> bool {
        match self.executor {
            ExecutorKind::Process => demand.process_refusal.is_none(),
            ExecutorKind::Pods => demand.pods_refusal.is_none(),
        }
    }

    /// Whether its node, if it is one, is what the template asks for.
    fn stands_right(&self, demand: &Demand) -> bool {
        match (self.executor, self.node) {
            (ExecutorKind::Process, _) => true,
            (
                ExecutorKind::Pods,
                Some(Ground {
                    name,
                    record: Some(record),
                    ..
                }),
            ) => node::fit(&demand.node, name, record).is_ok(),
            (ExecutorKind::Pods, _) => false,
        }
    }

    /// It takes no new work, by an operator's wish, for its past, or because its node takes none.
    fn is_closed(&self) -> bool {
        self.cordoned
            || self.rests
            || match self.executor {
                ExecutorKind::Process => false,
                ExecutorKind::Pods => self.node.is_none_or(|node| node.standing != Standing::Open),
            }
    }

    /// The Cell's required tags, then any of its optional ones: required <= wanted <= required + optional.
    fn tags_match(&self, wanted: &[String]) -> bool {
        self.required_tags.iter().all(|tag| wanted.contains(tag))
            && wanted
                .iter()
                .all(|tag| self.required_tags.contains(tag) || self.optional_tags.contains(tag))
    }
}

impl Room {
    /// The room of a Cell that is a node: no more than the node gives to all Pods, of which others have taken some,
    /// and no more than the Cell offers to ours.
    pub fn on_node(self, node: &NodeRecord, foreign: Foreign) -> Room {
        let offered = Resources {
            // A Cell offers no certain part of its node's CPU.
            cpu: node.allocatable.cpu,
            ..self.capacity.plus(foreign.resources)
        };
        let capacity = node.allocatable.min(offered);
        let containers = node.pods.min(self.containers.saturating_add(foreign.pods));
        Room {
            capacity,
            counts_cpu: true,
            containers,
            // What asks for none of what is overdrawn fits all the same, as with the scheduler.
            used: self.used.plus(foreign.resources).min(capacity),
            used_containers: self.used_containers.saturating_add(foreign.pods),
            ..self
        }
    }

    fn fits(&self, wanted: Resources) -> bool {
        !self.lacks_containers()
            && !self.lacks_memory(wanted)
            && !self.lacks_disk(wanted)
            && !self.lacks_cpu(wanted)
    }

    fn lacks_containers(&self) -> bool {
        self.used_containers >= self.containers
    }

    fn lacks_memory(&self, wanted: Resources) -> bool {
        self.used.memory.saturating_add(wanted.memory) > self.capacity.memory
    }

    fn lacks_disk(&self, wanted: Resources) -> bool {
        self.used.disk.saturating_add(wanted.disk) > self.capacity.disk
    }

    fn lacks_cpu(&self, wanted: Resources) -> bool {
        self.counts_cpu && self.used.cpu.saturating_add(wanted.cpu) > self.capacity.cpu
    }

    /// The mean of the used fractions of memory, disk and containers, and of CPU where it counts, after the placement.
    fn fullness(&self, wanted: Resources) -> f64 {
        let fraction = |used: i64, total: i64| match total {
            1.. => used as f64 / total as f64,
            _ => 0.0,
        };
        let memory = fraction(self.used.memory + wanted.memory, self.capacity.memory);
        let disk = fraction(self.used.disk + wanted.disk, self.capacity.disk);
        let containers = fraction(
            i64::from(self.used_containers) + 1,
            i64::from(self.containers),
        );
        match self.counts_cpu {
            false => (memory + disk + containers) / 3.0,
            true => {
                let cpu = fraction(self.used.cpu + wanted.cpu, self.capacity.cpu);
                (memory + disk + containers + cpu) / 4.0
            }
        }
    }

    fn take(&mut self, wanted: Resources) {
        self.used = self.used.plus(wanted);
        self.used_containers += 1;
    }
}
