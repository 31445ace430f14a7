//! `make bench-recovery`: how long a lost Cell's work is away, over many kills, beside the raw rate of status
//! writes of the same API server in the same run.

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use diego_operator::api::{ActualLRP, ActualLRPState, Cell, CellState};
use diego_operator::metrics::ClientMetrics;
use diego_operator::presence::etcd::key;
use etcd_client::EventType;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;

use support::{Failure, eventually, objects, site::START, site::Site};

/// Instances on the Cell that is killed.
const INSTANCES: i32 = 50;

/// Requests in flight while the raw rate is measured.
const IN_FLIGHT: usize = 64;

/// Of how many kills one more is made in which the surviving rep is held back until all is placed.
const ALONE: usize = 3;

/// The presence TTL, in seconds: the default.
const TTL: f64 = 5.0;

#[tokio::main]
async fn main() {
    // Cargo passes --bench.
    let kills = std::env::args()
        .skip(1)
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(30);
    if let Err(failure) = bench(kills).await {
        eprintln!("error: {failure}");
        std::process::exit(1);
    }
}

async fn bench(kills: usize) -> Result<(), Failure> {
    let mut site = Site::start().await?;
    let raw_before = raw_rate(&site).await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &[]).await?;
    site.desire(&objects::sleepers("web", INSTANCES)).await?;
    site.running("web", INSTANCES as usize, |_| true).await?;
    println!(
        "{kills} kills, {INSTANCES} instances on the lost Cell, presence TTL {TTL} s, seconds:\n"
    );
    let (mut samples, mut alone) = (Vec::new(), Vec::new());
    let (mut victim, mut other) = ("a", "b");
    for n in 0..kills + kills / ALONE {
        // As a Cell that nobody knows: one that is lost again and again is held down.
        if site.cells().get_opt(other).await?.is_some() {
            site.cells().delete(other, &Default::default()).await?;
        }
        site.start_rep(other, "z1", &[]).await?;
        // Spread evenly over the renewal cycle of TTL/3, in an order that has nothing to do with time.
        let phase = (n * 7 % kills) as f64 / kills as f64 * TTL / 3.0;
        tokio::time::sleep(Duration::from_secs_f64(0.5 + phase)).await;
        let hold = (n >= kills).then_some(other);
        let sample = kill(&mut site, victim, hold).await?;
        eprintln!("kill {:2}: {}", n + 1, sample.line());
        if hold.is_none() {
            samples.push(sample)
        } else {
            alone.push(sample)
        }
        std::mem::swap(&mut victim, &mut other);
    }
    let resyncs = site
        .metric("diego_cell_presence_expired_total{source=\"resync\"}")
        .await?;
    site.kill_controller().await;
    let raw_after = raw_rate(&site).await?;
    report(&samples, &alone, (raw_before, raw_after), resyncs);
    Ok(())
}

/// The stages of one recovery, in seconds.
struct Sample {
    kill_to_expiry: f64,
    expiry_to_verdict: f64,
    expiry_to_first: f64,
    expiry_to_placed: f64,
    kill_to_placed: f64,
    kill_to_running: f64,
}

impl Sample {
    fn line(&self) -> String {
        format!(
            "expired {:.3}, verdict +{:.3}, first write +{:.3}, all placed +{:.3}, all Running {:.3}",
            self.kill_to_expiry,
            self.expiry_to_verdict,
            self.expiry_to_first,
            self.expiry_to_placed,
            self.kill_to_running
        )
    }

    /// Placements per second, from the verdict until the last one.
    fn rate(&self) -> f64 {
        f64::from(INSTANCES) / (self.expiry_to_placed - self.expiry_to_verdict).max(1e-6)
    }
}

enum Sight {
    Gone,
    Cell(Box<Cell>),
    Instance(Box<ActualLRP>),
}

/// Kills a Cell and times what an outside observer sees. The rep `hold` is stopped from the expiry until all is
/// placed, so that the placing is seen alone: on one machine, starting what is placed first slows the rest down.
async fn kill(site: &mut Site, victim: &str, hold: Option<&str>) -> Result<Sample, Failure> {
    let before = site
        .running("web", INSTANCES as usize, |cell| cell == victim)
        .await?;
    let guids: BTreeMap<String, _> = before
        .iter()
        .map(|lrp| {
            (
                lrp.name_any(),
                lrp.status.clone().unwrap_or_default().instance_guid,
            )
        })
        .collect();
    let mut sights = sights(site, victim).await?;
    let killed = Instant::now();
    site.kill_cell(victim).await;
    let (mut expired, mut verdict, mut first, mut placed) = (None, None, None, None);
    let mut unplaced: BTreeSet<String> = guids.keys().cloned().collect();
    let mut down = unplaced.clone();
    while !down.is_empty() {
        let sight = tokio::time::timeout(START, sights.next())
            .await?
            .ok_or("a watch ended")??;
        let now = killed.elapsed().as_secs_f64();
        match sight {
            Sight::Gone => {
                expired = Some(now);
                hold.iter().for_each(|rep| site.rep(rep).process.pause());
            }
            Sight::Cell(cell) => {
                let missing = cell
                    .status
                    .as_ref()
                    .is_some_and(|status| status.state == Some(CellState::Missing));
                if cell.name_any() == victim && missing {
                    verdict.get_or_insert(now);
                }
            }
            Sight::Instance(lrp) => {
                let (name, status) = (lrp.name_any(), lrp.status.unwrap_or_default());
                if guids
                    .get(&name)
                    .is_none_or(|guid| *guid == status.instance_guid)
                {
                    continue;
                }
                first.get_or_insert(now);
                if unplaced.remove(&name) && unplaced.is_empty() {
                    placed = Some(now);
                    hold.iter().for_each(|rep| site.rep(rep).process.resume());
                }
                if status.state == ActualLRPState::Running {
                    down.remove(&name);
                }
            }
        }
    }
    let running = killed.elapsed().as_secs_f64();
    let all = (|| Some((expired?, verdict?, first?, placed?)))();
    let (expired, verdict, first, placed) = all.ok_or("not every stage was seen")?;
    Ok(Sample {
        kill_to_expiry: expired,
        expiry_to_verdict: verdict - expired,
        expiry_to_first: first - expired,
        expiry_to_placed: placed - expired,
        kill_to_placed: placed,
        kill_to_running: running,
    })
}

async fn sights(
    site: &Site,
    cell: &str,
) -> Result<BoxStream<'static, Result<Sight, Failure>>, Failure> {
    let mut etcd = etcd_client::Client::connect(site.etcd.endpoints(), None).await?;
    let presence = etcd
        .watch(key(cell), None)
        .await?
        .map_err(Failure::from)
        .map_ok(|answer| {
            answer
                .events()
                .iter()
                .any(|event| event.event_type() == EventType::Delete)
        })
        .try_filter_map(|gone| std::future::ready(Ok(gone.then_some(Sight::Gone))));
    let cells = watcher(site.cells(), Default::default())
        .applied_objects()
        .map_err(Failure::from);
    let lrps = watcher(site.actual(), Default::default())
        .applied_objects()
        .map_err(Failure::from);
    let mut all = stream::select_all([
        presence.boxed(),
        cells.map_ok(|cell| Sight::Cell(Box::new(cell))).boxed(),
        lrps.map_ok(|lrp| Sight::Instance(Box::new(lrp))).boxed(),
    ]);
    // Up once the list of instances has come.
    let mut seen = 0;
    while seen < INSTANCES {
        if let Some(Ok(Sight::Instance(_))) = tokio::time::timeout(START, all.next()).await? {
            seen += 1;
        }
    }
    Ok(all.boxed())
}

/// Status writes per second of this API server: bursts of as many writes as a recovery makes, of the same
/// kind and size, while nothing else goes on. The median of the bursts.
async fn raw_rate(site: &Site) -> Result<f64, Failure> {
    // With the connection that the controller uses, so that the server alone is measured.
    let kubeconfig = kube::config::Kubeconfig::read_from(site.cluster.kubeconfig())?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    let metrics = ClientMetrics::new(&mut prometheus_client::registry::Registry::default());
    let client = diego_operator::client::build(&config, &metrics)?;
    let namespace = Api::<k8s_openapi::api::core::v1::Namespace>::all(site.client.clone());
    let raw = serde_json::from_value(json!({ "metadata": { "name": "raw" } }))?;
    if namespace.get_opt("raw").await?.is_none() {
        namespace.create(&PostParams::default(), &raw).await?;
    }
    let api = Api::<ActualLRP>::namespaced(client, "raw");
    let names: Vec<String> = (0..INSTANCES).map(|index| format!("raw-{index}")).collect();
    for (index, name) in names.iter().enumerate() {
        let object = json!({
            "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "ActualLRP",
            "metadata": { "name": name }, "spec": { "desiredLRPName": "raw", "index": index },
        });
        api.create(&PostParams::default(), &serde_json::from_value(object)?)
            .await?;
    }
    let mut rates = Vec::new();
    for burst in 0..21 {
        let began = Instant::now();
        let writes = stream::iter(&names).map(|name| {
            let suspect = json!({ "cellName": "cell-a", "cellEpoch": burst, "instanceGuid": "c87bfa34-b0ef-4995-b7da-9c1c922a494e", "state": "Running" });
            let status = json!({
                "state": "Unclaimed", "cellName": "cell-b", "cellEpoch": burst, "startReason": "missing-cell",
                "instanceGuid": "5c962a24-0bf6-4028-a7d7-6ce6a3d13b81", "stateTransitionTime": "2015-01-13T00:00:00.000000Z",
                "suspect": suspect,
            });
            let api = api.clone();
            async move {
                let patch = Patch::Merge(json!({ "status": status }));
                api.patch_status(name, &PatchParams::default(), &patch).await
            }
        });
        writes
            .buffer_unordered(IN_FLIGHT)
            .try_collect::<Vec<_>>()
            .await?;
        // The first bursts open connections and warm the server.
        if burst >= 6 {
            rates.push(f64::from(INSTANCES) / began.elapsed().as_secs_f64());
        }
    }
    for name in &names {
        api.delete(name, &DeleteParams::default()).await?;
    }
    eventually("the objects of the raw rate are gone", START, || async {
        api.list(&Default::default())
            .await
            .ok()?
            .items
            .is_empty()
            .then_some(())
    })
    .await?;
    Ok(percentile(&mut rates, 50.0))
}

fn percentile(values: &mut [f64], percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * values.len() as f64).ceil() as usize;
    values[rank.clamp(1, values.len()) - 1]
}

fn report(samples: &[Sample], alone: &[Sample], raw: (f64, f64), resyncs: f64) {
    println!("| stage | p50 | p90 | p99 | max |\n| --- | --- | --- | --- | --- |");
    let row = |stage: &str, of: &dyn Fn(&Sample) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(of).collect();
        let at: Vec<f64> = [50.0, 90.0, 99.0, 100.0]
            .iter()
            .map(|percent| percentile(&mut values, *percent))
            .collect();
        println!(
            "| {stage} | {:.3} | {:.3} | {:.3} | {:.3} |",
            at[0], at[1], at[2], at[3]
        );
        at[2]
    };
    row("kill -> expiry", &|sample| sample.kill_to_expiry);
    row("expiry -> verdict on the Cell", &|sample| {
        sample.expiry_to_verdict
    });
    let first = row("expiry -> first write", &|sample| sample.expiry_to_first);
    row("expiry -> all placed", &|sample| sample.expiry_to_placed);
    let placed = row("kill -> all placed", &|sample| sample.kill_to_placed);
    row("kill -> all Running", &|sample| sample.kill_to_running);
    let median = |samples: &[Sample]| {
        let mut rates: Vec<f64> = samples.iter().map(Sample::rate).collect();
        if rates.is_empty() {
            f64::NAN
        } else {
            percentile(&mut rates, 50.0)
        }
    };
    let both = (raw.0 + raw.1) / 2.0;
    let rate = median(alone);
    println!(
        "\nraw status writes: {:.0}/s before, {:.0}/s after the kills ({IN_FLIGHT} in flight, bursts of {INSTANCES})",
        raw.0, raw.1
    );
    println!(
        "placed, medians: {:.0}/s ({:.2} of the raw rate) while the rep starts what is placed already, {rate:.0}/s ({:.2}) alone ({} more kills)",
        median(samples),
        median(samples) / both,
        rate / both,
        alone.len()
    );
    println!("losses found by the resync instead of the watch: {resyncs}");
    let met = |ok: bool| if ok { "met" } else { "missed" };
    println!(
        "\naims: expiry -> first write p99 <= 0.050 s: {}; kill -> all placed p99 <= TTL + 0.8 s: {}; placing alone >= 0.8 of the raw rate: {}",
        met(first <= 0.05),
        met(placed <= TTL + 0.8),
        met(rate >= 0.8 * both),
    );
}
