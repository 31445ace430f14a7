//! Presences and nothing else: what they cost the stores, whether any is taken for lost, and how soon the controller
//! judges when a thousand end at once, beside what a plain watch of the store sees.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use diego_operator::api::{Cell, CellState};
use futures::StreamExt;
use kube::ResourceExt;
use kube::runtime::{WatchStreamExt, watcher};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::fleet::Fleet;
use super::idle;
use super::meter::{self, Usage};
use super::numbers::Percentiles;
use super::plan::{Plan, Store};
use super::report::Renewals;
use super::sights::{Observer, Sight};
use super::traffic::Traffic;
use crate::support::{Failure, site::Site};

/// So many Cells end at once, if there are more.
const AT_ONCE: usize = 1000;

/// What was measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Presences {
    /// For how long, in seconds.
    pub seconds: f64,
    /// Renewals in that time.
    pub renewals: Renewals,
    /// Losses that the controller found, though nothing died.
    pub false_expiries: f64,
    /// What each process used in that time.
    pub usage: Vec<Usage>,
    /// Requests in that time.
    pub traffic: Traffic,
    /// When many ended at once.
    pub ended: Option<Ended>,
}

/// Many ended at once; all in seconds from that moment.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// How many.
    pub cells: usize,
    /// The end of each presence: as a plain watch of etcd sees it, or as the Leases tell.
    pub expiry: Percentiles,
    /// From the first of these to the last.
    pub expiry_spread: f64,
    /// The verdict on each Cell.
    pub verdict: Percentiles,
    /// From the first of these to the last.
    pub verdict_spread: f64,
    /// From the end of each presence to its verdict.
    pub reaction: Percentiles,
}

impl Presences {
    /// Renewals each second.
    pub fn per_second(&self) -> f64 {
        let count = self.renewals.answered.map_or(0, |all| all.count);
        count as f64 / self.seconds
    }

    /// Cores that a program kept busy, for each thousand Cells.
    pub fn cores(&self, program: &str, plan: &Plan) -> Option<f64> {
        let used = self.usage.iter().find(|one| one.program == program)?;
        Some(used.cpu_seconds / self.seconds * 1000.0 / plan.cells as f64)
    }
}

/// Lets presences be for a while.
pub async fn measure(site: &Site, plan: &Plan, fleet: &Fleet) -> Result<Presences, Failure> {
    idle::quiet(site, plan).await?;
    let lost = lost(site).await?;
    fleet.renewals().forget();
    let before = (meter::all(site, plan)?, Traffic::read(site).await?);
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs_f64(plan.minutes * 60.0)).await;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Presences {
        seconds,
        renewals: Renewals::of(fleet),
        false_expiries: self::lost(site).await? - lost,
        usage: meter::since(&before.0, &meter::all(site, plan)?),
        traffic: Traffic::read(site).await?.since(&before.1),
        ended: None,
    })
}

/// Ends many at once.
pub async fn end(site: &Site, plan: &Plan, fleet: &mut Fleet) -> Result<Ended, Failure> {
    let mut observer = Observer::start(site.client.clone(), site, plan).await?;
    let (mut verdicts, _watch) = verdicts(site);
    let living = fleet.living();
    // One is left: a controller without any Cell would be no fair trial of the store.
    let cells: Vec<usize> = living
        .iter()
        .copied()
        .take(AT_ONCE.min(living.len() - 1))
        .collect();
    let dead = fleet.kill(&cells);
    let killed = dead.first().ok_or("there is no Cell to kill")?.at;
    let mut expired: BTreeMap<String, Instant> = BTreeMap::new();
    if plan.store == Store::Kubernetes {
        expired.extend(dead.iter().map(|one| (one.cell.clone(), one.expires)));
    }
    let mut judged: BTreeMap<String, Instant> = BTreeMap::new();
    let deadline = tokio::time::Instant::now() + plan.patience();
    while expired.len() < dead.len() || judged.len() < dead.len() {
        let late = || {
            let patience = plan.patience();
            let (gone, judged, all) = (expired.len(), judged.len(), dead.len());
            format!(
                "not within {patience:?}: of {all} presences {gone} have ended and {judged} are judged lost"
            )
        };
        tokio::select! {
            sight = observer.next() => {
                if let (at, Sight::Gone(cell)) = sight? {
                    expired.entry(cell).or_insert(at);
                }
            }
            verdict = verdicts.recv() => {
                let (cell, at) = verdict.ok_or("the watch of the Cells has ended")?;
                judged.entry(cell).or_insert(at);
            }
            () = tokio::time::sleep_until(deadline) => return Err(late().into()),
        }
    }
    let since = |at: &Instant| at.saturating_duration_since(killed).as_secs_f64();
    let expiries: Vec<f64> = expired.values().map(since).collect();
    let verdict: Vec<f64> = judged.values().map(since).collect();
    let reaction = judged.iter().filter_map(|(cell, at)| {
        let expired = expired.get(cell)?;
        Some(at.saturating_duration_since(*expired).as_secs_f64())
    });
    let reaction: Vec<f64> = reaction.collect();
    let all = |values: &[f64]| Percentiles::of(values).ok_or("nothing ended");
    Ok(Ended {
        cells: dead.len(),
        expiry: all(&expiries)?,
        expiry_spread: spread(&expiries),
        verdict: all(&verdict)?,
        verdict_spread: spread(&verdict),
        reaction: all(&reaction)?,
    })
}

fn spread(values: &[f64]) -> f64 {
    let first = values.iter().copied().fold(f64::INFINITY, f64::min);
    let last = values.iter().copied().fold(0.0, f64::max);
    last - first
}

/// Cells judged lost, as they are seen.
fn verdicts(
    site: &Site,
) -> (
    mpsc::UnboundedReceiver<(String, Instant)>,
    AbortOnDropHandle<()>,
) {
    let (out, seen) = mpsc::unbounded_channel();
    let cells = watcher(site.cells(), watcher::Config::default());
    let watch = tokio::spawn(async move {
        let mut cells = std::pin::pin!(cells.default_backoff().applied_objects());
        while let Some(cell) = cells.next().await {
            let at = Instant::now();
            let missing = |cell: &Cell| {
                let state = cell.status.as_ref().and_then(|status| status.state);
                state == Some(CellState::Missing)
            };
            if let Ok(cell) = cell
                && missing(&cell)
                && out.send((cell.name_any(), at)).is_err()
            {
                return;
            }
        }
    });
    (seen, AbortOnDropHandle::new(watch))
}

/// Losses that the controller counted, however it came to know of them.
async fn lost(site: &Site) -> Result<f64, Failure> {
    const SERIES: &str = "diego_cell_presence_expired_total{";
    let text = site.metrics().await?;
    let counts = text.lines().filter_map(|line| {
        let (_, count) = line.strip_prefix(SERIES)?.rsplit_once(' ')?;
        count.parse::<f64>().ok()
    });
    Ok(counts.sum())
}
