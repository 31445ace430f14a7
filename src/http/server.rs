//! The one way in which all ports are served, by TLS or not: whoever reaches them can neither use up the program's memory
//! nor its files, nor keep others from being answered.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::connections::{Caps, Connections, Place};

/// Connections that have lost their place and are about to end.
const ENDING: usize = 16;

/// What a connection may hold of a request's head: a token, and some more.
const BUFFER: usize = 32 << 10;

/// What a port bears.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections, handshakes among them.
    pub connections: Caps,
    /// For a TLS handshake.
    pub handshake: Duration,
    /// For the head of a request, from the connection's begin or the answer before.
    pub request: Duration,
    /// For a connection as a whole; whoever needs it longer connects again.
    pub life: Duration,
}

/// The same for every port: those who come are a few scrapers, or the kubelet.
pub const LIMITS: Limits = Limits {
    connections: Caps {
        per_peer: 16,
        all: 64,
    },
    handshake: Duration::from_secs(5),
    request: Duration::from_secs(10),
    life: Duration::from_secs(300),
};

/// The certificate to serve with, as it is now.
pub type Certificate = watch::Receiver<Arc<ServerConfig>>;

/// Serves until `stop`, and then until those who are being answered have their answers.
pub async fn serve(
    listener: TcpListener,
    certificate: Option<Certificate>,
    app: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    let connections = Connections::new(limits.connections);
    let files = Arc::new(Semaphore::new(limits.connections.all + ENDING));
    let tasks = TaskTracker::new();
    loop {
        let taken = async {
            let file = files.clone().acquire_owned().await;
            let (stream, peer) = accept(&listener).await;
            (file, stream, peer)
        };
        let (file, stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            taken = taken => taken,
        };
        let connection = Connection {
            place: connections.admit(peer.ip().to_canonical()),
            acceptor: certificate
                .as_ref()
                .map(|now| TlsAcceptor::from(now.borrow().clone())),
            app: app.clone(),
            limits,
            stop: stop.clone(),
        };
        tasks.spawn(async move {
            connection.run(stream, peer).await;
            drop(file);
        });
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(taken) => return taken,
            Err(error) => {
                // Out of file descriptors, most likely: something has to end first.
                tracing::debug!(%error, "a connection could not be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One connection, and all that it needs.
struct Connection {
    place: Place,
    acceptor: Option<TlsAcceptor>,
    app: Router,
    limits: Limits,
    stop: CancellationToken,
}

impl Connection {
    async fn run(self, stream: TcpStream, peer: SocketAddr) {
        let work = async {
            match &self.acceptor {
                None => self.speak(stream, peer).await,
                Some(acceptor) => {
                    let handshake = acceptor.accept(stream);
                    match tokio::time::timeout(self.limits.handshake, handshake).await {
                        Ok(Ok(stream)) => self.speak(stream, peer).await,
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS handshake"),
                        Err(_) => tracing::debug!(%peer, "no TLS handshake in time"),
                    }
                }
            }
        };
        tokio::select! {
            () = self.place.end.cancelled() => {
                tracing::debug!(%peer, "a connection is ended: there are too many, and newer ones");
            }
            () = work => {}
        }
    }

    async fn speak(&self, stream: impl AsyncRead + AsyncWrite + Unpin, peer: SocketAddr) {
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let answering = self.place.answering();
            let app = self.app.clone();
            async move {
                let _answering = answering;
                let answer: Result<_, Infallible> = app.oneshot(request.map(Body::new)).await;
                answer
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.request)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = async {
                tokio::select! {
                    () = self.stop.cancelled() => {}
                    () = tokio::time::sleep(self.limits.life) => {}
                }
            } => {
                connection.as_mut().graceful_shutdown();
                match tokio::time::timeout(self.limits.request, connection).await {
                    Ok(ended) => ended,
                    Err(_) => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "a connection has failed");
        }
    }
}

#[cfg(test)]
mod tests;
