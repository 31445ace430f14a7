//! Counting and telling what a successful write did: metrics, log lines, Events.

use crate::converge::lrp::StartReason;
use crate::converge::plan::{LrpChange, TaskChange, Write};
use crate::metrics::ReasonLabel;

use super::Tally;
use crate::controller::context::Context;
use crate::controller::events::reference;

/// Counts and tells what a successful write did.
pub(super) fn written(context: &Context, write: &Write, tell: bool, tally: &mut Tally) {
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
            }
            LrpChange::Waiting { reason, error } => {
                tally.waiting += 1;
                if tell {
                    let uid =
                        context.world(|world| world.lrp(key).map(|lrp| lrp.version.uid.clone()));
                    let about = reference(
                        "ActualLRP",
                        Some(&key.namespace),
                        &key.name,
                        &uid.unwrap_or_default(),
                    );
                    let note = format!("No Cell can take it ({}): {error}", reason.as_str());
                    context
                        .events
                        .warning(about, "ActualLRPPlacementFailed", "Place", note);
                }
            }
            LrpChange::Promoted { cell } => {
                tracing::info!(lrp = %key, cell, "the Cell is back before the replacement ran: the original is kept");
            }
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
                context.events.warning(
                    about,
                    &format!("Task{}", kind.as_str()),
                    "Fail",
                    reason.clone(),
                );
            }
            TaskChange::Placed { cell } => tracing::debug!(task = %key, cell, "placed"),
            TaskChange::Waiting { error } => {
                tracing::debug!(task = %key, error, "waits for a Cell")
            }
        },
    }
}
