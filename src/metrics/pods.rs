//! The metrics of the `pods` executor, with every label set at 0 from the start.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::labels::{OutcomeLabel, ReasonLabel};
use crate::converge::pods::{DeleteWhy, Rejection};

/// What came of making a Pod. The label `outcome` of its metric.
pub const POD_CREATIONS: [&str; 4] = ["created", "exists", "refused", "error"];

/// The metrics of the `pods` executor.
#[derive(Debug, Clone, Default)]
pub struct PodMetrics {
    /// diego_pod_creations_total.
    pub creations: Family<OutcomeLabel, Counter>,
    /// diego_pod_deletions_total.
    pub deletions: Family<ReasonLabel, Counter>,
    /// diego_pod_rejections_total.
    pub rejections: Family<ReasonLabel, Counter>,
}

impl PodMetrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = PodMetrics::default();
        for outcome in POD_CREATIONS {
            drop(metrics.creations.get_or_create(&OutcomeLabel { outcome }));
        }
        for reason in DeleteWhy::ALL.map(DeleteWhy::as_str) {
            drop(metrics.deletions.get_or_create(&ReasonLabel { reason }));
        }
        for reason in Rejection::ALL.map(Rejection::as_str) {
            drop(metrics.rejections.get_or_create(&ReasonLabel { reason }));
        }
        registry.register(
            "diego_pod_creations",
            "Pods made for instances and Tasks, by what came of it",
            metrics.creations.clone(),
        );
        registry.register(
            "diego_pod_deletions",
            "Pods deleted by the controller, by reason",
            metrics.deletions.clone(),
        );
        registry.register(
            "diego_pod_rejections",
            "Instances and Tasks that a node gave back or the API server refused, which is no crash, by reason",
            metrics.rejections.clone(),
        );
        metrics
    }
}
