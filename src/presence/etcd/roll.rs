//! Who is late with a renewal, by the time that is left of each lease.

use std::collections::BTreeSet;
use std::time::Duration;

use etcd_client::Client;
use futures::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};

use crate::backoff;
use crate::presence::StoreError;

/// So many leases are asked for, chosen by chance.
const SAMPLE: usize = 128;

/// If one of these is late, so many more.
const MORE: usize = 1024;

/// So many are asked for at once.
const AT_ONCE: usize = 32;

/// What is not answered within this is not waited for.
pub(super) const TIMEOUT: Duration = Duration::from_secs(1);

/// Which of these Cells, given with their leases, are overdue. Without an answer on half of those that were asked for it
/// can't be told.
pub(super) async fn overdue(
    client: Client,
    cells: Vec<(String, i64)>,
) -> Result<BTreeSet<String>, StoreError> {
    let ask = move |lease| {
        let mut leases = client.lease_client();
        async move {
            let answer = leases.time_to_live(lease, None).await?;
            Ok(is_late(answer.ttl(), answer.granted_ttl()))
        }
    };
    let late = late_of(shuffled(cells, backoff::chance), &ask, TIMEOUT).await?;
    Ok(late.into_iter().collect())
}

/// Asks for a sample, and for the others only if one of it is late: so that it is known who they are, and not only how
/// many. Whoever was not asked, or not answered, then follows one that was.
async fn late_of<R>(
    cells: Vec<(String, i64)>,
    ask: &(impl Fn(i64) -> R + Sync),
    limit: Duration,
) -> Result<Vec<String>, StoreError>
where
    R: Future<Output = Result<bool, StoreError>> + Send,
{
    let until = Instant::now() + limit;
    let mut sample = cells;
    let mut more = sample.split_off(SAMPLE.min(sample.len()));
    let mut seen = call(sample, ask, until).await;
    let mut unknown = Vec::new();
    if seen.known.iter().any(|(_, late)| *late) {
        unknown = more.split_off(MORE.min(more.len()));
        seen.add(call(more, ask, until).await);
    }
    if seen.known.len() < seen.unanswered.len() {
        return Err(seen.problem.unwrap_or(StoreError::Timeout(limit)));
    }
    let unknown = unknown.into_iter().map(|(cell, _)| cell);
    let unknown: Vec<String> = unknown.chain(seen.unanswered).collect();
    let like = seen.known.iter().map(|(_, late)| *late).cycle();
    let followers: Vec<(String, bool)> = unknown.into_iter().zip(like).collect();
    let all = seen.known.into_iter().chain(followers);
    Ok(all
        .filter(|(_, late)| *late)
        .map(|(cell, _)| cell)
        .collect())
}

/// What came of asking.
struct Seen {
    /// Who answered, and whether it is late.
    known: Vec<(String, bool)>,
    unanswered: Vec<String>,
    problem: Option<StoreError>,
}

impl Seen {
    fn add(&mut self, more: Seen) {
        self.known.extend(more.known);
        self.unanswered.extend(more.unanswered);
        self.problem = self.problem.take().or(more.problem);
    }
}

async fn call<R>(
    cells: Vec<(String, i64)>,
    ask: &(impl Fn(i64) -> R + Sync),
    until: Instant,
) -> Seen
where
    R: Future<Output = Result<bool, StoreError>> + Send,
{
    let mut unanswered: BTreeSet<String> = cells.iter().map(|(cell, _)| cell.clone()).collect();
    let ask_one = |(cell, lease)| {
        let answer = ask(lease);
        async move { (cell, answer.await) }
    };
    let mut answers = stream::iter(cells.into_iter().map(ask_one)).buffer_unordered(AT_ONCE);
    let (mut known, mut problem) = (Vec::new(), None);
    while let Ok(Some((cell, answer))) = timeout_at(until, answers.next()).await {
        match answer {
            Ok(late) => {
                unanswered.remove(&cell);
                known.push((cell, late));
            }
            Err(error) => problem = Some(error),
        }
    }
    Seen {
        known,
        unanswered: unanswered.into_iter().collect(),
        problem,
    }
}

/// The Cells in an order by chance: names often follow zones. A key without a lease is never late.
fn shuffled(cells: Vec<(String, i64)>, mut chance: impl FnMut() -> f64) -> Vec<(String, i64)> {
    let mut cells: Vec<_> = cells.into_iter().filter(|(_, lease)| *lease != 0).collect();
    for last in (1..cells.len()).rev() {
        let other = (chance() * (last + 1) as f64) as usize;
        cells.swap(last, other.min(last));
    }
    cells
}

/// Whether a lease with so many whole seconds left was not renewed when it should have been: every third of its TTL.
/// What is left is rounded down. One that nothing was granted for is not known: given back, or replaced by another.
fn is_late(left: i64, granted: i64) -> bool {
    granted > 0 && left.saturating_add(1).saturating_mul(2) <= granted
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;

    use super::*;

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
        // What etcd answers for a lease that it does not know.
        assert!(!is_late(-1, 0) && !is_late(0, 0));
    }

    /// Cells whose zones take turns in their names; the lease says the zone.
    fn interleaved(count: usize) -> Vec<(String, i64)> {
        (0..count)
            .map(|n| (format!("cell-{n:04}"), [11, 12, 13][n % 3]))
            .collect()
    }

    fn zone_of(cell: &str) -> usize {
        cell.trim_start_matches("cell-")
            .parse::<usize>()
            .expect("a number")
            % 3
    }

    #[tokio::test]
    async fn of_a_thousand_cells_in_zones_that_take_turns_exactly_the_late_ones_are_named() {
        for zone in 0..3_usize {
            let late = [11, 12, 13][zone];
            let ask = |lease| ready(Ok(lease == late));
            let cells = shuffled(interleaved(1000), backoff::chance);
            let late = late_of(cells, &ask, TIMEOUT).await.expect("answers");
            assert!(late.iter().all(|cell| zone_of(cell) == zone), "{late:?}");
            assert_eq!(late.len(), 333 + usize::from(zone == 0));
        }
    }

    #[tokio::test]
    async fn where_nobody_is_late_a_sample_is_enough_and_more_cells_than_are_asked_follow_others() {
        let asked = AtomicUsize::new(0);
        let count = |lease, late| {
            asked.fetch_add(1, Ordering::Relaxed);
            ready(Ok(lease == late))
        };
        let cells = || shuffled(interleaved(5000), backoff::chance);
        let nobody = late_of(cells(), &|lease| count(lease, 0), TIMEOUT).await;
        assert_eq!(nobody.expect("answers"), Vec::<String>::new());
        assert_eq!(asked.swap(0, Ordering::Relaxed), SAMPLE);
        let third = late_of(cells(), &|lease| count(lease, 11), TIMEOUT).await;
        let third = third.expect("answers").len();
        assert!((1300..=2050).contains(&third), "{third}");
        assert_eq!(asked.load(Ordering::Relaxed), SAMPLE + MORE);
    }

    #[tokio::test]
    async fn what_was_answered_counts_and_too_few_answers_are_an_error() {
        // One zone of three does not answer; the next one is late.
        let slow = |lease| match lease {
            11 => pending().boxed(),
            lease => ready(Ok(lease == 12)).boxed(),
        };
        let soon = Duration::from_millis(100);
        let known = late_of(interleaved(30), &slow, soon).await;
        let known = known.expect("two thirds did answer");
        for n in (1..30).step_by(3) {
            assert!(known.contains(&format!("cell-{n:04}")), "{known:?}");
        }
        assert!(known.iter().all(|cell| zone_of(cell) != 2), "{known:?}");

        let slower = |lease| match lease {
            11 | 12 => pending().boxed(),
            _ => ready(Ok(false)).boxed(),
        };
        let unknown = late_of(interleaved(30), &slower, soon).await;
        assert!(
            matches!(unknown, Err(StoreError::Timeout(_))),
            "{unknown:?}"
        );
    }

    #[test]
    fn the_order_is_by_chance_and_a_key_without_a_lease_is_left_out() {
        let mut cells = interleaved(100);
        cells.push(("no-lease".into(), 0));
        let mut shuffled = shuffled(cells, backoff::chance);
        assert_ne!(shuffled, interleaved(100));
        shuffled.sort();
        assert_eq!(shuffled, interleaved(100));
    }
}
