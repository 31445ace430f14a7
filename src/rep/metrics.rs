//! Every metric of the rep, defined once. There is one rep per target, so no label names the Cell.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::api::{Capacity, quantity};
use crate::presence::keeper::{FailureKind, KeeperReport, LossReason};

/// The label `result` of a renewal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    /// success, conflict, timeout or error.
    pub result: &'static str,
}

/// The label `reason` of a loss or a stop.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// Why.
    pub reason: &'static str,
}

/// The label `state` of a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StateLabel {
    /// The container's state.
    pub state: &'static str,
}

/// The label `direction` of a change of the TTL.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DirectionLabel {
    /// raised or lowered.
    pub direction: &'static str,
}

/// The directions in which a TTL changes.
const DIRECTIONS: [&str; 2] = ["raised", "lowered"];

/// The states of `diego_rep_containers`.
pub const CONTAINER_STATES: [&str; 5] =
    ["reserved", "starting", "running", "stopping", "completed"];

/// Why the rep stops an instance or a Task by itself or by its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// Its record names another instance, or is gone.
    NotAssigned,
    /// The Task was cancelled.
    Cancelled,
    /// The rep shuts down.
    Evacuation,
    /// The time to evacuate was up.
    EvacuationTimeout,
    /// The presence was not renewed, and it must not run twice.
    Fenced,
}

impl StopReason {
    /// All of them.
    pub const ALL: [StopReason; 5] = [
        StopReason::NotAssigned,
        StopReason::Cancelled,
        StopReason::Evacuation,
        StopReason::EvacuationTimeout,
        StopReason::Fenced,
    ];

    /// As a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            StopReason::NotAssigned => "NotAssigned",
            StopReason::Cancelled => "Cancelled",
            StopReason::Evacuation => "Evacuation",
            StopReason::EvacuationTimeout => "EvacuationTimeout",
            StopReason::Fenced => "Fenced",
        }
    }
}

/// The rep's metrics.
#[derive(Debug, Clone)]
pub struct RepMetrics {
    renewals: Family<ResultLabel, Counter>,
    renewal_duration: Histogram,
    last_renewal: Gauge<f64, AtomicU64>,
    ttl: Gauge<f64, AtomicU64>,
    ttl_changes: Family<DirectionLabel, Counter>,
    held: Gauge,
    lost: Family<ReasonLabel, Counter>,
    capacity_memory: Gauge,
    capacity_disk: Gauge,
    capacity_containers: Gauge,
    allocated_memory: Gauge,
    allocated_disk: Gauge,
    containers: Family<StateLabel, Gauge>,
    sync_duration: Histogram,
    stopped: Family<ReasonLabel, Counter>,
    evacuating: Gauge,
}

impl RepMetrics {
    /// Registers all of them, every label set at 0.
    pub fn new(registry: &mut Registry) -> Self {
        let renewal_buckets = [
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
        ];
        let sync_buckets = [
            0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
        ];
        let metrics = RepMetrics {
            renewals: Family::default(),
            renewal_duration: Histogram::new(renewal_buckets),
            last_renewal: Gauge::default(),
            ttl: Gauge::default(),
            ttl_changes: Family::default(),
            held: Gauge::default(),
            lost: Family::default(),
            capacity_memory: Gauge::default(),
            capacity_disk: Gauge::default(),
            capacity_containers: Gauge::default(),
            allocated_memory: Gauge::default(),
            allocated_disk: Gauge::default(),
            containers: Family::default(),
            sync_duration: Histogram::new(sync_buckets),
            stopped: Family::default(),
            evacuating: Gauge::default(),
        };
        for result in ["success", "conflict", "timeout", "error"] {
            drop(metrics.renewals.get_or_create(&ResultLabel { result }));
        }
        for reason in [LossReason::LeaseGone, LossReason::KeyGone] {
            drop(metrics.lost.get_or_create(&ReasonLabel {
                reason: reason.as_str(),
            }));
        }
        for direction in DIRECTIONS {
            let label = DirectionLabel { direction };
            drop(metrics.ttl_changes.get_or_create(&label));
        }
        for state in CONTAINER_STATES {
            drop(metrics.containers.get_or_create(&StateLabel { state }));
        }
        for reason in StopReason::ALL {
            drop(metrics.stopped.get_or_create(&ReasonLabel {
                reason: reason.as_str(),
            }));
        }
        metrics.register(registry);
        metrics
    }

    fn register(&self, registry: &mut Registry) {
        let rep = registry.sub_registry_with_prefix("diego_rep");
        rep.register(
            "presence_renewals",
            "Tries to renew or register the presence, by result (conflict: another rep holds it)",
            self.renewals.clone(),
        );
        rep.register_with_unit(
            "presence_renewal_duration",
            "Time from before a renewal is sent until its answer",
            Unit::Seconds,
            self.renewal_duration.clone(),
        );
        rep.register_with_unit(
            "presence_last_renewal_timestamp",
            "When the last answered renewal was sent, as Unix time",
            Unit::Seconds,
            self.last_renewal.clone(),
        );
        rep.register_with_unit(
            "presence_ttl",
            "Time to live of the presence, as granted",
            Unit::Seconds,
            self.ttl.clone(),
        );
        rep.register(
            "presence_ttl_changes",
            "Changes of the time to live by a rep that chooses it, by direction",
            self.ttl_changes.clone(),
        );
        rep.register(
            "presence_held",
            "1 while the presence is held",
            self.held.clone(),
        );
        rep.register(
            "presence_lost",
            "Losses of the presence, by reason",
            self.lost.clone(),
        );
        rep.register_with_unit(
            "capacity_memory",
            "Memory the Cell offers",
            Unit::Bytes,
            self.capacity_memory.clone(),
        );
        rep.register_with_unit(
            "capacity_disk",
            "Disk the Cell offers",
            Unit::Bytes,
            self.capacity_disk.clone(),
        );
        rep.register(
            "capacity_containers",
            "Instances and Tasks the Cell offers room for",
            self.capacity_containers.clone(),
        );
        rep.register_with_unit(
            "allocated_memory",
            "Memory asked for by what is here",
            Unit::Bytes,
            self.allocated_memory.clone(),
        );
        rep.register_with_unit(
            "allocated_disk",
            "Disk asked for by what is here",
            Unit::Bytes,
            self.allocated_disk.clone(),
        );
        rep.register(
            "containers",
            "Instances and Tasks here, by state",
            self.containers.clone(),
        );
        rep.register_with_unit(
            "sync_duration",
            "Time of one full comparison with all records of this Cell",
            Unit::Seconds,
            self.sync_duration.clone(),
        );
        rep.register(
            "instances_stopped",
            "Instances and Tasks that the rep stopped, by reason",
            self.stopped.clone(),
        );
        rep.register(
            "evacuating",
            "1 while the rep moves its work away",
            self.evacuating.clone(),
        );
    }

    /// What the Cell offers.
    pub fn set_capacity(&self, capacity: &Capacity) {
        self.capacity_memory
            .set(quantity::bytes(&capacity.memory).unwrap_or(0));
        self.capacity_disk
            .set(quantity::bytes(&capacity.disk).unwrap_or(0));
        self.capacity_containers.set(i64::from(capacity.containers));
    }

    /// What is here: how many in each of [`CONTAINER_STATES`], and what they ask for in bytes.
    pub fn set_containers(&self, counts: [i64; 5], memory: i64, disk: i64) {
        for (state, count) in CONTAINER_STATES.into_iter().zip(counts) {
            self.containers
                .get_or_create(&StateLabel { state })
                .set(count);
        }
        self.allocated_memory.set(memory);
        self.allocated_disk.set(disk);
    }

    /// One full comparison took so long.
    pub fn synced(&self, took: Duration) {
        self.sync_duration.observe(took.as_secs_f64());
    }

    /// An instance is stopped.
    pub fn stopped(&self, reason: StopReason) {
        self.stopped
            .get_or_create(&ReasonLabel {
                reason: reason.as_str(),
            })
            .inc();
    }

    /// Whether the rep is moving its work away.
    pub fn set_evacuating(&self, evacuating: bool) {
        self.evacuating.set(evacuating.into());
    }

    /// What the keeper of the presence reports. `now` is the time of the report.
    pub fn presence(&self, report: &KeeperReport, now: Timestamp) {
        let renewal = |result| self.renewals.get_or_create(&ResultLabel { result }).inc();
        let result_of = |kind: &FailureKind| kind.as_str();
        let now = now.as_microsecond() as f64 / 1e6;
        match report {
            KeeperReport::Registered {
                ttl,
                epoch: _,
                lease_id: _,
                took_over: _,
            } => {
                self.held.set(1);
                self.ttl.set(ttl.as_secs_f64());
                self.last_renewal.set(now);
            }
            KeeperReport::Renewed { took } => {
                renewal("success");
                self.renewal_duration.observe(took.as_secs_f64());
                self.last_renewal.set(now - took.as_secs_f64());
            }
            KeeperReport::TtlChanged { from, ttl, why: _ } => {
                self.ttl.set(ttl.as_secs_f64());
                let direction = DIRECTIONS[usize::from(ttl < from)];
                let label = DirectionLabel { direction };
                self.ttl_changes.get_or_create(&label).inc();
            }
            KeeperReport::RegistrationFailed { kind } | KeeperReport::RenewalFailed { kind } => {
                renewal(result_of(kind));
            }
            KeeperReport::Refused { .. } => {
                renewal("conflict");
            }
            KeeperReport::Lost { reason } => {
                self.held.set(0);
                self.lost
                    .get_or_create(&ReasonLabel {
                        reason: reason.as_str(),
                    })
                    .inc();
            }
            KeeperReport::Superseded
            | KeeperReport::Released { .. }
            | KeeperReport::Failed { .. } => {
                self.held.set(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;

    #[test]
    fn names_are_those_of_the_dashboards_and_exist_from_the_start() {
        let mut registry = Registry::default();
        let metrics = RepMetrics::new(&mut registry);
        metrics.presence(
            &KeeperReport::RenewalFailed {
                kind: FailureKind::Timeout,
            },
            Timestamp::UNIX_EPOCH,
        );
        let mut text = String::new();
        encode(&mut text, &registry).expect("text");
        for line in [
            "diego_rep_presence_renewals_total{result=\"success\"} 0",
            "diego_rep_presence_renewals_total{result=\"conflict\"} 0",
            "diego_rep_presence_renewals_total{result=\"timeout\"} 1",
            "diego_rep_presence_renewals_total{result=\"error\"} 0",
            "diego_rep_presence_renewal_duration_seconds_count 0",
            "diego_rep_presence_last_renewal_timestamp_seconds 0.0",
            "diego_rep_presence_ttl_seconds 0.0",
            "diego_rep_presence_ttl_changes_total{direction=\"lowered\"} 0",
            "diego_rep_presence_held 0",
            "diego_rep_presence_lost_total{reason=\"lease_gone\"} 0",
            "diego_rep_capacity_memory_bytes 0",
            "diego_rep_capacity_disk_bytes 0",
            "diego_rep_capacity_containers 0",
            "diego_rep_allocated_memory_bytes 0",
            "diego_rep_allocated_disk_bytes 0",
            "diego_rep_containers{state=\"running\"} 0",
            "diego_rep_sync_duration_seconds_count 0",
            "diego_rep_instances_stopped_total{reason=\"EvacuationTimeout\"} 0",
            "diego_rep_evacuating 0",
        ] {
            assert!(
                text.lines().any(|one| one == line),
                "no '{line}' in\n{text}"
            );
        }
    }
}
