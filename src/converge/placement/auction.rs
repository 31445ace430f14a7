//! An auction under way: every placement is seen by the next.
//!
//! What is the same for many asks is worked out once (which Cells are compatible, where a process runs), so that one
//! placement is one pass over the rooms of the Cells that may win it.

use std::collections::{HashMap, HashSet};

use crate::api::template::Resources;
use crate::converge::demand::Demand;
use crate::converge::neighbours::Resident;
use crate::converge::node::NodeNeeds;
use crate::converge::world::Key;

use super::company::{Company, Judged, Verdict};
use super::refusal::{START_LIMIT, explain, left_to};
use super::{Ask, Bidder, Knobs, LOCALITY_OFFSET, Work};

/// The Cell that a piece of work goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Winner<'a> {
    /// Its name.
    pub cell: &'a str,
    /// Its epoch.
    pub epoch: i64,
}

/// An auction among Cells.
pub struct Auction<'a> {
    knobs: Knobs,
    /// By name. Below, a Cell is an index into this.
    bidders: Vec<Bidder<'a>>,
    /// Their zones, by number.
    zone_of: Vec<usize>,
    zones: usize,
    /// Instances that are starting on all Cells.
    starting: i64,
    /// The requirements met so far. Below, a requirement is its number.
    requirements: HashMap<Requirement<'a>, usize>,
    /// Their numbers by the address of the demand, which is borrowed for as long as this lives.
    numbers: HashMap<usize, usize>,
    /// Compatible Cells by zone, for every requirement.
    compatible: Vec<Vec<Vec<usize>>>,
    /// What no Cell could take since the last placement, and why.
    refused: HashMap<Wanted, String>,
    /// What some Cell has room for since the last placement; it is asked for by instances that may not start yet.
    held_back: HashSet<Wanted>,
    /// Where the processes met so far run.
    spreads: HashMap<&'a Key, Spread>,
    /// The spread in hand, spelled out for every Cell; all 0 between two placements.
    instances: Vec<u32>,
    /// The zones in the order in which they are looked at.
    zone_order: Vec<usize>,
    /// The Pods that have a say, if any has.
    company: Option<Company<'a>>,
}

/// What is asked for: the number of its requirement, its resources, and its group where Pods have a say, else 0.
type Wanted = (usize, Resources, usize);

/// All that decides whether a Cell is compatible.
#[derive(PartialEq, Eq, Hash)]
struct Requirement<'a> {
    tags: &'a [String],
    process_refusal: Option<&'a str>,
    pods_refusal: Option<&'a str>,
    node: &'a NodeNeeds,
}

/// Where the instances of a process are.
struct Spread {
    /// Cells that have any, and how many.
    cells: Vec<(usize, u32)>,
    by_zone: Vec<u32>,
}

/// The best offer so far: the lowest score, then the first name.
type Best = Option<(f64, usize)>;

impl<'a> Auction<'a> {
    /// An auction among `bidders`. `starting` is how many instances are starting on all Cells, bidders or not.
    pub fn new(mut bidders: Vec<Bidder<'a>>, starting: i64, knobs: Knobs) -> Self {
        bidders.sort_by_key(|bidder| bidder.name);
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let zone_of = bidders
            .iter()
            .map(|bidder| {
                let next = numbers.len();
                *numbers.entry(bidder.zone).or_insert(next)
            })
            .collect();
        let zones = numbers.len();
        Auction {
            knobs,
            zone_of,
            zones,
            starting,
            requirements: HashMap::new(),
            numbers: HashMap::new(),
            compatible: Vec::new(),
            refused: HashMap::new(),
            held_back: HashSet::new(),
            spreads: HashMap::new(),
            instances: vec![0; bidders.len()],
            zone_order: (0..zones).collect(),
            company: None,
            bidders,
        }
    }

    /// The same where Pods have a say: some of the work asks for Pods near it, or `residents` keep some off.
    pub fn among(mut self, residents: Vec<Resident<'a>>) -> Self {
        self.company = Some(Company::new(residents));
        self
    }

    /// Places one piece of work. `cells_of` lists the Cells of the instances that a process has already.
    ///
    /// # Errors
    /// Why no Cell can take it, in Diego's words.
    pub fn place(
        &mut self,
        ask: &Ask<'a>,
        cells_of: impl FnOnce() -> Vec<&'a str>,
    ) -> Result<Winner<'a>, String> {
        if let Some(scheduler) = &ask.demand.scheduler {
            return Err(left_to(scheduler));
        }
        let requirement = self.requirement(ask.demand);
        let company = self.company.as_mut();
        let judged = company.and_then(|company| company.judge(ask, &self.bidders));
        let (verdicts, group) = match judged {
            None => (None, Some(0)),
            Some(Judged { verdicts, group }) => (Some(verdicts), group),
        };
        let verdicts = verdicts.as_deref();
        let wanted = group.map(|group| (requirement, ask.demand.resources, group));
        if let Some(error) = wanted.and_then(|wanted| self.refused.get(&wanted)) {
            return Err(error.clone());
        }
        let winner = match ask.work {
            Work::Lrp { .. } if self.no_more_starts() => {
                if wanted.is_some_and(|wanted| self.held_back.contains(&wanted)) {
                    return Err(START_LIMIT.into());
                }
                if self.has_room(requirement, ask.demand, verdicts) {
                    self.held_back.extend(wanted);
                    return Err(START_LIMIT.into());
                }
                None
            }
            Work::Lrp { process, .. } => {
                if !self.spreads.contains_key(process) {
                    let spread = self.spread(&cells_of());
                    self.spreads.insert(process, spread);
                }
                self.best(ask, requirement, verdicts)
            }
            Work::Task(_) => self.best(ask, requirement, verdicts),
        };
        let Some(winner) = winner else {
            let error = explain(&self.bidders, ask.demand, verdicts);
            self.refused
                .extend(wanted.map(|wanted| (wanted, error.clone())));
            return Err(error);
        };
        if let Some(company) = &mut self.company {
            company.note(ask, &self.bidders[winner]);
        }
        // With less room the same is lacking, but maybe not only that.
        self.refused.clear();
        self.held_back.clear();
        match ask.work {
            Work::Lrp { process, .. } => {
                self.starting += 1;
                self.bidders[winner].room.starting += 1;
                if let Some(spread) = self.spreads.get_mut(process) {
                    spread.add(winner, self.zone_of[winner]);
                }
            }
            Work::Task(_) => self.bidders[winner].room.tasks += 1,
        }
        let bidder = &mut self.bidders[winner];
        bidder.room.take(ask.demand.resources);
        Ok(Winner {
            cell: bidder.name,
            epoch: bidder.epoch,
        })
    }

    /// The number of what `demand` requires.
    fn requirement(&mut self, demand: &'a Demand) -> usize {
        let address = std::ptr::from_ref(demand).addr();
        if let Some(number) = self.numbers.get(&address) {
            return *number;
        }
        let requirement = Requirement {
            tags: &demand.tags,
            process_refusal: demand.process_refusal.as_deref(),
            pods_refusal: demand.pods_refusal.as_deref(),
            node: &demand.node,
        };
        let number = match self.requirements.get(&requirement) {
            Some(number) => *number,
            None => {
                let number = self.compatible.len();
                self.compatible.push(self.compatible_by_zone(demand));
                self.requirements.insert(requirement, number);
                number
            }
        };
        self.numbers.insert(address, number);
        number
    }

    fn compatible_by_zone(&self, demand: &Demand) -> Vec<Vec<usize>> {
        let mut cells = vec![Vec::new(); self.zones];
        for (cell, bidder) in self.bidders.iter().enumerate() {
            if !bidder.is_closed() && bidder.compatible(demand) {
                cells[self.zone_of[cell]].push(cell);
            }
        }
        cells
    }

    fn spread(&self, names: &[&str]) -> Spread {
        let mut spread = Spread {
            cells: Vec::new(),
            by_zone: vec![0; self.zones],
        };
        for name in names {
            if let Ok(cell) = self
                .bidders
                .binary_search_by(|bidder| bidder.name.cmp(name))
            {
                spread.add(cell, self.zone_of[cell]);
            }
        }
        spread
    }

    fn no_more_starts(&self) -> bool {
        let maximum = i64::from(self.knobs.starting_container_count_maximum);
        maximum > 0 && self.starting >= maximum
    }

    fn has_room(&self, requirement: usize, demand: &Demand, verdicts: Option<&[Verdict]>) -> bool {
        let fits = |cell: &usize| {
            self.bidders[*cell].room.fits(demand.resources)
                && verdicts.is_none_or(|verdicts| verdicts[*cell].is_ok())
        };
        self.compatible[requirement].iter().flatten().any(fits)
    }

    /// The best Cell among those that did not give the work back, else among those that did so longest ago.
    fn best(
        &mut self,
        ask: &Ask<'a>,
        requirement: usize,
        verdicts: Option<&[Verdict]>,
    ) -> Option<usize> {
        if ask.avoid.is_empty() && verdicts.is_none() {
            return self.best_of_all(ask, requirement, |_| true);
        }
        let place_of = |name: &String| self.bidders.binary_search_by(|one| one.name.cmp(name));
        let avoid: Vec<usize> = ask.avoid.iter().flat_map(place_of).collect();
        let welcome = |cell: usize| verdicts.is_none_or(|verdicts| verdicts[cell].is_ok());
        (0..=avoid.len()).find_map(|forgiven| {
            let others = |cell: usize| welcome(cell) && !avoid[forgiven..].contains(&cell);
            self.best_of_all(ask, requirement, others)
        })
    }

    fn best_of_all(
        &mut self,
        ask: &Ask<'a>,
        requirement: usize,
        may: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        match ask.work {
            Work::Lrp { process, .. } => self.best_for_lrp(process, requirement, ask.demand, may),
            Work::Task(_) => self.best_for_task(requirement, ask.demand, may),
        }
    }

    /// The best Cell in the zones with the fewest instances of the process in which any Cell has room.
    fn best_for_lrp(
        &mut self,
        process: &Key,
        requirement: usize,
        demand: &Demand,
        may: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let (spread, zones) = (&self.spreads[process], &self.compatible[requirement]);
        for (cell, count) in &spread.cells {
            self.instances[*cell] = *count;
        }
        self.zone_order
            .sort_unstable_by_key(|zone| spread.by_zone[*zone]);
        let penalty = |cell: usize, bidder: &Bidder<'_>| {
            f64::from(bidder.room.starting) * self.knobs.starting_container_weight
                + f64::from(self.instances[cell]) * LOCALITY_OFFSET
                + bidder.index as f64 * self.knobs.bin_pack_first_fit_weight
        };
        let mut best = Best::None;
        let mut fewest = None;
        for zone in &self.zone_order {
            // Zones with equally many instances are looked at as one.
            if best.is_some() && fewest != Some(spread.by_zone[*zone]) {
                break;
            }
            fewest = Some(spread.by_zone[*zone]);
            self.best_of(&zones[*zone], demand, &may, penalty, &mut best);
        }
        for (cell, _) in &spread.cells {
            self.instances[*cell] = 0;
        }
        best.map(|(_, cell)| cell)
    }

    /// The best Cell of all: Tasks are kept apart, and zones do not matter.
    fn best_for_task(
        &self,
        requirement: usize,
        demand: &Demand,
        may: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut best = Best::None;
        for cells in &self.compatible[requirement] {
            let penalty = |_, bidder: &Bidder<'_>| f64::from(bidder.room.tasks) * LOCALITY_OFFSET;
            self.best_of(cells, demand, &may, penalty, &mut best);
        }
        best.map(|(_, cell)| cell)
    }

    fn best_of(
        &self,
        cells: &[usize],
        demand: &Demand,
        may: impl Fn(usize) -> bool,
        penalty: impl Fn(usize, &Bidder<'_>) -> f64,
        best: &mut Best,
    ) {
        for &cell in cells {
            let bidder = &self.bidders[cell];
            let penalty = penalty(cell, bidder);
            // Fullness only adds to it: most Cells are out before anything is divided.
            if best.is_some_and(|(lowest, _)| penalty > lowest)
                || !bidder.room.fits(demand.resources)
                || !may(cell)
            {
                continue;
            }
            let score = penalty + bidder.room.fullness(demand.resources);
            let better = best
                .is_none_or(|(lowest, first)| score < lowest || (score == lowest && cell < first));
            if better {
                *best = Some((score, cell));
            }
        }
    }
}

impl Spread {
    fn add(&mut self, cell: usize, zone: usize) {
        self.by_zone[zone] += 1;
        match self.cells.iter_mut().find(|(there, _)| *there == cell) {
            Some((_, count)) => *count += 1,
            None => self.cells.push((cell, 1)),
        }
    }
}
