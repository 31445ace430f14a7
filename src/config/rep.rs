//! The flags of `diego rep`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::CommonArgs;
use crate::api::{Capacity, ExecutorKind, quantity};

/// Flags of `diego rep`.
#[derive(Debug, Clone, Args)]
pub struct RepArgs {
    /// Flags of both programs.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Name of this Cell, unique among all Cells: lower-case letters, digits and '-', at most 63
    #[arg(long, env = "DIEGO_CELL_ID", value_name = "NAME", value_parser = cell_id, help_heading = "Cell")]
    pub cell_id: String,
    /// Failure domain this Cell stands in
    #[arg(long, env = "DIEGO_ZONE", value_name = "NAME", default_value = "default", value_parser = zone, help_heading = "Cell")]
    pub zone: String,
    /// Seconds after its last renewal at which the Cell counts as lost (PRESENCE_TTL)
    #[arg(long, env = "DIEGO_PRESENCE_TTL_SECONDS", value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600), help_heading = "Cell")]
    pub presence_ttl_seconds: u32,
    /// What runs the work: child processes of this program, or Pods that the controller makes
    #[arg(
        long,
        env = "DIEGO_EXECUTOR",
        value_enum,
        default_value = "process",
        help_heading = "Cell"
    )]
    pub executor: ExecutorArg,
    /// Name of the Kubernetes node, with --executor pods
    #[arg(
        long,
        env = "DIEGO_NODE_NAME",
        value_name = "NAME",
        help_heading = "Cell"
    )]
    pub node_name: Option<String>,
    /// Memory offered to instances and Tasks, such as 4Gi [default: the machine's]
    #[arg(long, env = "DIEGO_MEMORY", value_name = "QUANTITY", value_parser = parse_quantity, help_heading = "Cell")]
    pub memory: Option<String>,
    /// Disk offered to instances and Tasks, such as 100Gi
    #[arg(long, env = "DIEGO_DISK", value_name = "QUANTITY", default_value = "10Gi", value_parser = parse_quantity, help_heading = "Cell")]
    pub disk: String,
    /// Instances and Tasks at once
    #[arg(long, env = "DIEGO_MAX_CONTAINERS", value_name = "COUNT", default_value_t = 250, value_parser = clap::value_parser!(i32).range(1..=100_000), help_heading = "Cell")]
    pub max_containers: i32,
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
    /// Directory for the Cell's identity and its instances' files; not shared with another rep
    #[arg(
        long,
        env = "DIEGO_WORK_DIR",
        value_name = "DIR",
        default_value = "/var/lib/diego/rep",
        help_heading = "Cell"
    )]
    pub work_dir: PathBuf,
    /// Size at which a log file of an instance becomes the old one; of stdout and stderr the newest two are kept each
    #[arg(long, env = "DIEGO_INSTANCE_LOG_SIZE", value_name = "QUANTITY", default_value = "10Mi", value_parser = log_size, help_heading = "Cell")]
    pub instance_log_size: u64,
    /// Seconds that a graceful stop waits for the work to be moved away
    #[arg(long, env = "DIEGO_EVACUATION_TIMEOUT_SECONDS", value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(0..=86_400), help_heading = "Cell")]
    pub evacuation_timeout_seconds: u64,
}

impl RepArgs {
    /// What the Cell offers.
    pub fn capacity(&self) -> Capacity {
        Capacity {
            memory: self.memory.clone().unwrap_or_else(machine_memory),
            disk: self.disk.clone(),
            containers: self.max_containers,
        }
    }

    /// How long a graceful stop waits.
    pub fn evacuation_timeout(&self) -> Duration {
        Duration::from_secs(self.evacuation_timeout_seconds)
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
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if fits && letters && !text.starts_with('-') && !text.ends_with('-') {
        return Ok(text.to_owned());
    }
    Err("a Cell's name must be 1 to 63 lower-case letters, digits or '-', and must not begin or end with '-'".into())
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
