//! The certificate files of connections to etcd: as they were read for one, and whether others have taken their place since.

use std::path::Path;
use std::time::Duration;

use etcd_client::{Certificate, Client, Identity, TlsOptions};
use futures::future::BoxFuture;

use super::super::StoreError;
use super::{EtcdConfig, within};
use crate::told::Told;

/// How often the files of a connection that lives are looked at. Certificates are renewed long before they end; this says
/// how long a wrong new one stays unnoticed while the old one still works.
pub(crate) const LOOK: Duration = Duration::from_secs(5);

/// A connection with new files is tried for so long, beside the one that works.
const PROOF_TIMEOUT: Duration = Duration::from_secs(1);

/// What the files held when they were read. Never shown: the key is among it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    ca: Option<Vec<u8>>,
    pair: Option<(Vec<u8>, Vec<u8>)>,
}

impl Credentials {
    /// Reads the files, such as there are.
    pub(crate) async fn read(config: &EtcdConfig) -> Result<Self, StoreError> {
        let ca = match &config.ca {
            Some(ca) => Some(file(ca).await?),
            None => None,
        };
        let pair = match (&config.cert, &config.key) {
            (Some(cert), Some(key)) => Some((file(cert).await?, file(key).await?)),
            _ => None,
        };
        Ok(Self { ca, pair })
    }

    /// What a connection needs of them; `None` without TLS.
    pub(super) fn tls(&self) -> Option<TlsOptions> {
        let ca = self.ca.as_ref()?;
        let tls = TlsOptions::new().ca_certificate(Certificate::from_pem(ca));
        Some(match &self.pair {
            Some((cert, key)) => tls.identity(Identity::from_pem(cert, key)),
            None => tls,
        })
    }

    /// Waits until the files are others, and `proves` that a new connection with them does what the old one is for. Until
    /// then the old one is used: files that don't work yet, or don't fit one another, cost nothing.
    pub(crate) async fn replaced<T>(
        &self,
        config: &EtcdConfig,
        turn: usize,
        proves: impl Fn(Client) -> BoxFuture<'static, Result<T, StoreError>>,
    ) -> (Self, T) {
        let mut told = Told::default();
        loop {
            tokio::time::sleep(LOOK).await;
            let (new, problem) = match Self::read(config).await {
                Ok(new) if new == *self => {
                    if told.is_over() {
                        tracing::info!(
                            "the certificate files for etcd are again those that are in use"
                        );
                    }
                    continue;
                }
                Ok(new) => {
                    let proof = within(PROOF_TIMEOUT, async {
                        proves(config.connect_with(turn, &new).await?).await
                    });
                    match proof.await {
                        Ok(proof) => {
                            tracing::info!(
                                endpoint = config.endpoint(turn),
                                refused_before = told.has_refused(&new),
                                "the certificate files for etcd have changed; the new ones are in use"
                            );
                            return (new, proof);
                        }
                        Err(error) => (Some(new), error),
                    }
                }
                Err(error) => (None, error),
            };
            if told.is_news(new, &problem.to_string()) {
                tracing::warn!(
                    error = %problem,
                    "the certificate files for etcd have changed and do not work; the connection with the old ones is \
                     kept. Check --etcd-ca, --etcd-cert and --etcd-key before it breaks"
                );
            }
        }
    }
}

async fn file(path: &Path) -> Result<Vec<u8>, StoreError> {
    let read = tokio::fs::read(path).await;
    read.map_err(|source| StoreError::Credentials {
        path: path.to_owned(),
        source,
    })
}
