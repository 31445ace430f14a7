//! What was measured, as text, and as JSON beside the plots.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::executor::lock;
use super::few::Few;
use super::figure::Figure;
use super::fleet::Fleet;
use super::idle::Idle;
use super::leader::Leaders;
use super::loss::Seen;
use super::machine::Machine;
use super::meter::Usage;
use super::numbers::{Percentiles, median};
use super::plan::Plan;
use super::plot;
use super::presence::Presences;
use super::raw::Raw;
use super::traffic::Traffic;
use super::wrong::Wrong;
use crate::support::Failure;

/// What the environment may ask for, beside `SIZE`.
const ASKED: [&str; 8] = [
    "ONLY",
    "STORE",
    "CELLS",
    "INSTANCES",
    "KILLS",
    "TTL",
    "MINUTES",
    "SYNC_SECONDS",
];

/// All of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What to run to measure it again.
    pub command: String,
    /// Where it ran.
    pub machine: Machine,
    /// All that can be laid beside other sizes.
    pub figures: Vec<Figure>,
    /// One for each size.
    pub runs: Vec<Results>,
    #[serde(skip)]
    wanted: usize,
}

/// What one run measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Results {
    /// Of what.
    pub plan: Plan,
    /// Whether it came to its end.
    pub whole: bool,
    /// How long the preparations took, in seconds.
    pub setup: Vec<(&'static str, f64)>,
    /// The raw rates of status writes.
    pub raw: Vec<Raw>,
    /// A convergence pass with nothing to do.
    pub idle: Option<Idle>,
    /// The same with one of a hundred wrong.
    pub wrong: Option<Wrong>,
    /// The losses.
    pub losses: Vec<Loss>,
    /// New leaders.
    pub leaders: Option<Leaders>,
    /// Presences alone.
    pub presences: Option<Presences>,
    /// Few real reps.
    pub few: Option<Few>,
    /// The renewals of all Cells.
    pub renewals: Option<Renewals>,
    /// Each process, over the whole run.
    pub usage: Vec<Usage>,
}

/// The renewals of all Cells while they lived.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Renewals {
    /// How long an answer took, in seconds.
    pub answered: Option<Percentiles>,
    /// Without an answer.
    pub failed: usize,
    /// Presences lost though nothing died.
    pub lost: usize,
}

impl Renewals {
    /// What the fleet's keepers reported so far.
    pub fn of(fleet: &Fleet) -> Renewals {
        let all = fleet.renewals();
        Renewals {
            answered: Percentiles::of(&lock(&all.answered)),
            failed: all.failed.load(Ordering::Relaxed),
            lost: all.lost.load(Ordering::Relaxed),
        }
    }
}

/// One kind of loss.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Loss {
    /// What was lost.
    pub what: &'static str,
    /// How often.
    pub times: usize,
    /// Cells lost, all together.
    pub cells: usize,
    /// Instances on them.
    pub instances: usize,
    /// Of each Cell, in seconds.
    pub stages: Vec<(&'static str, Percentiles)>,
    /// From the kill to the new place, of each instance, in seconds.
    pub instance_placed: Option<Percentiles>,
    /// Placements per second, from the first to the last one; the median of the losses.
    pub per_second: f64,
    /// How much of all was placed when the last index 0 was, and how many have index 0: parts of 1.
    pub first_index: (f64, f64),
    /// From the wish of somebody else, meanwhile, to its place, in seconds.
    pub bystanders: Option<Percentiles>,
    /// What each process used, per Cell.
    pub usage: Vec<Usage>,
    /// Requests and watch events, per Cell.
    pub traffic: Traffic,
    /// When each instance was placed, in seconds from the first expiry; of the last loss.
    #[serde(skip)]
    pub curve: Vec<f64>,
}

impl Loss {
    /// Puts losses of one kind together.
    pub fn of(what: &'static str, seen: &[Seen], usage: Vec<Usage>, traffic: Traffic) -> Loss {
        let cells: Vec<[f64; 4]> = seen.iter().flat_map(|seen| seen.cells.clone()).collect();
        let stage = |name, of: fn(&[f64; 4]) -> f64| {
            let values: Vec<f64> = cells.iter().map(of).collect();
            Percentiles::of(&values).map(|all| (name, all))
        };
        let stages = [
            stage("kill -> expiry", |[expiry, ..]| *expiry),
            stage("expiry -> first write", |cell| cell[1] - cell[0]),
            stage("expiry -> all placed", |cell| cell[2] - cell[0]),
            stage("kill -> all placed", |cell| cell[2]),
            stage("kill -> all Running", |cell| cell[3]),
        ];
        let placed: Vec<(f64, bool)> = seen.iter().flat_map(|seen| seen.placed.clone()).collect();
        let rates: Vec<f64> = seen.iter().filter_map(rate).collect();
        let times: Vec<f64> = placed.iter().map(|(at, _)| *at).collect();
        let waited: Vec<f64> = seen
            .iter()
            .flat_map(|seen| seen.bystanders.clone())
            .collect();
        let lost = cells.len().max(1) as f64;
        let per_cell = |one: Usage| Usage {
            cpu_seconds: one.cpu_seconds / lost,
            ..one
        };
        let last = seen.last();
        let expiry = last.map_or(0.0, |seen| {
            let expiries = seen.cells.iter().map(|cell| cell[0]);
            expiries.fold(f64::INFINITY, f64::min)
        });
        let curve = last.map_or_else(Vec::new, |seen| {
            seen.placed.iter().map(|(at, _)| at - expiry).collect()
        });
        Loss {
            what,
            times: seen.len(),
            cells: cells.len(),
            instances: placed.len(),
            stages: stages.into_iter().flatten().collect(),
            instance_placed: Percentiles::of(&times),
            per_second: median(&rates).unwrap_or(f64::NAN),
            first_index: last.map_or((0.0, 0.0), first_index),
            bystanders: Percentiles::of(&waited),
            usage: usage.into_iter().map(per_cell).collect(),
            traffic: traffic.divided(lost),
            curve,
        }
    }

    /// A percentile's stage.
    pub fn stage(&self, name: &str) -> Option<Percentiles> {
        let found = self.stages.iter().find(|(stage, _)| *stage == name);
        found.map(|(_, all)| *all)
    }
}

fn rate(seen: &Seen) -> Option<f64> {
    let (first, last) = (seen.placed.first()?.0, seen.placed.last()?.0);
    let count = seen.placed.len() as f64 - 1.0;
    (count > 0.0).then(|| count / (last - first).max(1e-6))
}

fn first_index(seen: &Seen) -> (f64, f64) {
    let all = seen.placed.len().max(1) as f64;
    let last = seen.placed.iter().rposition(|(_, first)| *first);
    let count = seen.placed.iter().filter(|(_, first)| *first).count();
    (
        last.map_or(0.0, |at| (at + 1) as f64 / all),
        count as f64 / all,
    )
}

impl Results {
    /// Nothing was measured yet.
    pub fn new(plan: &Plan) -> Results {
        Results {
            plan: plan.clone(),
            whole: false,
            setup: Vec::new(),
            raw: Vec::new(),
            idle: None,
            wrong: None,
            losses: Vec::new(),
            leaders: None,
            presences: None,
            few: None,
            renewals: None,
            usage: Vec::new(),
        }
    }

    /// A preparation is done.
    pub fn setup(&mut self, what: &'static str, seconds: f64) {
        self.setup.push((what, seconds));
    }

    /// Instead of what was there of the same kind.
    pub fn set_loss(&mut self, loss: Loss) {
        self.losses.retain(|other| other.what != loss.what);
        self.losses.push(loss);
    }

    /// What the fleet's keepers reported.
    pub fn renewals(&mut self, fleet: &Fleet) {
        self.renewals = Some(Renewals::of(fleet));
    }

    /// The losses of that kind.
    pub fn loss(&self, what: &str) -> Option<&Loss> {
        self.losses.iter().find(|loss| loss.what == what)
    }

    /// The greatest raw rate: what the API server can do at best.
    pub fn raw_rate(&self) -> f64 {
        let rates = self.raw.iter().map(|raw| raw.per_second);
        rates.fold(f64::NAN, f64::max)
    }

    /// Memory of the controller, in bytes.
    pub fn controller_memory(&self) -> Option<u64> {
        let all = [
            &self.usage[..],
            self.idle.as_ref().map_or(&[], |idle| &idle.usage),
        ];
        let found = all.into_iter().flatten();
        let of_controller = found.filter(|one| one.program == "controller");
        of_controller.map(|one| one.peak).max()
    }
}

impl Report {
    /// Nothing was run yet.
    pub fn new(plans: &[Plan]) -> Result<Report, Failure> {
        let plan = plans
            .last()
            .ok_or("there is nothing to run: ONLY names no row of this SIZE")?;
        let mut command = format!("make bench SIZE={}", plan.size);
        for name in ASKED {
            if let Ok(value) = std::env::var(name) {
                write!(command, " {name}={value}")?;
            }
        }
        Ok(Report {
            command,
            machine: Machine::this()?,
            figures: Vec::new(),
            runs: Vec::new(),
            wanted: plans.len(),
        })
    }

    /// Whether every run came to its end.
    pub fn whole(&self) -> bool {
        self.runs.len() == self.wanted && self.runs.iter().all(|run| run.whole)
    }

    /// Writes text, JSON and plots into a directory.
    pub fn write(&self, dir: &Path) -> Result<Vec<PathBuf>, Failure> {
        std::fs::create_dir_all(dir)?;
        let name = self.name()?;
        let file = |ending: &str| dir.join(format!("{name}{ending}"));
        let mut text = self.text();
        writeln!(text, "{}", self.last_line())?;
        std::fs::write(file(".txt"), text)?;
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        std::fs::write(file(".json"), json)?;
        let mut files = vec![file(".txt"), file(".json")];
        let plotted = self.runs.iter().rev().find(|run| !run.losses.is_empty());
        if let Some(run) = plotted {
            plot::placing(run, &file("-placing.svg"))?;
            plot::stages(run, &file("-stages.svg"))?;
            files.extend([file("-placing.svg"), file("-stages.svg")]);
        }
        Ok(files)
    }

    /// The files' name: of what was asked for, so that no part overwrites another.
    fn name(&self) -> Result<String, Failure> {
        let run = self.runs.last().ok_or("there is nothing to write")?;
        let mut name = format!("scale-{}", run.plan.size);
        for asked in ASKED {
            if let Ok(value) = std::env::var(asked) {
                let fit = |letter: char| {
                    if letter.is_alphanumeric() {
                        letter
                    } else {
                        '-'
                    }
                };
                let value: String = value.chars().map(fit).collect();
                write!(name, "-{}-{value}", asked.to_lowercase())?;
            }
        }
        Ok(name)
    }
}
