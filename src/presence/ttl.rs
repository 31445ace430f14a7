//! How long a presence lasts without a renewal: what a rep may be told, and how it is written.
//!
//! The store Kubernetes takes fractions of a second, for the controller times it; etcd counts in whole seconds.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// The TTLs that are believed: those that a rep can be told. A renewal has a fifth of the TTL to be answered, so the
/// shortest leaves it 60 ms: twice what the slowest hundredth of the writes to a healthy etcd on a common disk takes.
pub const TTLS: RangeInclusive<Duration> = Duration::from_millis(300)..=Duration::from_secs(3600);

/// What etcd counts in.
const WHOLE: Duration = Duration::from_secs(1);

/// Between these a rep chooses by itself, unless it is told others: under the first one nothing can be fenced that must
/// not run twice, and etcd takes none by default; the second is as long as anybody should wait.
const AUTO: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// Where a rep that chooses by itself begins: the design's TTL.
const BEGIN: Duration = Duration::from_secs(5);

/// What a rep is told of its TTL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// This one.
    Fixed(Duration),
    /// The shortest that can be kept.
    Auto(Bounds),
}

/// Between what a rep chooses its TTL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
    /// For so long everything must have been well before a shorter one is tried, and after that for so long again.
    pub patience: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        let (min, max) = AUTO;
        Self {
            min,
            max,
            patience: Duration::from_secs(60),
        }
    }
}

impl From<Duration> for Ttl {
    fn from(ttl: Duration) -> Self {
        Self::Fixed(ttl)
    }
}

impl Ttl {
    /// So many seconds.
    pub const fn seconds(seconds: u32) -> Self {
        Self::Fixed(Duration::from_secs(seconds as u64))
    }

    /// The first one.
    pub fn first(&self) -> Duration {
        match self {
            Self::Fixed(ttl) => *ttl,
            Self::Auto(bounds) => BEGIN.clamp(bounds.min, bounds.max.max(bounds.min)),
        }
    }

    /// The shortest that it can become.
    pub fn least(&self) -> Duration {
        match self {
            Self::Fixed(ttl) => *ttl,
            Self::Auto(bounds) => bounds.min,
        }
    }

    /// Whether a store that counts in whole seconds, or one that does not, can keep it.
    ///
    /// # Errors
    /// When it counts in whole seconds, and this is none.
    pub fn check(&self, whole: bool) -> Result<(), TtlError> {
        let whole = |flag, ttl: Duration| match ttl.subsec_nanos() {
            0 => Ok(()),
            _ if !whole => Ok(()),
            _ => Err(TtlError { flag, ttl }),
        };
        match self {
            Self::Fixed(ttl) => whole("--presence-ttl-seconds", *ttl),
            Self::Auto(bounds) => {
                whole("--presence-ttl-min-seconds", bounds.min)?;
                whole("--presence-ttl-max-seconds", bounds.max)
            }
        }
    }
}

/// A fraction of a second where there is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{flag} {}: etcd counts the TTL of a lease in whole seconds; set {flag} to {} or more, or keep the presence in Leases \
     with --presence kubernetes, which takes fractions",
    .ttl.as_secs_f64(),
    whole_seconds(*.ttl).max(2)
)]
pub struct TtlError {
    flag: &'static str,
    ttl: Duration,
}

/// In whole seconds, rounded up.
pub fn whole_seconds(ttl: Duration) -> u64 {
    ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)
}

/// The next multiple of what the store counts in.
pub(super) fn rounded_up(ttl: Duration, whole: bool) -> Duration {
    match whole {
        true => Duration::from_secs(whole_seconds(ttl)),
        false => Duration::from_millis(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
    }
    .max(if whole { WHOLE } else { *TTLS.start() })
}

/// A TTL as people write it: seconds, with up to three decimals.
///
/// # Errors
/// What is wrong with it.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    let (least, most) = (TTLS.start().as_secs_f64(), TTLS.end().as_secs());
    let wrong = || format!("must be seconds from {least} to {most}, such as 5 or 0.5");
    let digits = text.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    let decimals = text.split_once('.').map_or(0, |(_, after)| after.len());
    if !digits || decimals > 3 {
        return Err(wrong());
    }
    let seconds = f64::from_str(text).map_err(|_| wrong())?;
    let ttl = in_millis(seconds).ok_or_else(wrong)?;
    match TTLS.contains(&ttl) {
        true => Ok(ttl),
        false => Err(wrong()),
    }
}

fn in_millis(seconds: f64) -> Option<Duration> {
    let millis = (seconds * 1000.0).round();
    // Far more than is believed.
    (0.0..1e15)
        .contains(&millis)
        .then(|| Duration::from_millis(millis as u64))
}

/// A TTL in JSON: a number of seconds, whole ones as an integer, as all versions read them.
pub(super) mod json {
    use super::*;

    pub fn serialize<S: Serializer>(ttl: &Duration, to: S) -> Result<S::Ok, S::Error> {
        match ttl.subsec_nanos() {
            0 => to.serialize_u64(ttl.as_secs()),
            _ => to.serialize_f64(ttl.as_secs_f64()),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(from)?;
        in_millis(seconds).ok_or_else(|| D::Error::custom("not a time in seconds"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read_with_up_to_three_decimals() {
        for (text, millis) in [("5", 5000), ("0.5", 500), ("0.3", 300), ("1.125", 1125)] {
            assert_eq!(parse_seconds(text), Ok(Duration::from_millis(millis)));
        }
        for text in [
            "",
            ".",
            "0",
            "0.299",
            "3600.001",
            "3601",
            "-1",
            "+5",
            "1e3",
            "inf",
            "NaN",
            "0.5s",
            "1.0001",
            "5 ",
            "1.2.3",
            "99999999999999999999",
        ] {
            let error = parse_seconds(text).expect_err(text);
            assert!(error.contains("0.3 to 3600"), "{error}");
        }
    }

    #[test]
    fn etcd_takes_whole_seconds_only() {
        assert_eq!(Ttl::seconds(2).check(true), Ok(()));
        assert_eq!(Ttl::Auto(Bounds::default()).check(true), Ok(()));
        let half = Duration::from_millis(500);
        assert_eq!(Ttl::Fixed(half).check(false), Ok(()));
        let error = Ttl::Fixed(half).check(true).expect_err("a fraction");
        let told = error.to_string();
        for part in [
            "--presence-ttl-seconds 0.5:",
            "to 2 or more",
            "--presence kubernetes",
        ] {
            assert!(told.contains(part), "{told}");
        }
        let min = Bounds {
            min: half,
            ..Bounds::default()
        };
        let told = Ttl::Auto(min).check(true).expect_err("a fraction");
        assert!(told.to_string().contains("--presence-ttl-min-seconds 0.5"));
    }

    #[test]
    fn a_rep_that_chooses_begins_with_the_designs_ttl_or_the_next_bound() {
        let bounds = |min, max| Bounds {
            min: Duration::from_secs(min),
            max: Duration::from_secs(max),
            ..Bounds::default()
        };
        for (min, max, first) in [(2, 30, 5), (10, 30, 10), (1, 3, 3)] {
            let ttl = Ttl::Auto(bounds(min, max));
            assert_eq!(ttl.first(), Duration::from_secs(first));
            assert_eq!(ttl.least(), Duration::from_secs(min));
        }
    }
}
