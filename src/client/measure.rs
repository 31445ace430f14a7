//! Counts and times every request to the API server, in one layer under every client.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use http::{Request, Response};
use kube::client::Body;
use tower::{Layer, Service};

use crate::metrics::{ClientMetrics, RequestLabel, VerbLabel};

/// Counts and times every request of a client.
#[derive(Clone)]
pub struct MeasureLayer {
    metrics: ClientMetrics,
    host: String,
}

impl MeasureLayer {
    /// Enters into `metrics` what is asked of `host`.
    pub fn new(metrics: ClientMetrics, host: String) -> Self {
        MeasureLayer { metrics, host }
    }
}

impl<S> Layer<S> for MeasureLayer {
    type Service = Measure<S>;

    fn layer(&self, inner: S) -> Measure<S> {
        Measure {
            inner,
            metrics: self.metrics.clone(),
            host: self.host.clone(),
        }
    }
}

/// The service of [`MeasureLayer`].
#[derive(Clone)]
pub struct Measure<S> {
    inner: S,
    metrics: ClientMetrics,
    host: String,
}

impl<S, B> Service<Request<Body>> for Measure<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = request.method().to_string();
        let (metrics, host) = (self.metrics.clone(), self.host.clone());
        let sent = Instant::now();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let result = answer.await;
            let code = match &result {
                Ok(response) => response.status().as_str().to_owned(),
                Err(_) => "<error>".to_owned(),
            };
            let verb = VerbLabel {
                verb: method.clone(),
                host: host.clone(),
            };
            metrics
                .duration
                .get_or_create(&verb)
                .observe(sent.elapsed().as_secs_f64());
            metrics
                .requests
                .get_or_create(&RequestLabel { code, method, host })
                .inc();
            result
        })
    }
}
