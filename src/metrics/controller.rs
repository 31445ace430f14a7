//! The metrics of the controller, with every label set at 0 from the start.

mod register;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::buckets::{
    convergence_histogram, reconcile_histogram, recovery_histogram, request_histogram,
    start_delay_histogram,
};
use super::labels::*;
use crate::converge::cell::Source;
use crate::converge::lrp::StartReason;
use crate::converge::task::{DeleteReason, FailureKind};

/// The controller's metrics.
#[derive(Debug, Clone)]
pub struct ControllerMetrics {
    /// controller_runtime_reconcile_total.
    pub reconciles: Family<ResultLabel, Counter>,
    /// controller_runtime_reconcile_errors_total.
    pub reconcile_errors: Family<ControllerLabel, Counter>,
    /// controller_runtime_reconcile_time_seconds.
    pub reconcile_time: Family<ControllerLabel, Histogram, fn() -> Histogram>,
    /// controller_runtime_reconcile_panics_total.
    pub reconcile_panics: Family<ControllerLabel, Counter>,
    /// controller_runtime_max_concurrent_reconciles.
    pub max_workers: Family<ControllerLabel, Gauge>,
    /// controller_runtime_active_workers.
    pub active_workers: Family<ControllerLabel, Gauge>,
    /// diego_cell_presence_expired_total.
    pub presence_expired: Family<SourceLabel, Counter>,
    /// diego_mass_loss_guard_active.
    pub guard_active: Gauge,
    /// diego_cell_losses_held.
    pub losses_held: Gauge,
    /// diego_cell_recovery_start_delay_seconds.
    pub recovery_start_delay: Family<SourceLabel, Histogram, fn() -> Histogram>,
    /// diego_cell_recovery_duration_seconds.
    pub recovery_duration: Family<OutcomeLabel, Histogram, fn() -> Histogram>,
    /// diego_actuallrp_downtime_seconds.
    pub downtime: Histogram,
    /// diego_actuallrps_recovered_total.
    pub recovered: Family<OutcomeLabel, Counter>,
    /// diego_actuallrp_starts_total.
    pub starts: Family<ReasonLabel, Counter>,
    /// Crashes of instances that were seen.
    pub crashes: Counter,
    /// diego_tasks_failed_total.
    pub tasks_failed: Family<ReasonLabel, Counter>,
    /// diego_tasks_kicked_total.
    pub tasks_kicked: Counter,
    /// diego_tasks_deleted_total.
    pub tasks_deleted: Family<ReasonLabel, Counter>,
    /// diego_task_callbacks_total.
    pub callbacks: Family<CallbackLabel, Counter>,
    /// diego_task_callback_duration_seconds.
    pub callback_duration: Histogram,
    /// diego_writes_total.
    pub writes: Family<OutcomeLabel, Counter>,
    /// diego_watch_restarts_total.
    pub watch_restarts: Family<WatchLabel, Counter>,
    /// diego_presence_store_reachable.
    pub store_reachable: Gauge,
    /// diego_events_dropped_total.
    pub events_dropped: Counter,
    /// diego_convergence_runs_total.
    pub convergence_runs: Family<TriggerLabel, Counter>,
    /// diego_convergence_duration_seconds.
    pub convergence_duration: Histogram,
    /// diego_convergence_corrections_total.
    pub convergence_corrections: Family<KindLabel, Counter>,
    /// diego_convergence_last_success_timestamp_seconds.
    pub convergence_success: Gauge<f64, AtomicU64>,
}

impl ControllerMetrics {
    /// Registers the controller's metrics, with every label set at 0.
    pub fn new(registry: &mut Registry) -> Arc<Self> {
        let metrics = ControllerMetrics {
            reconciles: Family::default(),
            reconcile_errors: Family::default(),
            reconcile_time: Family::new_with_constructor(reconcile_histogram),
            reconcile_panics: Family::default(),
            max_workers: Family::default(),
            active_workers: Family::default(),
            presence_expired: Family::default(),
            guard_active: Gauge::default(),
            losses_held: Gauge::default(),
            recovery_start_delay: Family::new_with_constructor(start_delay_histogram),
            recovery_duration: Family::new_with_constructor(recovery_histogram),
            downtime: Histogram::new([1.0, 2.0, 5.0, 6.0, 7.0, 8.0, 10.0, 15.0, 30.0, 60.0, 120.0]),
            recovered: Family::default(),
            starts: Family::default(),
            crashes: Counter::default(),
            tasks_failed: Family::default(),
            tasks_kicked: Counter::default(),
            tasks_deleted: Family::default(),
            callbacks: Family::default(),
            callback_duration: request_histogram(),
            writes: Family::default(),
            watch_restarts: Family::default(),
            store_reachable: Gauge::default(),
            events_dropped: Counter::default(),
            convergence_runs: Family::default(),
            convergence_duration: convergence_histogram(),
            convergence_corrections: Family::default(),
            convergence_success: Gauge::default(),
        };
        metrics.create_label_sets();
        metrics.register(registry);
        Arc::new(metrics)
    }

    fn create_label_sets(&self) {
        for controller in CONTROLLERS {
            for result in ["requeue_after", "error"] {
                drop(
                    self.reconciles
                        .get_or_create(&ResultLabel { controller, result }),
                );
            }
            drop(
                self.reconcile_errors
                    .get_or_create(&ControllerLabel { controller }),
            );
            drop(
                self.reconcile_time
                    .get_or_create(&ControllerLabel { controller }),
            );
            let label = ControllerLabel { controller };
            drop(self.active_workers.get_or_create(&label));
            drop(self.reconcile_panics.get_or_create(&label));
            // They are not limited.
            drop(self.max_workers.get_or_create(&label));
        }
        for source in Source::ALL.map(Source::as_str) {
            drop(self.presence_expired.get_or_create(&SourceLabel { source }));
            drop(
                self.recovery_start_delay
                    .get_or_create(&SourceLabel { source }),
            );
        }
        for outcome in ["complete", "partial"] {
            drop(
                self.recovery_duration
                    .get_or_create(&OutcomeLabel { outcome }),
            );
        }
        for outcome in RECOVERED {
            drop(self.recovered.get_or_create(&OutcomeLabel { outcome }));
        }
        for outcome in WRITES {
            drop(self.writes.get_or_create(&OutcomeLabel { outcome }));
        }
        for reason in StartReason::ALL.map(StartReason::as_str) {
            drop(self.starts.get_or_create(&ReasonLabel { reason }));
        }
        for reason in FailureKind::ALL.map(FailureKind::as_str) {
            drop(self.tasks_failed.get_or_create(&ReasonLabel { reason }));
        }
        for reason in DeleteReason::ALL.map(DeleteReason::as_str) {
            drop(self.tasks_deleted.get_or_create(&ReasonLabel { reason }));
        }
        for result in CALLBACKS {
            drop(self.callbacks.get_or_create(&CallbackLabel { result }));
        }
        for kind in WATCHED {
            for reason in WATCH_RESTARTS {
                drop(
                    self.watch_restarts
                        .get_or_create(&WatchLabel { kind, reason }),
                );
            }
        }
        for trigger in TRIGGERS {
            drop(
                self.convergence_runs
                    .get_or_create(&TriggerLabel { trigger }),
            );
        }
        for kind in CORRECTIONS {
            drop(
                self.convergence_corrections
                    .get_or_create(&KindLabel { kind }),
            );
        }
    }
}
