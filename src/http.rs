//! The two small servers of each program: /metrics, by TLS and to known users where that is asked for, and the probes on a
//! port of their own.

mod access;
mod connections;
mod server;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use server::LIMITS;

pub use access::{Reviewer, bearer};
pub use tls::{Loaded, TlsError, TlsFiles};

/// OpenMetrics, as Prometheus asks for it by default.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The classic format, which everything else that reads metrics understands.
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
#[error(
    "{flag} {address}: {source}; give an address of this machine with a free port, such as 127.0.0.1:0"
)]
pub struct BindError {
    flag: &'static str,
    address: SocketAddr,
    source: std::io::Error,
}

/// A server that has its port already.
pub struct Bound {
    listener: TcpListener,
    /// The address it listens on, the port being known also where 0 was asked for.
    pub address: SocketAddr,
}

/// Takes the port, so that a wrong address ends the program before it starts work.
///
/// # Errors
/// Names the flag, the address and what the system said.
pub async fn bind(flag: &'static str, address: SocketAddr) -> Result<Bound, BindError> {
    let wrong = |source| BindError {
        flag,
        address,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(wrong)?;
    let address = listener.local_addr().map_err(wrong)?;
    Ok(Bound { listener, address })
}

/// What `/metrics` shows, and to whom.
pub struct Metrics {
    /// What it shows.
    pub registry: Registry,
    /// Serves by TLS with these files; else in plain text.
    pub tls: Option<Loaded>,
    /// Asks who may read; else everybody may.
    pub reviewer: Option<Reviewer>,
}

/// What an answer needs.
struct Page {
    registry: Registry,
    reviewer: Option<Reviewer>,
}

/// Serves `/metrics` until `stop`.
pub async fn serve_metrics(bound: Bound, metrics: Metrics, stop: CancellationToken) {
    let Metrics {
        registry,
        tls,
        reviewer,
    } = metrics;
    let app = Router::new()
        .route("/metrics", get(page))
        .with_state(Arc::new(Page { registry, reviewer }));
    let certificate = tls.map(Loaded::follow);
    server::serve(bound.listener, certificate, app, LIMITS, stop).await;
}

/// Serves `/healthz`, `/livez` and `/readyz` until `stop`. Ready follows `ready`.
pub async fn serve_probes(bound: Bound, ready: watch::Receiver<bool>, stop: CancellationToken) {
    let alive = || async { "ok\n" };
    let app = Router::new()
        .route("/healthz", get(alive))
        .route("/livez", get(alive))
        .route("/readyz", get(readiness))
        .with_state(ready);
    server::serve(bound.listener, None, app, LIMITS, stop).await;
}

async fn readiness(State(ready): State<watch::Receiver<bool>>) -> impl IntoResponse {
    if *ready.borrow() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready yet\n")
    }
}

async fn page(State(page): State<Arc<Page>>, headers: HeaderMap) -> Response {
    if let Some(reviewer) = &page.reviewer
        && let Some((status, why)) = reviewer.refusal(&headers).await
    {
        return match status {
            StatusCode::UNAUTHORIZED => {
                (status, [(header::WWW_AUTHENTICATE, "Bearer")], why).into_response()
            }
            _ => (status, why).into_response(),
        };
    }
    let mut text = String::new();
    if prometheus_client::encoding::text::encode(&mut text, &page.registry).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let text = with_one_dot(&text);
    let accept = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|accept| accept.to_str().ok());
    let (content_type, text) = match prefers_openmetrics(accept) {
        true => (OPENMETRICS, text),
        false => (CLASSIC, plain(&text)),
    };
    (StatusCode::OK, [(header::CONTENT_TYPE, content_type)], text).into_response()
}

/// Whether somebody who accepts these would rather have OpenMetrics. Of what is wanted as much, the classic format is
/// sent: who asks for anything reads that.
pub fn prefers_openmetrics<'a>(accept: impl Iterator<Item = &'a str>) -> bool {
    let (mut openmetrics, mut classic) = (0.0, 0.0);
    for range in accept.flat_map(|accept| accept.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let wanted = match parts.next().unwrap_or_default() {
            "application/openmetrics-text" => &mut openmetrics,
            "text/plain" | "text/*" | "*/*" => &mut classic,
            _ => continue,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q="));
        let quality: f32 = quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0));
        *wanted = quality.max(*wanted);
    }
    openmetrics > classic
}

/// The library ends some help texts with a dot, also those that have their own, and others never.
fn with_one_dot(text: &str) -> String {
    let mut single = String::with_capacity(text.len());
    for line in text.lines() {
        let help = line.starts_with("# HELP ");
        if help {
            single.push_str(line.trim_end_matches('.'));
            single.push('.');
        } else {
            single.push_str(line);
        }
        single.push('\n');
    }
    single
}

/// OpenMetrics text in the classic format, which names a counter with its `_total` in HELP and TYPE too.
fn plain(openmetrics: &str) -> String {
    let header = |line: &str| -> Option<(String, String, String)> {
        let mut words = line.strip_prefix("# ")?.splitn(3, ' ');
        Some((
            words.next()?.to_owned(),
            words.next()?.to_owned(),
            words.next().unwrap_or_default().to_owned(),
        ))
    };
    let counters: std::collections::HashSet<String> = openmetrics
        .lines()
        .filter_map(header)
        .filter(|(word, _, rest)| word == "TYPE" && rest == "counter")
        .map(|(_, name, _)| name)
        .collect();
    let mut text = String::with_capacity(openmetrics.len());
    for line in openmetrics
        .lines()
        .filter(|line| *line != "# EOF" && !line.starts_with("# UNIT "))
    {
        match header(line) {
            Some((word, name, rest)) if counters.contains(&name) => {
                text.push_str(&format!("# {word} {name}_total {rest}\n"));
            }
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{plain, prefers_openmetrics, with_one_dot};

    #[test]
    fn the_classic_format_names_counters_in_full() {
        let text = "# HELP a Things.\n# TYPE a counter\na_total 1\n# HELP b Now.\n# TYPE b gauge\nb 2\n# EOF\n";
        let expected = "# HELP a_total Things.\n# TYPE a_total counter\na_total 1\n# HELP b Now.\n# TYPE b gauge\nb 2\n";
        assert_eq!(plain(text), expected);
    }

    #[test]
    fn the_format_is_the_one_that_is_asked_for() {
        for (accept, openmetrics) in [
            // Prometheus 3.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                true,
            ),
            ("application/openmetrics-text", true),
            ("application/openmetrics-text; q=0.1, text/plain", false),
            ("application/openmetrics-text;q=0", false),
            ("text/plain;version=0.0.4", false),
            ("*/*", false),
            ("text/html, */*;q=0.1", false),
            ("", false),
        ] {
            assert_eq!(
                prefers_openmetrics([accept].into_iter()),
                openmetrics,
                "{accept}"
            );
        }
        let lines = ["text/plain;q=0.5", "application/openmetrics-text"];
        assert!(prefers_openmetrics(lines.into_iter()), "several headers");
        assert!(!prefers_openmetrics([].into_iter()), "no header");
    }

    #[test]
    fn every_help_text_ends_with_one_dot() {
        let text = "# HELP a Things..\n# TYPE a gauge\na{b=\"..\"} 1\n# HELP b More\n# EOF\n";
        let expected = "# HELP a Things.\n# TYPE a gauge\na{b=\"..\"} 1\n# HELP b More.\n# EOF\n";
        assert_eq!(with_one_dot(text), expected);
    }
}
