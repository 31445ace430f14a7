//! What several rows look at.

use kube::api::ListParams;

use crate::observer::facts::Fact;
use crate::stage::Stage;
use crate::support::{Failure, http};

/// The epoch in a Cell's ledger.
pub async fn epoch(stage: &Stage, cell: &str) -> Result<i64, Failure> {
    let status = stage.site.cells().get(cell).await?.status;
    let epoch = status.and_then(|status| status.epoch);
    epoch.ok_or_else(|| format!("{cell} has no epoch").into())
}

/// The version of every instance and Task: whatever is written changes it.
pub async fn versions(stage: &Stage) -> Result<Vec<Option<String>>, Failure> {
    versions_of(stage, |_| true).await
}

/// The same of the instances of some processes.
pub async fn versions_of(
    stage: &Stage,
    which: impl Fn(&str) -> bool,
) -> Result<Vec<Option<String>>, Failure> {
    let list = ListParams::default();
    let lrps = stage.site.actual().list(&list).await?.items.into_iter();
    let lrps = lrps.filter(|lrp| which(&lrp.spec.desired_lrp_name));
    let tasks = stage.site.tasks().list(&list).await?.items.into_iter();
    let lrps = lrps.map(|lrp| lrp.metadata.resource_version);
    let tasks = tasks.map(|task| task.metadata.resource_version);
    Ok(lrps.chain(tasks).collect())
}

/// No presence has ended, not even one whose loss the controller does not believe.
pub async fn none_ended(stage: &Stage) -> Result<(), Failure> {
    let entries = stage.observer().log.entries().into_iter();
    let mut ended = entries.filter_map(|entry| match entry.fact {
        Fact::Gone { cell, epoch } => Some((cell, epoch)),
        _ => None,
    });
    match ended.next() {
        None => no_loss(stage).await,
        Some((cell, epoch)) => {
            Err(format!("the presence of {cell} under epoch {epoch} has ended").into())
        }
    }
}

/// The controller has seen no Cell lost, holds back no loss, and has moved nothing off a missing one.
pub async fn no_loss(stage: &Stage) -> Result<(), Failure> {
    let text = stage.site.metrics().await?;
    let sources = ["watch", "timer", "resync", "proof"];
    let losses =
        sources.map(|source| format!("diego_cell_presence_expired_total{{source=\"{source}\"}}"));
    let others = [
        "diego_cell_losses_held",
        "diego_actuallrp_starts_total{reason=\"missing-cell\"}",
    ];
    for series in losses.into_iter().chain(others.map(str::to_owned)) {
        let count = http::metric(&text, &series);
        let count = count.ok_or_else(|| format!("there is no metric {series}"))?;
        if count != 0.0 {
            return Err(format!("{series} is {count}").into());
        }
    }
    Ok(())
}
