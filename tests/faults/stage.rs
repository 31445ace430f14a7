//! Where the rows play: one API server for all, and for each row a presence store, controllers, Cells and an observer of
//! its own.

mod reach;
mod rest;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use diego_operator::api::{ActualLRP, CellState, MissingCellPolicy, TaskState};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DeleteParams, ListParams};
use kube::{Resource, ResourceExt};
use local_cluster::{Etcd, EtcdOptions, Options};
use serde_json::json;

use crate::observer::facts::{Fact, Nanos, SECOND, Within, now};
use crate::observer::{Observer, Presences};
use crate::row::Store;
use crate::support::{Failure, eventually, objects, site::START, site::Site};

/// The process that nearly every row runs.
pub const WEB: &str = "web";

/// The process with the policy `Strict` beside it.
pub const ONCE: &str = "once";

/// From the death of a Cell to the start of the last replacement: TTL 5 s, etcd's tick and one commit 0.6 s. The start
/// itself is not in it, and all programs of a cluster share the cores with each other and with the test: 5 s more.
pub const RECOVERY: Within = Within {
    promised: Duration::from_millis(5_600),
    allowance: Duration::from_secs(5),
};

/// What a row begins with.
#[derive(Default)]
pub struct Setup<'a> {
    /// Flags of the controller.
    pub controller: &'a [&'a str],
    /// No controller is started: the row starts its own.
    pub without_controller: bool,
    /// Flags of each rep.
    pub rep: &'a [&'a str],
    /// Cells and their zones.
    pub cells: &'a [(&'a str, &'a str)],
    /// Instances of [`WEB`].
    pub instances: i32,
    /// Tasks that run until somebody ends them.
    pub tasks: usize,
    /// Whether [`WEB`] has the policy `Strict`.
    pub strict: bool,
    /// Instances of [`ONCE`]: one per Cell, so that each fault meets one.
    pub once: i32,
    /// Where the reps find the presence store, if not where it is.
    pub store: Option<&'a str>,
}

/// Three Cells in as many zones.
pub const THREE: [(&str, &str); 3] = [("a", "z1"), ("b", "z2"), ("c", "z3")];

/// Everything a row has.
pub struct Stage {
    /// What the row started itself, and what must go on until its end is judged.
    kept: Vec<Box<dyn Any + Send + Sync>>,
    // Dropped before the servers that it watches.
    observer: Option<Observer>,
    /// The installation.
    pub site: Site,
    /// Where the presences are from the next round on.
    pub store: Store,
    round: u32,
    /// Of the first recovery of the row that was timed.
    timed: Option<Within>,
    wanted: BTreeMap<String, i32>,
    strict: BTreeSet<String>,
    /// Tasks that must stay Pending.
    pub waiting: BTreeSet<String>,
}

impl Stage {
    /// An API server with our CRDs.
    pub async fn open() -> Result<Stage, Failure> {
        Ok(Stage {
            kept: Vec::new(),
            observer: None,
            site: Site::start_with(Options::default()).await?,
            store: Store::Etcd,
            round: 0,
            timed: None,
            wanted: BTreeMap::new(),
            strict: BTreeSet::new(),
            waiting: BTreeSet::new(),
        })
    }

    /// Nothing is left of what was before, and somebody watches.
    pub async fn fresh(&mut self) -> Result<(), Failure> {
        self.fresh_with(1).await
    }

    /// The same with so many members of the presence store.
    pub async fn fresh_with(&mut self, members: usize) -> Result<(), Failure> {
        let options = EtcdOptions {
            members,
            ..EtcdOptions::default()
        };
        self.fresh_on(options).await
    }

    /// The same with such a presence store.
    pub async fn fresh_on(&mut self, options: EtcdOptions) -> Result<(), Failure> {
        self.observer = None;
        self.kept.clear();
        self.site.through.clear();
        self.site.kill_controller().await;
        for (name, _) in self.site.rep_pids() {
            self.site.kill_cell(&name).await;
        }
        let client = &self.site.client;
        remove(self.site.desired()).await?;
        remove(self.site.actual()).await?;
        remove(self.site.tasks()).await?;
        remove(self.site.cells()).await?;
        remove(Api::<Lease>::namespaced(client.clone(), "default")).await?;
        self.wanted.clear();
        self.strict.clear();
        self.waiting.clear();
        self.round += 1;
        self.site.flags.clear();
        let presences = match self.store {
            Store::Etcd => {
                self.site.etcd = Etcd::start(options).await?;
                Presences::Etcd(self.site.etcd.endpoints())
            }
            // The etcd of the round before is nobody's.
            Store::Leases => {
                let flags = ["--presence", "kubernetes", "--namespace", "default"];
                self.site.flags = flags.map(str::to_owned).to_vec();
                Presences::Leases
            }
        };
        let path = self.site.dir().join(format!("runs-{}.txt", self.round));
        self.observer = Some(Observer::start(self.site.client.clone(), presences, &path)?);
        Ok(())
    }

    /// This goes on until the row is judged: without its controllers and what they speak through nothing comes to rest.
    pub fn keep(&mut self, part: impl Any + Send + Sync) {
        self.kept.push(Box::new(part));
    }

    /// Who watches.
    pub fn observer(&self) -> &Observer {
        self.observer.as_ref().expect("the row has begun")
    }

    /// The full name of a Cell: no work directory and no ledger is ever used by two rounds.
    pub fn cell(&self, name: &str) -> String {
        format!("{name}-{}", self.round)
    }

    /// Starts a rep and waits until its Cell is Present.
    pub async fn start_rep(
        &mut self,
        cell: &str,
        zone: &str,
        extra: &[&str],
    ) -> Result<(), Failure> {
        let name = self.cell(cell);
        self.site.start_rep(&name, zone, extra).await
    }

    /// Starts all, and waits until all of it runs.
    pub async fn set(&mut self, setup: Setup<'_>) -> Result<Vec<ActualLRP>, Failure> {
        if !setup.without_controller {
            self.site.start_controller(setup.controller).await?;
        }
        let store = setup.store.map(str::to_owned);
        let store = store.unwrap_or_else(|| self.site.etcd.endpoints().join(","));
        for (cell, zone) in setup.cells {
            let name = self.cell(cell);
            self.site
                .spawn_rep_at(&store, &name, zone, setup.rep)
                .await?;
            self.site.cell_state(&name, CellState::Present).await?;
        }
        self.desire(WEB, setup.instances, setup.strict).await?;
        for n in 0..setup.tasks {
            self.run_task(&format!("job-{n}")).await?;
        }
        let before = self.running(|_| true).await?;
        self.tasks_run(setup.tasks).await?;
        if setup.once > 0 {
            self.desire(ONCE, setup.once, true).await?;
            let once = setup.once as usize;
            self.site.running(ONCE, once, |_| true).await?;
        }
        // The record says Running a moment after the process began, and the observer hears of that a moment later.
        let all = (setup.instances + setup.once) as usize + setup.tasks;
        eventually("the observer sees all of it", START, || async {
            (self.observer().living().len() == all).then_some(())
        })
        .await?;
        Ok(before)
    }

    /// Desires a process of instances that write what becomes of them.
    pub async fn desire(
        &mut self,
        name: &str,
        instances: i32,
        strict: bool,
    ) -> Result<(), Failure> {
        let command = self.observer().command()?;
        let spec = json!({ "containers": [{ "name": "main", "command": command }] });
        let mut desired = objects::lrp(name, instances, spec);
        if strict {
            desired.spec.missing_cell_policy = MissingCellPolicy::Strict;
            self.strict.insert(name.to_owned());
        }
        self.site.desire(&desired).await?;
        self.wanted.insert(name.to_owned(), instances);
        Ok(())
    }

    /// Of this process, which the row desires itself, S6 is promised.
    pub fn promise_strict(&mut self, name: &str) {
        self.strict.insert(name.to_owned());
    }

    /// Somebody wants another number of instances, or a process is gone.
    pub fn want(&mut self, name: &str, instances: Option<i32>) {
        match instances {
            Some(instances) => self.wanted.insert(name.to_owned(), instances),
            None => self.wanted.remove(name),
        };
    }

    /// A Task that no Cell may take.
    pub async fn run_waiting_task(&mut self, name: &str) -> Result<(), Failure> {
        let mut task = objects::task(name, "exit 1");
        task.spec.placement_tags = vec!["no-cell-has-this".into()];
        self.waiting.insert(name.to_owned());
        self.site.run_task(&task).await
    }

    /// Runs a Task until somebody ends it.
    pub async fn run_task(&self, name: &str) -> Result<(), Failure> {
        let command = self.observer().command()?;
        let mut task = objects::task(name, "");
        let spec = json!({ "containers": [{ "name": "main", "command": command }] });
        task.spec.template = serde_json::from_value(json!({ "spec": spec }))?;
        self.site.run_task(&task).await
    }

    async fn tasks_run(&self, count: usize) -> Result<(), Failure> {
        eventually("every Task runs", START, || async {
            let tasks = self.site.tasks().list(&ListParams::default()).await.ok()?;
            let running = tasks.items.iter().filter(|task| {
                let status = task.status.as_ref();
                status.is_some_and(|status| status.state == TaskState::Running)
            });
            (running.count() == count).then_some(())
        })
        .await
    }

    /// Waits until all of [`WEB`] runs, on Cells that `allowed` accepts.
    pub async fn running(&self, allowed: impl Fn(&str) -> bool) -> Result<Vec<ActualLRP>, Failure> {
        let count = self.wanted.get(WEB).copied().unwrap_or_default();
        self.site.running(WEB, count as usize, allowed).await
    }

    /// Something is done to the installation now.
    pub fn fault(&self) -> Nanos {
        self.observer().stimulus();
        now()
    }

    /// Waits until all of [`WEB`] runs on other Cells than these, looks that nothing but what they ran was moved, and
    /// that once. Returns when each replacement began, in seconds after `since`.
    pub async fn moved(
        &self,
        before: &[ActualLRP],
        lost: &[&str],
        since: Nanos,
    ) -> Result<Vec<f64>, Failure> {
        let lost: BTreeSet<String> = lost.iter().map(|cell| self.cell(cell)).collect();
        let after = self.running(|cell| !lost.contains(cell)).await?;
        let mut away = Vec::new();
        for (now, before) in after.iter().zip(before) {
            let name = now.name_any();
            let now = now.status.clone().unwrap_or_default();
            let before = before.status.clone().unwrap_or_default();
            let was_lost = before.cell_name.is_some_and(|cell| lost.contains(&cell));
            if was_lost != (now.instance_guid != before.instance_guid) {
                let what = if was_lost {
                    "was not moved"
                } else {
                    "was moved"
                };
                return Err(format!("{name} {what}: {now:?}").into());
            }
            if was_lost {
                away.push(
                    self.began(&now.instance_guid.unwrap_or_default(), since)
                        .await?,
                );
            }
        }
        Ok(away)
    }

    /// The same, and it must have been as quick as promised.
    pub async fn recovered(
        &mut self,
        before: &[ActualLRP],
        lost: &[&str],
        since: Nanos,
        within: Within,
    ) -> Result<Vec<f64>, Failure> {
        let away = self.moved(before, lost, since).await?;
        if away.is_empty() {
            return Err("nothing ran on the lost Cell: the row shows nothing".into());
        }
        let lost: Vec<String> = lost.iter().map(|cell| self.cell(cell)).collect();
        let runs = self.observer().runs();
        let mut once = runs.iter().filter(|(_, run, _)| run.process == ONCE);
        if self.wanted.contains_key(ONCE) && !once.any(|(_, run, _)| lost.contains(&run.cell)) {
            return Err("no Strict instance ran on the lost Cell: S6 shows nothing".into());
        }
        self.timed.get_or_insert(within);
        let longest = away.iter().copied().fold(0.0, f64::max);
        self.observer().log.add(Fact::Recovered {
            took: (longest * SECOND as f64) as Nanos,
            within,
        });
        Ok(away)
    }

    /// What the row's recovery may take, if one was timed since this was asked last.
    pub fn timed(&mut self) -> Option<Within> {
        self.timed.take()
    }

    /// Looks that no instance of [`WEB`] is another than before, or elsewhere.
    pub async fn unmoved(&self, before: &[ActualLRP]) -> Result<(), Failure> {
        self.moved(before, &[], now()).await.map(drop)
    }

    /// When a run began, in seconds after `since`.
    async fn began(&self, guid: &str, since: Nanos) -> Result<f64, Failure> {
        let began = eventually("its process has told of its start", START, || async {
            let runs = self.observer().runs();
            let found = runs.into_iter().find(|(_, run, _)| run.guid == guid);
            found.map(|(at, ..)| at)
        })
        .await?;
        Ok((began as f64 - since as f64) / SECOND as f64)
    }

    /// Waits until so many Tasks have failed because their Cell was lost, and the others still run.
    pub async fn tasks_failed(&self, count: usize, running: usize) -> Result<(), Failure> {
        let what = format!("{count} Tasks have failed, {running} run");
        eventually(&what, START, || async {
            let tasks = self.site.tasks().list(&ListParams::default()).await.ok()?;
            let is = |state: TaskState| {
                let tasks = tasks.items.iter();
                let these = tasks.filter(|task| {
                    let status = task.status.clone().unwrap_or_default();
                    status.state == state
                        && (state == TaskState::Running || status.failed == Some(true))
                });
                these.count()
            };
            (is(TaskState::Completed) == count && is(TaskState::Running) == running).then_some(())
        })
        .await
    }

    /// How many of [`WEB`] a Cell runs.
    pub fn on(&self, lrps: &[ActualLRP], cell: &str) -> usize {
        let cell = self.cell(cell);
        let here = lrps.iter().filter_map(|lrp| lrp.status.as_ref());
        here.filter(|status| status.cell_name.as_deref() == Some(&cell))
            .count()
    }
}

/// Deletes all of a kind and waits until none is left.
async fn remove<K>(api: Api<K>) -> Result<(), Failure>
where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let (delete, list) = (DeleteParams::default(), ListParams::default());
    api.delete_collection(&delete, &list).await?;
    eventually("all of the former row is gone", START, || async {
        let left = api.list(&list).await.ok()?.items;
        left.is_empty().then_some(())
    })
    .await
}
