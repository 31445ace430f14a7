//! `make bench-false-alarms`: many Cells on a machine that has no time left. Is a presence lost, is an instance moved?
//!
//! Every Cell is a `diego rep` of its own that runs one instance; controller, API server and presence store are real. As
//! many busy loops as `BUSY` says share the cores with them. Seen from outside: each change of a Cell or an ActualLRP is
//! counted, by a watch, and the renewals are those that the reps measured.

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use diego_operator::api::{ActualLRP, Cell, CellState};
use futures::StreamExt;
use kube::ResourceExt;
use kube::runtime::{WatchStreamExt, watcher};
use local_cluster::ServerProcess;

use support::{Failure, eventually, http, objects, site::Site};

/// Reps that start at once: each makes TLS connections, which two cores do slowly.
const STARTS: usize = 8;

/// How long the installation may take to come up, per Cell.
const START_EACH: Duration = Duration::from_secs(3);

/// Sources of `diego_cell_presence_expired_total`.
const SOURCES: [&str; 4] = ["watch", "timer", "resync", "proof"];

#[tokio::main]
async fn main() {
    let result = match Plan::from_environment() {
        Ok(plan) => bench(&plan).await,
        Err(failure) => Err(failure),
    };
    match result {
        Ok(true) => {}
        Ok(false) => std::process::exit(1),
        Err(failure) => {
            eprintln!("error: {failure}");
            std::process::exit(2);
        }
    }
}

/// What is measured.
struct Plan {
    cells: usize,
    minutes: f64,
    busy: usize,
    store: String,
    ttl: String,
}

impl Plan {
    fn from_environment() -> Result<Plan, Failure> {
        let cores = std::thread::available_parallelism()?.get();
        let plan = Plan {
            cells: number("CELLS", 200)?,
            minutes: number("MINUTES", 10.0)?,
            busy: number("BUSY", cores)?,
            store: std::env::var("STORE").unwrap_or_else(|_| "etcd".into()),
            // As the rep's flag takes it: what it can't be, the rep says.
            ttl: std::env::var("TTL").unwrap_or_else(|_| "5".into()),
        };
        if !["etcd", "kubernetes"].contains(&plan.store.as_str()) {
            return Err(format!("STORE={} is neither etcd nor kubernetes", plan.store).into());
        }
        if plan.cells == 0 || plan.minutes <= 0.0 {
            return Err("CELLS and MINUTES must be greater than 0".into());
        }
        Ok(plan)
    }

    fn presence(&self) -> Vec<&str> {
        match self.store.as_str() {
            "kubernetes" => vec!["--presence", "kubernetes", "--namespace", "default"],
            _ => vec!["--presence", "etcd"],
        }
    }
}

/// The number in an environment variable.
fn number<T: std::str::FromStr>(name: &str, default: T) -> Result<T, Failure> {
    match std::env::var(name) {
        Ok(text) => match text.parse() {
            Ok(number) => Ok(number),
            Err(_) => Err(format!("{name}={text} is not a number").into()),
        },
        Err(_) => Ok(default),
    }
}

/// Returns whether nothing was lost and nothing moved.
async fn bench(plan: &Plan) -> Result<bool, Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&plan.presence()).await?;
    eprintln!("starting {} Cells", plan.cells);
    start_cells(&mut site, plan).await?;
    site.desire(&objects::sleepers("web", plan.cells as i32))
        .await?;
    eventually(
        "every instance runs",
        START_EACH * plan.cells as u32,
        || async {
            let desired = site.desired().get_opt("web").await.ok()??;
            (desired.status?.running == plan.cells as i32).then_some(())
        },
    )
    .await?;

    let before = site.instances("web").await?;
    let epochs = epochs(&site).await?;
    let (cells, lrps) = (changes_of_cells(&site), changes_of_lrps(&site));
    let busy = busy_loops(&site, plan.busy)?;
    eprintln!("{} busy loops for {} minutes", plan.busy, plan.minutes);
    let began = Instant::now();
    let idle_before = idle()?;
    tokio::time::sleep(Duration::from_secs_f64(plan.minutes * 60.0)).await;
    let took = began.elapsed().as_secs_f64();
    let cores = std::thread::available_parallelism()?.get() as f64;
    let idled = (idle()? - idle_before) / (took * cores);
    // Before the loops end: whoever fell behind must not catch up unseen.
    let left = lost_presences(&site).await?;
    let after = site.instances("web").await?;
    let epochs_after = self::epochs(&site).await?;
    let renewals = renewals(&site).await?;
    for process in busy {
        process.kill();
    }
    cells.abort();
    lrps.abort();

    let moved = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| place(before) != place(after))
        .count();
    let again = epochs
        .iter()
        .filter(|(cell, epoch)| epochs_after.get(*cell) != Some(epoch))
        .count();
    let (not_present, touched) = (seen(cells).await?, seen(lrps).await?);
    println!(
        "{} Cells, presence in {}, TTL {} s, {:.1} minutes, {} busy loops on {cores} cores ({:.0} % idle)",
        plan.cells,
        plan.store,
        plan.ttl,
        took / 60.0,
        plan.busy,
        idled * 100.0
    );
    println!(
        "renewals {:.0} answered, {:.0} failed; answered within p50 {}, p99 {}, p99.9 {}, all {}",
        renewals.answered,
        renewals.failed,
        renewals.within(0.5),
        renewals.within(0.99),
        renewals.within(0.999),
        renewals.within(1.0)
    );
    println!(
        "presences lost {left:.0}, Cells registered again {again}, Cells seen not Present {not_present}, instances moved {moved} (changes of any instance seen: {touched})"
    );
    Ok(left == 0.0 && again == 0 && not_present == 0 && moved == 0)
}

/// Starts the reps, a few at a time.
async fn start_cells(site: &mut Site, plan: &Plan) -> Result<(), Failure> {
    let mut extra = plan.presence();
    extra.extend(["--max-containers", "1"]);
    extra.extend(["--presence-ttl-seconds", &plan.ttl]);
    for from in (0..plan.cells).step_by(STARTS) {
        for n in from..(from + STARTS).min(plan.cells) {
            site.launch_rep(&format!("c{n}"), &format!("z{}", n % 3), &extra)?;
        }
        for n in from..(from + STARTS).min(plan.cells) {
            site.rep_ready(&format!("c{n}")).await?;
        }
    }
    eventually(
        "every Cell is Present",
        START_EACH * plan.cells as u32,
        || async {
            let cells = site.cells().list(&Default::default()).await.ok()?;
            let present = |cell: &Cell| {
                cell.status.as_ref().and_then(|status| status.state) == Some(CellState::Present)
            };
            (cells.items.iter().filter(|cell| present(cell)).count() == plan.cells).then_some(())
        },
    )
    .await
}

/// Processes that use up all the time they get.
fn busy_loops(site: &Site, count: usize) -> Result<Vec<ServerProcess>, Failure> {
    let script = ["-c".to_owned(), "while :; do :; done".to_owned()];
    let log = site.dir().join("busy.out");
    (0..count)
        .map(|n| {
            let name = format!("busy-{n}");
            Ok(ServerProcess::start(
                &name,
                Path::new("/bin/sh"),
                &script,
                &[],
                &log,
            )?)
        })
        .collect()
}

/// Where an instance runs, and which one it is.
fn place(lrp: &ActualLRP) -> Option<(Option<String>, Option<String>)> {
    let status = lrp.status.clone()?;
    Some((status.cell_name, status.instance_guid))
}

async fn epochs(site: &Site) -> Result<BTreeMap<String, Option<i64>>, Failure> {
    let cells = site.cells().list(&Default::default()).await?;
    let epoch = |cell: &Cell| cell.status.as_ref().and_then(|status| status.epoch);
    Ok(cells
        .items
        .iter()
        .map(|cell| (cell.name_any(), epoch(cell)))
        .collect())
}

type Count = tokio::task::JoinHandle<()>;

/// A watch that counts, and what it counted.
struct Watching {
    task: Count,
    count: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl Watching {
    fn abort(&self) {
        self.task.abort();
    }
}

/// Counts the sights of a Cell that is not Present.
fn changes_of_cells(site: &Site) -> Watching {
    let stream = watcher(site.cells(), watcher::Config::default())
        .default_backoff()
        .applied_objects();
    counting(stream, |cell: &Cell| {
        cell.status.as_ref().and_then(|status| status.state) != Some(CellState::Present)
    })
}

/// Counts the changes of ActualLRPs, the first sight of each apart.
fn changes_of_lrps(site: &Site) -> Watching {
    let mut known = BTreeMap::new();
    let stream = watcher(site.actual(), watcher::Config::default())
        .default_backoff()
        .applied_objects();
    counting(stream, move |lrp: &ActualLRP| {
        let now = lrp.status.clone();
        known
            .insert(lrp.name_any(), now.clone())
            .is_some_and(|before| before != now)
    })
}

fn counting<K: Send + 'static>(
    stream: impl futures::Stream<Item = Result<K, watcher::Error>> + Send + 'static,
    mut counts: impl FnMut(&K) -> bool + Send + 'static,
) -> Watching {
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = count.clone();
    let task = tokio::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        while let Some(object) = stream.next().await {
            if object.as_ref().is_ok_and(&mut counts) {
                counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    });
    Watching { task, count }
}

async fn seen(watching: Watching) -> Result<usize, Failure> {
    match watching.task.await {
        Err(ended) if ended.is_cancelled() => {
            Ok(watching.count.load(std::sync::atomic::Ordering::Relaxed))
        }
        _ => Err("a watch of the benchmark ended by itself".into()),
    }
}

/// Losses that the controller counted, however it came to know of them.
async fn lost_presences(site: &Site) -> Result<f64, Failure> {
    let text = site.metrics().await?;
    let mut sum = 0.0;
    for source in SOURCES {
        let series = format!("diego_cell_presence_expired_total{{source=\"{source}\"}}");
        sum += http::metric(&text, &series).ok_or_else(|| format!("there is no {series}"))?;
    }
    Ok(sum)
}

/// The renewals of all reps.
#[derive(Default)]
struct Renewals {
    answered: f64,
    failed: f64,
    /// Cumulative count by upper bound, as the histograms have it.
    buckets: Vec<(f64, f64)>,
}

impl Renewals {
    /// The bucket that holds this share of the answers.
    fn within(&self, share: f64) -> String {
        let all = self.buckets.last().map_or(0.0, |(_, count)| *count);
        let bucket = self.buckets.iter().find(|(_, count)| *count >= all * share);
        match bucket {
            Some((bound, _)) if bound.is_finite() => format!("{bound} s"),
            Some(_) => "more than the greatest bucket".into(),
            None => "nothing".into(),
        }
    }
}

async fn renewals(site: &Site) -> Result<Renewals, Failure> {
    const DURATION: &str = "diego_rep_presence_renewal_duration_seconds_bucket{le=\"";
    let mut all = Renewals::default();
    let mut buckets: BTreeMap<String, f64> = BTreeMap::new();
    for (name, _) in site.rep_pids() {
        let address = format!("127.0.0.1:{}", site.rep(&name).metrics_port);
        let page = http::get(&address, "/metrics", Duration::from_secs(30)).await;
        let (_, text) = page.ok_or_else(|| format!("rep {name} serves no metrics"))?;
        for result in ["success", "conflict", "timeout", "error"] {
            let series = format!("diego_rep_presence_renewals_total{{result=\"{result}\"}}");
            let count =
                http::metric(&text, &series).ok_or_else(|| format!("there is no {series}"))?;
            match result {
                "success" => all.answered += count,
                _ => all.failed += count,
            }
        }
        for line in text.lines().filter_map(|line| line.strip_prefix(DURATION)) {
            let (bound, count) = line.split_once("\"} ").ok_or("a bucket without a count")?;
            *buckets.entry(bound.to_owned()).or_default() += count.parse::<f64>()?;
        }
    }
    for (bound, count) in buckets {
        let bound = if bound == "+Inf" {
            f64::INFINITY
        } else {
            bound.parse()?
        };
        all.buckets.push((bound, count));
    }
    all.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    Ok(all)
}

/// Seconds that the machine's cores had nothing to do, since its start.
fn idle() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let cpu = stat.lines().next().ok_or("/proc/stat is empty")?;
    let fields: Vec<&str> = cpu.split_whitespace().collect();
    // user nice system idle, in hundredths of a second on every Linux that matters.
    Ok(fields
        .get(4)
        .ok_or("/proc/stat has no idle time")?
        .parse::<f64>()?
        / 100.0)
}
