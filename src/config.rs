//! The command line: flags per program, checked together before anything starts.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::check::Questions;
use crate::client::KubeArgs;
use crate::converge::fence::BootTime;
use crate::converge::placement::Knobs;
use crate::metrics::ClientMetrics;
use crate::presence::etcd::{ConfigError, EtcdConfig};
use crate::presence::kubernetes::KubernetesConfig;
use crate::presence::store::StoreConfig;
use crate::rep::supervise::{Logs, Output};
use crate::telemetry::LogFormat;

mod fence;
mod leader;
mod metrics;
mod nodes;
mod rep;
mod tasks;

pub use fence::FenceArgs;
pub use leader::LeaderArgs;
pub use metrics::{MetricsArgs, MetricsAuth};
pub use nodes::NodeArgs;
pub use rep::{ExecutorArg, RepArgs};
pub use tasks::TaskArgs;

/// How often a rep compares what runs with what is recorded, beside every event (Diego's `polling_interval`).
pub const SYNC_INTERVAL: Duration = Duration::from_secs(30);

/// Diego on Kubernetes: the work of a lost Cell runs elsewhere about five seconds later.
///
/// Every flag can also be set by the environment variable given with it.
#[derive(Debug, Parser)]
#[command(name = "diego", version, max_term_width = 100)]
pub struct Cli {
    /// What to run.
    #[command(subcommand)]
    pub program: Program,
}

/// The programs in this binary.
#[derive(Debug, Subcommand)]
pub enum Program {
    /// Place LRPs and Tasks on Cells, and react at once when a Cell is lost
    Controller(Box<ControllerArgs>),
    /// Register this machine as a Cell, keep its presence and run its work
    Rep(Box<RepArgs>),
    /// Stop the Pods of Strict LRPs on this node when its Cell may be counted as lost (runs beside the rep)
    Fence(FenceArgs),
    /// Print the CRDs as YAML
    Crds(CrdsArgs),
    /// Ask whether an installation works: CRDs, leader, Cells
    Check(CheckArgs),
    /// Run one command and kill all it started when the rep is gone (started by the rep itself)
    #[command(hide = true)]
    Supervise(SuperviseArgs),
    /// Tell the presence store when the rep is dead with all that it ran (started by the rep itself)
    #[command(hide = true)]
    Witness(Box<WitnessArgs>),
}

/// Flags of both long-running programs.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// The store that keeps the Cells' presence
    #[arg(
        long,
        env = "DIEGO_PRESENCE",
        value_enum,
        default_value = "etcd",
        help_heading = "Presence"
    )]
    pub presence: PresenceKind,
    /// Namespace where leases live [default: the pod's, or that of the kubeconfig's context]
    #[arg(long, env = "DIEGO_NAMESPACE", value_name = "NAMESPACE", value_parser = namespace, help_heading = "Kubernetes")]
    pub namespace: Option<String>,
    /// Client URLs of the presence etcd, comma separated
    #[arg(
        long,
        env = "DIEGO_ETCD_ENDPOINTS",
        value_name = "URL,...",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:2379",
        help_heading = "Presence"
    )]
    pub etcd_endpoints: Vec<String>,
    /// PEM file with the certificate authority of the etcd servers
    #[arg(
        long,
        env = "DIEGO_ETCD_CA",
        value_name = "FILE",
        help_heading = "Presence"
    )]
    pub etcd_ca: Option<PathBuf>,
    /// PEM file with the client certificate for etcd; needs --etcd-key
    #[arg(
        long,
        env = "DIEGO_ETCD_CERT",
        value_name = "FILE",
        requires = "etcd_key",
        help_heading = "Presence"
    )]
    pub etcd_cert: Option<PathBuf>,
    /// PEM file with the key of the client certificate; needs --etcd-cert
    #[arg(
        long,
        env = "DIEGO_ETCD_KEY",
        value_name = "FILE",
        requires = "etcd_cert",
        help_heading = "Presence"
    )]
    pub etcd_key: Option<PathBuf>,
    /// Where to find the API server.
    #[command(flatten)]
    pub kube: KubeArgs,
    /// Address and port of /metrics; port 0 takes a free one
    #[arg(
        long,
        env = "DIEGO_METRICS_ADDR",
        value_name = "IP:PORT",
        default_value = "0.0.0.0:8080",
        help_heading = "Serving"
    )]
    pub metrics_addr: SocketAddr,
    /// How /metrics is served.
    #[command(flatten)]
    pub metrics: MetricsArgs,
    /// Address and port of /healthz, /livez and /readyz; port 0 takes a free one
    #[arg(
        long,
        env = "DIEGO_HEALTH_ADDR",
        value_name = "IP:PORT",
        default_value = "0.0.0.0:8081",
        help_heading = "Serving"
    )]
    pub health_addr: SocketAddr,
    /// Seconds to wait at the start for an API server or a presence store that does not answer [default: 60 in a pod,
    /// else 0]
    #[arg(long, env = "DIEGO_START_TIMEOUT_SECONDS", value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=3600), help_heading = "Serving")]
    pub start_timeout_seconds: Option<u32>,
    /// How log lines look; RUST_LOG chooses which there are
    #[arg(
        long,
        env = "DIEGO_LOG_FORMAT",
        value_enum,
        default_value = "text",
        help_heading = "Serving"
    )]
    pub log_format: LogFormat,
}

impl CommonArgs {
    /// The presence store's connection settings.
    pub fn etcd(&self) -> EtcdConfig {
        EtcdConfig {
            endpoints: self.etcd_endpoints.clone(),
            ca: self.etcd_ca.clone(),
            cert: self.etcd_cert.clone(),
            key: self.etcd_key.clone(),
        }
    }

    /// Where leases live.
    pub fn namespace(&self, kube: &kube::Config) -> String {
        let namespace = self.namespace.as_ref();
        namespace.unwrap_or(&kube.default_namespace).clone()
    }

    /// The presence store. `kube` and `metrics` are of the API server, and of every client of it.
    pub fn store(&self, kube: &kube::Config, metrics: &ClientMetrics) -> StoreConfig {
        match self.presence {
            PresenceKind::Etcd => StoreConfig::Etcd(self.etcd()),
            PresenceKind::Kubernetes => StoreConfig::Kubernetes(Box::new(KubernetesConfig {
                config: kube.clone(),
                namespace: self.namespace(kube),
                metrics: metrics.clone(),
            })),
        }
    }

    /// The flags that lead another process of this program to the same presence store.
    pub fn store_flags(&self) -> Vec<OsString> {
        let presence = match self.presence {
            PresenceKind::Etcd => "etcd",
            PresenceKind::Kubernetes => "kubernetes",
        };
        let format = match self.log_format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        let mut flags: Vec<OsString> = vec![
            format!("--presence={presence}").into(),
            format!("--log-format={format}").into(),
            format!("--etcd-endpoints={}", self.etcd_endpoints.join(",")).into(),
        ];
        let texts = [
            ("--namespace", &self.namespace),
            ("--context", &self.kube.context),
        ];
        let files = [
            ("--etcd-ca", &self.etcd_ca),
            ("--etcd-cert", &self.etcd_cert),
            ("--etcd-key", &self.etcd_key),
            ("--kubeconfig", &self.kube.kubeconfig),
        ];
        let texts = texts.map(|(flag, text)| (flag, text.as_ref().map(OsString::from)));
        let files = files.map(|(flag, file)| (flag, file.clone().map(OsString::from)));
        for (flag, value) in texts.into_iter().chain(files) {
            flags.extend(value.into_iter().flat_map(|value| [flag.into(), value]));
        }
        flags
    }

    /// Checks what can be checked without a server.
    ///
    /// # Errors
    /// What is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match self.presence {
            PresenceKind::Etcd => self.etcd().validate(),
            PresenceKind::Kubernetes => Ok(()),
        }
    }
}

fn namespace(text: &str) -> Result<String, String> {
    let letters = text
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let ends = text.starts_with('-') || text.ends_with('-');
    if letters && !ends && (1..=63).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err("must be the name of a namespace: up to 63 lower-case letters, digits and '-', such as diego-system".into())
    }
}

/// The presence stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PresenceKind {
    /// Leases in etcd: a renewal writes nothing to disk
    Etcd,
    /// Leases in the API server, in --namespace: needs nothing else
    Kubernetes,
}

/// Flags of `diego controller`.
#[derive(Debug, Clone, Args)]
pub struct ControllerArgs {
    /// Flags of both programs.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Seconds between two passes over the same object: the safety net for missed watch events
    #[arg(long, env = "DIEGO_CONVERGENCE_INTERVAL_SECONDS", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600), help_heading = "Convergence")]
    pub convergence_interval_seconds: u64,
    /// Writes to the API server that one recovery or reconcile has under way at once
    #[arg(long, env = "DIEGO_WRITE_CONCURRENCY", value_name = "COUNT", default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=1024), help_heading = "Convergence")]
    pub write_concurrency: u64,
    /// About Tasks.
    #[command(flatten)]
    pub tasks: TaskArgs,
    /// About who leads.
    #[command(flatten)]
    pub leader: LeaderArgs,
    /// About nodes, and Cells that are gone.
    #[command(flatten)]
    pub nodes: NodeArgs,
    /// What one starting instance weighs in the auction; a Cell's resources, all used, weigh 1
    #[arg(long, env = "DIEGO_STARTING_CONTAINER_WEIGHT", value_name = "WEIGHT", default_value_t = 0.25, value_parser = weight, help_heading = "Auction")]
    pub starting_container_weight: f64,
    /// What one place further down the list of Cells, by name, weighs; more than 0 fills the first Cells first
    #[arg(long, env = "DIEGO_BIN_PACK_FIRST_FIT_WEIGHT", value_name = "WEIGHT", default_value_t = 0.0, value_parser = weight, help_heading = "Auction")]
    pub bin_pack_first_fit_weight: f64,
    /// Instances that may be starting at once on all Cells together; the others wait. 0 is no limit
    #[arg(long, env = "DIEGO_STARTING_CONTAINER_COUNT_MAXIMUM", value_name = "COUNT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000), help_heading = "Auction")]
    pub starting_container_count_maximum: u32,
    /// Do not watch presences: lost Cells are then found by the convergence passes alone. For drills that
    /// show the safety net at work
    #[arg(
        long,
        env = "DIEGO_DISABLE_PRESENCE_WATCH",
        help_heading = "Convergence"
    )]
    pub disable_presence_watch: bool,
}

impl ControllerArgs {
    /// The auction's knobs.
    pub fn auction(&self) -> Knobs {
        Knobs {
            starting_container_weight: self.starting_container_weight,
            bin_pack_first_fit_weight: self.bin_pack_first_fit_weight,
            starting_container_count_maximum: self.starting_container_count_maximum,
        }
    }
}

/// Flags of `diego crds`.
#[derive(Debug, Clone, Args)]
pub struct CrdsArgs {
    /// Write one file per kind into this directory instead
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// Flags of `diego check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Where to find the API server.
    #[command(flatten)]
    pub kube: KubeArgs,
    /// Namespace of the leader election [default: no leader is asked for]
    #[arg(long, env = "DIEGO_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,
    /// Cells that must be Ready at least
    #[arg(
        long,
        env = "DIEGO_READY_CELLS",
        value_name = "COUNT",
        default_value_t = 1
    )]
    pub ready_cells: usize,
    /// Seconds to wait until all is well
    #[arg(long, env = "DIEGO_WAIT_SECONDS", value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub wait_seconds: u64,
}

impl CheckArgs {
    /// What is asked.
    pub fn questions(&self) -> Questions {
        Questions {
            leader_namespace: self.namespace.clone(),
            ready_cells: self.ready_cells,
            wait: Duration::from_secs(self.wait_seconds),
        }
    }
}

/// Arguments of `diego supervise`.
#[derive(Debug, Clone, Args)]
pub struct SuperviseArgs {
    /// Directory of the command's stdout.log and stderr.log
    #[arg(long, value_name = "DIR", requires = "log_size")]
    pub log_dir: Option<PathBuf>,
    /// The most bytes that each of these files may have
    #[arg(long, value_name = "BYTES", requires = "log_dir")]
    pub log_size: Option<u64>,
    /// When it is killed unless the rep gives a later time: nanoseconds of CLOCK_BOOTTIME
    #[arg(long, value_name = "NANOSECONDS")]
    pub deadline: Option<BootTime>,
    /// Both of the command's outputs go to this program's standard error
    #[arg(long, conflicts_with = "log_dir")]
    pub output_to_stderr: bool,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

impl SuperviseArgs {
    /// Where the command's output goes.
    pub fn output(&self) -> Output {
        match (&self.log_dir, self.log_size) {
            (Some(dir), Some(limit)) => Output::Files(Logs {
                dir: dir.clone(),
                limit,
            }),
            (_, _) if self.output_to_stderr => Output::Stderr,
            (_, _) => Output::Own,
        }
    }
}

/// Arguments of `diego witness`.
#[derive(Debug, Clone, Args)]
pub struct WitnessArgs {
    /// How the presence store is reached.
    #[command(flatten)]
    pub common: CommonArgs,
    /// The Cell of the rep
    #[arg(long, value_name = "NAME")]
    pub cell_id: String,
    /// The work directory of the rep
    #[arg(long, value_name = "DIR")]
    pub work_dir: PathBuf,
}

/// One Cell's worth of a process weighs 1000 in the auction: nothing may weigh more.
fn weight(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(weight) if (0.0..=1000.0).contains(&weight) => Ok(weight),
        Ok(_) | Err(_) => Err("must be a number from 0 to 1000, such as 0.25".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_of_a_program_has_its_environment_variable() {
        for program in ["controller", "rep", "fence", "check"] {
            let command = Cli::command();
            let program = command.find_subcommand(program).unwrap();
            for arg in program
                .get_arguments()
                .filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"))
            {
                let flag = arg.get_long().unwrap().to_uppercase().replace('-', "_");
                let env = arg
                    .get_env()
                    .unwrap_or_else(|| panic!("--{flag} has no variable"));
                assert_eq!(env.to_str().unwrap(), format!("DIEGO_{flag}"));
            }
        }
    }

    #[test]
    fn a_bad_value_names_flag_value_and_remedy() {
        let wrong = |args: &[&str]| Cli::try_parse_from(args).unwrap_err().to_string();
        let message = wrong(&["diego", "rep", "--cell-id", "Cell_1"]);
        assert!(
            message.contains("Cell_1")
                && message.contains("--cell-id")
                && message.contains("lower-case"),
            "{message}"
        );
        let message = wrong(&["diego", "rep", "--cell-id", "a", "--memory", "lots"]);
        assert!(
            message.contains("lots") && message.contains("--memory") && message.contains("512Mi"),
            "{message}"
        );
        for bad in ["-1", "NaN", "1001", "light"] {
            let message = wrong(&[
                "diego",
                "controller",
                &format!("--starting-container-weight={bad}"),
            ]);
            assert!(
                message.contains(bad)
                    && message.contains("--starting-container-weight")
                    && message.contains("from 0 to 1000"),
                "{message}"
            );
        }
        let message = wrong(&["diego", "rep", "--cell-id", "a", "--instance-log-size", "9"]);
        assert!(
            message.contains("'9'")
                && message.contains("--instance-log-size <QUANTITY>")
                && message.contains("at least 4Ki"),
            "{message}"
        );
        for program in [
            &["diego", "controller"][..],
            &["diego", "rep", "--cell-id=a"],
        ] {
            for bad in ["Diego_1", "", "a-"] {
                let message = wrong(&[program, &[&format!("--namespace={bad}")]].concat());
                assert!(
                    message.contains(bad)
                        && message.contains("--namespace")
                        && message.contains("lower-case"),
                    "{message}"
                );
            }
        }
        for bad in ["0", "101", "-1", "third"] {
            let flag = format!("--mass-loss-threshold-percent={bad}");
            let message = wrong(&["diego", "controller", &flag]);
            assert!(
                message.contains(&format!("'{bad}'"))
                    && message.contains("--mass-loss-threshold-percent"),
                "{message}"
            );
            assert!(bad == "third" || message.contains("1..=100"), "{message}");
        }
        let message = wrong(&["diego", "controller", "--presence", "consul"]);
        assert!(
            message.contains("consul") && message.contains("etcd, kubernetes"),
            "{message}"
        );
        let message = wrong(&["diego", "controller", "--convergence-interval-seconds", "0"]);
        assert!(
            message.contains("--convergence-interval-seconds") && message.contains("1..=3600"),
            "{message}"
        );
    }
}
