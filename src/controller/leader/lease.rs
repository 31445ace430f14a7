//! The Lease object, and under what name one stands for it.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};

use super::NAME;
use super::decide::{Record, Timing};

/// A name that no other process ever has: the machine's, which is the Pod's, so that people know it, and chance, so that
/// a process that is started again is somebody else.
pub(super) fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = host.or_else(|| std::env::var("HOSTNAME").ok());
    let host = host.as_deref().map(str::trim).filter(|it| !it.is_empty());
    format!("{}_{}", host.unwrap_or("unknown"), uuid::Uuid::new_v4())
}

/// What a Lease says. One without a duration has ours.
pub(super) fn read(lease: &Lease, timing: Timing) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.unwrap_or_default();
    Record {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        duration: match u64::try_from(seconds) {
            Ok(seconds) if seconds > 0 => Duration::from_secs(seconds),
            Ok(_) | Err(_) => timing.duration,
        },
        acquired: spec.acquire_time.map(|time| time.0),
        renewed: spec.renew_time.map(|time| time.0),
        transitions: spec.lease_transitions.unwrap_or_default(),
    }
}

/// A Lease that says `record`: `stored`, with its version and whatever others have put into it, or a new one.
pub(super) fn write(stored: Option<&Lease>, namespace: &str, record: &Record) -> Lease {
    let mut lease = stored.cloned().unwrap_or_else(|| Lease {
        metadata: ObjectMeta {
            name: Some(NAME.into()),
            namespace: Some(namespace.into()),
            ..Default::default()
        },
        spec: None,
    });
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    spec.holder_identity = record.holder.clone();
    spec.lease_duration_seconds = i32::try_from(record.duration.as_secs()).ok();
    spec.acquire_time = record.acquired.map(MicroTime);
    spec.renew_time = record.renewed.map(MicroTime);
    spec.lease_transitions = Some(record.transitions);
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing {
        duration: Duration::from_secs(2),
        deadline: Duration::from_millis(1500),
        retry: Duration::from_millis(500),
    };

    #[test]
    fn what_is_written_is_read_and_what_others_put_in_stays() {
        let record = Record {
            holder: Some("a".into()),
            duration: Duration::from_secs(3),
            acquired: Some("2026-01-02T03:04:05.000006Z".parse().unwrap()),
            renewed: Some("2026-01-02T03:04:06.000007Z".parse().unwrap()),
            transitions: 4,
        };
        let mut lease = write(None, "ns", &record);
        assert_eq!(lease.metadata.namespace.as_deref(), Some("ns"));
        assert_eq!(read(&lease, TIMING), record);
        lease.metadata.resource_version = Some("7".into());
        lease.metadata.labels = Some([("by".into(), "them".into())].into());
        let given_up = Record {
            holder: None,
            ..record
        };
        let next = write(Some(&lease), "ns", &given_up);
        assert_eq!(next.metadata, lease.metadata);
        assert_eq!(read(&next, TIMING), given_up);
    }

    #[test]
    fn an_empty_or_foreign_lease_can_be_read() {
        let empty = read(&Lease::default(), TIMING);
        assert_eq!((empty.holder, empty.duration), (None, TIMING.duration));
        let spec = LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(-1),
            ..Default::default()
        };
        let foreign = Lease {
            metadata: ObjectMeta::default(),
            spec: Some(spec),
        };
        let foreign = read(&foreign, TIMING);
        assert_eq!((foreign.holder, foreign.duration), (None, TIMING.duration));
    }

    #[test]
    fn no_two_have_the_same_identity() {
        let (one, other) = (identity(), identity());
        assert_ne!(one, other);
        assert!(one.contains('_') && !one.contains('\n'), "{one}");
    }
}
