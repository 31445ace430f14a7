//! What can go wrong, in words that name it and the remedy, and the exit status of each.

use kube::core::Status;

use super::kind::Kind;
use super::right::Right;
use crate::api::GROUP;
use crate::client::{CallError, ConnectError};

/// Why a verb was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There is no way to know where the cluster is.
    #[error("{0}")]
    NoConfig(String),
    /// Nobody answers.
    #[error(
        "the API server {server} does not answer: {problem}; check --kubeconfig and --context (kubectl config get-contexts), and that the cluster runs"
    )]
    Unreachable {
        /// Its URL.
        server: String,
        /// What was tried and failed.
        problem: String,
    },
    /// It does not know the user.
    #[error(
        "the API server {server} does not know you: {problem}; log in again, or choose another user with --context"
    )]
    Unknown {
        /// Its URL.
        server: String,
        /// What it said.
        problem: String,
    },
    /// The user may not.
    #[error("{0}")]
    NoRight(Right),
    /// It says no, and not for one right that is missing.
    #[error("the API server refuses: {0}")]
    Refused(String),
    /// The CRDs are not there.
    #[error(
        "the API server {0} does not serve {GROUP}: Diego is not installed there; install it (docs/install.md), or choose another cluster with --context"
    )]
    NoCrds(String),
    /// There is no such object.
    #[error("{}", not_found(*.kind, .name, .namespace.as_deref(), .near, .flags))]
    NotFound {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// Where it was looked for.
        namespace: Option<String>,
        /// Names that may have been meant.
        near: Vec<String>,
        /// The flags that mean this cluster and user.
        flags: String,
    },
    /// It is not done yet.
    #[error("{0}")]
    TimedOut(String),
    /// The user did not want to wait for it.
    #[error("{0}")]
    Interrupted(String),
    /// It can't be done as things are.
    #[error("{0}")]
    Failed(String),
    /// These flags don't go together.
    #[error("{0}")]
    Usage(String),
}

impl Failure {
    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::TimedOut(_) => 3,
            // As a shell tells of a program that ctrl-c ended.
            Failure::Interrupted(_) => 130,
            Failure::NoConfig(_)
            | Failure::Unreachable { .. }
            | Failure::Unknown { .. }
            | Failure::NoRight(_)
            | Failure::Refused(_)
            | Failure::NoCrds(_)
            | Failure::NotFound { .. }
            | Failure::Failed(_) => 1,
        }
    }

    /// Whether it stays so until somebody acts: to try it again is of no use.
    pub fn is_lasting(&self) -> bool {
        match self {
            Failure::NoRight(_) | Failure::Unknown { .. } | Failure::NoCrds(_) => true,
            Failure::NoConfig(_)
            | Failure::Unreachable { .. }
            | Failure::Refused(_)
            | Failure::NotFound { .. }
            | Failure::TimedOut(_)
            | Failure::Interrupted(_)
            | Failure::Failed(_)
            | Failure::Usage(_) => false,
        }
    }

    /// What a call's error means; that an object is not there is the caller's to tell.
    pub fn of_call(error: &CallError, server: &str) -> Failure {
        match error {
            CallError::Kube(kube::Error::Api(status)) => Failure::of_status(status, server),
            CallError::Kube(error @ kube::Error::Auth(_)) => Failure::Unknown {
                server: server.into(),
                problem: deepest(error),
            },
            CallError::Kube(
                error @ (kube::Error::SerdeError(_) | kube::Error::BuildRequest(_)),
            ) => Failure::Refused(deepest(error)),
            CallError::Kube(error) => Failure::Unreachable {
                server: server.into(),
                problem: deepest(error),
            },
            CallError::Timeout => Failure::Unreachable {
                server: server.into(),
                problem: error.to_string(),
            },
        }
    }

    /// What the API server's refusal means.
    fn of_status(status: &Status, server: &str) -> Failure {
        match status.code {
            401 => Failure::Unknown {
                server: server.into(),
                problem: status.message.clone(),
            },
            403 => match Right::read(&status.message) {
                Some(right) => Failure::NoRight(right),
                None => Failure::Refused(status.message.clone()),
            },
            404 => Failure::NoCrds(server.into()),
            _ => Failure::Refused(status.message.clone()),
        }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Failure::NoConfig(error.to_string())
    }
}

/// The innermost reason: what wraps it says only where it went wrong.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn not_found(
    kind: Kind,
    name: &str,
    namespace: Option<&str>,
    near: &[String],
    flags: &str,
) -> String {
    let mut text = format!("there is no {} {name}", kind.as_str());
    if let Some(namespace) = namespace {
        text += &format!(" in namespace {namespace}");
    }
    match near {
        [] => match namespace {
            Some(_) => {
                text += &format!(
                    "; choose another namespace with -n: kubectl{flags} get {}s.{GROUP} -A shows all",
                    kind.singular()
                )
            }
            None => {
                text += &format!(
                    "; kubectl{flags} get {}s.{GROUP} shows what there is",
                    kind.singular()
                )
            }
        },
        near => text += &format!("; is it {}?", near.join(" or ")),
    }
    text
}

/// Of `names` those that may have been meant by `name`, the likeliest first.
pub fn near(name: &str, names: impl IntoIterator<Item = String>) -> Vec<String> {
    let scored = names.into_iter().map(|other| {
        let starts = other.starts_with(name) || name.starts_with(&other);
        let alike = strsim::jaro_winkler(name, &other);
        (if starts { 1.0 } else { alike }, other)
    });
    let mut alike: Vec<_> = scored.filter(|(alike, _)| *alike >= 0.8).collect();
    alike.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    alike.into_iter().take(3).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: u16, message: &str) -> Failure {
        let mut status = Status::failure(message, "");
        status.code = code;
        Failure::of_status(&status, "https://here")
    }

    #[test]
    fn the_missing_right_is_read_from_the_refusal() {
        for (message, expected) in [
            (
                r#"cells.diego.cloudfoundry.org is forbidden: User "eve" cannot list resource "cells" in API group "diego.cloudfoundry.org" at the cluster scope"#,
                "eve lacks the right to list cells.diego.cloudfoundry.org (they are cluster-wide); ask an administrator for a role with verb list on cells.diego.cloudfoundry.org; the chart has one that ends in -cell-admin (docs/install.md)",
            ),
            (
                r#"actuallrps.diego.cloudfoundry.org is forbidden: User "eve" cannot list resource "actuallrps" in API group "diego.cloudfoundry.org" at the cluster scope"#,
                "eve lacks the right to list actuallrps.diego.cloudfoundry.org in all namespaces; try it without -A, or ask an administrator for a role with verb list on actuallrps.diego.cloudfoundry.org; the chart has one that ends in -view (docs/install.md)",
            ),
            (
                r#"tasks.diego.cloudfoundry.org "t" is forbidden: User "eve" cannot patch resource "tasks" in API group "diego.cloudfoundry.org" in the namespace "prod""#,
                "eve lacks the right to patch tasks.diego.cloudfoundry.org in namespace prod; ask an administrator for a role with verb patch on tasks.diego.cloudfoundry.org; the chart has one that ends in -edit (docs/install.md)",
            ),
            // What is not ours the chart has no role for.
            (
                r#"events.events.k8s.io is forbidden: User "eve" cannot list resource "events" in API group "events.k8s.io" in the namespace "prod""#,
                "eve lacks the right to list events.events.k8s.io in namespace prod; ask an administrator for a role with verb list on events.events.k8s.io",
            ),
            (
                r#"users "x" is forbidden: User "eve" cannot impersonate resource "users" in API group "" at the cluster scope"#,
                "eve lacks the right to impersonate users; ask an administrator for a role with verb impersonate on users",
            ),
        ] {
            let failure = refusal(403, message);
            assert_eq!(failure.to_string(), expected);
            assert_eq!(failure.status(), 1);
            assert!(failure.is_lasting());
        }
        let policy = refusal(403, "admission webhook says no");
        assert_eq!(
            policy.to_string(),
            "the API server refuses: admission webhook says no"
        );
    }

    #[test]
    fn what_is_not_there_is_told_with_what_may_be_meant() {
        assert!(
            refusal(404, "the server could not find the requested resource")
                .to_string()
                .contains("Diego is not installed there")
        );
        let names = || ["cell-1", "cell-2", "web", "node-7"].map(String::from);
        assert_eq!(near("cel-1", names()), ["cell-1", "cell-2"]);
        assert_eq!(near("w", names()), ["web"]);
        assert!(near("zzz", names()).is_empty());
        let failure = Failure::NotFound {
            kind: Kind::Cell,
            name: "cel-1".into(),
            namespace: None,
            near: near("cel-1", names()),
            flags: String::new(),
        };
        assert_eq!(
            failure.to_string(),
            "there is no Cell cel-1; is it cell-1 or cell-2?"
        );
    }
}
