//! Requests and watch events at the API server, by its own count, and the controller's requests by its own.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::support::{Failure, site::Site};

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
}

impl Traffic {
    /// The counts so far.
    pub async fn read(site: &Site) -> Result<Traffic, Failure> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
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
