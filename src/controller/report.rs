//! Telling of a loss, and what its recovery did: on the Cell, in Events, in the metrics, in one log line.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::SignedDuration;

use crate::converge::cell::Source;
use crate::converge::status;
use crate::metrics::{CORRECTIONS, KindLabel, OutcomeLabel};

use super::context::Context;
use super::events::reference;
use super::execute::Tally;
use super::ledger;
use super::recovery::Loss;

/// A recovery that is done, as far as it could be.
pub struct Recovery {
    /// What was lost.
    pub loss: Loss,
    /// The uid of the Cell's object.
    pub cell_uid: String,
    /// What was written.
    pub tally: Tally,
    /// From noticing the loss until the first write, if there was one.
    pub start: Option<Duration>,
    /// From noticing the loss until the last write.
    pub took: Duration,
}

/// Tells that a Cell is lost, before anything is done about it.
pub fn expired(context: &Context, cell: &str, cell_uid: &str, source: Source) {
    let why = match source {
        Source::Watch | Source::Timer | Source::Resync => {
            format!("Its presence expired, as the {} noticed", source.as_str())
        }
        Source::Proof => "Its rep and all that it ran are dead, as its machine told".to_owned(),
    };
    let note = format!("{why}: its work is moved to other Cells.");
    let about = reference("Cell", None, cell, cell_uid);
    context
        .events
        .warning(about, "CellPresenceExpired", "Recover", note);
}

/// Tells it.
pub async fn report(context: &Arc<Context>, recovery: Recovery) {
    let Recovery {
        loss,
        cell_uid,
        tally,
        start,
        took,
    } = recovery;
    count(context, tally, took);
    write_on_cell(context, &loss, tally, took).await;
    let Tally {
        placed,
        waiting,
        tasks_failed,
        conflicts,
        unfinished,
        written: _,
    } = tally;
    let millis = |span: Duration| format!("{} ms", span.as_millis());
    let began = start.map_or_else(String::new, |start| {
        format!(", the first after {}", millis(start))
    });
    let note = format!(
        "{placed} ActualLRPs were placed on other Cells, {waiting} wait for room, {tasks_failed} Tasks were failed, all within {} of being noticed by the {}{began}.",
        millis(took),
        match loss.source {
            Source::Watch | Source::Timer | Source::Resync => loss.source.as_str(),
            Source::Proof => "witness of its rep",
        },
    );
    let about = || reference("Cell", None, &loss.cell, &cell_uid);
    match (waiting, unfinished) {
        (0, 0) => context
            .events
            .normal(about(), "CellRecoveryCompleted", "Recover", note),
        (_, 0) => context
            .events
            .warning(about(), "CellRecoveryPartlyFailed", "Recover", note),
        (_, _) => {
            let note = format!("{note} {unfinished} writes failed and are tried again.");
            context
                .events
                .warning(about(), "CellRecoveryPartlyFailed", "Recover", note);
        }
    }
    if loss.source == Source::Resync && context.watch_should_have_told() {
        let kind = CORRECTIONS[0];
        let corrections = &context.metrics.convergence_corrections;
        corrections.get_or_create(&KindLabel { kind }).inc();
        let note =
            "The presence watch did not tell of this loss; the periodic pass found it.".to_owned();
        context
            .events
            .warning(about(), "CellMissedByWatch", "Recover", note);
    }
    let (first_ms, took_ms) = (start.map(|start| start.as_millis()), took.as_millis());
    tracing::info!(
        cell = loss.cell,
        placed,
        waiting,
        tasks_failed,
        conflicts,
        unfinished,
        first_ms,
        took_ms,
        "recovered the lost Cell's work"
    );
}

fn count(context: &Context, tally: Tally, took: Duration) {
    let Tally {
        placed,
        waiting,
        conflicts,
        unfinished,
        ..
    } = tally;
    for (outcome, count) in [
        ("placed", placed),
        ("waiting", waiting),
        ("conflict", conflicts),
        ("error", unfinished),
    ] {
        context
            .metrics
            .recovered
            .get_or_create(&OutcomeLabel { outcome })
            .inc_by(count.into());
    }
    let outcome = if waiting == 0 && unfinished == 0 {
        "complete"
    } else {
        "partial"
    };
    context
        .metrics
        .recovery_duration
        .get_or_create(&OutcomeLabel { outcome })
        .observe(took.as_secs_f64());
}

async fn write_on_cell(context: &Arc<Context>, loss: &Loss, tally: Tally, took: Duration) {
    let recovered = loss
        .noticed_time
        .checked_add(SignedDuration::try_from(took).unwrap_or_default())
        .ok();
    let count = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let written = ledger::write(
        context,
        &context.slow.client,
        &loss.cell,
        |world, record| {
            let mut status = record.status.clone();
            status::cell_load(world, &loss.cell, &mut status);
            let last = status.last_recovery.as_mut()?;
            last.recovered_time = recovered.map(MicroTime);
            last.actual_lrps = count(tally.placed);
            last.waiting_actual_lrps = count(tally.waiting);
            last.tasks = count(tally.tasks_failed);
            Some((status, ()))
        },
    );
    if let Err(error) = written.await {
        tracing::warn!(cell = loss.cell, %error, "what the loss cost could not be written on the Cell");
    }
}
