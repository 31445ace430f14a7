//! Counting and telling what a successful write did: metrics, log lines, Events.

use k8s_openapi::api::core::v1::ObjectReference;

use crate::api::ActualLRPState;
use crate::converge::lrp::StartReason;
use crate::converge::plan::{LrpChange, TaskChange, Write};
use crate::converge::task::{DeleteReason, FailureKind};
use crate::converge::world::{Key, Lrp};
use crate::metrics::ReasonLabel;

use super::Tally;
use crate::controller::context::Context;
use crate::controller::events::reference;

/// Counts and tells what a successful write did.
pub(super) fn written(context: &Context, write: &Write, tally: &mut Tally) {
    match write {
        Write::CreateLrp { key, change, .. } | Write::LrpStatus { key, change, .. } => match change
        {
            LrpChange::Placed { reason, cell } => {
                tally.placed += 1;
                let reason = reason.as_str();
                context
                    .metrics
                    .starts
                    .get_or_create(&ReasonLabel { reason })
                    .inc();
                tracing::debug!(lrp = %key, cell, reason, "placed");
                let note = format!("Placed on Cell {cell} ({reason}).");
                let about = about_lrp(context, key);
                context
                    .events
                    .normal(about, "ActualLRPPlaced", "Place", note);
            }
            LrpChange::RestartedHere { cell } => {
                tally.placed += 1;
                context
                    .metrics
                    .starts
                    .get_or_create(&ReasonLabel {
                        reason: StartReason::MissingInstance.as_str(),
                    })
                    .inc();
                tracing::debug!(lrp = %key, cell, "restarted on its Cell, which came back without its containers");
                let reason = StartReason::MissingInstance.as_str();
                let note = format!(
                    "Started anew on Cell {cell}, which came back without its containers ({reason})."
                );
                let about = about_lrp(context, key);
                context
                    .events
                    .normal(about, "ActualLRPPlaced", "Place", note);
            }
            LrpChange::Waiting { reason, error } => {
                tally.waiting += 1;
                let about = about_lrp(context, key);
                let note = format!("No Cell can take it ({}): {error}", reason.as_str());
                context
                    .events
                    .warning(about, "ActualLRPPlacementFailed", "Place", note);
            }
            LrpChange::Promoted { cell } => {
                tracing::info!(lrp = %key, cell, "the Cell is back before the replacement ran: the original is kept");
            }
            LrpChange::SuspectEvacuated { cell } => {
                tracing::info!(lrp = %key, cell, "the suspect's Cell is back and leaving: it is kept as evacuating");
            }
            // The executor tells that itself.
            LrpChange::Told { .. } => {}
            LrpChange::SuspectDropped | LrpChange::EvacuatingDropped => {}
        },
        Write::DeleteLrp { .. } => {}
        Write::TaskStatus { key, change, .. } => match change {
            TaskChange::Failed { kind, reason } => {
                tally.tasks_failed += 1;
                context
                    .metrics
                    .tasks_failed
                    .get_or_create(&ReasonLabel {
                        reason: kind.as_str(),
                    })
                    .inc();
                let uid = context
                    .world(|world| world.task(key).map(|task| task.version.uid.clone()))
                    .unwrap_or_default();
                let about = reference("Task", Some(&key.namespace), &key.name, &uid);
                let event = format!("Task{}", kind.as_str());
                match kind {
                    // What somebody asked for is nothing to warn of.
                    FailureKind::Cancelled => {
                        context.events.normal(about, &event, "Fail", reason.clone());
                    }
                    FailureKind::CellMissing
                    | FailureKind::NotStarted
                    | FailureKind::InvalidTemplate
                    | FailureKind::Rejected => {
                        context
                            .events
                            .warning(about, &event, "Fail", reason.clone());
                    }
                }
                // Its callback is due now, also in the middle of a recovery.
                context.wake_task(key);
            }
            TaskChange::Resolving => tracing::debug!(task = %key, "delivering its outcome"),
            TaskChange::Told { .. } => {}
            TaskChange::Settled => tracing::debug!(task = %key, "its callback is settled"),
            TaskChange::Demoted => {
                context.metrics.tasks_kicked.inc();
                tracing::debug!(task = %key, "nobody answered its callback: it is delivered again");
                context.wake_task(key);
            }
            TaskChange::Placed { cell } => tracing::debug!(task = %key, cell, "placed"),
            TaskChange::Waiting { error } => {
                tracing::debug!(task = %key, error, "waits for a Cell")
            }
        },
        Write::DeleteTask {
            key,
            version,
            reason,
        } => {
            let label = reason.as_str();
            context
                .metrics
                .tasks_deleted
                .get_or_create(&ReasonLabel { reason: label })
                .inc();
            tracing::debug!(task = %key, reason = label, "deleted");
            if *reason == DeleteReason::CallbackUndelivered {
                let about = reference("Task", Some(&key.namespace), &key.name, &version.uid);
                let note = "Deleted without anybody having taken its completion callback.";
                context
                    .events
                    .warning(about, "TaskCallbackUndelivered", "Delete", note.into());
            }
        }
    }
}

fn about_lrp(context: &Context, key: &Key) -> ObjectReference {
    let uid = context.world(|world| world.lrp(key).map(|lrp| lrp.version.uid.clone()));
    let uid = uid.unwrap_or_default();
    reference("ActualLRP", Some(&key.namespace), &key.name, &uid)
}

/// Whether `now` tells of a crash that was not known yet, of this very object.
pub fn is_crash(known: &Lrp, now: &Lrp) -> bool {
    now.status.last_crash_time.is_some()
        && now.status.last_crash_time != known.status.last_crash_time
        && now.version.uid == known.version.uid
}

/// Tells of a crash.
pub fn crash(context: &Context, key: &Key, now: &Lrp) {
    // The leader tells of it.
    if !context.leading() {
        return;
    }
    context.metrics.crashes.inc();
    let reason = now.status.crash_reason.as_deref().unwrap_or_default();
    let count = now.status.crash_count.unwrap_or_default();
    let next = match (&now.status.next_restart_time, now.status.state) {
        (Some(time), _) => format!("it starts again at {}", time.0.strftime("%H:%M:%S UTC")),
        (None, ActualLRPState::Crashed) => {
            "it is not started again; delete this ActualLRP to start it afresh".to_owned()
        }
        (None, _) => "it starts again at once".to_owned(),
    };
    let about = reference(
        "ActualLRP",
        Some(&key.namespace),
        &key.name,
        &now.version.uid,
    );
    let note = format!("Crash {count}: {reason}; {next}.");
    context
        .events
        .warning(about, "ActualLRPCrashed", "Crash", note);
}
