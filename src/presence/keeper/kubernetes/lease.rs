//! What a Lease says to a keeper, and what an answer about it means.

use k8s_openapi::api::coordination::v1::Lease;

use super::super::super::kubernetes::{Said, Sighting, is_cells};
use super::super::super::{PresencePhase, StoreError};
use super::super::backend::Held;

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref()
}

/// Whether this process wrote it, wherever it still says so.
pub(super) fn is_of(lease: &Lease, token: &str) -> bool {
    let said = Sighting::of(lease).map(|seen| seen.said);
    matches!(said, Some(Said::Value(value, _)) if value.holder == token)
        || holder(lease) == Some(token)
}

/// Whether a Lease is still that of this registration, in whatever phase.
pub(super) fn says(lease: &Lease, held: &Held) -> bool {
    let said = Sighting::of(lease).map(|seen| seen.said);
    let same = matches!(said, Some(Said::Value(value, epoch))
        if value.holder == held.value.holder && epoch == held.epoch);
    same && is_cells(lease) && holder(lease) == Some(&held.value.holder)
}

pub(super) fn is_released(lease: &Lease) -> bool {
    let said = Sighting::of(lease).map(|seen| seen.said);
    matches!(said, Some(Said::Value(value, _)) if value.phase == PresencePhase::Released)
}

/// `None` for an answer that says that somebody was there before us.
pub(super) fn unless_changed<T>(answer: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(StoreError::Kubernetes(kube::Error::Api(status)))
            if status.is_not_found() && is_about_a_lease(&status)
                || status.is_conflict()
                || status.is_already_exists() =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Without the namespace nothing is found either, and no try will change that.
fn is_about_a_lease(status: &kube::core::Status) -> bool {
    status
        .details
        .as_ref()
        .is_none_or(|details| details.kind != "namespaces")
}
