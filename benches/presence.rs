//! `make bench-presence`: what the presence of 100, 300 and 1,000 Cells costs each store, and how soon a death is heard.
//!
//! The keepers are those of the product, each with its thread and its connection, all in this process; the servers are
//! real, on this machine. CPU time is that of the servers alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use diego_operator::metrics::ClientMetrics;
use diego_operator::presence::PresenceEvent;
use diego_operator::presence::etcd::EtcdConfig;
use diego_operator::presence::identity::Owner;
use diego_operator::presence::keeper::{Keeper, KeeperReport, KnownEpoch, Registration};
use diego_operator::presence::kubernetes::KubernetesConfig;
use diego_operator::presence::store::{self, StoreConfig};
use diego_operator::presence::ttl::Ttl;
use local_cluster::{Etcd, EtcdOptions, LocalCluster, Options, ServerProcess};
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// The presence TTL, in seconds: the default.
const TTL: u32 = 5;

/// How long renewals are measured.
const WINDOW: Duration = Duration::from_secs(10);

/// How many Cells die, one after the other.
const DEATHS: usize = 25;

/// How many keepers start at once: TLS handshakes would hold each other up for longer than a registration may take.
const STARTS: usize = 16;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() {
    if let Err(failure) = bench().await {
        eprintln!("error: {failure}");
        std::process::exit(1);
    }
}

async fn bench() -> Result<(), Failure> {
    println!(
        "{:>10} {:>6} {:>11} {:>14} {:>11} {:>13} {:>9} {:>9}",
        "store",
        "Cells",
        "renewals/s",
        "CPU ms/renewal",
        "cores used",
        "renewal p99",
        "gone p50",
        "gone p99"
    );
    let fsync = EtcdOptions {
        fsync: true,
        ..EtcdOptions::default()
    };
    for cells in [100, 300, 1000] {
        let etcd = Etcd::start(fsync.clone()).await?;
        let config = StoreConfig::Etcd(EtcdConfig {
            endpoints: etcd.endpoints(),
            ..EtcdConfig::default()
        });
        let one = measure("etcd", cells, config, &[etcd.member(0)]).await?;
        drop(etcd);
        let cluster = LocalCluster::start(Options {
            garbage_collection: false,
            etcd: fsync.clone(),
            ..Options::default()
        })
        .await?;
        let kubeconfig = kube::config::Kubeconfig::read_from(cluster.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
        let config = StoreConfig::Kubernetes(Box::new(KubernetesConfig {
            config,
            namespace: "default".into(),
            metrics: ClientMetrics::new(&mut Registry::default()),
        }));
        let servers = [cluster.apiserver(), cluster.etcd().member(0)];
        let other = measure("kubernetes", cells, config, &servers).await?;
        println!(
            "{:>10} {cells:>6} CPU per renewal x {:.1}",
            "ratio",
            other / one
        );
    }
    Ok(())
}

/// Prints a line; gives the servers' CPU time per renewal.
async fn measure(
    name: &str,
    cells: usize,
    config: StoreConfig,
    servers: &[&ServerProcess],
) -> Result<f64, Failure> {
    let opened = store::open(config.clone()).await?;
    let (sender, mut events) = mpsc::channel(100_000);
    let cancel = CancellationToken::new();
    let _over = cancel.clone().drop_guard();
    tokio::spawn(opened.watcher.run(Some(sender), cancel));
    let (renewed, mut renewals) = mpsc::unbounded_channel();
    let starts = Arc::new(Semaphore::new(STARTS));
    let mut starting = tokio::task::JoinSet::new();
    for n in 0..cells {
        let (config, renewed, starts) = (config.clone(), renewed.clone(), starts.clone());
        starting.spawn(async move { start(format!("c{n}"), config, renewed, &starts).await });
    }
    let mut keepers = Vec::new();
    while let Some(keeper) = starting.join_next().await {
        keepers.push(keeper??);
    }
    // All registrations behind us.
    tokio::time::sleep(Duration::from_secs(3)).await;
    while renewals.try_recv().is_ok() {}
    let (began, before) = (Instant::now(), cpu(servers)?);
    tokio::time::sleep(WINDOW).await;
    let (took, used) = (began.elapsed().as_secs_f64(), cpu(servers)? - before);
    let mut latencies = Vec::new();
    let mut lost = 0;
    while let Ok(renewal) = renewals.try_recv() {
        match renewal {
            Some(took) => latencies.push(took),
            None => lost += 1,
        }
    }
    while events.try_recv().is_ok() {}
    let mut gone = Vec::new();
    for _ in 0..DEATHS {
        let Some((cell, control)) = keepers.pop() else {
            break;
        };
        // Wherever it is between two renewals.
        tokio::time::sleep(Duration::from_millis(67)).await;
        control.abort();
        gone.push((cell, Instant::now(), None));
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while gone.iter().any(|(_, _, heard)| heard.is_none()) {
        match tokio::time::timeout_at(deadline, events.recv()).await? {
            Some(PresenceEvent::Gone(departure)) => {
                let died = gone
                    .iter_mut()
                    .find(|(cell, ..)| *cell == departure.last.cell);
                match died {
                    Some((_, died, heard)) => *heard = Some(departure.at - *died),
                    None => lost += 1,
                }
            }
            Some(_) => {}
            None => return Err("the watcher ended".into()),
        }
    }
    let mut heard: Vec<f64> = gone
        .iter()
        .filter_map(|(_, _, heard)| heard.map(|heard| heard.as_secs_f64()))
        .collect();
    let per_renewal = used / latencies.len() as f64;
    println!(
        "{name:>10} {cells:>6} {:>11.0} {:>14.2} {:>11.2} {:>10.1} ms {:>7.2} s {:>7.2} s{}",
        latencies.len() as f64 / took,
        per_renewal * 1e3,
        used / took,
        quantile(&mut latencies, 0.99) * 1e3,
        quantile(&mut heard, 0.5),
        quantile(&mut heard, 0.99),
        if lost > 0 {
            format!("  ({lost} renewals failed or Cells lost)")
        } else {
            String::new()
        }
    );
    Ok(per_renewal)
}

type Renewals = mpsc::UnboundedSender<Option<f64>>;

/// A keeper that is registered; aborting its task is its death.
async fn start(
    cell: String,
    config: StoreConfig,
    renewed: Renewals,
    starts: &Semaphore,
) -> Result<(String, tokio::task::AbortHandle), String> {
    let _turn = starts.acquire().await.map_err(|error| error.to_string())?;
    let registration = Registration {
        cell_id: cell.clone(),
        incarnation: "life-1".into(),
        ttl: Ttl::seconds(TTL),
        cells: Default::default(),
        known_epoch: KnownEpoch::default(),
        dead_epoch: KnownEpoch::default(),
        fence: false,
    };
    let keeper = Keeper::start(config, registration, Owner::Unproven);
    let mut keeper = keeper.map_err(|error| error.to_string())?;
    while !matches!(
        keeper.reports.recv().await,
        Some(KeeperReport::Registered { .. })
    ) {}
    let follow = tokio::spawn(async move {
        // All of it: a keeper whose control is dropped ends.
        let mut keeper = keeper;
        while let Some(report) = keeper.reports.recv().await {
            let sent = match report {
                KeeperReport::Renewed { took } => renewed.send(Some(took.as_secs_f64())),
                KeeperReport::RenewalFailed { .. } | KeeperReport::Lost { .. } => {
                    renewed.send(None)
                }
                _ => Ok(()),
            };
            if sent.is_err() {
                return;
            }
        }
    });
    Ok((cell, follow.abort_handle()))
}

/// CPU time of the servers so far, in seconds.
fn cpu(servers: &[&ServerProcess]) -> Result<f64, Failure> {
    let mut ticks = 0.0;
    for server in servers {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid()))?;
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // utime and stime, in hundredths of a second on every Linux that matters.
        ticks += fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    }
    Ok(ticks / 100.0)
}

fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values
        .get((last as f64 * part).round() as usize)
        .copied()
        .unwrap_or(f64::NAN)
}
