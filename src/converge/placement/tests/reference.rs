//! The auction's rules as they read, with nothing worked out ahead.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::*;

/// What the auction is held against.
pub(super) struct Reference<'a> {
    pub(super) cells: Vec<Cell>,
    pub(super) knobs: Knobs,
    pub(super) starting: i64,
    /// Instances by process and Cell.
    pub(super) there: BTreeMap<(&'a str, String), u32>,
}

impl<'a> Reference<'a> {
    pub(super) fn place(&mut self, work: &'a Work, demand: &Demand) -> Result<String, String> {
        let compatible: Vec<&Cell> = self
            .cells
            .iter()
            .filter(|cell| !cell.cordoned && cell.executor == ExecutorKind::Process)
            .filter(|_| demand.process_refusal.is_none())
            .filter(|cell| cell.required.iter().all(|tag| demand.tags.contains(tag)))
            .filter(|cell| {
                let known = |tag| cell.required.contains(tag) || cell.optional.contains(tag);
                demand.tags.iter().all(known)
            })
            .collect();
        let mut offers: Vec<(u32, f64, &str)> = compatible
            .iter()
            .filter(|cell| {
                let room = &cell.room;
                room.used.memory + demand.resources.memory <= room.capacity.memory
                    && room.used.disk + demand.resources.disk <= room.capacity.disk
                    && room.used_containers < room.containers
            })
            .map(|cell| {
                (
                    self.in_zone(work, &cell.zone),
                    self.score(work, demand, cell),
                    &*cell.name,
                )
            })
            .collect();
        offers.sort_by(|a, b| {
            let scores = a.1.partial_cmp(&b.1).unwrap_or(Ordering::Equal);
            a.0.cmp(&b.0).then(scores).then(a.2.cmp(b.2))
        });
        let Some(winner) = offers.first().map(|offer| offer.2.to_owned()) else {
            return Err(self.why(&compatible, demand));
        };
        let maximum = i64::from(self.knobs.starting_container_count_maximum);
        if matches!(work, Work::Lrp { .. }) && maximum > 0 && self.starting >= maximum {
            return Err(START_LIMIT.into());
        }
        let cell = self
            .cells
            .iter_mut()
            .find(|cell| cell.name == winner)
            .unwrap();
        cell.room.used.memory += demand.resources.memory;
        cell.room.used.disk += demand.resources.disk;
        cell.room.used_containers += 1;
        match work {
            Work::Task(_) => cell.room.tasks += 1,
            Work::Lrp { process, .. } => {
                cell.room.starting += 1;
                self.starting += 1;
                *self
                    .there
                    .entry((&process.name, winner.clone()))
                    .or_default() += 1;
            }
        }
        Ok(winner)
    }

    fn in_zone(&self, work: &Work, zone: &str) -> u32 {
        let in_zone = self.cells.iter().filter(|cell| cell.zone == zone);
        in_zone.map(|cell| self.on(work, &cell.name)).sum()
    }

    fn on(&self, work: &Work, cell: &str) -> u32 {
        match work {
            Work::Task(_) => 0,
            Work::Lrp { process, .. } => {
                let here = self
                    .there
                    .iter()
                    .filter(|((p, c), _)| *p == process.name && c == cell);
                here.map(|(_, count)| *count).sum()
            }
        }
    }

    fn score(&self, work: &Work, demand: &Demand, cell: &Cell) -> f64 {
        let share = |used: i64, total: i64| {
            if total > 0 {
                used as f64 / total as f64
            } else {
                0.0
            }
        };
        let (room, wanted) = (&cell.room, demand.resources);
        let resources = (share(room.used.memory + wanted.memory, room.capacity.memory)
            + share(room.used.disk + wanted.disk, room.capacity.disk)
            + share(
                i64::from(room.used_containers) + 1,
                i64::from(room.containers),
            ))
            / 3.0;
        let others = match work {
            Work::Task(_) => f64::from(room.tasks) * 1000.0,
            Work::Lrp { .. } => {
                let before = self
                    .cells
                    .iter()
                    .filter(|other| other.name < cell.name)
                    .count();
                f64::from(room.starting) * self.knobs.starting_container_weight
                    + f64::from(self.on(work, &cell.name)) * 1000.0
                    + before as f64 * self.knobs.bin_pack_first_fit_weight
            }
        };
        resources + others
    }

    fn why(&self, compatible: &[&Cell], demand: &Demand) -> String {
        let open: Vec<&Cell> = self.cells.iter().filter(|cell| !cell.cordoned).collect();
        if open.is_empty() {
            return "unable to communicate to compatible cells".into();
        }
        if let Some(refusal) = &demand.process_refusal {
            return refusal.clone();
        }
        if open.iter().all(|cell| cell.executor == ExecutorKind::Pods) {
            return "found no compatible cell: no Cell has an executor for it".into();
        }
        if compatible.is_empty() {
            return match demand.tags.len() {
                0 => "found no compatible cell with no placement tags".into(),
                1 => format!(
                    "found no compatible cell with placement tag {:?}",
                    demand.tags[0]
                ),
                _ => format!(
                    "found no compatible cell with placement tags \"{}\"",
                    demand.tags.join("\", \"")
                ),
            };
        }
        let mut common = vec!["containers", "disk", "memory"];
        for Cell { room, .. } in compatible {
            common.retain(|problem| match *problem {
                "containers" => room.used_containers >= room.containers,
                "disk" => room.used.disk + demand.resources.disk > room.capacity.disk,
                _ => room.used.memory + demand.resources.memory > room.capacity.memory,
            });
        }
        match common.is_empty() {
            true => "insufficient resources".into(),
            false => format!("insufficient resources: {}", common.join(", ")),
        }
    }
}
