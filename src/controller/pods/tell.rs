//! Counting and telling what the executor did: metrics, log lines, Events on the record.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;

use crate::client::CallError;
use crate::controller::context::Context;
use crate::controller::events::reference;
use crate::controller::execute::tell;
use crate::converge::lrp::transition::Verb as LrpVerb;
use crate::converge::pods::{DeleteWhy, End, Step, WorkKey, WorkKind};
use crate::converge::world::Key;
use crate::metrics::{OutcomeLabel, ReasonLabel};

/// A write of the executor took effect.
pub(super) fn said(context: &Arc<Context>, work: &WorkKey, step: &Step) {
    match step {
        Step::Lrp { done, verb, end } => {
            tracing::debug!(record = %work, done);
            match verb {
                LrpVerb::Crash { .. } => {
                    let lrp = context.world(|world| world.lrp(&work.key).cloned());
                    if let Some(lrp) = lrp {
                        tell::crash(context, &work.key, &lrp);
                    }
                    context.note_room();
                }
                LrpVerb::GiveBack { instance, .. } => {
                    rejected(context, work, &instance.cell, end.as_ref());
                    context.note_room();
                }
                LrpVerb::Claim(_)
                | LrpVerb::Start { .. }
                | LrpVerb::Evacuate { .. }
                | LrpVerb::Stall { .. }
                | LrpVerb::Place { .. }
                | LrpVerb::Promote { .. }
                | LrpVerb::EvacuateSuspect
                | LrpVerb::RemoveSuspect
                | LrpVerb::RemoveEvacuating => {}
            }
        }
        Step::Task { done, end, .. } => {
            tracing::debug!(record = %work, done);
            let cell = context
                .world(|world| world.task(&work.key)?.status.cell_name.clone())
                .unwrap_or_default();
            rejected(context, work, &cell, end.as_ref());
        }
        Step::Wait(_)
        | Step::ReadRecord
        | Step::ReadPod(_)
        | Step::SetAside(_)
        | Step::Try(_)
        | Step::Create(_)
        | Step::CreateUnbound(_)
        | Step::Pause(_)
        | Step::NoteCrash { .. }
        | Step::Forget(_)
        | Step::Delete { .. } => {}
    }
}

/// Its node gave it back, or the API server refused its Pod.
fn rejected(context: &Context, work: &WorkKey, cell: &str, end: Option<&End>) {
    let Some(End::Rejected(kind, words)) = end else {
        return;
    };
    let reason = kind.as_str();
    let rejections = &context.pods.metrics.rejections;
    rejections.get_or_create(&ReasonLabel { reason }).inc();
    tracing::info!(record = %work, cell, reason, words, "its Pod was rejected");
    let note = match cell {
        "" => words.clone(),
        cell => format!("On Cell {cell}: {words}"),
    };
    let name = format!("{}Rejected", work.kind.as_str());
    context
        .events
        .warning(about(context, work), &name, "RunPod", note);
}

/// A call failed and is made again after a pause; told the first time, and on the record where the API server answers.
/// Returns whether it is made again: not where this controller leads no more.
pub(super) fn failed(context: &Context, work: &WorkKey, error: &CallError, failures: u32) -> bool {
    if error.is_not_sent() {
        return false;
    }
    if failures > 0 {
        tracing::debug!(record = %work, %error, failures, "a call about its Pod failed again");
        return true;
    }
    tracing::warn!(record = %work, %error, "a call about its Pod failed; trying again");
    if matches!(error, CallError::Kube(kube::Error::Api(_))) {
        let name = format!("{}PodFailed", work.kind.as_str());
        let note = format!("A call about its Pod failed and is made again: {error}");
        context
            .events
            .warning(about(context, work), &name, "RunPod", note);
    }
    true
}

/// What came of making a Pod.
pub(super) fn creation(context: &Context, outcome: &'static str) {
    let creations = &context.pods.metrics.creations;
    creations.get_or_create(&OutcomeLabel { outcome }).inc();
}

/// A Pod was deleted.
pub(super) fn deletion(context: &Context, pod: &Key, why: DeleteWhy) {
    let reason = why.as_str();
    let deletions = &context.pods.metrics.deletions;
    deletions.get_or_create(&ReasonLabel { reason }).inc();
    tracing::info!(%pod, reason, "Pod deleted");
}

fn about(context: &Context, work: &WorkKey) -> ObjectReference {
    let uid = context.world(|world| match work.kind {
        WorkKind::Lrp => world.lrp(&work.key).map(|lrp| lrp.version.uid.clone()),
        WorkKind::Task => world.task(&work.key).map(|task| task.version.uid.clone()),
    });
    let Key { namespace, name } = &work.key;
    let uid = uid.unwrap_or_default();
    reference(work.kind.as_str(), Some(namespace), name, &uid)
}
