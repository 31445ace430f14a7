//! The auction: choosing Cells for a batch of work (Diego's `auction/auctionrunner`).
//!
//! Filters first (executor, placement tags, resources), then for an LRP the zone with the fewest instances
//! of the same process, then the lowest score: resources used, instances starting, instances of the same
//! process on the Cell. Ties go to the Cell whose name comes first, so the same batch gives the same answer.

use std::collections::HashMap;

use crate::api::{ExecutorKind, template::Resources};

use super::demand::Demand;
use super::world::Key;

/// Outweighs every resource: an instance goes beside one of its own process only when no other Cell is left
/// (Diego's `LocalityOffset`).
const LOCALITY_OFFSET: f64 = 1000.0;

/// What one starting instance weighs against resources (Diego's `starting_container_weight`).
const STARTING_WEIGHT: f64 = 0.25;

/// A Cell that takes part in the auction.
#[derive(Debug, Clone, PartialEq)]
pub struct Bidder {
    /// Its name.
    pub name: String,
    /// Its epoch.
    pub epoch: i64,
    /// Its zone.
    pub zone: String,
    /// How it runs work.
    pub executor: ExecutorKind,
    /// Tags that work must carry.
    pub required_tags: Vec<String>,
    /// Tags that work may carry.
    pub optional_tags: Vec<String>,
    /// Memory and disk, in bytes.
    pub capacity: Resources,
    /// Containers at once.
    pub containers: i32,
    /// Memory and disk taken.
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
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// What it is.
    pub work: Work,
    /// What it needs.
    pub demand: &'a Demand,
}

/// Index 0 of every process first, then Tasks, then other indexes; larger memory first; then by name.
pub fn order(asks: &mut [Ask<'_>]) {
    let class = |ask: &Ask<'_>| match &ask.work {
        Work::Lrp { index: 0, .. } => 0,
        Work::Task(_) => 1,
        Work::Lrp { .. } => 2,
    };
    let name = |ask: &Ask<'_>| match &ask.work {
        Work::Lrp { process, index } => (process.clone(), *index),
        Work::Task(key) => (key.clone(), 0),
    };
    asks.sort_by(|a, b| {
        class(a)
            .cmp(&class(b))
            .then(b.demand.resources.memory.cmp(&a.demand.resources.memory))
            .then_with(|| name(a).cmp(&name(b)))
    });
}

/// An auction under way: every placement is seen by the next.
pub struct Auction {
    bidders: Vec<Bidder>,
    /// Zone of each bidder, as an index into the zones.
    zone_of: Vec<usize>,
    zones: usize,
    /// Instances of a process by bidder, for the processes met so far.
    counts: HashMap<Key, Vec<u32>>,
}

impl Auction {
    /// An auction among `bidders`.
    pub fn new(mut bidders: Vec<Bidder>) -> Self {
        bidders.sort_by(|a, b| a.name.cmp(&b.name));
        let mut zones: HashMap<&str, usize> = HashMap::new();
        let mut zone_of = Vec::with_capacity(bidders.len());
        for bidder in &bidders {
            let next = zones.len();
            zone_of.push(*zones.entry(&bidder.zone).or_insert(next));
        }
        let zones = zones.len();
        Auction {
            bidders,
            zone_of,
            zones,
            counts: HashMap::new(),
        }
    }

    /// Places one piece of work. `cells_of` lists the Cells of the instances that a process has already.
    ///
    /// # Errors
    /// Why no Cell can take it, in Diego's words.
    pub fn place(
        &mut self,
        ask: &Ask<'_>,
        cells_of: impl FnOnce() -> Vec<String>,
    ) -> Result<(String, i64), String> {
        if self.bidders.is_empty() {
            return Err("unable to communicate to compatible cells".into());
        }
        let winner = match &ask.work {
            Work::Lrp { process, .. } => {
                if !self.counts.contains_key(process) {
                    let counts = self.count(&cells_of());
                    self.counts.insert(process.clone(), counts);
                }
                let counts = &self.counts[process];
                let mut by_zone = vec![0u32; self.zones];
                for (bidder, count) in counts.iter().enumerate() {
                    by_zone[self.zone_of[bidder]] += count;
                }
                self.best(ask.demand, |i, bidder| {
                    let score = bidder.score(&ask.demand.resources)
                        + f64::from(bidder.starting) * STARTING_WEIGHT
                        + f64::from(counts[i]) * LOCALITY_OFFSET;
                    (by_zone[self.zone_of[i]], score)
                })
            }
            Work::Task(_) => self.best(ask.demand, |_, bidder| {
                (
                    0,
                    bidder.score(&ask.demand.resources) + f64::from(bidder.tasks) * LOCALITY_OFFSET,
                )
            }),
        };
        let Some(i) = winner else {
            return Err(self.explain(ask.demand));
        };
        let bidder = &mut self.bidders[i];
        bidder.used.memory += ask.demand.resources.memory;
        bidder.used.disk += ask.demand.resources.disk;
        bidder.used_containers += 1;
        match &ask.work {
            Work::Lrp { process, .. } => {
                bidder.starting += 1;
                if let Some(counts) = self.counts.get_mut(process) {
                    counts[i] += 1;
                }
            }
            Work::Task(_) => bidder.tasks += 1,
        }
        Ok((self.bidders[i].name.clone(), self.bidders[i].epoch))
    }

    fn count(&self, cells: &[String]) -> Vec<u32> {
        let mut counts = vec![0; self.bidders.len()];
        for cell in cells {
            if let Ok(i) = self
                .bidders
                .binary_search_by(|bidder| bidder.name.as_str().cmp(cell))
            {
                counts[i] += 1;
            }
        }
        counts
    }

    fn best(&self, demand: &Demand, rank: impl Fn(usize, &Bidder) -> (u32, f64)) -> Option<usize> {
        let mut best: Option<(usize, (u32, f64))> = None;
        for (i, bidder) in self.bidders.iter().enumerate() {
            if !bidder.compatible(demand) || !bidder.fits(&demand.resources) {
                continue;
            }
            let (zone, score) = rank(i, bidder);
            let better = best.is_none_or(|(_, (best_zone, best_score))| {
                zone < best_zone || (zone == best_zone && score < best_score)
            });
            if better {
                best = Some((i, (zone, score)));
            }
        }
        best.map(|(i, _)| i)
    }

    /// Why nobody can take it: the last filter that nobody passed.
    fn explain(&self, demand: &Demand) -> String {
        let executors: Vec<&Bidder> = self
            .bidders
            .iter()
            .filter(|bidder| bidder.runs(demand))
            .collect();
        if executors.is_empty() {
            return match &demand.process_refusal {
                Some(refusal) => refusal.clone(),
                None => "found no compatible cell: no Cell has an executor for it".into(),
            };
        }
        let tagged: Vec<&&Bidder> = executors
            .iter()
            .filter(|bidder| bidder.tags_match(&demand.tags))
            .collect();
        if tagged.is_empty() {
            return match demand.tags.as_slice() {
                [] => "found no compatible cell with no placement tags".into(),
                [tag] => format!("found no compatible cell with placement tag \"{tag}\""),
                tags => format!(
                    "found no compatible cell with placement tags \"{}\"",
                    tags.join("\", \"")
                ),
            };
        }
        // Only what is lacking on all of them.
        let lacking = |short: &dyn Fn(&Bidder) -> bool| tagged.iter().all(|bidder| short(bidder));
        let wanted = demand.resources;
        let mut missing = Vec::new();
        if lacking(&|bidder| bidder.used_containers >= bidder.containers) {
            missing.push("containers");
        }
        if lacking(&|bidder| bidder.used.disk.saturating_add(wanted.disk) > bidder.capacity.disk) {
            missing.push("disk");
        }
        if lacking(&|bidder| {
            bidder.used.memory.saturating_add(wanted.memory) > bidder.capacity.memory
        }) {
            missing.push("memory");
        }
        if missing.is_empty() {
            return "insufficient resources".into();
        }
        format!("insufficient resources: {}", missing.join(", "))
    }
}

impl Bidder {
    fn compatible(&self, demand: &Demand) -> bool {
        self.runs(demand) && self.tags_match(&demand.tags)
    }

    /// Cells with executor Pods take no work yet: nothing makes their Pods.
    fn runs(&self, demand: &Demand) -> bool {
        self.executor == ExecutorKind::Process && demand.process_refusal.is_none()
    }

    /// The Cell's required tags, then any of its optional ones: required <= wanted <= required + optional.
    fn tags_match(&self, wanted: &[String]) -> bool {
        self.required_tags.iter().all(|tag| wanted.contains(tag))
            && wanted
                .iter()
                .all(|tag| self.required_tags.contains(tag) || self.optional_tags.contains(tag))
    }

    fn fits(&self, wanted: &Resources) -> bool {
        self.used_containers < self.containers
            && self.used.memory.saturating_add(wanted.memory) <= self.capacity.memory
            && self.used.disk.saturating_add(wanted.disk) <= self.capacity.disk
    }

    /// The mean of the used fractions of memory, disk and containers after the placement.
    fn score(&self, wanted: &Resources) -> f64 {
        let fraction = |used: i64, total: i64| {
            if total > 0 {
                used as f64 / total as f64
            } else {
                0.0
            }
        };
        let memory = fraction(self.used.memory + wanted.memory, self.capacity.memory);
        let disk = fraction(self.used.disk + wanted.disk, self.capacity.disk);
        let containers = fraction(
            i64::from(self.used_containers) + 1,
            i64::from(self.containers),
        );
        (memory + disk + containers) / 3.0
    }
}
