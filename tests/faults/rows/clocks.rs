//! Clocks that jump, and clocks that go too fast or too slow.

use std::time::Duration;

use diego_operator::api::{ActualLRP, CellState, MissingCellPolicy};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams};
use serde_json::json;

use super::looks::no_loss;
use crate::clock::{Clock, Library};
use crate::network::{Network, Way};
use crate::observer::facts::{Nanos, SECOND};
use crate::row::{Figures, Protection, Row, Tried};
use crate::stage::{ONCE, RECOVERY, Setup, Stage, THREE};
use crate::support::{Failure, eventually, http, objects, site::START};

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            number: 23,
            fault: "the wall clock jumps by an hour, forth and back",
            promise: "no presence is lost, nothing is moved, and the leader leads on; a Cell that dies meanwhile is recovered as ever (what is counted by the wall clock, such as the pauses between crashes and the ends of Tasks, comes by so much early or late)",
            tried: Tried::Here {
                injected: "a library loaded into reps and controller, whose wall clock jumps back by 1 h, to the right time, and forth by 1 h, for 8 s each, and to the right time as a Cell dies; a standby whose clock is right. etcd and the API server, Go's, can't be deceived so: theirs is right",
                protection: Protection::Seen {
                    without: "the fence goes by a clock that only counts (instead: by the wall clock)",
                    said: "the fences of Cells that lived stopped their Strict instances",
                },
                short: false,
                run: |stage| Box::pin(jumps(stage)),
            },
        },
        Row {
            number: 24,
            fault: "the clock of a Cell goes too fast or too slow",
            promise: "by up to 1 %: its Strict instances are killed 0.9 s before the presence can end, and so before they are replaced; by more: nothing is promised of Strict, and the rest is as ever",
            tried: Tried::Here {
                injected: "a library loaded into reps and supervisors, whose clocks (wall, CLOCK_MONOTONIC, CLOCK_BOOTTIME and its timers) go 1 % and 10 % slow and fast; Cells with TTL 40 s, cut off from etcd and the API server",
                protection: Protection::Seen {
                    without: "the fence allows for clocks whose rates differ by 1 %",
                    said: "at a rate of 0.99 the last instance was killed 0.50 s before the presence could end",
                },
                short: false,
                run: |stage| Box::pin(rates(stage)),
            },
        },
    ]
}

/// In seconds.
const HOUR: i64 = 3600;

async fn jumps(stage: &mut Stage) -> Result<Figures, Failure> {
    let library = Library::build(stage.site.dir())?;
    let clock = library.clock(&stage.cell("wall"), 1.0)?;
    stage.site.through = clock.through();
    let setup = Setup {
        controller: &["--leader-elect", "--convergence-interval-seconds", "2"],
        cells: &THREE,
        instances: 9,
        tasks: 3,
        once: 3,
        ..Setup::default()
    };
    let before = stage.set(setup).await?;
    let through = std::mem::take(&mut stage.site.through);
    let standby = stage
        .site
        .another_controller("standby", &["--leader-elect"]);
    let standby = standby.await?;
    stage.site.through = through;
    let leader = leader(stage).await?;
    let once = guids(stage).await?;
    for (n, jump) in [-HOUR, 0, HOUR].into_iter().enumerate() {
        stage.fault();
        clock.jump(jump)?;
        tokio::time::sleep(Duration::from_secs(8)).await;
        shows(stage, &format!("at-{n}"), jump).await?;
        no_loss(stage).await?;
        stage.unmoved(&before).await?;
        if guids(stage).await? != once {
            return Err("a fence has stopped what may run once only".into());
        }
    }
    let since = stage.fault();
    stage.site.kill_cell(&stage.cell("b")).await;
    clock.jump(0)?;
    let away = stage.recovered(&before, &["b"], since, RECOVERY).await?;
    stage.tasks_failed(1, 2).await?;
    if self::leader(stage).await? != leader {
        return Err("another controller leads".into());
    }
    stage.keep(standby);
    Ok(Figures::away(away))
}

/// Which runs the Strict instances are.
async fn guids(stage: &Stage) -> Result<Vec<Option<String>>, Failure> {
    let once = stage.site.instances(ONCE).await?.into_iter();
    Ok(once
        .map(|lrp| lrp.status.and_then(|status| status.instance_guid))
        .collect())
}

/// Who leads, and since when; nobody may follow only because of a clock.
async fn leader(stage: &Stage) -> Result<(Option<String>, Option<i32>), Failure> {
    let spec = lease(stage).await?.spec.unwrap_or_default();
    Ok((spec.holder_identity, spec.lease_transitions))
}

async fn lease(stage: &Stage) -> Result<Lease, Failure> {
    let leases = Api::<Lease>::namespaced(stage.site.client.clone(), "default");
    let leases = leases.list(&ListParams::default()).await?.items;
    let led = leases.into_iter().find(|lease| {
        let spec = lease.spec.clone().unwrap_or_default();
        spec.holder_identity.is_some()
    });
    led.ok_or_else(|| "no Lease of a leader".into())
}

/// Looks that the leader and the reps write times that are off by so much: else the row shows nothing.
async fn shows(stage: &mut Stage, name: &str, jump: i64) -> Result<(), Failure> {
    stage.desire(name, 1, false).await?;
    let lrps = stage.site.running(name, 1, |_| true).await?;
    let status = lrps[0].status.clone().unwrap_or_default();
    let reps = status.state_transition_time.map(|time| time.0);
    let renewed = lease(stage).await?.spec.unwrap_or_default().renew_time;
    let now = Timestamp::now();
    for (who, time) in [("a rep", reps), ("the leader", renewed.map(|time| time.0))] {
        let time = time.ok_or_else(|| format!("{who} has written no time"))?;
        let off = time.duration_since(now).as_secs();
        if (off - jump).abs() > 30 {
            return Err(format!("{who} has a clock that is {off} s off, not {jump} s").into());
        }
    }
    Ok(())
}

/// So long that what 1 % makes of it is more than any pause of a busy machine.
const TTL: u32 = 40;

/// As much as the fence allows for the killing and for being woken late.
const MARGIN: f64 = 0.9;

/// What an answer, a look of the observer's and a kill take here.
const LATE: f64 = 0.2;

/// A Cell, its rate, and whether S6 is promised of it.
const RATES: [(&str, f64, bool); 4] = [
    ("a", 0.99, true),
    ("b", 1.01, true),
    ("c", 0.9, false),
    ("d", 1.1, false),
];

async fn rates(stage: &mut Stage) -> Result<Figures, Failure> {
    let library = Library::build(stage.site.dir())?;
    // These Cells are cut off from everything: nothing but the fence stops what they run.
    let server = stage.site.cluster.server_url();
    let networks = [
        Network::to(&stage.site.etcd.endpoints()[0]).await?,
        Network::to(&server).await?,
    ];
    let file = stage.site.dir().join("clocks.yaml");
    let file = networks[1].kubeconfig(stage.site.cluster.kubeconfig(), &server, file)?;
    let file = file.display().to_string();
    stage.site.start_controller(&[]).await?;
    // Each of these is full before the next one comes, so that it is known what runs where. All are of one zone: the
    // others stay, so the mass-loss guard lets them go.
    let ttl = TTL.to_string();
    let ttl = ["--presence-ttl-seconds", &ttl, "--max-containers", "3"];
    let flags = [&ttl[..], &["--kubeconfig", &file]].concat();
    let mut clocks = Vec::new();
    for (cell, rate, promised) in RATES {
        let name = stage.cell(cell);
        let clock = library.clock(&name, rate)?;
        stage.site.through = clock.through();
        let endpoint = networks[0].url("http");
        let site = &mut stage.site;
        site.spawn_rep_at(&endpoint, &name, "z1", &flags).await?;
        site.through.clear();
        site.cell_state(&name, CellState::Present).await?;
        desire(stage, &library, &format!("once-{cell}"), 2, Some(promised)).await?;
        desire(stage, &library, &format!("web-{cell}"), 1, None).await?;
        clocks.push((clock, rate));
    }
    for (cell, zone) in [("x", "z2"), ("y", "z3")] {
        stage.start_rep(cell, zone, &[]).await?;
    }
    let shown = clocks.iter().map(|(clock, _)| clock.read());
    let shown = shown.collect::<Result<Vec<_>, _>>()?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    no_loss(stage).await?;

    let since = stage.fault();
    networks.iter().for_each(|network| network.set(Way::Lost));
    let mut renewed = Vec::new();
    for ((cell, ..), (clock, _)) in RATES.iter().zip(&clocks) {
        renewed.push(last_renewal(stage, &stage.cell(cell), clock).await?);
    }
    let slow = RATES.map(|(cell, ..)| stage.cell(cell));
    let away = |cell: &str| !slow.iter().any(|slow| slow == cell);
    for (cell, ..) in RATES {
        for (name, count) in [(format!("once-{cell}"), 2), (format!("web-{cell}"), 1)] {
            stage.site.running(&name, count, away).await?;
        }
    }
    let mut notes = Vec::new();
    for (n, (cell, rate, promised)) in RATES.into_iter().enumerate() {
        let (from, to) = (shown[n], clocks[n].0.read()?);
        let went = (to.0 - from.0) / (to.1 - from.1);
        if (went - rate).abs() > 0.002 {
            return Err(format!("{cell}'s clock went at a rate of {went}, not {rate}").into());
        }
        let (name, on) = (format!("once-{cell}"), stage.cell(cell));
        let killed = eventually("all of it was killed", START, || async {
            killed(stage, &name, &on, since)
        })
        .await?;
        let expires = renewed[n] + u64::from(TTL) * SECOND;
        let early = seconds(killed.last, expires);
        if promised && early < MARGIN - LATE {
            let text = format!("at a rate of {rate} the last one was killed {early:.2} s before");
            return Err(format!("{text} the presence could end, not {MARGIN} s").into());
        }
        if rate < 0.95 && early > 0.0 {
            return Err("the bound makes no difference: the row shows nothing".into());
        }
        let replaced = seconds(killed.last, killed.replaced);
        let [early, replaced] = [early, replaced].map(before);
        notes.push(format!(
            "rate {rate}: killed {early} the presence could end and {replaced} the first replacement began"
        ));
    }
    // However slow they are, they are back.
    stage.fault();
    networks.iter().for_each(|network| network.set(Way::Open));
    for cell in slow {
        stage.site.cell_state(&cell, CellState::Present).await?;
    }
    stage.keep((networks, clocks));
    Ok(Figures::note(notes.join("; ")))
}

/// Desires instances whose supervisors have the clock of their Cell, and waits until they run. `Some` are Strict ones, and
/// whether S6 is promised of them.
async fn desire(
    stage: &mut Stage,
    library: &Library,
    name: &str,
    count: i32,
    strict: Option<bool>,
) -> Result<Vec<ActualLRP>, Failure> {
    // They themselves have the machine's clock: the observer believes them.
    let command = Library::without(stage.observer().command()?);
    let container = json!({ "name": "main", "command": command, "env": library.env() });
    let mut desired = objects::lrp(name, count, json!({ "containers": [container] }));
    if strict.is_some() {
        desired.spec.missing_cell_policy = MissingCellPolicy::Strict;
    }
    if strict == Some(true) {
        stage.promise_strict(name);
    }
    stage.want(name, Some(count));
    stage.site.desire(&desired).await?;
    stage.site.running(name, count as usize, |_| true).await
}

/// When a rep sent the last renewal that was answered, on the observer's clock: its own word, by its own wall clock.
async fn last_renewal(stage: &Stage, cell: &str, clock: &Clock) -> Result<Nanos, Failure> {
    let address = format!("127.0.0.1:{}", stage.site.rep(cell).metrics_port);
    let page = http::get(&address, "/metrics", Duration::from_secs(5)).await;
    let (_, page) = page.ok_or("the rep serves no metrics")?;
    let shown = http::metric(&page, "diego_rep_presence_last_renewal_timestamp_seconds");
    clock.when(shown.ok_or("the rep does not tell when it renewed")?)
}

/// What became of the Strict instances of a Cell.
struct Killed {
    /// When the last one was seen for the last time.
    last: Nanos,
    /// When the first replacement began.
    replaced: Nanos,
}

/// `None` while one of them runs, or none was replaced.
fn killed(stage: &Stage, name: &str, cell: &str, since: Nanos) -> Option<Killed> {
    let runs = stage.observer().runs().into_iter();
    let runs: Vec<_> = runs.filter(|(_, run, _)| run.process == name).collect();
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        runs.into_iter().partition(|(_, run, _)| run.cell == cell);
    let ends: Option<Vec<Nanos>> = here.iter().map(|(.., ended)| *ended).collect();
    let starts = elsewhere.iter().map(|(began, ..)| *began);
    Some(Killed {
        last: ends?.into_iter().max()?,
        replaced: starts.filter(|began| *began > since).min()?,
    })
}

/// From one moment to another, in seconds.
fn seconds(from: Nanos, to: Nanos) -> f64 {
    (to as f64 - from as f64) / SECOND as f64
}

/// So many seconds before something, or after it.
fn before(seconds: f64) -> String {
    let word = if seconds < 0.0 { "after" } else { "before" };
    format!("{:.2} s {word}", seconds.abs())
}
