//! One run: from an empty API server to the loss of a zone.

use std::time::{Duration, Instant};

use diego_operator::client::{self, KubeArgs};
use diego_operator::metrics::ClientMetrics;
use diego_operator::presence::etcd::EtcdConfig;
use diego_operator::presence::kubernetes::KubernetesConfig;
use diego_operator::presence::store::StoreConfig;
use kube::Client;
use local_cluster::Options;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::few::{self, Few};
use super::fleet::Fleet;
use super::loss::{self, Seen};
use super::plan::{Kind, Plan, Row, Store};
use super::report::{Loss, Results};
use super::sights::Observer;
use super::traffic::Traffic;
use super::{idle, leader, loader, meter, presence, raw, wrong};
use crate::support::{Failure, site::Site};

/// Losses within 10 s are judged together.
const GUARD_WINDOW: Duration = Duration::from_secs(11);

/// Measures one size. What was measured until it failed or was cut off is in the results.
pub async fn run(plan: &Plan, cut: &CancellationToken) -> (Results, Option<Failure>) {
    let mut results = Results::new(plan);
    let done = tokio::select! {
        done = stages(plan, &mut results) => Some(done),
        () = cut.cancelled() => None,
    };
    results.whole = matches!(done, Some(Ok(())));
    (results, done.and_then(Result::err))
}

async fn stages(plan: &Plan, results: &mut Results) -> Result<(), Failure> {
    let began = Instant::now();
    let say = |what: String| eprintln!("{:7.1} s  {what}", began.elapsed().as_secs_f64());
    say(format!(
        "{} Cells with {} instances each, presence in {:?}, TTL {} s",
        plan.cells, plan.per_cell, plan.store, plan.ttl
    ));
    match plan.kind {
        Kind::Loaded => loaded(plan, results, &say).await,
        Kind::Presence => presences(plan, results, &say).await,
        Kind::Few => {
            let one = |few: &Few, n: usize| {
                let last = few.running.map_or(f64::NAN, |all| all.max);
                say(format!(
                    "kill {}: all Running at most {last:.3} s later",
                    n + 1
                ));
            };
            few::measure(plan, one, &mut results.few).await
        }
    }
}

/// Where a fleet is registered.
async fn site() -> Result<(Site, kube::Config, Client), Failure> {
    // Nothing is deleted: the garbage collector would only be one more watcher of everything.
    let options = Options {
        garbage_collection: false,
        ..Options::default()
    };
    let site = Site::start_with(options).await?;
    let args = KubeArgs {
        kubeconfig: Some(site.cluster.kubeconfig().to_owned()),
        context: None,
    };
    let config = client::config(&args).await?;
    let client = client::build(&config, &ClientMetrics::new(&mut Registry::default()))?;
    Ok((site, config, client))
}

async fn presences(
    plan: &Plan,
    results: &mut Results,
    say: &impl Fn(String),
) -> Result<(), Failure> {
    let (mut site, config, _) = site().await?;
    let begun = Instant::now();
    let mut fleet = Fleet::register(plan, &config, store_of(plan, &site, &config)).await?;
    results.setup("register the Cells", begun.elapsed().as_secs_f64());
    site.start_controller(args(plan, &plan.convergence.to_string()).as_flattened())
        .await?;
    say("all Cells are registered".into());
    results.presences = Some(presence::measure(&site, plan, &fleet).await?);
    say(format!("watched them for {} minutes", plan.minutes));
    let ended = presence::end(&site, plan, &mut fleet).await?;
    if let Some(presences) = &mut results.presences {
        presences.ended = Some(ended);
    }
    results.usage = meter::all(&site, plan)?;
    Ok(())
}

async fn loaded(plan: &Plan, results: &mut Results, say: &impl Fn(String)) -> Result<(), Failure> {
    let (mut site, config, client) = site().await?;
    let (took, processes) = loader::desire(&client, plan).await?;
    results.setup("create the DesiredLRPs", took);
    let begun = Instant::now();
    let mut fleet = Fleet::register(plan, &config, store_of(plan, &site, &config)).await?;
    results.setup("register the Cells", begun.elapsed().as_secs_f64());
    let took = loader::seed((&client, &site), plan, &processes, &fleet).await?;
    results.setup("seed the instances", took);
    drop(processes);
    say("all Cells are registered, all instances Running".into());
    let losing = plan.has_any(&[Row::Cell, Row::Tenth, Row::Zone]);
    if losing {
        let raw = raw::measure(&client, plan, "before, without any watch").await?;
        say(format!("raw rate: {:.0}/s", raw.per_second));
        results.raw.push(raw);
    }
    fleet.work();
    let begun = Instant::now();
    let interval = plan.convergence.to_string();
    let args = args(plan, &interval);
    let args = args.as_flattened();
    site.start_controller(args).await?;
    results.setup("start the controller", begun.elapsed().as_secs_f64());
    idle::quiet(&site, plan).await?;
    let took = begun.elapsed().as_secs_f64();
    results.setup("until it has nothing left to write", took);
    results.usage = meter::all(&site, plan)?;
    say("nothing is left to do".into());
    if plan.has(Row::Idle) {
        results.idle = Some(idle::measure(&site, plan).await?);
        say("measured the passes with nothing to do".into());
    }
    let mut observer = Observer::start(client.clone(), &site, plan).await?;
    if plan.has(Row::Wrong) {
        let wrong = wrong::measure(&site, &client, plan, &mut observer).await?;
        say(format!(
            "{} instances put right in {:.2} s",
            wrong.instances, wrong.running
        ));
        results.wrong = Some(wrong);
    }
    let done = losses(&site, plan, &mut fleet, &mut observer, results, say).await;
    // Also of those that failed.
    results.renewals(&fleet);
    done?;
    results.usage = meter::all(&site, plan)?;
    site.kill_controller().await;
    if plan.has(Row::Leader) {
        let parts = (&mut fleet, &mut observer);
        let leaders = leader::measure(&site, &client, plan, parts, args).await?;
        say(format!("new leaders: {leaders:?}"));
        results.leaders = Some(leaders);
        results.renewals(&fleet);
    }
    drop(observer);
    if losing {
        let raw = raw::measure(&client, plan, "after, with the Cells' watches").await?;
        say(format!("raw rate: {:.0}/s", raw.per_second));
        results.raw.push(raw);
    }
    Ok(())
}

/// The controller's flags.
fn args<'a>(plan: &Plan, interval: &'a str) -> [[&'a str; 2]; 4] {
    let threshold = if plan.guard { "33" } else { "100" };
    [
        ["--presence", presence_name(plan.store)],
        ["--mass-loss-threshold-percent", threshold],
        ["--namespace", "default"],
        ["--convergence-interval-seconds", interval],
    ]
}

async fn losses(
    site: &Site,
    plan: &Plan,
    fleet: &mut Fleet,
    observer: &mut Observer,
    results: &mut Results,
    say: &impl Fn(String),
) -> Result<(), Failure> {
    let mut seen = Vec::new();
    let before = (meter::all(site, plan)?, Traffic::read(site).await?);
    let kills = if plan.has(Row::Cell) { plan.kills } else { 0 };
    for n in 0..kills {
        // At moments spread evenly over the renewal cycle, in an order that has nothing to do with time.
        let phase = (n * 7 % plan.kills) as f64 / plan.kills as f64;
        let pause = 0.2 + phase * plan.ttl / 3.0;
        tokio::time::sleep(Duration::from_secs_f64(pause)).await;
        let victim = fleet.living()[0];
        seen.push(loss::kill((site, plan), fleet, observer, &[victim], None).await?);
        say(format!("one Cell: {}", line(&seen[n])));
        if n + 1 == plan.kills {
            idle::settled(site, plan).await?;
        }
        // Each time, for a run that is cut off.
        let used = meter::since(&before.0, &meter::all(site, plan)?);
        let traffic = Traffic::read(site).await?.since(&before.1);
        results.set_loss(Loss::of("one Cell", &seen, used, traffic));
        results.renewals(fleet);
    }
    let living = fleet.living();
    let step = living.len() / plan.tenth();
    let tenth = living.into_iter().step_by(step).take(plan.tenth());
    let tenth: Vec<usize> = tenth.collect();
    let zone = |n: &usize| Plan::zone(*n) == Plan::zone(2);
    let many = [(Row::Tenth, "a tenth"), (Row::Zone, "a zone")];
    for (turn, (row, what)) in many.into_iter().enumerate() {
        if !plan.has(row) {
            continue;
        }
        let cells = match turn {
            0 => tenth.clone(),
            _ => fleet.living().into_iter().filter(zone).collect(),
        };
        if plan.guard {
            // What was lost before must not count with it.
            tokio::time::sleep(GUARD_WINDOW).await;
        }
        let before = (meter::all(site, plan)?, Traffic::read(site).await?);
        let seen = loss::kill((site, plan), fleet, observer, &cells, Some(turn)).await?;
        say(format!("{what}, {} Cells: {}", cells.len(), line(&seen)));
        idle::settled(site, plan).await?;
        let used = meter::since(&before.0, &meter::all(site, plan)?);
        let traffic = Traffic::read(site).await?.since(&before.1);
        results.set_loss(Loss::of(what, &[seen], used, traffic));
    }
    Ok(())
}

fn line(seen: &Seen) -> String {
    let of = |at: usize| seen.cells.iter().map(|cell| cell[at]).fold(0.0, f64::max);
    format!(
        "expired {:.3}, first write +{:.3}, all placed +{:.3}, all Running {:.3}",
        of(0),
        of(1) - of(0),
        of(2) - of(0),
        of(3)
    )
}

fn store_of(plan: &Plan, site: &Site, config: &kube::Config) -> StoreConfig {
    match plan.store {
        Store::Etcd => StoreConfig::Etcd(EtcdConfig {
            endpoints: site.etcd.endpoints(),
            ..EtcdConfig::default()
        }),
        Store::Kubernetes => StoreConfig::Kubernetes(Box::new(KubernetesConfig {
            config: config.clone(),
            namespace: "default".into(),
            metrics: ClientMetrics::new(&mut Registry::default()),
        })),
    }
}

fn presence_name(store: Store) -> &'static str {
    match store {
        Store::Etcd => "etcd",
        Store::Kubernetes => "kubernetes",
    }
}
