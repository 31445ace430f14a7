//! Few Cells, each a real rep with real processes: how soon all work of one runs again, with the shortest TTL and, where a
//! rep's death is proven, without any.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::fleet::Dead;
use super::loss::{self, Wishes};
use super::numbers::Percentiles;
use super::plan::{Plan, Row, Store};
use super::sights::Observer;
use crate::support::{Failure, objects, site::Site};

/// The DesiredLRP that is all their work.
const WORK: &str = "work";

/// All from the kill, in seconds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Few {
    /// How often.
    pub kills: usize,
    /// Until the first instance has a new place.
    pub first: Option<Percentiles>,
    /// Until all have.
    pub placed: Option<Percentiles>,
    /// Until all run.
    pub running: Option<Percentiles>,
    /// How the controller came to know, and how often.
    pub sources: BTreeMap<String, f64>,
}

/// Kills one Cell after the other.
pub async fn measure(
    plan: &Plan,
    cut: impl Fn(&Few, usize),
    done: &mut Option<Few>,
) -> Result<(), Failure> {
    let mut site = Site::start().await?;
    let presence = match plan.store {
        Store::Etcd => vec!["--presence", "etcd"],
        Store::Kubernetes => vec!["--presence", "kubernetes", "--namespace", "default"],
    };
    site.start_controller(&presence).await?;
    let ttl = plan.ttl.to_string();
    let args = [&presence[..], &["--presence-ttl-seconds", &ttl]].concat();
    for n in 0..plan.cells {
        site.start_rep(&Plan::cell(n), &Plan::zone(n), &args)
            .await?;
    }
    let count = plan.instances();
    let instances = i32::try_from(count)?;
    site.desire(&objects::sleepers(WORK, instances)).await?;
    site.running(WORK, count, |_| true).await?;
    let mut observer = Observer::start(site.client.clone(), &site, plan).await?;
    let (mut first, mut placed, mut running) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..plan.kills {
        // At moments spread evenly over the renewal cycle, in an order that has nothing to do with time.
        let phase = (n * 7 % plan.kills) as f64 / plan.kills as f64;
        tokio::time::sleep(Duration::from_secs_f64(0.5 + phase * plan.ttl / 3.0)).await;
        let all = site.running(WORK, count, |_| true).await?;
        let mut by_cell: BTreeMap<String, HashMap<String, String>> = BTreeMap::new();
        for lrp in all {
            let status = lrp.status.unwrap_or_default();
            if let (Some(cell), Some(guid), Some(name)) =
                (status.cell_name, status.instance_guid, lrp.metadata.name)
            {
                by_cell.entry(cell).or_default().insert(name, guid);
            }
        }
        let most = by_cell
            .into_iter()
            .max_by_key(|(_, instances)| instances.len());
        let (cell, instances) = most.ok_or("no instance runs")?;
        observer.skip();
        let at = Instant::now();
        if plan.has(Row::Proof) {
            // Its machine lives, and whatever runs beside it.
            site.rep(&cell).process.kill();
        }
        let dead = Dead {
            cell: cell.clone(),
            at,
            expires: at,
            instances,
        };
        if !plan.has(Row::Proof) {
            site.kill_cell(&cell).await;
        }
        let nobody = (&Wishes::default(), &Default::default());
        let seen = loss::follow(plan, vec![dead], &mut observer, nobody).await?;
        site.kill_cell(&cell).await;
        for times in &seen.cells {
            first.push(times[1]);
            placed.push(times[2]);
            running.push(times[3]);
        }
        let now = Few {
            kills: n + 1,
            first: Percentiles::of(&first),
            placed: Percentiles::of(&placed),
            running: Percentiles::of(&running),
            sources: sources(&site).await?,
        };
        cut(&now, n);
        *done = Some(now);
        // Another one: a Cell that is lost again and again is held down.
        site.cells().delete(&cell, &Default::default()).await?;
        let next = plan.cells + n;
        site.start_rep(&Plan::cell(next), &Plan::zone(next), &args)
            .await?;
    }
    Ok(())
}

/// Losses by what noticed them.
async fn sources(site: &Site) -> Result<BTreeMap<String, f64>, Failure> {
    const SERIES: &str = "diego_cell_presence_expired_total{source=\"";
    let text = site.metrics().await?;
    let counts = text.lines().filter_map(|line| {
        let (source, count) = line.strip_prefix(SERIES)?.split_once("\"} ")?;
        Some((source.to_owned(), count.parse().ok()?))
    });
    Ok(counts.filter(|(_, count)| *count > 0.0).collect())
}
