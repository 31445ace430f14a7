//! The figures of each row, with what they should be.

use super::figure::{Aim, Figure};
use super::meter::Usage;
use super::plan::{Kind, Row, Store};
use super::report::{Loss, Results};

/// What a loss costs at least, for each lost Cell.
pub struct Least {
    /// Writes of the controller: a place for each instance, and the verdict.
    pub by_controller: f64,
    /// Writes of all: each instance is placed, claimed and reported Running.
    pub writes: f64,
    /// Each of them is told to the controller, to the Cell and to the observer of this benchmark; the verdict to all but
    /// the Cell.
    pub events: f64,
}

impl Least {
    /// Of this loss.
    pub fn of(loss: &Loss) -> Least {
        let each = loss.instances as f64 / loss.cells.max(1) as f64;
        Least {
            by_controller: each + 1.0,
            writes: 3.0 * each + 1.0,
            events: 9.0 * each + 1.0,
        }
    }
}

/// All figures of a run.
pub fn of(run: &Results) -> Vec<Figure> {
    let mut all = Vec::new();
    let mut add = |row: &str, what: &str, value: Option<f64>, unit: &str, aim: Option<Aim>| {
        // What is no number was not measured.
        if let Some(value) = value.filter(|value| value.is_finite()) {
            let figure = Figure::of(&run.plan, row, what, value, unit);
            all.push(match aim {
                Some(aim) => figure.aim(aim),
                None => figure,
            });
        }
    };
    let ttl = run.plan.ttl;
    for (name, row) in [
        ("one Cell", "one Cell lost"),
        ("a tenth", "a tenth lost"),
        ("a zone", "a zone lost"),
    ] {
        let Some(loss) = run.loss(name) else {
            continue;
        };
        let one = name == "one Cell";
        let stage = |stage| loss.stage(stage).map(|all| all.p99);
        let aimed = |aim| one.then_some(aim);
        let first = aimed(Aim::AtMost(0.05));
        add(
            row,
            "expiry -> first write, p99",
            stage("expiry -> first write"),
            "s",
            first,
        );
        let ratio = loss.per_second / run.raw_rate();
        let least = Some(Aim::AtLeast(0.9));
        add(
            row,
            "placed / raw status writes",
            Some(ratio),
            "ratio",
            least,
        );
        let placed = aimed(Aim::AtMost(ttl + 1.2));
        add(
            row,
            "kill -> all placed, p99",
            stage("kill -> all placed"),
            "s",
            placed,
        );
        add(
            row,
            "CPU of the controller per Cell",
            cpu(&loss.usage),
            "s",
            None,
        );
        if !one {
            let others = loss.bystanders.map(|all| all.max);
            let most = Some(Aim::AtMost(1.0));
            add(row, "others wait, max", others, "s", most);
        }
        let cost = Least::of(loss);
        let writes = loss.traffic.writes() / cost.writes;
        add(row, "writes / least", Some(writes), "ratio", None);
        let events = loss.traffic.watch_events / cost.events;
        add(row, "watch events / least", Some(events), "ratio", None);
        let bytes = loss.traffic.watch_bytes / 1024.0;
        add(row, "watch bytes per Cell", Some(bytes), "KiB", None);
    }
    if let Some(idle) = &run.idle {
        let row = "nothing to do";
        let (reads, writes) = idle.requests();
        add(
            row,
            "CPU of a pass",
            Some(idle.cpu()),
            "s",
            Some(Aim::AtMost(1.0)),
        );
        add(
            row,
            "reads of a pass",
            Some(reads),
            "requests",
            Some(Aim::AtMost(0.0)),
        );
        add(
            row,
            "writes of a pass",
            Some(writes),
            "requests",
            Some(Aim::AtMost(0.0)),
        );
    }
    if let Some(wrong) = &run.wrong {
        let row = "1 % wrong";
        add(row, "all placed again", Some(wrong.placed), "s", None);
        add(
            row,
            "CPU of the controller",
            cpu(&wrong.usage),
            "s",
            Some(Aim::AtMost(1.0)),
        );
        let writes = wrong.traffic.writes() / (3.0 * wrong.instances as f64);
        add(row, "writes / least", Some(writes), "ratio", None);
    }
    if run.plan.kind == Kind::Loaded {
        let memory = run
            .controller_memory()
            .map(|bytes| bytes as f64 / f64::from(1 << 30));
        let most = Some(Aim::AtMost(1.5));
        add("memory", "controller, peak", memory, "GiB", most);
        let each = run
            .controller_memory()
            .map(|bytes| bytes as f64 / 1024.0 / run.plan.instances() as f64);
        add("memory", "controller, peak per instance", each, "KiB", None);
    }
    if let Some(leaders) = &run.leaders {
        let row = "new leader";
        let max = |all: Option<super::numbers::Percentiles>| all.map(|all| all.max);
        let soon = Some(Aim::AtMost(1.0));
        add(
            row,
            "warm: Lease -> first write, max",
            max(leaders.acted),
            "s",
            soon,
        );
        add(
            row,
            "cold: start -> first write",
            leaders.cold,
            "s",
            Some(Aim::AtMost(leaders.list)),
        );
        add(
            row,
            "one paged list of all instances",
            Some(leaders.list),
            "s",
            None,
        );
        let placed = max(leaders.together.map(|two| two.0));
        let most = Some(Aim::AtMost(ttl + 2.0));
        add(
            row,
            "leader and Cell die -> all placed, max",
            placed,
            "s",
            most,
        );
    }
    if let Some(presences) = &run.presences {
        let row = "presence";
        let none = Some(Aim::AtMost(0.0));
        add(
            row,
            "false expiries",
            Some(presences.false_expiries),
            "Cells",
            none,
        );
        add(row, "renewals", Some(presences.per_second()), "1/s", None);
        let p99 = presences.renewals.answered.map(|all| all.p99);
        add(row, "renewal, p99", p99, "s", None);
        let servers: &[&str] = match run.plan.store {
            Store::Etcd => &["presence etcd"],
            Store::Kubernetes => &["API server", "its etcd"],
        };
        for program in servers.iter().chain(&["controller"]) {
            let cores = presences.cores(program, &run.plan);
            add(
                row,
                &format!("{program} per 1,000 Cells"),
                cores,
                "cores",
                None,
            );
        }
        let puts = match run.plan.store {
            Store::Etcd => presences.traffic.presence_etcd.get("puts"),
            Store::Kubernetes => presences.traffic.etcd.get("puts"),
        };
        let puts = puts.copied().unwrap_or_default() / presences.seconds;
        add(row, "writes of the store", Some(puts), "1/s", None);
        if let Some(ended) = &presences.ended {
            let row = "presences end at once";
            add(
                row,
                "the store's first -> last",
                Some(ended.expiry_spread),
                "s",
                None,
            );
            add(
                row,
                "first -> last verdict",
                Some(ended.verdict_spread),
                "s",
                None,
            );
            add(
                row,
                "end -> verdict, p99",
                Some(ended.reaction.p99),
                "s",
                None,
            );
        }
    }
    if let Some(few) = &run.few {
        let proof = run.plan.has(Row::Proof);
        let row = if proof {
            "proof of death"
        } else {
            "sharpest TTL"
        };
        let half = few.running.map(|all| all.p50);
        let last = few.running.map(|all| all.p99);
        let (middle, most) = if proof {
            (None, 0.3)
        } else {
            (
                Some(Aim::AtMost(ttl + if ttl < 1.0 { 0.1 } else { 0.2 })),
                ttl + 0.3,
            )
        };
        add(row, "kill -> all Running, p50", half, "s", middle);
        add(
            row,
            "kill -> all Running, p99",
            last,
            "s",
            Some(Aim::AtMost(most)),
        );
    }
    all
}

/// CPU time of the controller, in seconds.
fn cpu(usage: &[Usage]) -> Option<f64> {
    let found = usage.iter().find(|one| one.program == "controller");
    found.map(|one| one.cpu_seconds)
}
