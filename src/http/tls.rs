//! TLS for `/metrics`: certificate files that may be renewed while it serves.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto::ring};

use super::server::Certificate;
use crate::told::Told;

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
    /// What to serve with from now on; the files are looked at for as long as somebody has it.
    pub(super) fn follow(mut self) -> Certificate {
        let (tell, certificate) = watch::channel(self.config.clone());
        tokio::spawn(async move {
            let mut told = Told::default();
            while tokio::time::timeout(LOOK, tell.closed()).await.is_err() {
                self.refresh(&mut told).await;
                tell.send_if_modified(|config| {
                    let changed = !Arc::ptr_eq(config, &self.config);
                    config.clone_from(&self.config);
                    changed
                });
            }
        });
        certificate
    }

    /// Takes on files that have changed, if they are good; `told` is what was said of those that were not.
    async fn refresh(&mut self, told: &mut Told<Text>) {
        let (new, problem) = match self.files.read().await {
            Ok(text) if text == self.text => {
                if told.is_over() {
                    tracing::info!(
                        "the certificate files of /metrics are again those that are in use"
                    );
                }
                return;
            }
            Ok(text) if told.has_refused(&text) => return,
            Ok(text) => match self.files.config(&text) {
                Ok(config) => {
                    tracing::info!("the certificate of /metrics has changed");
                    (self.text, self.config) = (text, config);
                    *told = Told::default();
                    return;
                }
                Err(error) => (Some(text), error),
            },
            Err(error) => (None, error),
        };
        if told.is_news(new, &problem.to_string()) {
            tracing::warn!(error = %problem, "the new certificate of /metrics can't be used; serving with the old one");
        }
    }
}
