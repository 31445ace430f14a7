//! How the presence store Kubernetes is reached, and what a Cell's Lease says.
//!
//! A `coordination.k8s.io` Lease does not run out: nothing happens to it when its holder dies. So the controller times
//! it ([`deadlines`]), by its own monotonic clock and from when it saw it change; nobody compares times of day.
//! `canary` tells whether the store could be written at all meanwhile.

mod canary;
pub mod deadlines;
mod store;

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Config};

use super::ttl::whole_seconds;
use super::{Presence, PresencePhase, PresenceValue, StoreError};
use crate::client;
use crate::metrics::ClientMetrics;

pub use store::{ConnectError, KubernetesStore};

/// Label of every Lease here, and annotation with the value of a Cell's.
pub const MARK: &str = "diego.cloudfoundry.org/presence";

/// The label's value on the Lease of a Cell.
pub const CELL: &str = "cell";

/// The label's value on the Lease that a controller renews to see whether Leases can be renewed.
pub const CANARY: &str = "canary";

/// Every Cell's Lease is named so; the Cell's name follows.
const NAME_PREFIX: &str = "cell-";

/// The TTL of a Cell whose value can't be read.
const UNREADABLE_TTL: Duration = Duration::from_secs(15);

/// A server has this long to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(700);

/// How the store is reached.
#[derive(Debug, Clone)]
pub struct KubernetesConfig {
    /// Where the API server is.
    pub config: Config,
    /// Where the Leases live; `--namespace`.
    pub namespace: String,
    /// Of every client.
    pub metrics: ClientMetrics,
}

impl KubernetesConfig {
    /// The Leases, by a connection of its own.
    pub(crate) fn leases(&self) -> Result<Api<Lease>, StoreError> {
        let mut config = self.config.clone();
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        let client = client::build(&config, &self.metrics)?;
        Ok(Api::namespaced(client, &self.namespace))
    }

    /// For the log.
    pub(crate) fn endpoint(&self) -> String {
        self.config.cluster_url.to_string()
    }
}

/// What one Lease showed of a Cell's presence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The Cell's name.
    pub cell: String,
    /// One life of the object.
    pub uid: String,
    /// The object's resourceVersion: a renewal changes it.
    pub version: i64,
    /// What it says.
    pub said: Said,
}

/// What the Lease of a Cell says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It was made for a registration that is not written yet.
    Nothing,
    /// Something that can't be read, or that no rep can have written: present, unknown.
    Unreadable,
    /// The rep's value, and the epoch that is in it.
    Value(PresenceValue, i64),
}

impl Sighting {
    /// What a Lease shows; `None` for one that is no Cell's. Whether it is labelled is the caller's business.
    pub fn of(lease: &Lease) -> Option<Sighting> {
        let cell = cell_of(lease.metadata.name.as_deref()?)?;
        Some(Sighting {
            cell: cell.to_owned(),
            uid: lease.metadata.uid.clone().unwrap_or_default(),
            version: version(lease.metadata.resource_version.as_deref()),
            said: said(lease),
        })
    }

    /// How long it lasts without a renewal.
    pub fn ttl(&self) -> Duration {
        match &self.said {
            Said::Value(value, _) => value.ttl,
            Said::Nothing | Said::Unreadable => UNREADABLE_TTL,
        }
    }

    /// Whether its witness says that the rep and all that it ran are dead.
    pub fn is_dead(&self) -> bool {
        matches!(&self.said, Said::Value(value, _) if value.phase == PresencePhase::Dead)
    }

    /// The presence, if one is registered. `unknown` is the epoch of one that can't be read.
    pub fn presence(&self, unknown: i64) -> Option<Presence> {
        let (epoch, value) = match &self.said {
            Said::Nothing => return None,
            Said::Unreadable => (unknown, None),
            Said::Value(value, epoch) => (*epoch, Some(value.clone())),
        };
        Some(Presence {
            cell: self.cell.clone(),
            epoch,
            value,
        })
    }

    /// The greatest epoch, without its base, that was given under this Lease and all before it: the next one is greater.
    ///
    /// The first registration under a Lease gets the version that the Lease was made with, each further one the next
    /// number; since every registration is a write, that number never overtakes the version.
    pub fn last_count(&self) -> i64 {
        match &self.said {
            Said::Nothing | Said::Unreadable => self.version.saturating_sub(1),
            Said::Value(value, epoch) => epoch.saturating_sub(value.epoch_base),
        }
    }
}

/// The name of a Cell's Lease.
pub fn lease_name(cell: &str) -> String {
    format!("{NAME_PREFIX}{cell}")
}

/// The Cell whose Lease is named so.
pub fn cell_of(name: &str) -> Option<&str> {
    name.strip_prefix(NAME_PREFIX)
        .filter(|cell| !cell.is_empty())
}

/// A resourceVersion as the number that it is; 0 where there is none.
pub(crate) fn version(text: Option<&str>) -> i64 {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Whether a Lease is labelled as a Cell's.
pub(crate) fn is_cells(lease: &Lease) -> bool {
    let labels = lease.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(MARK))
        .is_some_and(|label| label == CELL)
}

fn said(lease: &Lease) -> Said {
    let annotations = lease.metadata.annotations.as_ref();
    let Some(text) = annotations.and_then(|annotations| annotations.get(MARK)) else {
        return Said::Nothing;
    };
    let value: Option<PresenceValue> = serde_json::from_str(text).ok();
    let version = version(lease.metadata.resource_version.as_deref());
    let value = value.filter(PresenceValue::is_credible).and_then(|value| {
        let epoch = value.epoch?;
        // Every count is at most the version of the write that registered it.
        let counts = (1..=version).contains(&epoch.saturating_sub(value.epoch_base));
        counts.then_some((value, epoch))
    });
    match value {
        Some((value, epoch)) => Said::Value(value, epoch),
        None => Said::Unreadable,
    }
}

/// A Lease without a value.
pub(crate) fn new_lease(name: &str, kind: &str, holder: &str, ttl: Duration) -> Lease {
    Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([(MARK.to_owned(), kind.to_owned())].into()),
            ..Default::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(lease_duration(ttl)),
            acquire_time: Some(now()),
            renew_time: Some(now()),
            lease_transitions: Some(0),
            ..Default::default()
        }),
    }
}

/// `stored`, with `value` and its holder in it; whatever others put into it stays.
pub(crate) fn with_value(stored: &Lease, value: &PresenceValue) -> Lease {
    let mut lease = stored.clone();
    lease.metadata.managed_fields = None;
    let labels = lease.metadata.labels.get_or_insert_default();
    labels.insert(MARK.to_owned(), CELL.to_owned());
    let annotations = lease.metadata.annotations.get_or_insert_default();
    // A struct of strings and numbers always has a JSON form.
    let text = serde_json::to_string(value).unwrap_or_default();
    annotations.insert(MARK.to_owned(), text);
    let spec = lease.spec.get_or_insert_default();
    if spec.holder_identity.as_deref() != Some(&value.holder) {
        spec.holder_identity = Some(value.holder.clone());
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default() + 1);
        spec.acquire_time = Some(now());
    }
    spec.lease_duration_seconds = Some(lease_duration(value.ttl));
    spec.renew_time = Some(now());
    lease
}

/// For people, and so that a renewal changes the object. Nothing is decided by it.
pub(crate) fn now() -> MicroTime {
    MicroTime(Timestamp::now())
}

/// For people: a whole number of seconds. The exact TTL is in the value.
fn lease_duration(ttl: Duration) -> i32 {
    i32::try_from(whole_seconds(ttl)).unwrap_or(i32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value() -> PresenceValue {
        PresenceValue {
            cell_id: "a".into(),
            incarnation: "boot-1".into(),
            ttl: Duration::from_secs(5),
            phase: PresencePhase::Draining,
            owner: "o".into(),
            holder: "h".into(),
            first_epoch: Some(3),
            epoch_base: 50,
            epoch: Some(57),
            fence: false,
        }
    }

    #[test]
    fn what_is_written_is_read_and_what_others_put_in_stays() {
        let mut lease = new_lease("cell-a", CELL, "h", Duration::from_secs(5));
        lease.metadata.resource_version = Some("9".into());
        lease.metadata.annotations = Some([("by".into(), "them".into())].into());
        let made = Sighting::of(&lease).expect("a Cell's");
        assert_eq!((&made.said, made.last_count()), (&Said::Nothing, 8));
        assert_eq!(made.presence(1), None);
        let lease = with_value(&lease, &value());
        let seen = Sighting::of(&lease).expect("a Cell's");
        assert_eq!(seen.said, Said::Value(value(), 57));
        assert_eq!((seen.cell.as_str(), seen.version), ("a", 9));
        assert_eq!((seen.last_count(), seen.ttl()), (7, Duration::from_secs(5)));
        let annotations = lease.metadata.annotations.expect("there");
        assert_eq!(annotations["by"], "them");
        let spec = lease.spec.expect("there");
        assert_eq!(spec.lease_transitions, Some(0), "the same holder");
        assert_eq!(spec.lease_duration_seconds, Some(5));
    }

    #[test]
    fn a_damaged_value_is_present_and_unknown() {
        for text in ["{", r#"{"cellId":"a","incarnation":"i","ttlSeconds":5}"#] {
            let seen = saying(text.into());
            let presence = seen.presence(7).expect("present");
            assert_eq!((presence.epoch, presence.value), (7, None), "{text}");
        }
    }

    fn saying(text: String) -> Sighting {
        let mut lease = new_lease("cell-a", CELL, "h", Duration::from_secs(5));
        lease.metadata.resource_version = Some("60".into());
        lease.metadata.annotations = Some([(MARK.to_owned(), text)].into());
        Sighting::of(&lease).expect("a Cell's")
    }

    /// Each rep may write its own Lease: that must neither hasten the canary of all nor spoil a record.
    #[test]
    fn a_value_that_no_rep_writes_is_present_and_unknown() {
        type Poison = fn(&mut PresenceValue);
        let good = serde_json::to_string(&value()).expect("JSON");
        assert_eq!(saying(good).said, Said::Value(value(), 57));
        let poisons: [Poison; 13] = [
            |value| value.ttl = Duration::from_millis(299),
            |value| value.ttl = Duration::from_millis(3_600_001),
            |value| value.ttl = Duration::from_secs(u32::MAX.into()),
            |value| value.epoch = Some(-1),
            |value| value.epoch = Some(i64::MAX),
            |value| value.epoch = Some(1_000_000),
            |value| value.epoch = Some(50),
            |value| value.epoch_base = -1,
            |value| value.epoch_base = i64::MIN,
            |value| value.first_epoch = Some(-1),
            |value| value.incarnation = "i".repeat(129),
            |value| value.owner = "o".repeat(129),
            |value| value.holder = "h".repeat(129),
        ];
        for poison in poisons {
            let mut value = value();
            poison(&mut value);
            let seen = saying(serde_json::to_string(&value).expect("JSON"));
            assert_eq!(seen.said, Said::Unreadable, "{value:?}");
            assert_eq!((seen.ttl(), seen.last_count()), (UNREADABLE_TTL, 59));
        }
    }

    #[test]
    fn another_holder_is_a_transition() {
        let lease = new_lease("cell-a", CELL, "former", Duration::from_secs(5));
        let spec = with_value(&lease, &value()).spec.expect("there");
        assert_eq!(spec.lease_transitions, Some(1));
        assert_eq!(spec.holder_identity.as_deref(), Some("h"));
    }

    #[test]
    fn a_name_is_that_of_a_cell_or_of_none() {
        assert_eq!(lease_name("a"), "cell-a");
        assert_eq!(cell_of("cell-a"), Some("a"));
        for other in ["cell-", "presence-canary-1", "diego-controller"] {
            assert_eq!(cell_of(other), None);
        }
    }
}
