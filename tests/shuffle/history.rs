//! One history: a seed, what it does to the Cells, to the work and to the controllers, and how all comes to rest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use diego_operator::client;
use diego_operator::metrics::ClientMetrics;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, Resource};
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::cells::Cells;
use crate::controllers::{Controller, LATE};
use crate::kubelets::Kubelets;
use crate::observer::facts::Fact;
use crate::observer::{self, Log};
use crate::plan::{Controllers, Plan, SAFE};
use crate::rest;
use crate::rng::Rng;
use crate::shuffler::Shuffler;
use crate::support::site::{START, Site};
use crate::support::{Failure, eventually, objects};
use crate::verdict;

/// Rest must come within this: some waits of the product's own, a guard's window of ten seconds among them, and a margin
/// for a machine that is busy with other tests.
const REST: Duration = Duration::from_secs(40);

/// On the way to rest all is still held for so long; then it passes, which no machine is too busy for.
const SHUFFLED: Duration = Duration::from_secs(8);

/// It is rest when nothing is written for so long.
const SILENCE: Duration = Duration::from_millis(400);

/// Between two acts at most; a guard or a pause of the product may keep everything still.
const PAUSE: Duration = Duration::from_millis(350);

/// What came of a history.
pub struct Played {
    /// What was not kept.
    pub wrong: Vec<String>,
    /// How many choices were made.
    pub decisions: usize,
    /// All of them, one a line.
    pub log: Vec<String>,
    /// How long the history itself took, and then its way to rest.
    pub took: (Duration, Duration),
}

struct History<'a> {
    site: &'a Site,
    client: Client,
    etcd: String,
    plan: Plan,
    rng: Rng,
    shuffler: Arc<Shuffler>,
    log: Log,
    cells: Cells,
    names: Vec<String>,
    kubelets: Kubelets,
    controllers: Vec<Controller>,
    /// Those that died.
    killed: Vec<JoinHandle<()>>,
    started: usize,
    wanted: Option<i32>,
    victim: usize,
    tasks: usize,
    crashes: usize,
}

/// Plays a seed.
pub async fn play(site: &Site, seed: u64) -> Result<Played, Failure> {
    let kubeconfig = client::KubeArgs {
        kubeconfig: Some(site.cluster.kubeconfig().to_owned()),
        context: None,
    };
    let config = client::config(&kubeconfig).await?;
    let client = client::build(&config, &ClientMetrics::new(&mut Registry::default()))?;
    let endpoints = site.etcd.endpoints();
    let etcd = endpoints.first().cloned().ok_or("etcd has a member")?;
    let shuffler = Shuffler::new(seed);
    let log = Log::default();
    let _watches = observer::follow(&client, &endpoints, &log);
    let mut history = History {
        site,
        kubelets: Kubelets::start(client.clone(), log.clone()),
        cells: Cells::new(client.clone(), &endpoints).await?,
        names: ["a", "b", "c", "d"]
            .map(|name| format!("{name}-{seed}"))
            .into(),
        client,
        etcd,
        plan: Plan::of(seed),
        rng: Rng::new(!seed),
        shuffler: Arc::clone(&shuffler),
        log,
        controllers: Vec::new(),
        killed: Vec::new(),
        started: 0,
        wanted: None,
        victim: 1,
        tasks: 0,
        crashes: 0,
    };
    let choosing = tokio::spawn(Arc::clone(&shuffler).run());
    let played = history.play().await;
    choosing.abort();
    shuffler.end();
    history.clear().await?;
    played
}

impl History<'_> {
    async fn play(&mut self) -> Result<Played, Failure> {
        for (n, name) in self.names.clone().iter().enumerate() {
            self.cells
                .join(name, ["z1", "z2", "z3", "z1"][n % 4])
                .await?;
        }
        self.start_controller().await?;
        if self.plan.controllers != Controllers::One {
            self.start_controller().await?;
        }
        for controller in &mut self.controllers {
            controller.ready().await?;
        }
        self.shuffler.begin();
        self.shuffler.faults(self.plan.faults);
        let began = Instant::now();
        self.scale(3).await?;
        for _ in 0..self.rng.between(10, 18) {
            self.pause().await;
            self.act().await?;
        }
        self.pause().await;
        self.shuffler.faults(false);
        self.controllers.iter().for_each(|one| one.cut_off(false));
        self.mend().await?;
        let played = began.elapsed();
        let mut wrong = match self.plan.controllers {
            Controllers::Rivals => Vec::new(),
            Controllers::One | Controllers::Elected => self.come_to_rest().await?,
        };
        for controller in &self.controllers {
            if controller.has_ended() {
                wrong.push("a controller ended by itself".into());
            }
        }
        let rested = began.elapsed() - played;
        self.shuffler.end();
        for controller in self.controllers.drain(..) {
            controller.stop().await;
        }
        let mut violations = self.log.violations();
        if self.plan.controllers == Controllers::Rivals {
            violations.retain(|one| SAFE.contains(&one.invariant));
        }
        wrong.extend(violations.iter().map(ToString::to_string));
        wrong.extend(verdict::violations(&self.log.entries()));
        Ok(Played {
            wrong,
            decisions: self.shuffler.decisions(),
            log: self.shuffler.log(),
            took: (played, rested),
        })
    }

    async fn start_controller(&mut self) -> Result<(), Failure> {
        let who = format!("c{}", self.started);
        self.started += 1;
        let (client, etcd) = (&self.client, self.etcd.as_str());
        let (dir, flags) = (self.site.dir(), self.plan.flags());
        let controller =
            Controller::start((client, etcd), &self.shuffler, &who, dir, &flags).await?;
        self.controllers.push(controller);
        Ok(())
    }

    /// So many choices, or until nothing moves.
    async fn pause(&mut self) {
        let choices = *self.rng.pick(&[1, 4, 12, 40, 80]);
        let until = self.shuffler.decisions() + self.rng.below(choices);
        let began = Instant::now();
        while self.shuffler.decisions() < until && began.elapsed() < PAUSE {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn did(&self, what: &str) {
        self.shuffler.note(what);
        self.log.add(Fact::Stimulus);
    }

    /// Something happens.
    async fn act(&mut self) -> Result<(), Failure> {
        // The first Cell is a rock: there is always somewhere to go.
        // What happens to one happens to it again and again.
        if self.rng.below(2) == 0 {
            self.victim = 1 + self.rng.below(self.names.len() - 1);
        }
        let name = self.names[self.victim].clone();
        let (held, dead) = {
            let one = self.cells.one(&name);
            (one.is_held(), one.dead)
        };
        self.controllers.iter().for_each(|one| one.cut_off(false));
        match self.rng.below(19) {
            0..=9 if held => match self.rng.below(4) {
                0 | 1 => {
                    self.did(&format!("{name} dies"));
                    self.kubelets.die(&name);
                    self.cells.one(&name).dead = true;
                    self.cells.expire(&name).await
                }
                2 => {
                    self.did(&format!("{name} is cut off"));
                    self.cells.expire(&name).await
                }
                _ => {
                    self.did(&format!("{name} is cut off and back at once"));
                    self.cells.expire(&name).await?;
                    self.cells.register(&name).await
                }
            },
            0..=9 => self.bring_back(&name, dead).await,
            10 | 11 => {
                let instances = self.rng.between(0, 5) as i32;
                self.scale(instances).await
            }
            12 => self.replace().await,
            13 | 14 => {
                let task = format!("job-{}", self.tasks);
                self.tasks += 1;
                self.did(&format!("{task} is wanted"));
                let mut task = objects::task(&task, "");
                task.spec.template.spec =
                    json!({ "containers": [{ "name": "main", "image": "job" }] });
                self.site.run_task(&task).await
            }
            15 => {
                self.did("the Tasks end");
                self.kubelets.end(true).await;
                Ok(())
            }
            16 if self.crashes < 2 => {
                self.crashes += 1;
                self.did("an instance crashes");
                self.kubelets.end(false).await;
                Ok(())
            }
            17 if self.plan.controllers == Controllers::Elected => {
                self.did("a controller can't reach its Lease");
                self.controllers[0].cut_off(true);
                Ok(())
            }
            _ => {
                self.did("a controller dies, and another starts");
                self.killed.push(self.controllers.remove(0).kill());
                self.start_controller().await
            }
        }
    }

    async fn bring_back(&mut self, name: &str, dead: bool) -> Result<(), Failure> {
        if dead {
            self.did(&format!("{name} boots"));
            self.kubelets.boot(name).await;
            return self.cells.boot(name).await;
        }
        self.did(&format!("{name} is back"));
        self.cells.register(name).await
    }

    async fn scale(&mut self, instances: i32) -> Result<(), Failure> {
        self.did(&format!("{instances} instances are wanted"));
        if self.wanted.replace(instances).is_none() {
            let container = json!({ "name": "main", "image": "web" });
            let spec = json!({ "containers": [container] });
            return self
                .site
                .desire(&objects::lrp("web", instances, spec))
                .await;
        }
        let patch = Patch::Merge(json!({ "spec": { "instances": instances } }));
        let api = self.site.desired();
        api.patch("web", &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Another DesiredLRP of the same name.
    async fn replace(&mut self) -> Result<(), Failure> {
        if self.wanted.take().is_some() {
            self.did("the process is gone");
            let api = self.site.desired();
            api.delete("web", &DeleteParams::default()).await?;
            eventually("it is gone", START, || async {
                api.get_opt("web").await.ok()?.is_none().then_some(())
            })
            .await?;
        }
        let instances = self.rng.between(1, 4) as i32;
        self.scale(instances).await
    }

    /// What is cut off comes back; and the dead too, where the guard would hold their losses.
    async fn mend(&mut self) -> Result<(), Failure> {
        for name in self.names.clone() {
            let one = self.cells.one(&name);
            let (held, dead) = (one.is_held(), one.dead);
            if !held && (!dead || self.plan.guard || self.rng.below(3) == 0) {
                self.bring_back(&name, dead).await?;
            }
        }
        self.did("all is left to itself");
        Ok(())
    }

    async fn come_to_rest(&mut self) -> Result<Vec<String>, Failure> {
        let began = Instant::now();
        let mut writes = (self.log.writes(), Instant::now());
        loop {
            self.kubelets.end(true).await;
            let wanted = self.wanted.map(|instances| ("web", instances));
            let difference = rest::difference(self.site, &self.cells, wanted, &self.log).await?;
            let now = self.log.writes();
            if now != writes.0 || difference.is_some() {
                writes = (now, Instant::now());
            }
            if writes.1.elapsed() > SILENCE {
                return Ok(Vec::new());
            }
            if began.elapsed() > SHUFFLED {
                self.shuffler.end();
            }
            if began.elapsed() > REST {
                let what = difference.unwrap_or_else(|| "it is written on and on".into());
                return Ok(vec![format!("no rest within {REST:?}: {what}")]);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Nothing is left for the next.
    async fn clear(&mut self) -> Result<(), Failure> {
        self.controllers.iter().for_each(|one| one.cut_off(false));
        self.killed
            .extend(self.controllers.drain(..).map(Controller::kill));
        for killed in &mut self.killed {
            // What is late ends with its runtime.
            let _late = tokio::time::timeout(LATE, killed).await;
        }
        for name in self.names.clone() {
            if self.cells.all.contains_key(&name) {
                self.cells.expire(&name).await?;
            }
        }
        let client = &self.client;
        remove(self.site.desired()).await?;
        remove(self.site.actual()).await?;
        remove(self.site.tasks()).await?;
        remove(Api::<Pod>::namespaced(client.clone(), "default")).await?;
        remove(self.site.cells()).await?;
        remove(Api::<Node>::all(client.clone())).await
    }
}

/// Deletes all of a kind and waits until none is left.
async fn remove<K>(api: Api<K>) -> Result<(), Failure>
where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let (delete, list) = (
        DeleteParams::default().grace_period(0),
        ListParams::default(),
    );
    eventually("nothing is left of the former history", START, || async {
        api.delete_collection(&delete, &list).await.ok()?;
        let left = api.list(&list).await.ok()?.items;
        left.is_empty().then_some(())
    })
    .await
}
