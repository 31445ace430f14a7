//! Who is late with a renewal, by the time that is left of each lease.

use std::collections::BTreeSet;
use std::time::Duration;

use etcd_client::Client;
use futures::{StreamExt, stream};

use super::within;
use crate::presence::StoreError;

/// So many leases are asked for at most: of more Cells each one speaks for some that follow it by name.
const ASKED: usize = 128;

/// So many are asked for at once.
const AT_ONCE: usize = 32;

/// All answers must be there within this.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Which of these Cells, given with their leases, are overdue. What is not answered can't be told.
pub(super) async fn overdue(client: Client, cells: &[(String, i64)]) -> BTreeSet<String> {
    let size = cells.len().div_ceil(ASKED).max(1);
    let ask = async |group: &[(String, i64)]| {
        let lease = group.first()?.1;
        let answer = client.lease_client().time_to_live(lease, None).await.ok()?;
        is_late(answer.ttl(), answer.granted_ttl()).then(|| group.to_vec())
    };
    let late = stream::iter(cells.chunks(size)).map(ask);
    let late = late.buffer_unordered(AT_ONCE).collect::<Vec<_>>();
    let late = within(TIMEOUT, async { Ok::<_, StoreError>(late.await) }).await;
    let late = late.unwrap_or_default().into_iter().flatten().flatten();
    late.map(|(cell, _)| cell).collect()
}

/// Whether a lease with so many whole seconds left was not renewed when it should have been: every third of its TTL.
/// What is left is rounded down; a lease that is gone has less than none.
fn is_late(left: i64, granted: i64) -> bool {
    left.saturating_add(1).saturating_mul(2) <= granted
}

#[cfg(test)]
mod tests {
    use super::is_late;

    /// Who renews has two thirds left at least; of who died together with one whose lease ran out just now, less than one
    /// third is left.
    #[test]
    fn who_renews_is_not_late_and_who_died_with_another_is() {
        for granted in 2..=60_u32 {
            let alive = (granted * 2).div_ceil(3) - 1;
            assert!(!is_late(alive.into(), granted.into()), "{granted}: {alive}");
            let dead = granted.div_ceil(3) - 1;
            assert!(is_late(dead.into(), granted.into()), "{granted}: {dead}");
        }
        assert!(is_late(-1, 5) && is_late(0, 2) && !is_late(5, 5));
        assert!(!is_late(i64::MAX, 5));
    }
}
