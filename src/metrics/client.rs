//! The metrics of the API client, under the names of client-go.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::buckets::request_histogram;
use super::labels::{RequestLabel, VerbLabel};

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
