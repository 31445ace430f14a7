//! The report as a person reads it.

use std::fmt::{self, Write as _};

use super::meter::Usage;
use super::numbers::Percentiles;
use super::plan::Store;
use super::report::{Loss, Report, Results};

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
        writeln!(
            out,
            "{}, {} cores, {:.0} GiB, Linux {}; load before: {}",
            machine.processor,
            machine.cores,
            machine.memory as f64 / MIB / 1024.0,
            machine.kernel,
            machine.load
        )?;
        for run in &self.runs {
            write_run(out, run)?;
        }
        let growth = self.growth();
        if !growth.is_empty() {
            writeln!(out, "\ngrowth with the number of instances, as size^x:")?;
            for (what, exponent) in growth {
                writeln!(out, "  {what}: x = {exponent:.2}")?;
            }
        }
        Ok(())
    }

    /// The key ratios, in one line.
    pub fn last_line(&self) -> String {
        let Some(run) = self.runs.last() else {
            return "nothing was measured".into();
        };
        let raw = run.raw_rate();
        let mut parts = vec![format!("{} Cells x {}", run.plan.cells, run.plan.per_cell)];
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
            let over = placed.p99 - f64::from(run.plan.ttl);
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
        write_counts(
            out,
            "requests at the API server per pass",
            &idle.traffic.requests,
        )?;
    }
    for loss in &run.losses {
        write_loss(out, run, loss)?;
    }
    if let Some(renewals) = &run.renewals {
        write!(
            out,
            "\nrenewals: {} failed, presences lost though nothing died: {}; answered in seconds: ",
            renewals.failed, renewals.lost
        )?;
        match renewals.answered {
            Some(all) => writeln!(
                out,
                "{} in p50 {:.4}, p99 {:.4}, max {:.4}",
                all.count, all.p50, all.p99, all.max
            )?,
            None => writeln!(out, "none")?,
        }
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
    let least = loss.instances as f64 / loss.cells.max(1) as f64;
    writeln!(
        out,
        "per lost Cell: {:.0} watch events with {:.0} KiB; the controller made {:.0} writes and {:.0} reads (least: {:.0} writes, one for each instance and the verdict); all processes until nothing is left to write:",
        loss.traffic.watch_events,
        loss.traffic.watch_bytes / 1024.0,
        loss.traffic
            .by_controller(&["PATCH", "PUT", "POST", "DELETE"]),
        loss.traffic.by_controller(&["GET"]),
        least + 1.0
    )?;
    write_usage(out, &loss.usage, "CPU s per Cell")?;
    write_counts(
        out,
        "requests at the API server per lost Cell",
        &loss.traffic.requests,
    )
}

fn write_usage(out: &mut String, usage: &[Usage], unit: &str) -> fmt::Result {
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
