//! What a program asks the API server before it starts anything: is it new enough, are our kinds there, and do they have
//! every field that is written?

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::Api;
use kube::{Client, Config, ResourceExt};

use super::schema::{compare, shortened};
use super::{CALL_TIMEOUT, ConnectError, OLDEST, brief};
use crate::api::crds;

/// Asks the API server for its version and our kinds, so that a program that can't work ends at its start.
///
/// # Errors
/// When the server does not answer, is too old, or does not serve the kinds.
pub async fn check(config: &Config, client: &Client) -> Result<(), ConnectError> {
    let server = config.cluster_url.to_string();
    check_version(&server, client).await?;
    let version = format!("{}/{}", crate::api::GROUP, crate::api::VERSION);
    let group = match ask(&server, client.list_api_group_resources(&version)).await? {
        Ok(group) => group,
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            return Err(ConnectError::NoCrds {
                server,
                missing: crate::api::GROUP.into(),
            });
        }
        Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => {
            let problem = status.message.clone();
            return Err(ConnectError::Refused { server, problem });
        }
        Err(error) => return Err(unreachable(&server, error.to_string())),
    };
    for kind in ["cells", "desiredlrps", "actuallrps", "tasks"] {
        if !group.resources.iter().any(|resource| resource.name == kind) {
            return Err(ConnectError::NoCrds {
                server,
                missing: format!("{kind}.{}", crate::api::GROUP),
            });
        }
    }
    Ok(())
}

/// A server that does not say how old it is may still do.
async fn check_version(server: &str, client: &Client) -> Result<(), ConnectError> {
    let said = match ask(server, client.apiserver_version()).await? {
        Ok(info) => info.git_version,
        // It answers: only not this, or not to us.
        Err(error @ (kube::Error::Api(_) | kube::Error::SerdeError(_))) => {
            let problem = brief(&error);
            tracing::warn!(
                server,
                problem,
                "the API server's version can't be read: it must be Kubernetes {OLDEST} or newer"
            );
            return Ok(());
        }
        Err(error) => return Err(unreachable(server, error.to_string())),
    };
    match (minor_version(&said), minor_version(OLDEST)) {
        (Some(found), Some(oldest)) if found < oldest => Err(ConnectError::TooOld {
            server: server.into(),
            version: said,
        }),
        (None, _) => {
            tracing::warn!(
                server,
                version = said,
                "the API server's version can't be understood: it must be Kubernetes {OLDEST} or newer"
            );
            Ok(())
        }
        (Some(_), _) => Ok(()),
    }
}

/// Major and minor version, whatever a vendor writes after them: `v1.32.1-eks-1234`, `1.33+`.
pub(crate) fn minor_version(text: &str) -> Option<(u32, u32)> {
    let text = text.trim();
    let (major, rest) = text.strip_prefix('v').unwrap_or(text).split_once('.')?;
    let end = rest.find(|c: char| !c.is_ascii_digit());
    let minor = &rest[..end.unwrap_or(rest.len())];
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Compares the CRDs on the API server with those of this program. Newer ones will do, and so do those that may not be
/// read: the log says so.
///
/// # Errors
/// When the server does not answer, or one of its CRDs lacks something that this program needs.
pub async fn check_crds(config: &Config, client: &Client) -> Result<(), ConnectError> {
    let server = config.cluster_url.to_string();
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    for ours in crds::all() {
        let crd = ours.crd.name_any();
        let theirs = match ask(&server, api.get(&crd)).await? {
            Ok(theirs) => theirs,
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                return Err(ConnectError::NoCrds {
                    server,
                    missing: crd,
                });
            }
            Err(kube::Error::Api(status)) => {
                let problem = &status.message;
                tracing::warn!(
                    crd,
                    problem,
                    "the CRDs can't be read, so that nobody knows whether they have every field that is written; allow this program to get customresourcedefinitions.apiextensions.k8s.io"
                );
                return Ok(());
            }
            Err(error) => return Err(unreachable(&server, error.to_string())),
        };
        let difference = compare(&ours.crd, &theirs);
        if !difference.missing.is_empty() {
            return Err(ConnectError::OldCrd {
                server,
                crd,
                missing: shortened(&difference.missing),
            });
        }
        if !difference.unknown.is_empty() {
            let unknown = shortened(&difference.unknown);
            tracing::warn!(
                crd,
                unknown,
                "the CRD is newer than this program, which leaves what it does not know alone; upgrade the program too"
            );
        }
    }
    Ok(())
}

async fn ask<T>(
    server: &str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<Result<T, kube::Error>, ConnectError> {
    tokio::time::timeout(CALL_TIMEOUT, call)
        .await
        .map_err(|_| unreachable(server, format!("no answer within {CALL_TIMEOUT:?}")))
}

fn unreachable(server: &str, problem: String) -> ConnectError {
    ConnectError::Unreachable {
        server: server.into(),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::minor_version;

    #[test]
    fn versions_are_read_whatever_a_vendor_adds() {
        for (text, version) in [
            ("v1.32.1-eks-123", Some((1, 32))),
            ("v1.36.3", Some((1, 36))),
            ("v1.33.0-gke.1000+abc", Some((1, 33))),
            ("v1.31.4+k3s1", Some((1, 31))),
            ("1.32+", Some((1, 32))),
            ("v2.0.0-alpha.1", Some((2, 0))),
            ("v1", None),
            ("", None),
            ("master", None),
            ("v1.x", None),
        ] {
            assert_eq!(minor_version(text), version, "{text}");
        }
        assert!(minor_version("v1.4.0") < minor_version("v1.32.0"));
    }
}
