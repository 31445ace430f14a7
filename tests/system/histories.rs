//! Random histories on the real thing: what users, machines and messengers do, in random order, with an observer
//! outside that keeps the promises of the design (S1, S2, S4, S5, S7, L1).
//!
//! `HISTORIES=n` runs so many instead of two; `HISTORY_SEED=n` begins with that one. A failure names its seed and
//! tells what was done.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use diego_operator::api::{CellState, DesiredLRP};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::observer::Observer;
use crate::support::{Failure, eventually, objects, site::Site, tree};

/// The cells and their zones.
const CELLS: [(&str, &str); 3] = [("a", "z1"), ("b", "z2"), ("c", "z1")];

/// Short, so that a history has room for many losses.
const FLAGS: [&str; 4] = [
    "--presence-ttl-seconds",
    "2",
    "--evacuation-timeout-seconds",
    "8",
];

/// What is done to the installation in one history.
const STEPS: usize = 14;

/// Once faults stop: resync, TTL, a placement that a Cell gave back several times, a start on busy cores.
const TO_REST: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_runs_twice() -> Result<(), Failure> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>());
    let histories = number("HISTORIES").transpose()?.unwrap_or(2);
    let first = number("HISTORY_SEED").transpose()?.unwrap_or(1);
    for seed in first..first + histories {
        let mut history = History::begin(seed).await?;
        if let Err(failure) = history.run().await {
            let picture = history.site.picture().await;
            let told = &history.told;
            return Err(format!("HISTORY_SEED={seed}: {failure}\n{told}\n{picture}").into());
        }
    }
    Ok(())
}

/// One run.
struct History {
    site: Site,
    observer: Observer,
    random: Random,
    began: Instant,
    told: String,
    /// Cells whose rep is frozen: a messenger that is lost.
    silent: Vec<String>,
    /// Cells without a rep.
    dead: Vec<String>,
    /// Cells that are asked to move their work away.
    evacuated: Vec<String>,
    wanted: BTreeMap<String, i32>,
    tasks: u32,
}

impl History {
    async fn begin(seed: u64) -> Result<History, Failure> {
        let mut site = Site::start().await?;
        site.start_controller(&["--convergence-interval-seconds", "5"])
            .await?;
        for (cell, zone) in CELLS {
            site.start_rep(cell, zone, &FLAGS).await?;
        }
        let observer = Observer::start(site.client.clone(), site.dir()).await?;
        Ok(History {
            site,
            observer,
            random: Random(seed),
            began: Instant::now(),
            told: String::new(),
            silent: Vec::new(),
            dead: Vec::new(),
            evacuated: Vec::new(),
            wanted: BTreeMap::new(),
            tasks: 0,
        })
    }

    async fn run(&mut self) -> Result<(), Failure> {
        self.scale("web", 4).await?;
        self.scale("api", 2).await?;
        for _ in 0..STEPS {
            self.step().await?;
            let pause = Duration::from_millis(self.random.below(2500));
            tokio::time::sleep(pause).await;
            self.observer.check()?;
        }
        self.heal().await?;
        self.comes_to_rest().await?;
        self.observer.check()
    }

    fn tell(&mut self, what: &str) {
        let at = self.began.elapsed().as_secs_f64();
        let _ = writeln!(self.told, "{at:7.2} s  {what}");
        println!("{at:7.2} s  {what}");
        self.observer.stimulus();
    }

    async fn step(&mut self) -> Result<(), Failure> {
        match self.random.below(15) {
            0 | 1 => self.kill_a_cell().await,
            2 => self.bring_a_cell_back().await,
            3 | 4 => self.silence_a_cell(),
            5 => self.let_a_cell_speak(),
            6 => self.restart_a_rep().await,
            7 => self.kill_an_instance().await,
            8 => self.retire_an_instance().await,
            9 => {
                let (process, instances) =
                    (["web", "api"][self.random.index(2)], self.random.below(6));
                self.scale(process, instances as i32).await
            }
            10 => self.run_a_task().await,
            11 => self.cancel_a_task().await,
            12 => self.evacuate_a_cell().await,
            13 => self.end_an_evacuation().await,
            _ => self.restart_the_controller().await,
        }
    }

    fn live_cells(&self) -> Vec<String> {
        let names = CELLS.iter().map(|(name, _)| (*name).to_owned());
        names
            .filter(|name| {
                let gone = [&self.silent, &self.dead, &self.evacuated];
                !gone.iter().any(|names| names.contains(name))
            })
            .collect()
    }

    fn some_live_cell(&mut self) -> Option<String> {
        let live = self.live_cells();
        (!live.is_empty()).then(|| live[self.random.index(live.len())].clone())
    }

    async fn kill_a_cell(&mut self) -> Result<(), Failure> {
        let Some(cell) = self.some_live_cell() else {
            return Ok(());
        };
        self.tell(&format!("kill {cell}"));
        self.site.kill_cell(&cell).await;
        self.dead.push(cell);
        Ok(())
    }

    async fn bring_a_cell_back(&mut self) -> Result<(), Failure> {
        let Some(cell) = self.dead.pop() else {
            return Ok(());
        };
        self.tell(&format!("start {cell}"));
        self.start(&cell).await
    }

    async fn start(&mut self, cell: &str) -> Result<(), Failure> {
        let zone = CELLS
            .iter()
            .find(|(name, _)| *name == cell)
            .map_or("z1", |(_, zone)| zone);
        self.site.spawn_rep(cell, zone, &FLAGS).await
    }

    fn silence_a_cell(&mut self) -> Result<(), Failure> {
        let Some(cell) = self.some_live_cell() else {
            return Ok(());
        };
        self.tell(&format!("freeze the rep of {cell}; what it runs goes on"));
        self.site.rep(&cell).process.pause();
        self.silent.push(cell);
        Ok(())
    }

    fn let_a_cell_speak(&mut self) -> Result<(), Failure> {
        let Some(cell) = self.silent.pop() else {
            return Ok(());
        };
        self.tell(&format!("thaw the rep of {cell}"));
        self.site.rep(&cell).process.resume();
        Ok(())
    }

    async fn evacuate_a_cell(&mut self) -> Result<(), Failure> {
        let Some(cell) = self.some_live_cell() else {
            return Ok(());
        };
        self.tell(&format!("evacuate {cell}"));
        self.set_evacuate(&cell, true).await?;
        self.evacuated.push(cell);
        Ok(())
    }

    async fn end_an_evacuation(&mut self) -> Result<(), Failure> {
        let Some(cell) = self.evacuated.pop() else {
            return Ok(());
        };
        self.tell(&format!("let {cell} work again"));
        self.set_evacuate(&cell, false).await
    }

    async fn set_evacuate(&self, cell: &str, evacuate: bool) -> Result<(), Failure> {
        let patch = Patch::Merge(json!({ "spec": { "evacuate": evacuate } }));
        let (api, params) = (self.site.cells(), PatchParams::default());
        api.patch(cell, &params, &patch).await?;
        Ok(())
    }

    async fn restart_a_rep(&mut self) -> Result<(), Failure> {
        let Some(cell) = self.some_live_cell() else {
            return Ok(());
        };
        self.tell(&format!("restart the rep of {cell}"));
        self.site.restart_rep(&cell).await
    }

    async fn kill_an_instance(&mut self) -> Result<(), Failure> {
        let Some(run) = self.observer.some_living_instance(&mut self.random)? else {
            return Ok(());
        };
        self.tell(&format!("kill the process of {}", run.name));
        tree::kill_tree(run.pid);
        Ok(())
    }

    async fn retire_an_instance(&mut self) -> Result<(), Failure> {
        let mut all = self.site.instances("web").await?;
        all.extend(self.site.instances("api").await?);
        if all.is_empty() {
            return Ok(());
        }
        let name = all[self.random.index(all.len())]
            .metadata
            .name
            .clone()
            .unwrap_or_default();
        self.tell(&format!("delete actuallrp {name}"));
        match self
            .site
            .actual()
            .delete(&name, &DeleteParams::default())
            .await
        {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            other => other.map(drop).map_err(Into::into),
        }
    }

    async fn scale(&mut self, process: &str, instances: i32) -> Result<(), Failure> {
        self.tell(&format!("scale {process} to {instances}"));
        if self.wanted.insert(process.to_owned(), instances).is_none() {
            return self.site.desire(&self.observed(process, instances)).await;
        }
        let patch = Patch::Merge(json!({ "spec": { "instances": instances } }));
        let (api, params) = (self.site.desired(), PatchParams::default());
        api.patch(process, &params, &patch).await?;
        Ok(())
    }

    /// Instances that write themselves into the observer's log.
    fn observed(&self, process: &str, instances: i32) -> DesiredLRP {
        let script = format!("{} exec sleep 100000", self.observer.log_line());
        let container = json!({ "name": "main", "command": ["sh", "-c", script] });
        objects::lrp(
            process,
            instances,
            json!({ "containers": [container], "terminationGracePeriodSeconds": 1 }),
        )
    }

    async fn run_a_task(&mut self) -> Result<(), Failure> {
        self.tasks += 1;
        let (name, seconds) = (format!("task-{}", self.tasks), self.random.below(8));
        self.tell(&format!("run {name} for {seconds} s"));
        let script = format!("{} exec sleep {seconds}", self.observer.log_line());
        self.site.run_task(&objects::task(&name, &script)).await
    }

    async fn cancel_a_task(&mut self) -> Result<(), Failure> {
        if self.tasks == 0 {
            return self.run_a_task().await;
        }
        let name = format!("task-{}", 1 + self.random.below(self.tasks.into()));
        self.tell(&format!("cancel {name}"));
        let patch = Patch::Merge(json!({ "spec": { "cancelled": true } }));
        match self
            .site
            .tasks()
            .patch(&name, &PatchParams::default(), &patch)
            .await
        {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            other => other.map(drop).map_err(Into::into),
        }
    }

    async fn restart_the_controller(&mut self) -> Result<(), Failure> {
        self.tell("kill the controller and start another");
        self.site.kill_controller().await;
        self.site
            .start_controller(&["--convergence-interval-seconds", "5"])
            .await
    }

    async fn heal(&mut self) -> Result<(), Failure> {
        self.tell("faults stop");
        while !self.silent.is_empty() {
            self.let_a_cell_speak()?;
        }
        while !self.evacuated.is_empty() {
            self.end_an_evacuation().await?;
        }
        for cell in std::mem::take(&mut self.dead) {
            self.start(&cell).await?;
        }
        for (cell, _) in CELLS {
            self.site.cell_state(cell, CellState::Present).await?;
        }
        Ok(())
    }

    /// L1: what runs is what is wanted, every record has its process and every process its record.
    /// Cells that were lost again and again take no new work for a while.
    async fn longest_hold_down(&self) -> Result<Duration, Failure> {
        let cells = self.site.cells().list(&ListParams::default()).await?.items;
        let now = Timestamp::now();
        let left = cells.iter().filter_map(|cell| {
            let until = cell.status.as_ref()?.held_down_until.as_ref()?;
            Duration::try_from(until.0.duration_since(now)).ok()
        });
        Ok(left.max().unwrap_or_default())
    }

    async fn comes_to_rest(&mut self) -> Result<(), Failure> {
        let wanted = self.wanted.clone();
        let within = TO_REST + self.longest_hold_down().await?;
        let rested = eventually("desired = actual = processes", within, || async {
            let difference = self.observer.difference(&self.site, &wanted).await.ok()?;
            difference.is_none().then_some(())
        })
        .await;
        match rested {
            Ok(()) => Ok(()),
            Err(failure) => {
                let difference = self.observer.difference(&self.site, &wanted).await?;
                Err(format!("{failure}: {}", difference.unwrap_or_default()).into())
            }
        }
    }
}

/// A small generator: the same seed gives the same history (splitmix64).
pub struct Random(u64);

impl Random {
    /// The next number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    /// An index of something that has `len` items.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }
}
