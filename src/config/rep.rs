//! The flags of `diego rep`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

use super::{CommonArgs, PresenceKind};
use crate::api::{Capacity, ExecutorKind, quantity};
use crate::presence::ttl::{Bounds, Ttl, parse_seconds};
use crate::rep::deadline_file::FenceFiles;
use crate::rep::node::Offer;
use crate::rep::procfs::BOOT_ID;

/// Flags of `diego rep`.
#[derive(Debug, Clone, Args)]
pub struct RepArgs {
    /// Flags of both programs.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Name of this Cell, unique among all Cells: lower-case letters, digits, '-' and '.', at most 63 [default: the
    /// value of --node-name]
    #[arg(long, env = "DIEGO_CELL_ID", value_name = "NAME", value_parser = cell_id, required_unless_present = "node_name", help_heading = "Cell")]
    pub cell_id: Option<String>,
    /// Failure domain this Cell stands in; with --executor pods the one in the Node's label topology.kubernetes.io/zone,
    /// where it has any
    #[arg(long, env = "DIEGO_ZONE", value_name = "NAME", default_value = "default", value_parser = zone, help_heading = "Cell")]
    pub zone: String,
    /// Seconds after its last renewal at which the Cell counts as lost (PRESENCE_TTL), from 0.3 on with --presence
    /// kubernetes and whole ones with etcd; auto chooses the shortest that renewals and the number of Cells allow
    #[arg(long, visible_alias = "presence-ttl", env = "DIEGO_PRESENCE_TTL_SECONDS", value_name = "SECONDS|auto", default_value = "5", value_parser = TtlArg::parse, help_heading = "Cell")]
    pub presence_ttl_seconds: TtlArg,
    /// The shortest that --presence-ttl-seconds auto chooses; under 2 nothing with missingCellPolicy Strict runs here
    #[arg(long, env = "DIEGO_PRESENCE_TTL_MIN_SECONDS", value_name = "SECONDS", default_value = "2", value_parser = parse_seconds, help_heading = "Cell")]
    pub presence_ttl_min_seconds: Duration,
    /// The longest that --presence-ttl-seconds auto chooses
    #[arg(long, env = "DIEGO_PRESENCE_TTL_MAX_SECONDS", value_name = "SECONDS", default_value = "30", value_parser = parse_seconds, help_heading = "Cell")]
    pub presence_ttl_max_seconds: Duration,
    /// What runs the work: child processes of this program, or Pods that the controller makes
    #[arg(
        long,
        env = "DIEGO_EXECUTOR",
        value_enum,
        default_value = "process",
        help_heading = "Cell"
    )]
    pub executor: ExecutorArg,
    /// Name of the Kubernetes node that this machine is, with --executor pods
    #[arg(
        long,
        env = "DIEGO_NODE_NAME",
        value_name = "NAME",
        help_heading = "Cell"
    )]
    pub node_name: Option<String>,
    /// File that tells which boot the machine is in, with --executor pods: another one says that all Pods on it are gone
    #[arg(long, env = "DIEGO_BOOT_ID_FILE", value_name = "FILE", default_value = BOOT_ID, help_heading = "Cell")]
    pub boot_id_file: PathBuf,
    /// File for the deadline at which `diego fence` stops the Pods of LRPs with missingCellPolicy Strict, with --executor pods
    #[arg(
        long,
        env = "DIEGO_FENCE_DEADLINE_FILE",
        value_name = "FILE",
        requires = "fence_ready_file",
        help_heading = "Cell"
    )]
    pub fence_deadline_file: Option<PathBuf>,
    /// File by which `diego fence` tells that it is at work (its --ready-file)
    #[arg(
        long,
        env = "DIEGO_FENCE_READY_FILE",
        value_name = "FILE",
        requires = "fence_deadline_file",
        help_heading = "Cell"
    )]
    pub fence_ready_file: Option<PathBuf>,
    /// Memory offered to instances and Tasks, such as 4Gi [default: the machine's; with --executor pods what the kubelet
    /// gives to Pods]
    #[arg(long, env = "DIEGO_MEMORY", value_name = "QUANTITY", value_parser = parse_quantity, help_heading = "Cell")]
    pub memory: Option<String>,
    /// Disk offered to instances and Tasks, such as 100Gi [default: 10Gi; with --executor pods what the kubelet gives to
    /// Pods]
    #[arg(long, env = "DIEGO_DISK", value_name = "QUANTITY", value_parser = parse_quantity, help_heading = "Cell")]
    pub disk: Option<String>,
    /// Instances and Tasks at once [default: 250; with --executor pods as many Pods as the kubelet takes]
    #[arg(long, env = "DIEGO_MAX_CONTAINERS", value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..=100_000), help_heading = "Cell")]
    pub max_containers: Option<i32>,
    /// Tags that work must carry to be placed here, comma separated
    #[arg(
        long,
        env = "DIEGO_PLACEMENT_TAGS",
        value_name = "TAG,...",
        value_delimiter = ',',
        help_heading = "Cell"
    )]
    pub placement_tags: Vec<String>,
    /// Tags that work may carry to be placed here, comma separated
    #[arg(
        long,
        env = "DIEGO_OPTIONAL_PLACEMENT_TAGS",
        value_name = "TAG,...",
        value_delimiter = ',',
        help_heading = "Cell"
    )]
    pub optional_placement_tags: Vec<String>,
    /// Address at which instances of this Cell are reached [default: the one this machine reaches the API
    /// server from]
    #[arg(
        long,
        env = "DIEGO_ADDRESS",
        value_name = "HOST",
        help_heading = "Cell"
    )]
    pub address: Option<String>,
    /// Directory for the Cell's identity and its instances' files; not shared with another rep, and not used with
    /// --executor pods
    #[arg(
        long,
        env = "DIEGO_WORK_DIR",
        value_name = "DIR",
        default_value = "/var/lib/diego/rep",
        help_heading = "Cell"
    )]
    pub work_dir: PathBuf,
    /// Whether a small process beside the rep tells the presence store when the rep has died with all that it ran, so that
    /// nobody waits for the TTL; of no effect with --executor pods, where the work outlives the rep
    #[arg(long, env = "DIEGO_DEATH_WITNESS", value_name = "BOOL", action = ArgAction::Set, default_value_t = true, help_heading = "Cell")]
    pub death_witness: bool,
    /// Size at which a log file of an instance becomes the old one; of stdout and stderr the newest two are kept each
    #[arg(long, env = "DIEGO_INSTANCE_LOG_SIZE", value_name = "QUANTITY", default_value = "10Mi", value_parser = log_size, help_heading = "Cell")]
    pub instance_log_size: u64,
    /// Seconds that a graceful stop waits for the work to be moved away
    #[arg(long, env = "DIEGO_EVACUATION_TIMEOUT_SECONDS", value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(0..=86_400), help_heading = "Cell")]
    pub evacuation_timeout_seconds: u64,
}

impl RepArgs {
    /// Checks what one flag needs of another.
    ///
    /// # Errors
    /// What is missing or does not fit.
    pub fn validate(&self) -> Result<(), String> {
        self.validate_ttl()?;
        if let (ExecutorArg::Process, Some(file)) = (self.executor, &self.fence_deadline_file) {
            return Err(format!(
                "--fence-deadline-file {}: is for --executor pods; processes are fenced by their supervisors: leave it out",
                file.display()
            ));
        }
        match (self.executor, &self.node_name) {
            (ExecutorArg::Pods, None) => Err(
                "--executor pods needs --node-name, the name of the Node that this machine is; in a Pod take it from the field spec.nodeName".into(),
            ),
            (ExecutorArg::Pods, Some(_)) | (ExecutorArg::Process, _) => {
                cell_id(&self.cell_id()).map(drop).map_err(|problem| {
                    format!("--node-name {}: {problem}. Where no admission policy ties the Cell's name to the Node's, set --cell-id", self.cell_id())
                })
            }
        }
    }

    /// How long the presence lasts.
    pub fn ttl(&self) -> Ttl {
        match self.presence_ttl_seconds {
            TtlArg::Seconds(ttl) => Ttl::Fixed(ttl),
            TtlArg::Auto => Ttl::Auto(Bounds {
                min: self.presence_ttl_min_seconds,
                max: self.presence_ttl_max_seconds,
                ..Bounds::default()
            }),
        }
    }

    /// What the presence store can't do of that, which takes another flag to tell.
    fn validate_ttl(&self) -> Result<(), String> {
        let (min, max) = (self.presence_ttl_min_seconds, self.presence_ttl_max_seconds);
        if min > max {
            return Err(format!(
                "--presence-ttl-min-seconds {}: is more than --presence-ttl-max-seconds {}; lower it, or raise the other",
                min.as_secs_f64(),
                max.as_secs_f64()
            ));
        }
        let whole = matches!(self.common.presence, PresenceKind::Etcd);
        self.ttl().check(whole).map_err(|error| error.to_string())
    }

    /// The Cell's name.
    pub fn cell_id(&self) -> String {
        let name = self.cell_id.as_ref().or(self.node_name.as_ref());
        name.cloned().unwrap_or_default()
    }

    /// The files between this rep and its fencer.
    pub fn fence(&self) -> Option<FenceFiles> {
        Some(FenceFiles {
            deadline: self.fence_deadline_file.clone()?,
            ready: self.fence_ready_file.clone()?,
        })
    }

    /// What the witness of this rep's death is started with, if it has one.
    pub fn witness(&self) -> Option<Vec<OsString>> {
        let has = self.death_witness && self.executor == ExecutorArg::Process;
        has.then(|| {
            let mut flags = self.common.store_flags();
            flags.extend(["--cell-id".into(), self.cell_id().into()]);
            flags.extend(["--work-dir".into(), self.work_dir.clone().into()]);
            flags
        })
    }

    /// What the operator says of what the Cell offers.
    pub fn offer(&self) -> Offer {
        Offer {
            memory: self.memory.clone(),
            disk: self.disk.clone(),
            containers: self.max_containers,
        }
    }

    /// What the Cell offers, where no Node says it.
    pub fn capacity(&self) -> Capacity {
        Capacity {
            memory: self.memory.clone().unwrap_or_else(machine_memory),
            disk: self.disk.clone().unwrap_or_else(|| "10Gi".into()),
            containers: self.max_containers.unwrap_or(250),
        }
    }

    /// How long a graceful stop waits.
    pub fn evacuation_timeout(&self) -> Duration {
        Duration::from_secs(self.evacuation_timeout_seconds)
    }
}

/// The TTL, as the flag gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TtlArg {
    /// This one
    Seconds(Duration),
    /// The rep chooses it
    Auto,
}

impl TtlArg {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => parse_seconds(text)
                .map(Self::Seconds)
                .map_err(|problem| format!("{problem}, or auto")),
        }
    }
}

/// The executors, as flags name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExecutorArg {
    /// Child processes of the rep
    Process,
    /// Pods on this node: the rep keeps the presence only
    Pods,
}

impl From<ExecutorArg> for ExecutorKind {
    fn from(arg: ExecutorArg) -> Self {
        match arg {
            ExecutorArg::Process => ExecutorKind::Process,
            ExecutorArg::Pods => ExecutorKind::Pods,
        }
    }
}

fn cell_id(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.len() <= 63;
    let letters = text
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.');
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let whole = !["..", ".-", "-."].iter().any(|pair| text.contains(pair));
    if fits && letters && whole && ends(text.chars().next()) && ends(text.chars().last()) {
        return Ok(text.to_owned());
    }
    Err("a Cell's name must be 1 to 63 lower-case letters, digits, '-' or '.', each part beginning and ending with a letter or digit; rename a node that has no such name, or keep reps off it".into())
}

fn zone(text: &str) -> Result<String, String> {
    if (1..=63).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err("a zone must be 1 to 63 characters long".into())
    }
}

fn parse_quantity(text: &str) -> Result<String, String> {
    match quantity::bytes(text)? {
        0 => Err("must be more than 0".into()),
        _ => Ok(text.to_owned()),
    }
}

fn log_size(text: &str) -> Result<u64, String> {
    match u64::try_from(quantity::bytes(text)?) {
        Ok(bytes) if bytes >= 4096 => Ok(bytes),
        Ok(_) | Err(_) => Err("must be at least 4Ki".into()),
    }
}

/// The machine's memory, from /proc/meminfo; 1Gi where it can't be read.
fn machine_memory() -> String {
    let total = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
            line.split_whitespace().nth(1)?.parse::<i64>().ok()
        });
    total.map_or_else(|| "1Gi".to_owned(), |kib| format!("{}Mi", kib / 1024))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::{Cli, Program};

    fn parse(flags: &[&str]) -> Result<RepArgs, String> {
        let words = ["diego", "rep"].iter().chain(flags);
        match Cli::try_parse_from(words)
            .map_err(|error| error.to_string())?
            .program
        {
            Program::Rep(args) => Ok(*args),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn a_cell_that_is_a_node_has_its_name() {
        let args = parse(&["--executor", "pods", "--node-name", "n1.example"]).unwrap();
        assert_eq!((args.validate(), &*args.cell_id()), (Ok(()), "n1.example"));
        let named = ["--executor", "pods", "--node-name", "n1", "--cell-id", "c1"];
        assert_eq!(parse(&named).unwrap().cell_id(), "c1");
    }

    #[test]
    fn a_witness_is_led_to_the_same_store() {
        let rep = [
            "--cell-id=c1",
            "--presence=kubernetes",
            "--namespace=ns",
            "--etcd-endpoints=https://a:1,https://b:1",
            "--etcd-ca=ca.pem",
            "--etcd-cert=tls.crt",
            "--etcd-key=tls.key",
            "--kubeconfig=k",
            "--context=x",
            "--log-format=json",
            "--work-dir=/w",
        ];
        let args = parse(&rep).unwrap();
        let flags = args.witness().expect("a witness");
        let words = ["diego".into(), "witness".into()].into_iter().chain(flags);
        let Program::Witness(witness) = Cli::try_parse_from(words).unwrap().program else {
            panic!("another program");
        };
        let (ours, its) = (&args.common, &witness.common);
        assert_eq!((ours.presence, ours.etcd()), (its.presence, its.etcd()));
        assert_eq!(
            (
                &ours.namespace,
                &ours.kube.kubeconfig,
                &ours.kube.context,
                ours.log_format
            ),
            (
                &its.namespace,
                &its.kube.kubeconfig,
                &its.kube.context,
                its.log_format
            )
        );
        assert_eq!(
            (&*witness.cell_id, &witness.work_dir),
            ("c1", &args.work_dir)
        );
        for off in [
            &["--cell-id=c1", "--death-witness=false"][..],
            &["--executor=pods", "--node-name=n1"],
        ] {
            assert_eq!(parse(off).unwrap().witness(), None, "{off:?}");
        }
    }

    #[test]
    fn what_one_flag_needs_of_another_is_told() {
        let error = parse(&[]).unwrap_err();
        assert!(error.contains("--cell-id"), "{error}");
        let args = parse(&["--executor", "pods", "--cell-id", "c1"]).unwrap();
        let error = args.validate().unwrap_err();
        assert!(error.contains("--node-name"), "{error}");
        let long = "n".repeat(64);
        let args = parse(&["--executor", "pods", "--node-name", &long]).unwrap();
        let error = args.validate().unwrap_err();
        assert!(
            ["--node-name", "63", "rename", "set --cell-id"]
                .iter()
                .all(|word| error.contains(word)),
            "{error}"
        );
    }

    #[test]
    fn a_fence_needs_both_its_files_and_pods() {
        let both = ["--fence-deadline-file=/d", "--fence-ready-file=/r"];
        let pods = ["--executor=pods", "--node-name=n1"];
        let args = parse(&[&pods[..], &both].concat()).unwrap();
        assert!(args.validate().is_ok() && args.fence().is_some());
        assert_eq!(parse(&pods).unwrap().fence(), None);
        let error = parse(&[&pods[..], &both[..1]].concat()).unwrap_err();
        assert!(error.contains("--fence-ready-file"), "{error}");
        let args = parse(&[&["--cell-id=c1"], &both[..]].concat()).unwrap();
        let error = args.validate().unwrap_err();
        assert!(
            [
                "--fence-deadline-file /d",
                "--executor pods",
                "leave it out"
            ]
            .iter()
            .all(|word| error.contains(word)),
            "{error}"
        );
    }

    #[test]
    fn a_ttl_may_be_a_fraction_where_the_store_takes_one_and_may_be_chosen() {
        let parse = |flags: &[&str]| parse(&[&["--cell-id=c1"], flags].concat());
        assert_eq!(parse(&[]).unwrap().ttl(), Ttl::seconds(5));
        let half = parse(&["--presence-ttl=0.5", "--presence=kubernetes"]).unwrap();
        assert_eq!(half.ttl(), Ttl::Fixed(Duration::from_millis(500)));
        assert_eq!(half.validate(), Ok(()));
        let etcd = ["--presence-ttl-seconds=2.5", "--presence=etcd"];
        let error = parse(&etcd).unwrap().validate().unwrap_err();
        assert!(
            ["--presence-ttl-seconds 2.5", "set", "to 3 or more"]
                .iter()
                .all(|part| error.contains(part)),
            "{error}"
        );
        for wrong in ["0.2", "0", "500ms", "Auto", "3601", "5s", ""] {
            let error = parse(&[&*format!("--presence-ttl-seconds={wrong}")]).unwrap_err();
            assert!(
                error.contains("0.3 to 3600") && error.contains("auto"),
                "{error}"
            );
        }
        let auto = parse(&["--presence-ttl=auto", "--presence-ttl-max-seconds=10"]).unwrap();
        let Ttl::Auto(bounds) = auto.ttl() else {
            panic!("{:?}", auto.ttl());
        };
        assert_eq!(bounds.max, Duration::from_secs(10));
        let crossed = [
            "--presence-ttl=auto",
            "--presence-ttl-min-seconds=40",
            "--presence=kubernetes",
        ];
        let error = parse(&crossed).unwrap().validate().unwrap_err();
        assert!(error.contains("--presence-ttl-max-seconds 30"), "{error}");
    }

    #[test]
    fn names_of_nodes_are_names_of_cells() {
        for good in ["a", "0", "ip-10-0-0-1.ec2.internal", "a.b-c"] {
            assert!(cell_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".a", "a.", "a..b", "a.-b", "-a", "A", "a_b"] {
            assert!(cell_id(bad).is_err(), "{bad}");
        }
    }
}
