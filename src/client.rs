//! The Kubernetes client: found as kubectl finds it, measured in one layer, bounded in every call.

use std::future::Future;
use std::time::Duration;

use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

use crate::metrics::ClientMetrics;

mod check;
pub mod gate;
mod measure;
mod schema;

use gate::{Gate, Refused};
use measure::MeasureLayer;

pub(crate) use check::minor_version;
pub use check::{check, check_crds};
pub(crate) use schema::{Difference, compare, shortened};

/// How long one call to the API server may take. kube itself never gives up on a read; the recovery budget
/// is five seconds, and a call that took all of it is better made again.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// An open connection is asked for a sign of life this often, also while it is idle, and given up when none comes:
/// a call on a dead connection would only end with its time-out.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Flow control windows, in bytes: a list of many objects must not wait for round trips, and a watch that is not
/// read must not stop the calls beside it.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;

/// The oldest Kubernetes that will do: it has selectable fields of custom resources for good.
pub const OLDEST: &str = "1.32";

/// Where to find the API server.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct KubeArgs {
    /// Path of the kubeconfig file [default: $KUBECONFIG, then ~/.kube/config, then the pod's service account]
    #[arg(
        long,
        env = "DIEGO_KUBECONFIG",
        value_name = "FILE",
        help_heading = "Kubernetes"
    )]
    pub kubeconfig: Option<std::path::PathBuf>,
    /// Context of the kubeconfig to use [default: its current context]
    #[arg(
        long,
        env = "DIEGO_CONTEXT",
        value_name = "NAME",
        help_heading = "Kubernetes"
    )]
    pub context: Option<String>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig can't be used.
    #[error(
        "the Kubernetes configuration can't be used: {0}; set --kubeconfig or $KUBECONFIG to a valid file"
    )]
    Config(String),
    /// The API server does not answer.
    #[error(
        "the API server {server} does not answer: {problem}; check --kubeconfig, --context and that the server runs"
    )]
    Unreachable {
        /// Its URL.
        server: String,
        /// What was tried and failed.
        problem: String,
    },
    /// The API server does not want us.
    #[error(
        "the API server {server} refuses: {problem}; check the rights of this user or service account"
    )]
    Refused {
        /// Its URL.
        server: String,
        /// What it said.
        problem: String,
    },
    /// The CRDs are not there.
    #[error(
        "the API server {server} does not serve {missing}: install the CRDs first, with `diego crds | kubectl apply --server-side -f -`"
    )]
    NoCrds {
        /// Its URL.
        server: String,
        /// The first kind that is missing.
        missing: String,
    },
    /// The API server can't do what the CRDs ask for.
    #[error(
        "the API server {server} is Kubernetes {version}, and {OLDEST} is the oldest that will do: it selects objects by fields of their status; upgrade it, or choose another one with --kubeconfig or --context"
    )]
    TooOld {
        /// Its URL.
        server: String,
        /// What it says of itself.
        version: String,
    },
    /// The CRDs are those of an older version.
    #[error(
        "the CRD {crd} on the API server {server} is older than this program and lacks {missing}, so that what is written there would be lost; update the CRDs first, with `diego crds | kubectl apply --server-side --force-conflicts -f -`, or by the chart with crds.install=true"
    )]
    OldCrd {
        /// Its URL.
        server: String,
        /// The name of the first one that is too old.
        crd: String,
        /// What it lacks.
        missing: String,
    },
}

/// Reads the configuration.
///
/// # Errors
/// When no usable configuration is found.
pub async fn config(args: &KubeArgs) -> Result<Config, ConnectError> {
    let options = KubeConfigOptions {
        context: args.context.clone(),
        ..Default::default()
    };
    let wrong = |error: &dyn std::fmt::Display| ConnectError::Config(error.to_string());
    let mut config = match &args.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path).map_err(|error| wrong(&error))?;
            Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .map_err(|error| wrong(&error))?
        }
        None if args.context.is_some() => Config::from_kubeconfig(&options)
            .await
            .map_err(|error| wrong(&error))?,
        None => Config::infer().await.map_err(|error| wrong(&error))?,
    };
    config.connect_timeout = Some(Duration::from_secs(2));
    // Longer than any watch lives (20 s), so that a dead connection never holds a call for ever.
    config.read_timeout = Some(Duration::from_secs(30));
    config.write_timeout = Some(CALL_TIMEOUT);
    // Every caller decides again on what is stored before it retries.
    config.default_retry = false;
    Ok(config)
}

/// A client of its own, with a connection of its own.
///
/// It speaks HTTP/2: all its calls share one connection that is open already. With HTTP/1.1, which is all that
/// kube's own connector offers, every write in flight needs a connection, and a recovery spends its first tenth
/// of a second on TLS handshakes.
///
/// # Errors
/// When the configuration can't be turned into a client.
pub fn build(config: &Config, metrics: &ClientMetrics) -> Result<Client, ConnectError> {
    build_gated(config, metrics, &Gate::always_open())
}

/// The same, for a program that may only write while `gate` is open.
///
/// # Errors
/// As [`build`].
pub fn build_gated(
    config: &Config,
    metrics: &ClientMetrics,
    gate: &Gate,
) -> Result<Client, ConnectError> {
    let wrong = |error: &dyn std::fmt::Display| ConnectError::Config(error.to_string());
    let host = config.cluster_url.host().unwrap_or_default().to_owned();
    let measure = MeasureLayer::new(metrics.clone(), host);
    if config.proxy_url.is_some() || config.tls_server_name.is_some() {
        // Rare, and left to kube, by HTTP/1.1.
        let builder = ClientBuilder::try_from(config.clone()).map_err(|error| wrong(&error))?;
        return Ok(builder.with_layer(&measure).with_layer(gate).build());
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(config.connect_timeout);
    let tls = config
        .rustls_client_config()
        .map_err(|error| wrong(&error))?;
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(tcp);
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(gate.clone())
        .layer(measure)
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(|error| wrong(&error))?)
        .layer(
            config
                .extra_headers_layer()
                .map_err(|error| wrong(&error))?,
        )
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
}

/// The address from which this machine reaches the API server: the one under which others of the cluster
/// reach this machine.
///
/// # Errors
/// When there is no way to the API server's address.
pub fn own_address(config: &Config) -> Result<String, ConnectError> {
    let server = config.cluster_url.to_string();
    let unreachable = |error: std::io::Error| ConnectError::Unreachable {
        server: server.clone(),
        problem: error.to_string(),
    };
    let host = config
        .cluster_url
        .host()
        .unwrap_or_default()
        .trim_matches(['[', ']'])
        .to_owned();
    let port = config.cluster_url.port_u16().unwrap_or(443);
    let any = if host.contains(':') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    // Connecting a datagram socket sends nothing: it only asks the routing table.
    let socket = std::net::UdpSocket::bind(any).map_err(unreachable)?;
    socket.connect((host.as_str(), port)).map_err(unreachable)?;
    Ok(socket.local_addr().map_err(unreachable)?.ip().to_string())
}

/// Why a bounded call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No answer in time: whether it took effect is unknown.
    #[error("no answer from the API server within {CALL_TIMEOUT:?}")]
    Timeout,
    /// The API server, or the way to it, said no.
    #[error("{}", brief(.0))]
    Kube(#[from] kube::Error),
}

impl CallError {
    /// The object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, CallError::Kube(kube::Error::Api(status)) if status.is_not_found())
    }

    /// Somebody else wrote first.
    pub fn is_conflict(&self) -> bool {
        matches!(self, CallError::Kube(kube::Error::Api(status)) if status.is_conflict())
    }

    /// The caller lacks the right.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, CallError::Kube(kube::Error::Api(status)) if status.is_forbidden())
    }

    /// The API server does not take the change: a value that is none, or a test in a patch that does not hold.
    pub fn is_invalid(&self) -> bool {
        matches!(self, CallError::Kube(kube::Error::Api(status)) if status.code == 422)
    }

    /// The object is there already.
    pub fn is_already_exists(&self) -> bool {
        matches!(self, CallError::Kube(kube::Error::Api(status)) if status.is_already_exists())
    }

    /// The API server has looked at it and does not want it: the same again is refused again, until somebody changes
    /// its rules.
    pub fn is_refused(&self) -> bool {
        matches!(self, CallError::Kube(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 405 | 413 | 415 | 422))
    }

    /// It was never sent, since this program may not write now.
    pub fn is_not_sent(&self) -> bool {
        self.gate() == Some(Refused::NotSent)
    }

    /// Why the gate let it not through, or not to its end.
    fn gate(&self) -> Option<Refused> {
        match self {
            CallError::Kube(kube::Error::Service(error)) => error.downcast_ref().copied(),
            CallError::Kube(_) | CallError::Timeout => None,
        }
    }

    /// The label `outcome` of the metric of writes.
    pub fn outcome(&self) -> &'static str {
        match self {
            CallError::Timeout => "timeout",
            error if error.gate().is_some() => "not_leading",
            error if error.is_conflict() => "conflict",
            CallError::Kube(_) => "error",
        }
    }
}

/// The server's own words where there are any; kube repeats them three times over.
pub(crate) fn brief(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Runs a call under [`CALL_TIMEOUT`].
///
/// # Errors
/// The call's own error, or that it took too long.
pub async fn bounded<T>(
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(CallError::Timeout),
    }
}
