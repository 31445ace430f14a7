//! The report as a person reads it.

use std::fmt::{self, Write as _};

use super::figure;
use super::figures::Least;
use super::meter::Usage;
use super::numbers::Percentiles;
use super::plan::{Kind, Store};
use super::report::{Loss, Report, Results};
use super::rows;
use super::traffic::Traffic;

const MIB: f64 = (1 << 20) as f64;

impl Report {
    /// All tables.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing into a String can't fail.
        let _ = self.write_to(&mut out);
        out
    }

    fn write_to(&self, out: &mut String) -> fmt::Result {
        let machine = &self.machine;
        writeln!(out, "$ {}", self.command)?;
        writeln!(out, "{}; load before: {}", machine.line(), machine.load)?;
        for run in &self.runs {
            write_run(out, run)?;
        }
        if !self.figures.is_empty() {
            writeln!(
                out,
                "\nall figures, by size:\n\n{}",
                figure::table(&self.figures)
            )?;
        }
        Ok(())
    }

    /// The key ratios, in one line.
    pub fn last_line(&self) -> String {
        let loaded = |run: &&Results| run.plan.kind == Kind::Loaded;
        let found = self.runs.iter().rev().find(loaded).or(self.runs.last());
        let Some(run) = found else {
            return "nothing was measured".into();
        };
        let raw = run.raw_rate();
        let mut parts = vec![format!("{} Cells x {}", run.plan.cells, run.plan.per_cell)];
        for run in &self.runs {
            if let Some(presences) = &run.presences {
                let (cells, wrong) = (run.plan.cells, presences.false_expiries);
                parts.push(format!("{cells} presences: {wrong:.0} false expiries"));
            }
            if let Some(running) = run.few.as_ref().and_then(|few| few.running) {
                let (ttl, half) = (run.plan.ttl, running.p50);
                parts.push(format!("TTL {ttl} s: kill -> all Running p50 {half:.2} s"));
            }
        }
        for loss in &run.losses {
            let ratio = loss.per_second / raw;
            parts.push(format!("placed/raw {ratio:.2} ({})", loss.what));
        }
        if let Some(loss) = run.loss("one Cell")
            && let (Some(first), Some(placed)) = (
                loss.stage("expiry -> first write"),
                loss.stage("kill -> all placed"),
            )
        {
            let over = placed.p99 - run.plan.ttl;
            parts.push(format!("expiry -> first write p99 {:.3} s", first.p99));
            parts.push(format!("kill -> all placed p99 TTL{over:+.2} s"));
        }
        if let Some(idle) = &run.idle {
            let (reads, writes) = idle.requests();
            let cpu = idle.cpu();
            parts.push(format!(
                "idle pass {cpu:.2} CPU s, {reads:.0} reads, {writes:.0} writes"
            ));
        }
        if let Some(memory) = run.controller_memory() {
            let each = memory as f64 / 1024.0 / run.plan.instances() as f64;
            let all = memory as f64 / MIB;
            parts.push(format!(
                "controller {all:.0} MiB ({each:.1} KiB per instance)"
            ));
        }
        if !self.whole() {
            parts.push("cut off before the end".into());
        }
        parts.join("; ")
    }
}

fn write_run(out: &mut String, run: &Results) -> fmt::Result {
    let plan = &run.plan;
    let store = match plan.store {
        Store::Etcd => "etcd",
        Store::Kubernetes => "Leases of the API server",
    };
    let end = if run.whole {
        ""
    } else {
        " (cut off before the end)"
    };
    writeln!(
        out,
        "\n{} Cells in 3 zones with {} instances each, {} in all, {} to a DesiredLRP; presence in {store}, TTL {} s{end}",
        plan.cells,
        plan.per_cell,
        plan.instances(),
        plan.per_process,
        plan.ttl
    )?;
    for (what, seconds) in &run.setup {
        writeln!(out, "  {what}: {seconds:.1} s")?;
    }
    for raw in &run.raw {
        writeln!(
            out,
            "raw status writes {}: {:.0}/s ({} in flight, bursts of {})",
            raw.when, raw.per_second, raw.in_flight, raw.burst
        )?;
    }
    if let Some(idle) = &run.idle {
        let (reads, writes) = idle.requests();
        writeln!(
            out,
            "\na convergence pass with nothing to do ({} measured): the controller takes {:.2} s of CPU and makes {reads:.0} reads (watches begun again among them); our kinds are written {writes:.0} times",
            idle.passes,
            idle.cpu()
        )?;
        write_usage(out, &idle.usage, "CPU s per pass")?;
        write_traffic(out, "per pass", &idle.traffic)?;
    }
    if let Some(wrong) = &run.wrong {
        rows::wrong(out, wrong)?;
    }
    for loss in &run.losses {
        write_loss(out, run, loss)?;
    }
    if let Some(leaders) = &run.leaders {
        rows::leaders(out, leaders)?;
    }
    if let Some(presences) = &run.presences {
        rows::presences(out, presences)?;
    }
    if let Some(few) = &run.few {
        rows::few(out, few)?;
    }
    if let Some(renewals) = &run.renewals {
        rows::renewals(out, renewals)?;
    }
    if !run.usage.is_empty() {
        writeln!(out, "\nover the whole run:")?;
        write_usage(out, &run.usage, "CPU s")?;
    }
    Ok(())
}

fn write_loss(out: &mut String, run: &Results, loss: &Loss) -> fmt::Result {
    writeln!(
        out,
        "\nlost: {}, {} time(s), {} Cells with {} instances together; seconds, of each Cell:\n",
        loss.what, loss.times, loss.cells, loss.instances
    )?;
    writeln!(
        out,
        "| stage | p50 | p90 | p99 | max |\n| --- | --- | --- | --- | --- |"
    )?;
    let mut row = |stage: &str, all: &Percentiles| {
        writeln!(
            out,
            "| {stage} | {:.3} | {:.3} | {:.3} | {:.3} |",
            all.p50, all.p90, all.p99, all.max
        )
    };
    for (stage, all) in &loss.stages {
        row(stage, all)?;
    }
    if let Some(all) = &loss.instance_placed {
        row("kill -> placed, each instance", all)?;
    }
    if let Some(all) = &loss.bystanders {
        row("meanwhile: DesiredLRP -> placed", all)?;
    }
    let (last, count) = loss.first_index;
    writeln!(
        out,
        "\nplaced: {:.0}/s, {:.2} of the raw rate; index 0 ({:.0} % of all) done when {:.0} % were placed",
        loss.per_second,
        loss.per_second / run.raw_rate(),
        count * 100.0,
        last * 100.0
    )?;
    let least = Least::of(loss);
    writeln!(
        out,
        "per lost Cell: {:.0} watch events with {:.0} KiB (least: {:.0}); {:.0} writes of our kinds (least: {:.0}); the controller made {:.0} writes (least: {:.0}, one for each instance and the verdict) and {:.0} reads; all processes until nothing is left to write:",
        loss.traffic.watch_events,
        loss.traffic.watch_bytes / 1024.0,
        least.events,
        loss.traffic.writes(),
        least.writes,
        loss.traffic
            .by_controller(&["PATCH", "PUT", "POST", "DELETE"]),
        least.by_controller,
        loss.traffic.by_controller(&["GET"]),
    )?;
    write_usage(out, &loss.usage, "CPU s per Cell")?;
    write_traffic(out, "per lost Cell", &loss.traffic)
}

/// What each process used.
pub fn write_usage(out: &mut String, usage: &[Usage], unit: &str) -> fmt::Result {
    writeln!(
        out,
        "\n| process | {unit} | memory MiB | peak MiB |\n| --- | --- | --- | --- |"
    )?;
    for one in usage {
        writeln!(
            out,
            "| {} | {:.3} | {:.0} | {:.0} |",
            one.program,
            one.cpu_seconds,
            one.memory as f64 / MIB,
            one.peak as f64 / MIB
        )?;
    }
    Ok(())
}

fn write_counts<'a>(
    out: &mut String,
    what: &str,
    counts: impl IntoIterator<Item = (&'a String, &'a f64)>,
) -> fmt::Result {
    let all: Vec<String> = counts
        .into_iter()
        .map(|(what, count)| format!("{what} {count:.1}"))
        .collect();
    writeln!(out, "\n{what}: {}", all.join(", "))
}

/// What each server was asked.
pub fn write_traffic(out: &mut String, per: &str, traffic: &Traffic) -> fmt::Result {
    write_counts(
        out,
        &format!("requests at the API server {per}"),
        &traffic.requests,
    )?;
    write_counts(out, &format!("its etcd {per}"), &traffic.etcd)?;
    write_counts(out, &format!("presence etcd {per}"), &traffic.presence_etcd)
}
