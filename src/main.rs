//! The `diego` program: parse, start logging, dispatch.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use diego_operator::config::{
    CheckArgs, Cli, CommonArgs, ControllerArgs, CrdsArgs, FenceArgs, PresenceKind, Program,
    RepArgs, SYNC_INTERVAL, WitnessArgs,
};
use diego_operator::metrics::ClientMetrics;
use diego_operator::presence::store::StoreConfig;
use diego_operator::rep::{self, RepConfig, metrics::RepMetrics};
use diego_operator::{api, check, client, controller, fence, http, start, telemetry, witness};
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error>;

/// Threads that are still busy when all work is done, such as with a name server that does not answer, are not waited
/// for any longer.
const LEFT_BEHIND: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let result = match Cli::parse().program {
        Program::Controller(args) => run(run_controller(*args)),
        Program::Rep(args) => run(run_rep(*args)),
        Program::Fence(args) => run(run_fence(args)),
        Program::Crds(args) => print_crds(&args),
        Program::Check(args) => run(run_check(args)),
        Program::Supervise(args) => {
            let output = args.output();
            return rep::supervise::supervise_main(args.command, output, args.deadline);
        }
        Program::Witness(args) => run_witness(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(program: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(program);
    runtime.shutdown_timeout(LEFT_BEHIND);
    result
}

async fn run_controller(args: ControllerArgs) -> Result<(), Failure> {
    let Stop { stop, hurry } = begin(&args.common)?;
    args.tasks.validate()?;
    args.leader.validate()?;
    let servers = Servers::bind(&args.common).await?;
    let config = client::config(&args.common.kube).await?;
    let (ready, is_ready) = watch::channel(false);
    // The servers outlive the wait for completion callbacks under way, so that it can be followed.
    let served = CancellationToken::new();
    let metrics_port = servers.serve_probes(is_ready, &served);
    let patience = start::patience(args.common.start_timeout_seconds);
    // Without patience, what comes next tells as much.
    if !patience.is_zero() {
        // Of a client that is not kept.
        let metrics = ClientMetrics::new(&mut Registry::default());
        let client = client::build(&config, &metrics)?;
        let presence = args.common.store(&config, &metrics);
        let reached = start::until_reached(patience, &stop, async || {
            client::check(&config, &client).await?;
            presence.check("any").await?;
            Ok(())
        });
        if reached.await?.is_none() {
            return Ok(());
        }
    }
    let mut registry = registry();
    let work = controller::run(&args, &config, &mut registry, ready, stop.clone()).await?;
    let reviewer = match args.common.metrics.asks() {
        // Of a client of its own: that of the work may not write while another controller leads.
        true => Some(client::build(
            &config,
            &ClientMetrics::new(&mut Registry::default()),
        )?),
        false => None,
    };
    metrics_port.serve(registry, reviewer, &served);
    tokio::select! {
        () = work => {}
        () = hurry.cancelled() => tracing::warn!("stopping at once"),
    }
    served.cancel();
    // Ended without being asked to: whoever started it shall start it again.
    if stop.is_cancelled() {
        Ok(())
    } else {
        Err("a part of the controller ended; see the log".into())
    }
}

async fn run_rep(args: RepArgs) -> Result<(), Failure> {
    let Stop { stop, hurry } = begin(&args.common)?;
    args.validate()?;
    let cell_id = args.cell_id();
    let servers = Servers::bind(&args.common).await?;
    let kube = client::config(&args.common.kube).await?;
    let mut registry = registry();
    let metrics = RepMetrics::new(&mut registry);
    let client_metrics = ClientMetrics::new(&mut registry);
    let client = client::build(&kube, &client_metrics)?;
    let presence = args.common.store(&kube, &client_metrics);
    let (ready, is_ready) = watch::channel(false);
    // The servers outlive the drain, so that it can be followed.
    let served = CancellationToken::new();
    let metrics_port = servers.serve_probes(is_ready, &served);
    let reviewer = args.common.metrics.asks().then(|| client.clone());
    metrics_port.serve(registry, reviewer, &served);
    // Once it works it waits for a store that is away; one that was never there is a wrong flag.
    let patience = start::patience(args.common.start_timeout_seconds);
    let address = start::until_reached(patience, &stop, async || {
        client::check(&kube, &client).await?;
        presence.check(&cell_id).await?;
        Ok(match &args.address {
            Some(address) => address.clone(),
            None => client::own_address(&kube)?,
        })
    });
    let Some(address) = address.await? else {
        return Ok(());
    };
    let (fence, witness, ttl) = (args.fence(), args.witness(), args.ttl());
    let config = RepConfig {
        capacity: args.capacity(),
        evacuation_timeout: args.evacuation_timeout(),
        address,
        offer: args.offer(),
        cell_id,
        zone: args.zone,
        placement_tags: args.placement_tags,
        optional_placement_tags: args.optional_placement_tags,
        executor: args.executor.into(),
        ttl,
        work_dir: args.work_dir,
        instance_log_size: args.instance_log_size,
        sync_interval: SYNC_INTERVAL,
        presence,
        node_name: args.node_name,
        boot_id_file: args.boot_id_file,
        fence,
        witness,
        hurry,
    };
    let result = rep::run(config, client, metrics, ready, stop).await;
    served.cancel();
    Ok(result?)
}

async fn run_fence(args: FenceArgs) -> Result<(), Failure> {
    telemetry::init(args.log_format);
    let Stop { stop, hurry } = signals()?;
    let health = http::bind("--health-addr", args.health_addr).await?;
    tracing::info!(health = %health.address, "serving the probes");
    let (ready, is_ready) = watch::channel(false);
    let served = CancellationToken::new();
    tokio::spawn(http::serve_probes(health, is_ready, served.clone()));
    tokio::select! {
        ended = fence::run(args.config(), ready, stop) => ended?,
        () = hurry.cancelled() => tracing::warn!("stopping at once; nothing is fenced any more"),
    }
    served.cancel();
    Ok(())
}

/// Almost all of its time is the wait: nothing is built before that is over.
fn run_witness(args: &WitnessArgs) -> Result<(), Failure> {
    witness::outlive_the_rep()?;
    telemetry::init(args.common.log_format);
    let Some(held) = witness::wait(std::io::stdin().lock()) else {
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let store = match args.common.presence {
            PresenceKind::Etcd => StoreConfig::Etcd(args.common.etcd()),
            PresenceKind::Kubernetes => {
                let kube = client::config(&args.common.kube).await?;
                args.common
                    .store(&kube, &ClientMetrics::new(&mut Registry::default()))
            }
        };
        witness::testify(&store, &args.cell_id, &args.work_dir, &held).await;
        Ok(())
    })
}

/// What SIGTERM and SIGINT cancel.
struct Stop {
    /// By the first one.
    stop: CancellationToken,
    /// By the second one.
    hurry: CancellationToken,
}

/// Starts logging, checks what can be checked without a server, and listens for SIGTERM and SIGINT.
fn begin(args: &CommonArgs) -> Result<Stop, Failure> {
    telemetry::init(args.log_format);
    args.validate()?;
    args.metrics.validate()?;
    signals()
}

/// Listens for SIGTERM and SIGINT.
fn signals() -> Result<Stop, Failure> {
    let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let tokens = [stop.clone(), hurry.clone()];
    tokio::spawn(async move {
        for token in tokens {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            token.cancel();
        }
    });
    Ok(Stop { stop, hurry })
}

fn registry() -> Registry {
    let mut registry = Registry::default();
    diego_operator::metrics::build::register(&mut registry);
    // The standard process_* metrics; missing only where /proc is.
    if let Err(error) =
        kubert_prometheus_process::register(registry.sub_registry_with_prefix("process"))
    {
        tracing::warn!(%error, "no process metrics");
    }
    registry
}

/// The two ports of a program, taken before it starts work.
struct Servers {
    metrics: http::Bound,
    tls: Option<http::Loaded>,
    audiences: Vec<String>,
    health: http::Bound,
}

impl Servers {
    async fn bind(args: &CommonArgs) -> Result<Self, Failure> {
        let tls = match args.metrics.tls() {
            Some(files) => Some(files.load().await?),
            None => None,
        };
        let metrics = http::bind("--metrics-addr", args.metrics_addr).await?;
        let health = http::bind("--health-addr", args.health_addr).await?;
        tracing::info!(metrics = %metrics.address, health = %health.address, "serving /metrics and the probes");
        Ok(Servers {
            metrics,
            tls,
            audiences: args.metrics.metrics_token_audience.clone(),
            health,
        })
    }

    /// Serves the probes from now on; what is left is for when there is something to measure.
    fn serve_probes(self, ready: watch::Receiver<bool>, stop: &CancellationToken) -> MetricsPort {
        tokio::spawn(http::serve_probes(self.health, ready, stop.clone()));
        MetricsPort {
            bound: self.metrics,
            tls: self.tls,
            audiences: self.audiences,
        }
    }
}

/// The port of `/metrics`.
struct MetricsPort {
    bound: http::Bound,
    tls: Option<http::Loaded>,
    audiences: Vec<String>,
}

impl MetricsPort {
    /// `reviewer` is the client that asks who may read, where that is to be asked.
    fn serve(self, registry: Registry, reviewer: Option<kube::Client>, stop: &CancellationToken) {
        let metrics = http::Metrics {
            registry,
            tls: self.tls,
            reviewer: reviewer.map(|client| http::Reviewer::new(client, self.audiences)),
        };
        tokio::spawn(http::serve_metrics(self.bound, metrics, stop.clone()));
    }
}

async fn run_check(args: CheckArgs) -> Result<(), Failure> {
    let config = client::config(&args.kube).await?;
    let client = client::build(&config, &ClientMetrics::new(&mut Registry::default()))?;
    Ok(check::run(&config, &client, &args.questions()).await?)
}

fn print_crds(args: &CrdsArgs) -> Result<(), Failure> {
    for file in api::crds::all() {
        let yaml = file.yaml()?;
        match &args.output {
            None => print!("{yaml}"),
            Some(directory) => {
                std::fs::create_dir_all(directory)?;
                let path = directory.join(&file.name);
                std::fs::write(&path, yaml)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_hangs_does_not_hold_up_the_end() {
        let (release, hangs) = std::sync::mpsc::channel::<()>();
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let ended = run(async {
                drop(tokio::task::spawn_blocking(move || hangs.recv()));
                Ok(())
            });
            done.send(ended.is_ok())
        });
        let ended = is_done.recv_timeout(Duration::from_secs(30));
        assert_eq!(ended, Ok(true), "it waits for the thread");
        drop(release);
    }
}
