//! Names and help texts of the controller's metrics.

use prometheus_client::registry::Registry;

use super::ControllerMetrics;

impl ControllerMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
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
            "controller_runtime_reconcile_panics",
            "Reconciles that panicked, by reconciler",
            self.reconcile_panics.clone(),
        );
        registry.register(
            "controller_runtime_max_concurrent_reconciles",
            "Reconciles that may be under way at once, by reconciler; 0 means any number",
            self.max_workers.clone(),
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
            "diego_mass_loss_guard_active",
            "1 while so many Cells are gone at once that their losses are held back, else 0",
            self.guard_active.clone(),
        );
        registry.register(
            "diego_cell_losses_held",
            "Cells whose presence is gone and whose loss is held back",
            self.losses_held.clone(),
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
            "Watches that broke or went silent and were begun again, by what is watched and reason",
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
            "diego_convergence_runs",
            "Convergence runs, in which every Cell, DesiredLRP and Task was looked at once, by what began them",
            self.convergence_runs.clone(),
        );
        registry.register(
            "diego_convergence_duration_seconds",
            "The time of a convergence run in which something was looked at, in seconds",
            self.convergence_duration.clone(),
        );
        registry.register(
            "diego_convergence_corrections",
            "What only the convergence interval found, so that an event was missed, by kind",
            self.convergence_corrections.clone(),
        );
        registry.register(
            "diego_convergence_last_success_timestamp_seconds",
            "When a convergence run last ended with no look in error, in seconds since 1970; 0 before the first",
            self.convergence_success.clone(),
        );
    }
}
