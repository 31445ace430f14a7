//! The certificate files of connections to etcd: as they were read for one, and whether others have taken their place since.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use etcd_client::{Certificate, Client, Identity, TlsOptions};
use futures::future::BoxFuture;

use super::super::StoreError;
use super::{EtcdConfig, within};

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

/// So many problems are remembered; what else comes is told again.
const PROBLEMS: usize = 16;

/// What was already said of files that do not work: they are looked at every few seconds.
#[derive(Default)]
struct Told {
    /// The last ones that could be read and did not work.
    refused: Option<Credentials>,
    /// Why there was nothing to try.
    problems: BTreeSet<String>,
}

impl Told {
    /// Whether this was not said yet. The same files are told once, however they fail; files that can't be read, once for
    /// each problem.
    fn is_news(&mut self, new: Option<Credentials>, problem: &str) -> bool {
        match new {
            Some(new) if self.has_refused(&new) => false,
            Some(new) => {
                self.refused = Some(new);
                true
            }
            None if self.problems.contains(problem) => false,
            None => {
                if self.problems.len() >= PROBLEMS {
                    self.problems.clear();
                }
                self.problems.insert(problem.to_owned())
            }
        }
    }

    /// Whether these files did not work before.
    fn has_refused(&self, new: &Credentials) -> bool {
        self.refused.as_ref() == Some(new)
    }

    /// Forgets it all; whether there was something.
    fn is_over(&mut self) -> bool {
        let Told { refused, problems } = std::mem::take(self);
        refused.is_some() || !problems.is_empty()
    }
}

async fn file(path: &Path) -> Result<Vec<u8>, StoreError> {
    let read = tokio::fs::read(path).await;
    read.map_err(|source| StoreError::Credentials {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(cert: &str) -> Credentials {
        Credentials {
            ca: None,
            pair: Some((cert.into(), b"key".to_vec())),
        }
    }

    #[test]
    fn a_problem_is_told_once() {
        let mut told = Told::default();
        assert!(!told.is_over(), "nothing was wrong");
        for (new, problem, news) in [
            (None, "tls.key: no such file", true),
            (None, "tls.key: no such file", false),
            (None, "tls.crt: no such file", true),
            (Some(files("a")), "permission denied", true),
            // The same files, in whatever words they are refused.
            (Some(files("a")), "timeout", false),
            (None, "tls.key: no such file", false),
            (Some(files("b")), "timeout", true),
        ] {
            let what = new.as_ref().map(|_| "files");
            assert_eq!(told.is_news(new, problem), news, "{what:?} {problem}");
        }
        assert!(told.has_refused(&files("b")) && !told.has_refused(&files("c")));
        assert!(told.is_over(), "the old files are back");
        assert!(
            told.is_news(None, "tls.key: no such file"),
            "it is another time"
        );
        for i in 0..10 * PROBLEMS {
            told.is_news(None, &i.to_string());
            assert!(told.problems.len() <= PROBLEMS);
        }
    }
}
