//! Until when a Cell may run what must not run twice (`missingCellPolicy: Strict`): the deadline that its fencer keeps.
//!
//! ```text
//! sent                                  deadline          killed        the store may let go
//!  │───────────── [`reach`] ───────────────>│── kill, jitter ──>│── clock rates ──>│
//!  └──────────────────────────────── TTL ────────────────────────────────────────>│
//! ```
//!
//! `sent` is taken just before the last renewal that was answered was sent, so the store counts from a later moment.
//! The bound holds while clocks run at nearly the same rate, whatever they show; `docs/decisions/0011-self-fencing.md`
//! tells what it does not cover.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::cell;
use super::node::{CellNode, NodeRecord, Standing};
use super::world::CellRecord;

/// By how much the rates of two clocks may differ, in percent. NTP slews a clock by 0.05 % at most, and a crystal is off
/// by less; the rest is margin.
const CLOCK_RATE_PERCENT: u32 = 1;

/// How long killing a whole tree of processes may take, from the first signal until the last one is collected.
const KILL_TIME: Duration = Duration::from_millis(700);

/// How late a fencer may be woken on a machine whose processors are all busy.
const JITTER: Duration = Duration::from_millis(200);

/// The shortest TTL, in whole seconds, under which work that must not run twice can be run: a shorter one leaves less
/// than one renewal interval before the deadline, so that a single lost answer would stop it.
pub const MIN_TTL_SECONDS: u32 = 2;

/// How much longer than the store the controller waits before it replaces what a fencer has stopped: for a kill that
/// took longer than `KILL_TIME`.
pub const LOCK_DELAY: SignedDuration = SignedDuration::from_secs(1);

/// A moment on a machine's clock that goes on while it sleeps (CLOCK_BOOTTIME), in nanoseconds since it was started. It
/// means nothing on another machine, or after the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootTime(u64);

impl BootTime {
    /// So many nanoseconds after the start of the machine.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the start of the machine.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This much later.
    pub fn after(self, span: Duration) -> Self {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for BootTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for BootTime {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A TTL that leaves no time to run anything before it has to be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "missingCellPolicy Strict can't be kept here: a presence TTL of {} ms leaves less than one renewal interval before the instance would have to be killed; set --presence-ttl-seconds of this Cell's rep to {MIN_TTL_SECONDS} or more",
    .0.as_millis()
)]
pub struct TtlTooShort(Duration);

/// How long after an answered renewal was sent a Cell may run what must not run twice.
///
/// # Errors
/// When that is less than the renewal interval, a third of the TTL.
pub fn reach(ttl: Duration) -> Result<Duration, TtlTooShort> {
    (ttl / 100 * (100 - CLOCK_RATE_PERCENT))
        .checked_sub(KILL_TIME + JITTER)
        .filter(|reach| *reach >= ttl / 3)
        .ok_or(TtlTooShort(ttl))
}

/// When the killing must begin, counted from just before the last answered renewal was sent.
///
/// # Errors
/// As [`reach`].
pub fn deadline(sent: BootTime, ttl: Duration) -> Result<BootTime, TtlTooShort> {
    reach(ttl).map(|reach| sent.after(reach))
}

/// Whether enough is left until `deadline` to begin something: at least the time for one renewal.
pub fn may_begin(now: BootTime, deadline: BootTime, ttl: Duration) -> bool {
    deadline.since(now) >= ttl / 3
}

/// The taint by which operators say of a Node that its machine is off.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// What may still run of the work of a lost Cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remains {
    /// Nothing: the machine is known to be gone, or the rep and all that it ran are proven to be dead.
    Nothing,
    /// Nothing that must not run twice: it was killed before the presence could end.
    Fenced,
    /// All of it.
    Unknown {
        /// The Node that the Cell is, if it is one.
        node: Option<String>,
    },
}

/// What every message begins with.
const WAITS: &str = "missingCellPolicy Strict: nothing replaces the instance";

/// What a replacement waits for when the Cell is drained: stop before start.
pub fn waits_for_stop(cell: &str) -> String {
    format!("{WAITS} on Cell {cell}, which is drained, before it has stopped; goes on by itself")
}

/// What a replacement waits for when the Pod of an instance does not end.
pub fn waits_for_pod(cell: &str, pod: &str, node: Option<&str>) -> String {
    let node = node.unwrap_or(cell);
    format!(
        "{WAITS} on Cell {cell} while its Pod {pod} terminates: its kubelet has not told that it ended. Goes on by itself when it has. If the machine is certainly off: kubectl taint node {node} {OUT_OF_SERVICE}=nodeshutdown:NoExecute"
    )
}

impl Remains {
    /// What a replacement waits for, and what to do about it.
    pub fn waits(&self, cell: &str) -> String {
        match self {
            Remains::Nothing | Remains::Fenced => format!(
                "{WAITS} on lost Cell {cell} for {LOCK_DELAY:#} after its fence must have stopped it; goes on by itself"
            ),
            Remains::Unknown { node: None } => format!(
                "{WAITS} on lost Cell {cell} while it may still run, for that Cell has no fence. Goes on when the Cell is back. If its machine is certainly off: kubectl delete cell {cell}"
            ),
            Remains::Unknown { node: Some(node) } => format!(
                "{WAITS} on lost Cell {cell} while it may still run, for that Cell has no fence. Goes on when the Cell is back, or its Node is deleted. If the machine is certainly off: kubectl taint node {node} {OUT_OF_SERVICE}=nodeshutdown:NoExecute"
            ),
        }
    }
}

/// What may still run on a lost Cell; `None` is one without an object, which an operator deleted. `node` is its Node, if
/// that is there.
pub fn remains(cell: Option<&CellRecord>, node: Option<&NodeRecord>) -> Remains {
    let Some(cell) = cell else {
        return Remains::Nothing;
    };
    let is_off = |node: &NodeRecord| node.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE);
    match &cell.node {
        Some(CellNode {
            standing: Standing::NotFound,
            ..
        }) => Remains::Nothing,
        Some(_) if node.is_some_and(is_off) => Remains::Nothing,
        Some(_) | None if cell::is_proven_dead(&cell.status) => Remains::Nothing,
        Some(_) | None if cell.status.fenced == Some(true) => Remains::Fenced,
        Some(CellNode { name, .. }) => Remains::Unknown {
            node: Some(name.clone()),
        },
        None => Remains::Unknown { node: None },
    }
}

/// Until when what a fence has stopped is not replaced, if that is still to come; `since` is when its Cell was found
/// lost. Another controller's clock may have been ahead: one that is far ahead holds nothing up.
pub fn locked_until(since: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let until = since.checked_add(LOCK_DELAY).unwrap_or(Timestamp::MAX);
    let recent = since.duration_since(now) <= LOCK_DELAY;
    (now < until && recent).then_some(until)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_ttl_of_5_s_leaves_4_05_s() {
        let sent = BootTime::from_nanos(7);
        let deadline = deadline(sent, Duration::from_secs(5)).expect("long enough");
        assert_eq!(deadline.since(sent), Duration::from_millis(4050));
        assert_eq!(deadline.to_string().parse(), Ok(deadline));
    }

    #[test]
    fn the_shortest_ttl_is_what_the_formula_says() {
        let least = (1..).find(|ttl| reach(Duration::from_secs(*ttl)).is_ok());
        assert_eq!(least, Some(u64::from(MIN_TTL_SECONDS)));
        let error = reach(Duration::from_secs(1)).expect_err("too short");
        let told = error.to_string();
        for part in ["1000 ms", "--presence-ttl-seconds", "2 or more"] {
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn nothing_begins_shortly_before_the_deadline() {
        let (ttl, end) = (Duration::from_secs(6), BootTime::from_nanos(9_000_000_000));
        let at = |millis: u64| BootTime::from_nanos(millis * 1_000_000);
        assert!(may_begin(at(7_000), end, ttl));
        assert!(!may_begin(at(7_001), end, ttl));
        assert!(!may_begin(at(99_000), end, ttl));
    }

    #[test]
    fn the_lock_delay_is_a_second_whatever_another_clock_showed() {
        let at = |millis: i64| Timestamp::from_millisecond(millis).expect("in range");
        for (now, waits) in [
            (100_000, true),
            (100_999, true),
            (101_000, false),
            (999_000, false),
            // This controller's clock is behind that of the one before.
            (99_500, true),
            (50_000, false),
        ] {
            let until = locked_until(at(100_000), at(now));
            assert_eq!(until, waits.then_some(at(101_000)), "{now}");
        }
        assert_eq!(locked_until(Timestamp::MIN, at(0)), None);
    }

    #[test]
    fn a_proven_death_leaves_nothing_to_wait_for() {
        use crate::api::CellState;
        use crate::converge::fixtures;
        let lost = |source: &str, state| {
            let mut cell = fixtures::cell();
            cell.node = None;
            cell.status.state = Some(state);
            cell.status.last_recovery = Some(fixtures::last_recovery(source));
            cell
        };
        for fenced in [None, Some(true)] {
            let mut proven = lost("proof", CellState::Missing);
            proven.status.fenced = fenced;
            assert_eq!(remains(Some(&proven), None), Remains::Nothing);
        }
        // Another loss, or a former one.
        for other in [
            lost("watch", CellState::Missing),
            lost("proof", CellState::Present),
        ] {
            let expected = Remains::Unknown { node: None };
            assert_eq!(remains(Some(&other), None), expected);
        }
    }

    proptest! {
        /// The promise: with clocks whose rates differ by up to the bound, and a kill and a delay up to theirs, all is
        /// dead before the store can have let go, and that only if it was due.
        #[test]
        fn all_is_dead_before_the_store_lets_go(
            sent in 0..u64::MAX / 4,
            ttl_millis in 1_u64..3_600_000,
            // Of the machine's clock against the store's.
            rate in 0.99_f64..1.01,
            kill in 0.0_f64..=1.0,
            late in 0.0_f64..=1.0,
        ) {
            let ttl = Duration::from_millis(ttl_millis);
            let sent = BootTime::from_nanos(sent);
            let Ok(deadline) = deadline(sent, ttl) else {
                return Ok(());
            };
            // In the store's time: a slow clock of the machine shows the deadline late.
            let began = deadline.since(sent).as_secs_f64() / rate;
            let dead = began + KILL_TIME.as_secs_f64() * kill + JITTER.as_secs_f64() * late;
            prop_assert!(dead <= ttl.as_secs_f64() + 1e-6, "dead at {dead} of {ttl:?}");
            prop_assert!(deadline.since(sent) >= ttl / 3);
        }

        /// A later renewal never brings an earlier deadline.
        #[test]
        fn deadlines_grow_with_renewals(one in 0..u64::MAX, other in 0..u64::MAX, ttl in 2_u64..3600) {
            let of = |sent| deadline(BootTime::from_nanos(sent), Duration::from_secs(ttl)).expect("long enough");
            prop_assert_eq!(one.cmp(&other).is_lt(), of(one) < of(other) || (one < other && of(one) == of(other)));
        }
    }
}
