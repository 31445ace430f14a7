//! Which etcd this is: in older ones any client can renew and revoke any lease, whatever its role.

use std::sync::Once;
use std::time::Duration;

use etcd_client::Client;

use super::within;

/// The first release of each minor version in which that takes the right to write the lease's keys (CVE-2026-33413). Later
/// minor versions have had it from their beginning.
const GUARDED: [[u32; 3]; 3] = [[3, 4, 42], [3, 5, 28], [3, 6, 9]];

/// Nobody waits longer for a warning.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Warns, once, where client certificates promise more than this etcd keeps.
pub(super) async fn warn_if_unguarded(client: Client) {
    static TOLD: Once = Once::new();
    let Ok(status) = within(TIMEOUT, client.maintenance_client().status()).await else {
        return;
    };
    let version = status.version();
    if is_unguarded(version) {
        TOLD.call_once(|| {
            tracing::warn!(
                version,
                "in this version of etcd every client can renew and revoke the leases of all Cells, whatever its role \
                 (CVE-2026-33413): upgrade it to 3.6.14 or newer"
            );
        });
    }
}

/// Whether a version is known to be one of those.
fn is_unguarded(version: &str) -> bool {
    let number = version.split('-').next().unwrap_or_default();
    let parts: Option<Vec<u32>> = number.split('.').map(|part| part.parse().ok()).collect();
    let Some([major, minor, patch]) = parts.as_deref() else {
        return false;
    };
    let same = |first: &&[u32; 3]| first[0] == *major && first[1] == *minor;
    match GUARDED.iter().find(same) {
        Some(first) => *patch < first[2],
        None => [*major, *minor] < [GUARDED[0][0], GUARDED[0][1]],
    }
}

#[cfg(test)]
mod tests {
    use super::is_unguarded;

    #[test]
    fn only_versions_that_are_known_to_be_open_are_warned_of() {
        for (version, open) in [
            ("3.6.8", true),
            ("3.6.9", false),
            ("3.6.14", false),
            ("3.5.27", true),
            ("3.5.28", false),
            ("3.4.41", true),
            ("3.3.27", true),
            ("2.3.8", true),
            ("3.7.0", false),
            ("3.7.0-rc.1", false),
            ("4.0.0", false),
            ("", false),
            ("main", false),
        ] {
            assert_eq!(is_unguarded(version), open, "{version}");
        }
    }
}
