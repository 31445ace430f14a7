//! What can go wrong while a local cluster starts or is used.

use std::{path::PathBuf, process::ExitStatus, time::Duration};

/// Why a server or a cluster could not be started or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program is neither in `KUBEBUILDER_ASSETS` nor on `PATH` nor built.
    #[error("{name} is not in KUBEBUILDER_ASSETS, not on PATH and not in {}: run `make setup`, or for real nodes `hack/setup.sh e2e`, which bring it", tools.display())]
    MissingBinary {
        /// The program's file name.
        name: String,
        /// The directory where `make setup` puts it.
        tools: PathBuf,
    },
    /// An image of the real nodes is not built.
    #[error("there is no {}: run `hack/setup.sh e2e`, which builds it", .0.display())]
    MissingImage(PathBuf),
    /// Real nodes were asked for by somebody who may not make them.
    #[error(
        "real nodes need root, for namespaces, mounts and cgroups: run this as root, as in `sudo -E env PATH=\"$PATH\" make e2e`"
    )]
    NotRoot,
    /// A program that was run for its effect failed or took too long.
    #[error("{what} failed: {why}")]
    Command {
        /// The command line.
        what: String,
        /// How it ended and what it said.
        why: String,
    },
    /// No node has this name.
    #[error("there is no node {0:?}; name it in NodesOptions::nodes")]
    UnknownNode(String),
    /// The node is not running, so that it can't do what was asked.
    #[error("the node {0} is not running: start() it first")]
    NodeDown(String),
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted, with the path if there is one.
        what: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A server ended although it should have gone on.
    #[error("{name} ended with {status}; the last lines of {}:\n{tail}", log.display())]
    Exited {
        /// The server's name.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// Its log file.
        log: PathBuf,
        /// The last lines it logged.
        tail: String,
    },
    /// A server runs but did not become ready in time.
    #[error("{name} is not ready after {waited:?}; the last lines of {}:\n{tail}", log.display())]
    NotReady {
        /// The server's name.
        name: String,
        /// How long it was waited for.
        waited: Duration,
        /// Its log file.
        log: PathBuf,
        /// The last lines it logged.
        tail: String,
    },
    /// A key or certificate of the cluster's own authority could not be made or used.
    #[error("certificates of the local cluster: {0}")]
    Certificate(String),
    /// No identity of this name was given in [`Options::users`](crate::Options::users).
    #[error("the local cluster knows no user {0:?}; name it in Options::users")]
    UnknownUser(String),
    /// The options contradict themselves or the servers' limits.
    #[error("bad option of the local cluster: {0}")]
    Option(String),
}

impl Error {
    /// Turns an I/O error into an [`Error::Io`] that says what was attempted; for `map_err`.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }

    /// Whether the server ended because somebody else took its port between the choice and the start.
    pub(crate) fn is_port_taken(&self) -> bool {
        matches!(self, Error::Exited { tail, .. } if tail.contains("address already in use"))
    }
}
