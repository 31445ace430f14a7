//! Sending a callback: a few tries, each bounded in time, to checked addresses alone.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{Method, Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::Body;
use tower::Service;

use super::look_up::LookUps;
use super::policy::{Denied, HostPolicy};
use super::target::Target;
use crate::converge::task::Settlement;

/// How often a callback is tried before it is left to the kick (Diego's `MAX_CB_RETRIES`).
pub const TRIES: u32 = 3;

/// The pause after the first try; it doubles.
const PAUSE: Duration = Duration::from_millis(500);

/// What came of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// It is settled for good.
    Settled(Settlement),
    /// No try had an answer that counts; the last one's problem.
    Unanswered(String),
}

/// Every connection goes to an address that was checked.
type Tcp = HttpConnector<CheckedResolver>;

/// Sends callbacks.
#[derive(Clone)]
pub struct Courier {
    plain: Client<Tcp, Body>,
    /// Or why there is no https.
    secure: Result<Client<HttpsConnector<Tcp>, Body>, String>,
    policy: Arc<HostPolicy>,
    timeout: Duration,
}

impl Courier {
    /// A courier that obeys `policy` and gives each try `timeout`, from the look-up of the host to the answer's head.
    pub fn new(policy: HostPolicy, timeout: Duration) -> Self {
        let policy = Arc::new(policy);
        let resolver = CheckedResolver {
            policy: policy.clone(),
            look_ups: LookUps::default(),
        };
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Shared among the host's addresses, so that one that hangs leaves time for the next.
        tcp.set_connect_timeout(Some(timeout));
        // A machine without authorities can still do all the rest.
        let tls = HttpsConnectorBuilder::new().with_native_roots();
        let secure = tls.map_err(|error| format!("this machine has no certificate authorities ({error}): install the package ca-certificates, or set SSL_CERT_FILE"));
        if let Err(problem) = &secure {
            tracing::warn!(problem, "no completion callback can be sent by https");
        }
        let secure = secure.map(|tls| {
            let https = tls.https_only().enable_http1().wrap_connector(tcp.clone());
            builder().build(https)
        });
        Courier {
            plain: builder().build(tcp),
            secure,
            policy,
            timeout,
        }
    }

    /// The longest a delivery can take.
    pub fn longest(timeout: Duration) -> Duration {
        timeout * TRIES + PAUSE * (2u32.pow(TRIES - 1) - 1)
    }

    /// Delivers `body` to `url`. 503, 504, silence and failed connections are tried again.
    pub async fn deliver(&self, url: &str, body: &[u8]) -> Delivery {
        let target = match Target::parse(url) {
            Ok(target) => target,
            Err(problem) => return Delivery::Settled(Settlement::InvalidUrl { problem }),
        };
        // Addresses are not looked up, so the resolver would not see this one.
        let allowed = match target.address() {
            Some(address) => self.policy.check(&target.host, address),
            None => self.policy.check_name(&target.host),
        };
        if let Err(denied) = allowed {
            return not_allowed(&denied);
        }
        let mut problem = String::new();
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(PAUSE * 2u32.pow(attempt - 1)).await;
            }
            match self.attempt(&target, body).await {
                Ok(StatusCode::SERVICE_UNAVAILABLE) => problem = "it answered 503".into(),
                Ok(StatusCode::GATEWAY_TIMEOUT) => problem = "it answered 504".into(),
                Ok(status) => {
                    let status = status.as_u16();
                    return Delivery::Settled(Settlement::Answered { status });
                }
                Err(Failed::Denied(denied)) => return not_allowed(&denied),
                Err(Failed::Silent) => problem = format!("no answer within {:?}", self.timeout),
                Err(Failed::Other(other)) => problem = other,
            }
        }
        Delivery::Unanswered(problem)
    }

    /// One try. Only the answer's head is read: the connection is closed on the rest, however long it is.
    async fn attempt(&self, target: &Target, body: &[u8]) -> Result<StatusCode, Failed> {
        let mut request = Request::new(Body::from(body.to_vec()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = target.uri.clone();
        let headers = request.headers_mut();
        let agent = concat!("diego-controller/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, http::HeaderValue::from_static(agent));
        let json = http::HeaderValue::from_static("application/json");
        headers.insert(CONTENT_TYPE, json);
        if let Some(authorization) = &target.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let answer = match &self.secure {
            Ok(secure) if target.is_https() => secure.request(request),
            Err(problem) if target.is_https() => return Err(Failed::Other(problem.clone())),
            Ok(_) | Err(_) => self.plain.request(request),
        };
        match tokio::time::timeout(self.timeout, answer).await {
            Err(_) => Err(Failed::Silent),
            Ok(Ok(response)) => Ok(response.status()),
            Ok(Err(error)) => Err(Failed::from(&error as &(dyn Error + 'static))),
        }
    }
}

/// No connection is kept: the next callback's host is looked up and checked anew.
fn builder() -> hyper_util::client::legacy::Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .pool_max_idle_per_host(0)
        .retry_canceled_requests(false);
    builder
}

fn not_allowed(denied: &Denied) -> Delivery {
    let problem = denied.to_string();
    Delivery::Settled(Settlement::HostNotAllowed { problem })
}

/// Why a try had no answer.
enum Failed {
    Denied(Denied),
    Silent,
    Other(String),
}

impl From<&(dyn Error + 'static)> for Failed {
    fn from(error: &(dyn Error + 'static)) -> Self {
        let mut words = error.to_string();
        let mut inner = error.source();
        while let Some(cause) = inner {
            if let Some(denied) = cause.downcast_ref::<Denied>() {
                return Failed::Denied(denied.clone());
            }
            words = format!("{words}: {cause}");
            inner = cause.source();
        }
        Failed::Other(words)
    }
}

/// Looks up a host and hands on only those addresses that the policy allows: what is connected to is what was
/// checked, whatever the name leads to a moment later.
#[derive(Clone)]
struct CheckedResolver {
    policy: Arc<HostPolicy>,
    look_ups: LookUps,
}

impl Service<Name> for CheckedResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let CheckedResolver { policy, look_ups } = self.clone();
        Box::pin(async move {
            let found = look_ups.addresses(name.as_str()).await?;
            let allowed = allowed(&policy, name.as_str(), found.into_iter())?;
            // The connector puts in the port.
            let addresses = allowed.into_iter().map(|address| (address, 0).into());
            Ok(addresses.collect::<Vec<SocketAddr>>().into_iter())
        })
    }
}

/// Those of a host's addresses that may be connected to; if there are none, why the first may not.
fn allowed(
    policy: &HostPolicy,
    host: &str,
    found: impl Iterator<Item = IpAddr>,
) -> Result<Vec<IpAddr>, Denied> {
    let mut first = None;
    let mut allowed = Vec::new();
    for address in found {
        match policy.check(host, address) {
            Ok(()) => allowed.push(address),
            Err(denied) => first = first.or(Some(denied)),
        }
    }
    match first {
        Some(denied) if allowed.is_empty() => Err(denied),
        _ => Ok(allowed),
    }
}

#[cfg(test)]
mod tests;
