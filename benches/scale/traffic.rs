//! Requests and watch events at the API server, by its own count, and the controller's requests by its own.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use local_cluster::Etcd;

use crate::support::{Failure, http, site::Site};

/// An answer may take so long while everything is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Our kinds' group.
const GROUP: &str = "diego.cloudfoundry.org";

/// Counts since the servers started, or of a while.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// Requests about our kinds, Leases and Events, by verb and resource.
    pub requests: BTreeMap<String, f64>,
    /// Watch events of our kinds that were sent, each once per watch.
    pub watch_events: f64,
    /// Their bytes.
    pub watch_bytes: f64,
    /// The controller's requests, by method.
    pub controller: BTreeMap<String, f64>,
    /// What the API server's etcd did.
    pub etcd: BTreeMap<String, f64>,
    /// What the presence etcd did.
    pub presence_etcd: BTreeMap<String, f64>,
}

impl Traffic {
    /// The counts so far.
    pub async fn read(site: &Site) -> Result<Traffic, Failure> {
        let request = ::http::Request::get("/metrics").body(Vec::new())?;
        let text = site.client.request_text(request).await?;
        let mut traffic = Traffic::default();
        for (name, labels, value) in text.lines().filter_map(sample) {
            let label = |name| label(labels, name);
            let ours = label("group") == GROUP;
            match name {
                "apiserver_request_total"
                    if ours || ["leases", "events"].contains(&label("resource")) =>
                {
                    let sub = label("subresource");
                    let slash = if sub.is_empty() { "" } else { "/" };
                    let what = format!("{} {}{slash}{sub}", label("verb"), label("resource"));
                    *traffic.requests.entry(what).or_default() += value;
                }
                "apiserver_watch_events_total" if ours => traffic.watch_events += value,
                "apiserver_watch_events_sizes_sum" if ours => traffic.watch_bytes += value,
                _ => {}
            }
        }
        for (name, labels, value) in site.metrics().await?.lines().filter_map(sample) {
            if name == "rest_client_requests_total" {
                let method = label(labels, "method").to_owned();
                *traffic.controller.entry(method).or_default() += value;
            }
        }
        traffic.etcd = etcd_counts(site.cluster.etcd()).await?;
        traffic.presence_etcd = etcd_counts(&site.etcd).await?;
        Ok(traffic)
    }

    /// What came since then, without what did not.
    pub fn since(&self, before: &Traffic) -> Traffic {
        let less = |now: &BTreeMap<String, f64>, before: &BTreeMap<String, f64>| {
            let counts = now.iter().map(|(what, count)| {
                let earlier = before.get(what).copied().unwrap_or_default();
                (what.clone(), count - earlier)
            });
            counts.filter(|(_, count)| *count > 0.0).collect()
        };
        Traffic {
            requests: less(&self.requests, &before.requests),
            watch_events: self.watch_events - before.watch_events,
            watch_bytes: self.watch_bytes - before.watch_bytes,
            controller: less(&self.controller, &before.controller),
            etcd: less(&self.etcd, &before.etcd),
            presence_etcd: less(&self.presence_etcd, &before.presence_etcd),
        }
    }

    /// A part of it.
    pub fn divided(&self, by: f64) -> Traffic {
        let part = |counts: &BTreeMap<String, f64>| {
            let parts = counts
                .iter()
                .map(|(what, count)| (what.clone(), count / by));
            parts.collect()
        };
        Traffic {
            requests: part(&self.requests),
            watch_events: self.watch_events / by,
            watch_bytes: self.watch_bytes / by,
            controller: part(&self.controller),
            etcd: part(&self.etcd),
            presence_etcd: part(&self.presence_etcd),
        }
    }

    /// Changes of our kinds, by whomever.
    pub fn writes(&self) -> f64 {
        let about_ours = self.requests.iter().filter(|(what, _)| {
            let (verb, resource) = what.split_once(' ').unwrap_or_default();
            let reads = ["GET", "LIST", "WATCH"].contains(&verb);
            !reads && !["leases", "events"].contains(&resource)
        });
        about_ours
            .map(|(_, count)| count)
            .fold(0.0, |sum, one| sum + one)
    }

    /// The controller's requests of these methods.
    pub fn by_controller(&self, methods: &[&str]) -> f64 {
        let counts = methods
            .iter()
            .filter_map(|method| self.controller.get(*method));
        counts.fold(0.0, |sum, one| sum + one)
    }
}

/// Requests, messages of its streams, changes and bytes of an etcd, by its own count.
async fn etcd_counts(etcd: &Etcd) -> Result<BTreeMap<String, f64>, Failure> {
    let endpoint = etcd.endpoints().into_iter().next().unwrap_or_default();
    let address = endpoint.trim_start_matches("http://");
    let page = http::get(address, "/metrics", PATIENCE).await;
    let (_, text) = page.ok_or("etcd serves no metrics")?;
    let mut counts: BTreeMap<String, f64> = BTreeMap::new();
    for (name, labels, value) in text.lines().filter_map(sample) {
        let method = label(labels, "grpc_method");
        let what = match name {
            "grpc_server_msg_received_total" => format!("{method} requests"),
            "grpc_server_msg_sent_total" if method == "Watch" => "Watch answers".into(),
            "etcd_debugging_mvcc_events_total" => "watch events".into(),
            "etcd_mvcc_put_total" => "puts".into(),
            "etcd_mvcc_delete_total" => "deletes".into(),
            "etcd_debugging_server_lease_expired_total" => "leases expired".into(),
            "etcd_network_client_grpc_received_bytes_total" => "bytes received".into(),
            "etcd_network_client_grpc_sent_bytes_total" => "bytes sent".into(),
            _ => continue,
        };
        *counts.entry(what).or_default() += value;
    }
    Ok(counts)
}

/// Name, labels and value of a line of a metrics page.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    Some((name, labels, value.parse().ok()?))
}

/// The value of a label; none of those that are asked for holds a quote.
fn label<'a>(labels: &'a str, name: &str) -> &'a str {
    let mut all = labels.trim_end_matches('}').split("\",");
    let value = all.find_map(|one| one.strip_prefix(name)?.strip_prefix("=\""));
    value.unwrap_or_default().trim_end_matches('"')
}
