//! The installation itself: started, looked at, broken.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use diego_operator::api::{ActualLRP, ActualLRPState, Cell, CellState, DesiredLRP, Task, crds};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use local_cluster::{Etcd, EtcdOptions, LocalCluster, Options, ServerProcess};

use super::{Failure, eventually, http, tree};

/// Starting a program, or an instance with an interpreter, on two busy cores.
pub const START: Duration = Duration::from_secs(60);

/// A rep and where it answers.
pub struct Rep {
    /// The process.
    pub process: ServerProcess,
    /// Port of its metrics.
    pub metrics_port: u16,
    /// Port of its probes.
    pub health_port: u16,
    /// Its work directory.
    pub work_dir: PathBuf,
    zone: String,
    extra: Vec<String>,
}

/// The witness of a rep that is still there ends with the test, and does not look for a store that is gone.
impl Drop for Rep {
    fn drop(&mut self) {
        let running = self.process.is_running();
        if let Some(witness) = tree::witness(self.process.pid()).filter(|_| running) {
            tree::kill_one(witness);
        }
    }
}

/// The controller and where it answers.
pub struct Controller {
    /// The process.
    pub process: ServerProcess,
    /// Port of its metrics.
    pub metrics_port: u16,
    health_port: u16,
}

impl Controller {
    /// Its metrics page.
    pub async fn metrics(&self) -> Result<String, Failure> {
        let address = format!("127.0.0.1:{}", self.metrics_port);
        let answer = http::get(&address, "/metrics", Duration::from_secs(5)).await;
        Ok(answer.ok_or("the controller serves no metrics")?.1)
    }

    /// One of its metrics.
    pub async fn metric(&self, series: &str) -> Result<f64, Failure> {
        let text = self.metrics().await?;
        http::metric(&text, series).ok_or_else(|| format!("there is no metric {series}").into())
    }

    /// Whether its probe says that it is ready.
    pub async fn is_ready(&self) -> bool {
        is_ready(self.health_port).await
    }
}

/// Everything.
pub struct Site {
    // Dropped in this order: the programs before the servers they talk to.
    controller: Option<Controller>,
    reps: BTreeMap<String, Rep>,
    /// The presence store.
    pub etcd: Etcd,
    /// The API server and what belongs to it.
    pub cluster: LocalCluster,
    /// A client of it.
    pub client: Client,
    /// What the programs are started through from now on, if anything: a program and its arguments, such as `env A=b`.
    pub through: Vec<String>,
    /// Flags of every program that is started from now on, beside its own.
    pub flags: Vec<String>,
    dir: tempfile::TempDir,
}

impl Site {
    /// An API server with our CRDs, and a presence store. No controller, no rep.
    pub async fn start() -> Result<Site, Failure> {
        Self::start_with(Options::default()).await
    }

    /// The same with options for the cluster.
    pub async fn start_with(options: Options) -> Result<Site, Failure> {
        let (cluster, etcd) = tokio::try_join!(
            LocalCluster::start(options),
            Etcd::start(EtcdOptions::default())
        )?;
        let kubeconfig = kube::config::Kubeconfig::read_from(cluster.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
        let client = Client::try_from(config)?;
        let site = Site {
            controller: None,
            reps: BTreeMap::new(),
            etcd,
            cluster,
            client,
            through: Vec::new(),
            flags: Vec::new(),
            dir: tempfile::Builder::new().prefix("diego-site-").tempdir()?,
        };
        site.install_crds().await?;
        Ok(site)
    }

    async fn install_crds(&self) -> Result<(), Failure> {
        let api = Api::<CustomResourceDefinition>::all(self.client.clone());
        for file in crds::all() {
            let name = file.crd.name_any();
            api.patch(
                &name,
                &PatchParams::apply("tests"),
                &Patch::Apply(&file.crd),
            )
            .await?;
            let established = kube::runtime::wait::conditions::is_crd_established();
            let waited = kube::runtime::wait::await_condition(api.clone(), &name, established);
            tokio::time::timeout(START, waited).await??;
        }
        // Established is a little before served.
        eventually("the kinds are served", START, || async {
            Api::<Task>::all(self.client.clone())
                .list(&ListParams::default())
                .await
                .ok()
        })
        .await?;
        Ok(())
    }

    /// The directory of the programs' logs and work directories.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The program under test, as built by cargo beside whatever runs this.
    pub fn program() -> Result<PathBuf, Failure> {
        if let Some(path) = option_env!("CARGO_BIN_EXE_diego") {
            return Ok(path.into());
        }
        let own = std::env::current_exe()?;
        let beside = own
            .ancestors()
            .skip(1)
            .map(|directory| directory.join("diego"))
            .find(|path| path.is_file());
        Ok(beside.ok_or("the program `diego` is not built: run `cargo build --bin diego`")?)
    }

    fn start_program(&self, name: &str, args: &[String]) -> Result<ServerProcess, Failure> {
        let envs = vec![(
            "KUBECONFIG".to_owned(),
            self.cluster.kubeconfig().display().to_string(),
        )];
        let log = self.dir.path().join(format!("{name}.log"));
        let program = Self::program()?;
        let args = &[args, &self.flags].concat();
        let Some((first, rest)) = self.through.split_first() else {
            return Ok(ServerProcess::start(name, &program, args, &envs, &log)?);
        };
        let rest = rest.iter().cloned();
        let args: Vec<String> = rest
            .chain([program.display().to_string()])
            .chain(args.iter().cloned())
            .collect();
        Ok(ServerProcess::start(
            name,
            Path::new(first),
            &args,
            &envs,
            &log,
        )?)
    }

    /// Starts the controller against the presence store and waits until it works.
    pub async fn start_controller(&mut self, extra: &[&str]) -> Result<(), Failure> {
        let endpoints = self.etcd.endpoints().join(",");
        self.start_controller_at(&endpoints, extra).await
    }

    /// The same with other endpoints of the presence store.
    pub async fn start_controller_at(
        &mut self,
        endpoints: &str,
        extra: &[&str],
    ) -> Result<(), Failure> {
        let controller = self.new_controller("controller", endpoints, extra).await?;
        self.controller = Some(controller);
        Ok(())
    }

    /// Another controller beside the site's own, if it has one; `name` is that of its log.
    pub async fn another_controller(
        &self,
        name: &str,
        extra: &[&str],
    ) -> Result<Controller, Failure> {
        let endpoints = self.etcd.endpoints().join(",");
        self.new_controller(name, &endpoints, extra).await
    }

    async fn new_controller(
        &self,
        name: &str,
        endpoints: &str,
        extra: &[&str],
    ) -> Result<Controller, Failure> {
        let (metrics_port, health_port) =
            (local_cluster::free_port()?, local_cluster::free_port()?);
        let mut args = common_args("controller", endpoints, metrics_port, health_port);
        args.extend(extra.iter().map(|arg| (*arg).to_owned()));
        let process = self.start_program(name, &args)?;
        process.ready(START, || is_ready(health_port)).await?;
        Ok(Controller {
            process,
            metrics_port,
            health_port,
        })
    }

    /// The controller.
    pub fn controller(&self) -> &Controller {
        self.controller
            .as_ref()
            .expect("the controller was started")
    }

    /// Kills the controller.
    pub async fn kill_controller(&mut self) {
        if let Some(controller) = self.controller.take() {
            controller.process.kill();
            controller.process.wait().await;
        }
    }

    /// Starts a rep and waits until it is ready and its Cell is Present.
    pub async fn start_rep(
        &mut self,
        name: &str,
        zone: &str,
        extra: &[&str],
    ) -> Result<(), Failure> {
        self.spawn_rep(name, zone, extra).await?;
        self.cell_state(name, CellState::Present).await
    }

    /// Starts a rep and waits until it is ready.
    pub async fn spawn_rep(
        &mut self,
        name: &str,
        zone: &str,
        extra: &[&str],
    ) -> Result<(), Failure> {
        let endpoints = self.etcd.endpoints().join(",");
        self.spawn_rep_at(&endpoints, name, zone, extra).await
    }

    /// The same with other endpoints of the presence store.
    pub async fn spawn_rep_at(
        &mut self,
        endpoints: &str,
        name: &str,
        zone: &str,
        extra: &[&str],
    ) -> Result<(), Failure> {
        self.launch_rep_at(endpoints, name, zone, extra)?;
        self.rep_ready(name).await
    }

    /// Starts a rep and waits for nothing.
    pub fn launch_rep(&mut self, name: &str, zone: &str, extra: &[&str]) -> Result<(), Failure> {
        let endpoints = self.etcd.endpoints().join(",");
        self.launch_rep_at(&endpoints, name, zone, extra)
    }

    fn launch_rep_at(
        &mut self,
        endpoints: &str,
        name: &str,
        zone: &str,
        extra: &[&str],
    ) -> Result<(), Failure> {
        let work_dir = self.dir.path().join(name);
        let (metrics_port, health_port) =
            (local_cluster::free_port()?, local_cluster::free_port()?);
        let ports = (metrics_port, health_port);
        let args = rep_args(endpoints, name, zone, &work_dir, ports, extra);
        let process = self.start_program(name, &args)?;
        let extra = extra.iter().map(|arg| (*arg).to_owned()).collect();
        self.reps.insert(
            name.to_owned(),
            Rep {
                process,
                metrics_port,
                health_port,
                work_dir,
                zone: zone.to_owned(),
                extra,
            },
        );
        Ok(())
    }

    /// Waits until a rep that was started is ready.
    pub async fn rep_ready(&self, name: &str) -> Result<(), Failure> {
        let rep = self.rep(name);
        rep.process
            .ready(START, || is_ready(rep.health_port))
            .await?;
        Ok(())
    }

    /// Starts a rep whose end is awaited; nothing else knows of it.
    pub fn start_extra_rep(
        &self,
        name: &str,
        dir: &str,
        extra: &[&str],
    ) -> Result<ServerProcess, Failure> {
        let work_dir = self.dir.path().join(dir);
        let endpoints = self.etcd.endpoints().join(",");
        let args = rep_args(&endpoints, name, "z1", &work_dir, (0, 0), extra);
        self.start_program(dir, &args)
    }

    /// Starts a rep that is told no more than its node and `extra`, and waits until it is ready. Nothing else knows of it.
    pub async fn node_rep(&self, node: &str, extra: &[&str]) -> Result<ServerProcess, Failure> {
        let endpoints = self.etcd.endpoints().join(",");
        let (metrics_port, health_port) =
            (local_cluster::free_port()?, local_cluster::free_port()?);
        let mut args = common_args("rep", &endpoints, metrics_port, health_port);
        let own = ["--executor", "pods", "--node-name", node];
        args.extend(own.iter().chain(extra).map(|arg| (*arg).to_owned()));
        let process = self.start_program(&format!("rep-{health_port}"), &args)?;
        process.ready(START, || is_ready(health_port)).await?;
        Ok(process)
    }

    /// A rep.
    pub fn rep(&self, name: &str) -> &Rep {
        &self.reps[name]
    }

    /// Kills a rep and every process below it, as the end of its machine would.
    pub async fn kill_cell(&mut self, name: &str) {
        if let Some(rep) = self.reps.remove(name) {
            tree::kill_tree(rep.process.pid());
            rep.process.wait().await;
        }
    }

    /// Kills a rep, and starts it again at once in the same work directory. Its witness goes first: what is looked at is what
    /// the next rep does, and not who is faster.
    pub async fn restart_rep(&mut self, name: &str) -> Result<(), Failure> {
        let Some(rep) = self.reps.remove(name) else {
            return Err(format!("there is no rep {name}").into());
        };
        if let Some(witness) = tree::witness(rep.process.pid()) {
            tree::kill_one(witness);
        }
        rep.process.kill();
        rep.process.wait().await;
        let extra: Vec<&str> = rep.extra.iter().map(String::as_str).collect();
        let zone = rep.zone.clone();
        self.spawn_rep(name, &zone, &extra).await
    }

    /// Asks a rep to stop and waits until it has.
    pub async fn stop_rep(&mut self, name: &str) -> Result<std::process::ExitStatus, Failure> {
        let rep = self
            .reps
            .remove(name)
            .ok_or_else(|| format!("there is no rep {name}"))?;
        rep.process.terminate();
        Ok(tokio::time::timeout(START, rep.process.wait()).await?)
    }

    /// Waits until a Cell's ledger has this state.
    pub async fn cell_state(&self, name: &str, state: CellState) -> Result<(), Failure> {
        let api = self.cells();
        eventually(&format!("{name} is {state:?}"), START, || async {
            let cell = api.get_opt(name).await.ok()??;
            (cell.status?.state == Some(state)).then_some(())
        })
        .await
    }

    /// Creates a DesiredLRP.
    pub async fn desire(&self, desired: &DesiredLRP) -> Result<(), Failure> {
        self.desired()
            .create(&PostParams::default(), desired)
            .await?;
        Ok(())
    }

    /// Creates a Task.
    pub async fn run_task(&self, task: &Task) -> Result<(), Failure> {
        self.tasks().create(&PostParams::default(), task).await?;
        Ok(())
    }

    /// Waits until `count` instances of a process run, on Cells that `allowed` accepts.
    pub async fn running(
        &self,
        process: &str,
        count: usize,
        allowed: impl Fn(&str) -> bool,
    ) -> Result<Vec<ActualLRP>, Failure> {
        let found = eventually(
            &format!("{count} instances of {process} run where they should"),
            START,
            || async {
                let instances = self.instances(process).await.ok()?;
                let well = instances.iter().all(|instance| {
                    let status = instance.status.clone().unwrap_or_default();
                    status.state == ActualLRPState::Running
                        && status.cell_name.as_deref().is_some_and(&allowed)
                });
                (instances.len() == count && well).then_some(instances)
            },
        )
        .await;
        match found {
            Ok(found) => Ok(found),
            Err(failure) => Err(format!("{failure}\n{}", self.picture().await).into()),
        }
    }

    /// The instances of a process, by index.
    pub async fn instances(&self, process: &str) -> Result<Vec<ActualLRP>, Failure> {
        let mut all = self.actual().list(&ListParams::default()).await?.items;
        all.retain(|lrp| lrp.spec.desired_lrp_name == process);
        all.sort_by_key(|lrp| lrp.spec.index);
        Ok(all)
    }

    /// What kubectl shows, and the end of every log: for failures.
    pub async fn picture(&self) -> String {
        let get = [
            "get",
            "cells,desiredlrps,actuallrps,tasks.diego.cloudfoundry.org",
            "-A",
            "-o",
            "wide",
        ];
        let shown = self.cluster.kubectl(&get).await;
        let mut text = shown
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default();
        for entry in std::fs::read_dir(self.dir.path())
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "log")
            {
                let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(15)..].join("\n");
                text.push_str(&format!("\n== {}\n{tail}\n", entry.path().display()));
            }
        }
        text
    }

    /// The controller's metrics page.
    pub async fn metrics(&self) -> Result<String, Failure> {
        self.controller().metrics().await
    }

    /// Where the controller serves its metrics.
    pub fn metrics_address(&self) -> String {
        format!(
            "http://127.0.0.1:{}/metrics",
            self.controller().metrics_port
        )
    }

    /// The reps and their process ids.
    pub fn rep_pids(&self) -> Vec<(String, u32)> {
        self.reps
            .iter()
            .map(|(name, rep)| (name.clone(), rep.process.pid()))
            .collect()
    }

    /// One metric of the controller.
    pub async fn metric(&self, series: &str) -> Result<f64, Failure> {
        self.controller().metric(series).await
    }

    /// The Cells.
    pub fn cells(&self) -> Api<Cell> {
        Api::all(self.client.clone())
    }

    /// The DesiredLRPs of namespace default.
    pub fn desired(&self) -> Api<DesiredLRP> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// The ActualLRPs of namespace default.
    pub fn actual(&self) -> Api<ActualLRP> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// The Tasks of namespace default.
    pub fn tasks(&self) -> Api<Task> {
        Api::namespaced(self.client.clone(), "default")
    }
}

fn rep_args(
    endpoints: &str,
    name: &str,
    zone: &str,
    work_dir: &Path,
    (metrics_port, health_port): (u16, u16),
    extra: &[&str],
) -> Vec<String> {
    let mut args = common_args("rep", endpoints, metrics_port, health_port);
    let own = [
        "--cell-id",
        name,
        "--zone",
        zone,
        "--memory",
        "4Gi",
        "--work-dir",
    ];
    args.extend(own.iter().map(|arg| (*arg).to_owned()));
    args.push(work_dir.display().to_string());
    args.extend(extra.iter().map(|arg| (*arg).to_owned()));
    args
}

fn common_args(program: &str, endpoints: &str, metrics_port: u16, health_port: u16) -> Vec<String> {
    let args = [
        program.to_owned(),
        "--etcd-endpoints".into(),
        endpoints.into(),
        "--metrics-addr".into(),
        format!("127.0.0.1:{metrics_port}"),
        "--health-addr".into(),
        format!("127.0.0.1:{health_port}"),
    ];
    args.into()
}

/// Whether the program's probe says that it is ready.
pub async fn is_ready(health_port: u16) -> bool {
    let answer = http::get(
        &format!("127.0.0.1:{health_port}"),
        "/readyz",
        Duration::from_secs(1),
    )
    .await;
    answer.is_some_and(|(status, _)| status == 200)
}
