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
    /// Pods that were there before.
    pub(super) others: Vec<Other>,
    /// And those placed since, of Tasks as well.
    pub(super) placed: Vec<(&'a Asked, NodeRecord)>,
}

/// Whether and how long ago it gave the work back, and the instances in its zone: less goes first.
type Tier = (Option<usize>, u32);

/// A Pod, whoever's it is.
struct Pod<'a> {
    likeness: Likeness<'a>,
    apart: &'a [PodTerm],
    node: &'a NodeRecord,
}

impl<'a> Reference<'a> {
    pub(super) fn place(&mut self, asked: &'a Asked) -> Result<String, String> {
        let Asked {
            work,
            demand,
            avoid,
        } = asked;
        let compatible: Vec<&Cell> = self
            .cells
            .iter()
            .filter(|cell| is_open(cell) && runs(cell, demand))
            .filter(|cell| is_tagged(cell, demand) && stands_right(cell, demand))
            .collect();
        // Who did not give it back, then who did, the last one last.
        let grudge = |cell: &Cell| avoid.iter().position(|name| *name == cell.name);
        let mut offers: Vec<(Tier, f64, &str)> = compatible
            .iter()
            .filter(|cell| {
                let room = &cell.room;
                room.used.memory + demand.resources.memory <= room.capacity.memory
                    && room.used.disk + demand.resources.disk <= room.capacity.disk
                    && room.used_containers < room.containers
                    && (!room.counts_cpu
                        || room.used.cpu + demand.resources.cpu <= room.capacity.cpu)
            })
            .filter(|cell| self.unwelcome(asked, cell).is_none())
            .map(|cell| {
                (
                    (grudge(cell), self.in_zone(work, &cell.zone)),
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
            return Err(self.why(&compatible, asked));
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
        if cell.executor == ExecutorKind::Pods {
            self.placed.push((asked, cell.node.clone()));
        }
        cell.room.used.memory += demand.resources.memory;
        cell.room.used.disk += demand.resources.disk;
        cell.room.used.cpu += demand.resources.cpu;
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

    /// The scheduler's rules, as its documentation has them.
    fn unwelcome(&self, asked: &Asked, cell: &Cell) -> Option<&'static str> {
        if cell.executor == ExecutorKind::Process {
            return None;
        }
        let slot = match &asked.work {
            Work::Lrp { process, index } => Some((process.name.clone(), *index)),
            Work::Task(_) => None,
        };
        let before = self.others.iter();
        // Not what it replaces.
        let replaced =
            |other: &Other| other.of.is_some() && other.of == slot && other.namespace == "default";
        let before = before.filter(|other| !replaced(other)).map(|other| Pod {
            likeness: Likeness {
                namespace: &other.namespace,
                labels: &other.labels,
                of: other.of.as_ref().map(|(name, _)| Of::Process(name)),
            },
            apart: &other.apart,
            node: &other.node,
        });
        let since = self.placed.iter().map(|(asked, node)| Pod {
            likeness: likeness(asked),
            apart: &asked.demand.pods.apart,
            node,
        });
        let pods: Vec<Pod<'_>> = before.chain(since).collect();
        let me = likeness(asked);
        let needs = &asked.demand.pods;
        let label = |node: &NodeRecord, key: &str| node.labels.get(key).cloned();
        let together = |pod: &Pod<'_>, key: &str| {
            let here = label(&cell.node, key);
            here.is_some() && here == label(pod.node, key)
        };
        let all_mean =
            |other: &Likeness<'_>| needs.near.iter().all(|term| term.means("default", other));
        let friends = || pods.iter().filter(|pod| all_mean(&pod.likeness));
        let near = |term: &PodTerm| friends().any(|pod| together(pod, &term.topology));
        if needs
            .near
            .iter()
            .any(|term| label(&cell.node, &term.topology).is_none())
        {
            return Some("node(s) didn't match pod affinity rules");
        }
        if !needs.near.iter().all(near) {
            let placed = |pod: &Pod<'_>| {
                let mut keys = needs.near.iter().map(|term| &term.topology);
                keys.any(|key| label(pod.node, key).is_some())
            };
            let first = !friends().any(placed) && all_mean(&me);
            if !first {
                return Some("node(s) didn't match pod affinity rules");
            }
        }
        let close = |term: &PodTerm| {
            let meant = |pod: &&Pod<'_>| term.means("default", &pod.likeness);
            pods.iter()
                .filter(meant)
                .any(|pod| together(pod, &term.topology))
        };
        if needs.apart.iter().any(close) {
            return Some("node(s) didn't match pod anti-affinity rules");
        }
        let keeps_off = |pod: &Pod<'_>| {
            let mut terms = pod.apart.iter();
            terms.any(|term| {
                term.means(pod.likeness.namespace, &me) && together(pod, &term.topology)
            })
        };
        let existing = "node(s) didn't satisfy existing pods anti-affinity rules";
        pods.iter().any(keeps_off).then_some(existing)
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
        let three = share(room.used.memory + wanted.memory, room.capacity.memory)
            + share(room.used.disk + wanted.disk, room.capacity.disk)
            + share(
                i64::from(room.used_containers) + 1,
                i64::from(room.containers),
            );
        let resources = match room.counts_cpu {
            false => three / 3.0,
            true => (three + share(room.used.cpu + wanted.cpu, room.capacity.cpu)) / 4.0,
        };
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

    fn why(&self, compatible: &[&Cell], asked: &Asked) -> String {
        let demand = &asked.demand;
        let why = self.last_filter(compatible, demand);
        let nodes = || {
            let pods = |cell: &&Cell| cell.executor == ExecutorKind::Pods;
            self.cells.iter().filter(pods)
        };
        if demand.pods_refusal.is_some() || nodes().next().is_none() {
            return why;
        }
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for cell in nodes() {
            for reason in why_not(cell, demand, self.unwelcome(asked, cell)) {
                *counts.entry(reason).or_default() += 1;
            }
        }
        let counts: Vec<_> = counts.iter().map(|(why, n)| format!("{n} {why}")).collect();
        let all = nodes().count();
        format!("{why}; 0/{all} nodes are available: {}", counts.join(", "))
    }

    fn last_filter(&self, compatible: &[&Cell], demand: &Demand) -> String {
        let open: Vec<&Cell> = self.cells.iter().filter(|cell| is_open(cell)).collect();
        if open.is_empty() {
            return "unable to communicate to compatible cells".into();
        }
        if !open.iter().any(|cell| runs(cell, demand)) {
            let says = |kind, refusal: &Option<String>| {
                let there = open.iter().any(|cell| cell.executor == kind);
                refusal.clone().filter(|_| there)
            };
            let refusals = [
                says(ExecutorKind::Process, &demand.process_refusal),
                says(ExecutorKind::Pods, &demand.pods_refusal),
            ];
            let refusals: Vec<String> = refusals.into_iter().flatten().collect();
            return refusals.join("; ");
        }
        let tagged = |cell: &&Cell| runs(cell, demand) && is_tagged(cell, demand);
        if !open.iter().any(tagged) {
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
        if compatible.is_empty() {
            return "found no compatible cell".into();
        }
        if compatible.iter().any(|cell| lacks(cell, demand).is_empty()) {
            return "no cell satisfies the pod affinity and anti-affinity rules".into();
        }
        let mut common = vec!["containers", "cpu", "disk", "memory"];
        for cell in compatible {
            common.retain(|problem| lacks(cell, demand).contains(problem));
        }
        match common.is_empty() {
            true => "insufficient resources".into(),
            false => format!("insufficient resources: {}", common.join(", ")),
        }
    }
}

fn is_open(cell: &Cell) -> bool {
    !cell.cordoned
        && !cell.rests
        && (cell.executor == ExecutorKind::Process || cell.standing == Standing::Open)
}

fn runs(cell: &Cell, demand: &Demand) -> bool {
    match cell.executor {
        ExecutorKind::Process => demand.process_refusal.is_none(),
        ExecutorKind::Pods => demand.pods_refusal.is_none(),
    }
}

fn is_tagged(cell: &Cell, demand: &Demand) -> bool {
    let known = |tag| cell.required.contains(tag) || cell.optional.contains(tag);
    cell.required.iter().all(|tag| demand.tags.contains(tag)) && demand.tags.iter().all(known)
}

fn stands_right(cell: &Cell, demand: &Demand) -> bool {
    cell.executor == ExecutorKind::Process
        || node::fit(&demand.node, &cell.name, &cell.node).is_ok()
}

fn lacks(cell: &Cell, demand: &Demand) -> Vec<&'static str> {
    let (room, wanted) = (&cell.room, demand.resources);
    let mut lacks = Vec::new();
    if room.used_containers >= room.containers {
        lacks.push("containers");
    }
    if room.counts_cpu && room.used.cpu + wanted.cpu > room.capacity.cpu {
        lacks.push("cpu");
    }
    if room.used.disk + wanted.disk > room.capacity.disk {
        lacks.push("disk");
    }
    if room.used.memory + wanted.memory > room.capacity.memory {
        lacks.push("memory");
    }
    lacks
}

fn likeness(asked: &Asked) -> Likeness<'_> {
    let of = match &asked.work {
        Work::Lrp { process, .. } => Of::Process(&process.name),
        Work::Task(key) => Of::Task(&key.name),
    };
    asked.demand.likeness("default", of)
}

fn why_not(cell: &Cell, demand: &Demand, unwelcome: Option<&str>) -> Vec<String> {
    if let Some(why) = cell.standing.why_not() {
        return vec![why.into()];
    }
    if cell.cordoned {
        return vec!["node(s) were cordoned by their Cell".into()];
    }
    if cell.rests {
        return vec!["node(s) were held back with their Cell".into()];
    }
    if !is_tagged(cell, demand) {
        return vec!["node(s) didn't match the placement tags".into()];
    }
    if let Err(unfit) = node::fit(&demand.node, &cell.name, &cell.node) {
        return vec![unfit.to_string()];
    }
    let lacks = lacks(cell, demand);
    if lacks.is_empty() {
        return unwelcome.map(str::to_owned).into_iter().collect();
    }
    let in_words = |name| match name {
        "containers" => "Too many pods",
        "cpu" => "Insufficient cpu",
        "disk" => "Insufficient ephemeral-storage",
        _ => "Insufficient memory",
    };
    lacks
        .into_iter()
        .map(|name| in_words(name).into())
        .collect()
}
