//! Writes are sent only while a gate is open: the one place that every write of a controller that may be deposed
//! passes, whoever decided on it and however long ago.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http::Request;
use kube::client::Body;
use tokio::sync::watch;
use tower::{BoxError, Layer, Service};

/// Lets writes through until a deadline that is moved again and again; reads pass always.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<Opening>>);

#[derive(Debug, Clone, Copy)]
enum Opening {
    Always,
    /// A deadline and no flag: a process that is frozen closes its gate by that alone.
    Until(Instant),
    Shut,
}

/// Why a write has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It was never sent.
    #[error("not sent: this controller does not lead")]
    NotSent,
    /// It was under way when the gate shut: whether it took effect is unknown.
    #[error("cut off: this controller does not lead any more")]
    CutOff,
}

impl Gate {
    /// A gate that is never shut.
    pub fn always_open() -> Self {
        Gate(Arc::new(watch::Sender::new(Opening::Always)))
    }

    /// A gate that is shut until it is opened.
    pub fn new_shut() -> Self {
        Gate(Arc::new(watch::Sender::new(Opening::Shut)))
    }

    /// Whether a write may be sent in this instant.
    pub fn is_open(&self) -> bool {
        match *self.0.borrow() {
            Opening::Always => true,
            Opening::Until(until) => Instant::now() < until,
            Opening::Shut => false,
        }
    }

    /// Opens it until `until`, or moves the end of its opening.
    pub fn open_until(&self, until: Instant) {
        self.0.send_replace(Opening::Until(until));
    }

    /// Shuts it.
    pub fn shut(&self) {
        self.0.send_replace(Opening::Shut);
    }

    /// Waits until it is shut.
    pub async fn shuts(&self) {
        let mut opening = self.0.subscribe();
        loop {
            let now = *opening.borrow_and_update();
            match now {
                Opening::Always => return std::future::pending().await,
                Opening::Shut => return,
                Opening::Until(until) if until <= Instant::now() => return,
                Opening::Until(until) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(until.into()) => {}
                        // Never an error: this gate holds the sender.
                        _ = opening.changed() => {}
                    }
                }
            }
        }
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated {
            inner,
            gate: self.clone(),
        }
    }
}

/// The service behind a [`Gate`].
#[derive(Debug, Clone)]
pub struct Gated<S> {
    inner: S,
    gate: Gate,
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Error = BoxError>,
    S::Future: Send + 'static,
    S::Response: 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let reads = request.method().is_safe();
        let answer = self.inner.call(request);
        if reads {
            return Box::pin(answer);
        }
        let gate = self.gate.clone();
        Box::pin(async move {
            // Looked at with the first poll, which is what sends: a request may have waited for its turn.
            if !gate.is_open() {
                return Err(Refused::NotSent.into());
            }
            tokio::select! {
                biased;
                answer = answer => answer,
                // It may still wait for a connection, and must not be sent after somebody else leads.
                () = gate.shuts() => Err(Refused::CutOff.into()),
            }
        })
    }
}

#[cfg(test)]
mod tests;
