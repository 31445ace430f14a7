//! Follows what the keeper of the presence reports. The keeper logs each change itself; here they are measured.

use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;

use super::metrics::RepMetrics;
use crate::presence::keeper::{KeeperError, KeeperReport};

/// Reads reports until the keeper ends.
///
/// # Errors
/// An error that no retry mends.
pub async fn follow(
    mut reports: mpsc::Receiver<KeeperReport>,
    metrics: RepMetrics,
) -> Result<(), KeeperError> {
    while let Some(report) = reports.recv().await {
        metrics.presence(&report, Timestamp::now());
        match report {
            KeeperReport::Released { given_back: _ } => return Ok(()),
            KeeperReport::Failed { error } => return Err(error),
            KeeperReport::Registered { .. }
            | KeeperReport::RegistrationFailed { .. }
            | KeeperReport::Renewed { .. }
            | KeeperReport::TtlChanged { .. }
            | KeeperReport::RenewalFailed { .. }
            | KeeperReport::Lost { .. }
            | KeeperReport::Superseded
            | KeeperReport::Refused { .. } => {}
        }
    }
    Err(KeeperError::Ended)
}
