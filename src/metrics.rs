//! Every metric of the controller and of the API client, defined once.
//!
//! Names that stock dashboards expect are taken over to the letter (`controller_runtime_*`,
//! `rest_client_*`); the domain's own begin with `diego_`. All label sets exist from the start, since
//! `increase()` misses the jump of a series that first appears with its first event.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::converge::cell::Source;
use crate::converge::lrp::StartReason;
use crate::converge::task::{DeleteReason, FailureKind};

/// The reconcilers, as the label `controller` names them.
pub const CONTROLLERS: [&str; 3] = ["cell", "desiredlrp", "task"];

/// Label set with the name of a reconciler.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ControllerLabel {
    /// cell, desiredlrp or task.
    pub controller: &'static str,
}

/// Label set of a reconcile's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    /// cell, desiredlrp or task.
    pub controller: &'static str,
    /// requeue_after or error: every reconcile asks to be run again, as the safety net.
    pub result: &'static str,
}

/// Label set with what noticed a loss.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SourceLabel {
    /// watch or resync.
    pub source: &'static str,
}

/// Label set with an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// What came of it.
    pub outcome: &'static str,
}

/// Label set with a reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// Why.
    pub reason: &'static str,
}

/// Label set of a completion callback.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CallbackLabel {
    /// What came of it.
    pub result: &'static str,
}

/// Label set of an API request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabel {
    /// HTTP status, or `<error>` where there was none.
    pub code: String,
    /// HTTP method.
    pub method: String,
    /// The API server.
    pub host: String,
}

/// Label set of an API request's duration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct VerbLabel {
    /// HTTP method.
    pub verb: String,
    /// The API server.
    pub host: String,
}

/// Label set of the build.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabel {
    version: &'static str,
}

/// controller-runtime's reconcile buckets, in seconds.
fn reconcile_histogram() -> Histogram {
    Histogram::new([
        0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8,
        0.9, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0,
        15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0,
    ])
}

fn request_histogram() -> Histogram {
    Histogram::new([
        0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0,
    ])
}

fn start_delay_histogram() -> Histogram {
    Histogram::new([
        0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    ])
}

fn recovery_histogram() -> Histogram {
    Histogram::new([0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0])
}

/// The API client's metrics.
#[derive(Debug, Clone)]
pub struct ClientMetrics {
    /// rest_client_requests_total.
    pub requests: Family<RequestLabel, Counter>,
    /// rest_client_request_duration_seconds.
    pub duration: Family<VerbLabel, Histogram, fn() -> Histogram>,
}

impl ClientMetrics {
    /// Registers the client's metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = ClientMetrics {
            requests: Family::default(),
            duration: Family::new_with_constructor(request_histogram),
        };
        registry.register(
            "rest_client_requests",
            "HTTP requests to the API server, by status code, method and host",
            metrics.requests.clone(),
        );
        registry.register(
            "rest_client_request_duration_seconds",
            "Time from sending a request to the API server until its answer began, in seconds",
            metrics.duration.clone(),
        );
        metrics
    }
}

/// The controller's metrics.
#[derive(Debug, Clone)]
pub struct ControllerMetrics {
    /// controller_runtime_reconcile_total.
    pub reconciles: Family<ResultLabel, Counter>,
    /// controller_runtime_reconcile_errors_total.
    pub reconcile_errors: Family<ControllerLabel, Counter>,
    /// controller_runtime_reconcile_time_seconds.
    pub reconcile_time: Family<ControllerLabel, Histogram, fn() -> Histogram>,
    /// controller_runtime_active_workers.
    pub active_workers: Family<ControllerLabel, Gauge>,
    /// diego_cell_presence_expired_total.
    pub presence_expired: Family<SourceLabel, Counter>,
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
    /// diego_watch_restarts_total of the presence watch.
    pub watch_restarts: Family<ReasonLabel, Counter>,
    /// diego_presence_store_reachable.
    pub store_reachable: Gauge,
    /// diego_events_dropped_total.
    pub events_dropped: Counter,
    /// diego_convergence_last_success_timestamp_seconds.
    pub last_resync: Gauge<f64, AtomicU64>,
}

/// Outcomes of `diego_actuallrps_recovered_total`.
pub const RECOVERED: [&str; 4] = ["placed", "waiting", "conflict", "error"];

/// Results of `diego_task_callbacks_total`.
pub const CALLBACKS: [&str; 4] = ["delivered", "refused", "not_allowed", "unanswered"];

/// Outcomes of `diego_writes_total`.
pub const WRITES: [&str; 5] = ["written", "conflict", "error", "timeout", "not_leading"];

/// Why a watch was restarted.
pub const WATCH_RESTARTS: [&str; 4] = ["compacted", "error", "closed", "silent"];

impl ControllerMetrics {
    /// Registers the controller's metrics, with every label set at 0.
    pub fn new(registry: &mut Registry) -> Arc<Self> {
        let metrics = ControllerMetrics {
            reconciles: Family::default(),
            reconcile_errors: Family::default(),
            reconcile_time: Family::new_with_constructor(reconcile_histogram),
            active_workers: Family::default(),
            presence_expired: Family::default(),
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
            last_resync: Gauge::default(),
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
            drop(
                self.active_workers
                    .get_or_create(&ControllerLabel { controller }),
            );
        }
        for source in [Source::Watch, Source::Resync].map(Source::as_str) {
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
        for reason in WATCH_RESTARTS {
            drop(self.watch_restarts.get_or_create(&ReasonLabel { reason }));
        }
    }

    fn register(&self, registry: &mut Registry) {
        let build: Family<BuildLabel, Gauge> = Family::default();
        build
            .get_or_create(&BuildLabel {
                version: env!("CARGO_PKG_VERSION"),
            })
            .set(1);
        registry.register("diego_build_info", "The program's version; always 1", build);
        registry.register(
            "controller_runtime_reconcile",
            "Reconciles, by reconciler and outcome",
            self.reconciles.clone(),
        );
        registry.register(
            "controller_runtime_reconcile_errors",
            "Reconciles that failed, by reconciler",
            self.reconcile_errors.clone(),
        );
        registry.register(
            "controller_runtime_reconcile_time_seconds",
            "Duration of a reconcile, in seconds",
            self.reconcile_time.clone(),
        );
        registry.register(
            "controller_runtime_active_workers",
            "Reconciles under way",
            self.active_workers.clone(),
        );
        registry.register(
            "diego_cell_presence_expired",
            "Cells found lost, by what noticed it; resync means that the watch missed one",
            self.presence_expired.clone(),
        );
        registry.register(
            "diego_cell_recovery_start_delay_seconds",
            "From noticing that a presence is gone to the first write of the recovery, in seconds",
            self.recovery_start_delay.clone(),
        );
        registry.register(
            "diego_cell_recovery_duration_seconds",
            "From noticing that a presence is gone until all its work was placed or failed, in seconds",
            self.recovery_duration.clone(),
        );
        registry.register(
            "diego_actuallrp_downtime_seconds",
            "From the last renewal of a lost Cell (its loss less the TTL) until an instance it ran was Running elsewhere, in seconds",
            self.downtime.clone(),
        );
        registry.register(
            "diego_actuallrps_recovered",
            "ActualLRPs of lost Cells, by what came of their recovery",
            self.recovered.clone(),
        );
        registry.register(
            "diego_actuallrp_starts",
            "Instances given a place, by reason",
            self.starts.clone(),
        );
        registry.register(
            "diego_tasks_failed",
            "Tasks failed by the controller, by reason",
            self.tasks_failed.clone(),
        );
        registry.register(
            "diego_tasks_kicked",
            "Tasks whose completion callback is delivered again, because nobody answered it",
            self.tasks_kicked.clone(),
        );
        registry.register(
            "diego_tasks_deleted",
            "Finished Tasks deleted by the controller, by reason",
            self.tasks_deleted.clone(),
        );
        registry.register(
            "diego_task_callbacks",
            "Deliveries of completion callbacks, of up to three tries each, by what came of them",
            self.callbacks.clone(),
        );
        registry.register(
            "diego_task_callback_duration_seconds",
            "Duration of a delivery with all its tries, in seconds",
            self.callback_duration.clone(),
        );
        registry.register(
            "diego_writes",
            "Writes of the controller, by outcome",
            self.writes.clone(),
        );
        registry.register(
            "diego_actuallrp_crashes",
            "Crashes of instances",
            self.crashes.clone(),
        );
        registry.register(
            "diego_watch_restarts",
            "Restarts of the presence watch, by reason",
            self.watch_restarts.clone(),
        );
        registry.register(
            "diego_presence_store_reachable",
            "1 while the presence watch hears from its store, else 0",
            self.store_reachable.clone(),
        );
        registry.register(
            "diego_events_dropped",
            "Events not published because too many were waiting",
            self.events_dropped.clone(),
        );
        registry.register(
            "diego_convergence_last_success_timestamp_seconds",
            "When the resync last went through a Cell without an error, in seconds since 1970",
            self.last_resync.clone(),
        );
    }
}
