//! The second part of row 36: 300 of 1,000 Cells are lost at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use diego_operator::api::ActualLRPState;
use kube::api::ListParams;

use crate::fleet::Fleet;
use crate::observer::facts::{Fact, Nanos, SECOND, now};
use crate::stage::{Stage, WEB};
use crate::support::{Failure, eventually, objects};

/// Cells.
const CELLS: usize = 1_000;

/// Instances: one on each, and room for as many again.
const INSTANCES: i32 = 1_000;

/// How long all that may take, on two cores that serve everything.
const PATIENCE: Duration = Duration::from_secs(120);

/// TTL and etcd's tick 5.6 s, 2 s for the ends of so many leases, and two writes for each instance and one for each Cell
/// at 150 a second.
const PROMISED: f64 = 5.6 + 2.0 + 6.0;

/// What is allowed on top where the machine is shared with the test.
const ALLOWANCE: f64 = 10.0;

/// Presences of all these Cells in this process, on real servers with a real controller. Those of three of ten zones die.
pub async fn lost(stage: &mut Stage) -> Result<String, Failure> {
    stage.site.start_controller(&[]).await?;
    let prefix = stage.cell("of");
    let client = stage.site.client.clone();
    let etcd = stage.site.etcd.endpoints();
    let began = now();
    let mut fleet = Fleet::start(client, etcd, &prefix, (CELLS, 4)).await?;
    stage
        .site
        .desire(&objects::sleepers(WEB, INSTANCES))
        .await?;
    let before = all_run(stage, &BTreeSet::new()).await?;
    let set = seconds(began, now());
    let held: Vec<String> = before.values().map(|(cell, _)| cell.clone()).collect();
    let since = stage.fault();
    let lost = fleet.kill(&prefix, |n| n % 10 < 3);
    let after = all_run(stage, &lost).await?;
    let mut away = Vec::new();
    for (index, (cell, guid)) in &before {
        let moved = after.get(index).map(|(_, now)| now != guid);
        if moved != Some(lost.contains(cell)) {
            return Err(format!("instance {index} of Cell {cell}: moved is {moved:?}").into());
        }
        if let Some((_, now)) = after.get(index).filter(|_| lost.contains(cell)) {
            away.push(seconds(since, ran(stage, now)?));
        }
    }
    let found = stage.observer().violations(&BTreeSet::new());
    if !found.is_empty() {
        let lines: Vec<String> = found.iter().take(20).map(ToString::to_string).collect();
        return Err(format!("not kept:\n{}", lines.join("\n")).into());
    }
    away.sort_by(f64::total_cmp);
    let (Some(median), Some(most)) = (away.get(away.len() / 2), away.last()) else {
        return Err("nothing ran on the lost Cells: the row shows nothing".into());
    };
    if *most > PROMISED + ALLOWANCE {
        let promised = format!("promised are {PROMISED:.1} + {ALLOWANCE:.1} s");
        return Err(format!("all ran elsewhere after {most:.1} s; {promised}").into());
    }
    let cells: BTreeSet<&String> = held.iter().collect();
    Ok(format!(
        "{} of {CELLS} Cells with {} of {INSTANCES} instances, which had been on {} Cells: {median:.1} s in the median, {most:.1} s the last (set up in {set:.0} s)",
        lost.len(),
        away.len(),
        cells.len()
    ))
}

/// Waits until all run, on other Cells than these: the Cell and the guid of each.
async fn all_run(
    stage: &Stage,
    lost: &BTreeSet<String>,
) -> Result<BTreeMap<i32, (String, String)>, Failure> {
    let list = ListParams::default();
    eventually("all instances run on living Cells", PATIENCE, || async {
        // A list of them is work for the server that is measured.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let lrps = stage.site.actual().list(&list).await.ok()?.items;
        let running = lrps.into_iter().filter_map(|lrp| {
            let status = lrp.status?;
            let place = (status.cell_name?, status.instance_guid?);
            let well = status.state == ActualLRPState::Running && !lost.contains(&place.0);
            (well && status.suspect.is_none()).then_some((lrp.spec.index, place))
        });
        let running: BTreeMap<i32, (String, String)> = running.collect();
        (running.len() == INSTANCES as usize).then_some(running)
    })
    .await
}

/// When it was seen that this instance runs.
fn ran(stage: &Stage, guid: &str) -> Result<Nanos, Failure> {
    let seen = stage.observer().log.entries().into_iter().find(|entry| {
        let Fact::Lrp(lrp) = &entry.fact else {
            return false;
        };
        lrp.state == ActualLRPState::Running && lrp.guid.as_deref() == Some(guid)
    });
    let seen = seen.ok_or_else(|| format!("nobody saw that {guid} runs"))?;
    Ok(seen.at)
}

/// From one moment to another.
fn seconds(from: Nanos, to: Nanos) -> f64 {
    (to as f64 - from as f64) / SECOND as f64
}
