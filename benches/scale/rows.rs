//! The tables of the rows beside those of the losses.

use std::fmt::{self, Write as _};

use super::few::Few;
use super::leader::Leaders;
use super::numbers::Percentiles;
use super::presence::Presences;
use super::report::Renewals;
use super::text::{write_traffic, write_usage};
use super::wrong::Wrong;

/// One of a hundred wrong.
pub fn wrong(out: &mut String, wrong: &Wrong) -> fmt::Result {
    writeln!(
        out,
        "\none of a hundred wrong: {} instances had lost their place while the controller stood still: placed again after {:.2} s, Running after {:.2} s; until nothing is left to write:",
        wrong.instances, wrong.placed, wrong.running
    )?;
    write_usage(out, &wrong.usage, "CPU s")?;
    write_traffic(out, "in all", &wrong.traffic)
}

/// New leaders.
pub fn leaders(out: &mut String, leaders: &Leaders) -> fmt::Result {
    writeln!(
        out,
        "\nnew leaders; a list of all instances, page by page: {:.2} s; the only controller started: first write after {:.2} s\n\n| seconds | p50 | p90 | p99 | max |\n| --- | --- | --- | --- | --- |",
        leaders.list,
        leaders.cold.unwrap_or(f64::NAN)
    )?;
    let together = leaders.together;
    for (what, all) in [
        ("standby: start -> ready to lead", leaders.warming),
        ("leader dies -> standby has the Lease", leaders.taken),
        ("standby has the Lease -> first write", leaders.acted),
        (
            "leader and Cell die -> all placed",
            together.map(|two| two.0),
        ),
        (
            "leader and Cell die -> all Running",
            together.map(|two| two.1),
        ),
    ] {
        write_row(out, what, all)?;
    }
    Ok(())
}

/// Presences alone.
pub fn presences(out: &mut String, presences: &Presences) -> fmt::Result {
    writeln!(
        out,
        "\npresences alone for {:.0} s: {:.0} false expiries, {:.0} renewals/s",
        presences.seconds,
        presences.false_expiries,
        presences.per_second()
    )?;
    renewals(out, &presences.renewals)?;
    write_usage(out, &presences.usage, "CPU s")?;
    write_traffic(out, "in all", &presences.traffic)?;
    if let Some(ended) = &presences.ended {
        writeln!(
            out,
            "\n{} ended at once: from the first end to the last {:.2} s, from the first verdict to the last {:.2} s\n\n| seconds | p50 | p90 | p99 | max |\n| --- | --- | --- | --- | --- |",
            ended.cells, ended.expiry_spread, ended.verdict_spread
        )?;
        write_row(out, "kill -> end of the presence", Some(ended.expiry))?;
        write_row(out, "kill -> verdict", Some(ended.verdict))?;
        write_row(out, "end of the presence -> verdict", Some(ended.reaction))?;
    }
    Ok(())
}

/// Few real reps.
pub fn few(out: &mut String, few: &Few) -> fmt::Result {
    let sources: Vec<String> = few
        .sources
        .iter()
        .map(|(source, count)| format!("{source} {count:.0}"))
        .collect();
    writeln!(
        out,
        "\n{} kills; noticed by: {}\n\n| seconds from the kill | p50 | p90 | p99 | max |\n| --- | --- | --- | --- | --- |",
        few.kills,
        sources.join(", ")
    )?;
    write_row(out, "first instance placed", few.first)?;
    write_row(out, "all placed", few.placed)?;
    write_row(out, "all Running", few.running)
}

fn write_row(out: &mut String, what: &str, all: Option<Percentiles>) -> fmt::Result {
    let Some(all) = all else {
        return Ok(());
    };
    writeln!(
        out,
        "| {what} | {:.3} | {:.3} | {:.3} | {:.3} |",
        all.p50, all.p90, all.p99, all.max
    )
}

/// Renewals of a fleet.
pub fn renewals(out: &mut String, renewals: &Renewals) -> fmt::Result {
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
        ),
        None => writeln!(out, "none"),
    }
}
