//! TLS for `/metrics`: handshakes that hold up nobody, and certificate files that may be renewed while it serves.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto::ring};
use tokio_rustls::server::TlsStream;
use tokio_util::task::AbortOnDropHandle;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Handshakes under way at once; who comes then is turned away. Scrapers are few.
const HANDSHAKES: usize = 32;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// The PEM files of `--metrics-tls-cert` and `--metrics-tls-key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those between it and its authority.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Files that can't be served with.
#[derive(Debug, thiserror::Error)]
#[error(
    "--metrics-tls-cert {} and --metrics-tls-key {}: {problem}; give the PEM files of a certificate and its key",
    files.cert.display(), files.key.display()
)]
pub struct TlsError {
    files: TlsFiles,
    problem: String,
}

/// What the files held when they were read, and what is served with it.
pub struct Loaded {
    files: TlsFiles,
    text: Text,
    config: Arc<ServerConfig>,
}

/// Certificate and key. Never shown.
type Text = (Vec<u8>, Vec<u8>);

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// When they can't be read, or are no certificate and key that belong together.
    pub async fn load(self) -> Result<Loaded, TlsError> {
        let text = self.read().await?;
        let config = self.config(&text)?;
        Ok(Loaded {
            files: self,
            text,
            config,
        })
    }

    async fn read(&self) -> Result<Text, TlsError> {
        let cert = tokio::fs::read(&self.cert).await;
        let key = tokio::fs::read(&self.key).await;
        Ok((
            cert.map_err(|error| self.wrong(error))?,
            key.map_err(|error| self.wrong(error))?,
        ))
    }

    fn config(&self, (cert, key): &Text) -> Result<Arc<ServerConfig>, TlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert).collect();
        let chain = chain.map_err(|error| self.wrong(error))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| self.wrong(error))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
        config.map(Arc::new).map_err(|error| self.wrong(error))
    }

    fn wrong(&self, problem: impl std::fmt::Display) -> TlsError {
        TlsError {
            files: self.clone(),
            problem: problem.to_string(),
        }
    }
}

impl Loaded {
    /// Takes on files that have changed, if they are good; `refused` are those that were not.
    async fn refresh(&mut self, refused: &mut Option<Text>) {
        let result = match self.files.read().await {
            Ok(text) if text == self.text || refused.as_ref() == Some(&text) => return,
            Ok(text) => match self.files.config(&text) {
                Ok(config) => {
                    tracing::info!("the certificate of /metrics has changed");
                    (self.text, self.config) = (text, config);
                    return;
                }
                Err(error) => {
                    *refused = Some(text);
                    error
                }
            },
            Err(error) => error,
        };
        tracing::warn!(error = %result, "the new certificate of /metrics can't be used; serving with the old one");
    }
}

/// A listener whose connections have their handshake behind them.
pub struct TlsListener {
    connections: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl TlsListener {
    /// Takes connections from now on.
    pub fn start(listener: TcpListener, address: SocketAddr, loaded: Loaded) -> Self {
        let (ready, connections) = mpsc::channel(1);
        Self {
            connections,
            address,
            _task: AbortOnDropHandle::new(tokio::spawn(take(listener, loaded, ready))),
        }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.connections.recv().await {
            Some(connection) => connection,
            // The task ends with this listener alone.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn take(
    listener: TcpListener,
    mut loaded: Loaded,
    ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let slots = Arc::new(Semaphore::new(HANDSHAKES));
    let mut look = tokio::time::interval(LOOK);
    let mut refused = None;
    loop {
        let (stream, peer) = tokio::select! {
            _ = look.tick() => {
                loaded.refresh(&mut refused).await;
                continue;
            }
            taken = listener.accept() => match taken {
                Ok(taken) => taken,
                Err(error) => {
                    // Out of file descriptors, most likely: some connection has to end first.
                    tracing::debug!(%error, "a connection to /metrics could not be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            continue;
        };
        let (acceptor, ready) = (TlsAcceptor::from(loaded.config.clone()), ready.clone());
        tokio::spawn(async move {
            let _slot = slot;
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => drop(ready.send((stream, peer)).await),
                Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS handshake for /metrics"),
                Err(_) => tracing::debug!(%peer, "no TLS handshake for /metrics in time"),
            }
        });
    }
}
