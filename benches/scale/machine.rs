//! The machine: what it is, and whether it can hold a fleet.

use std::fs::read_to_string;

use serde::{Deserialize, Serialize};

use super::plan::{Kind, Plan};
use crate::support::Failure;

/// What all servers and the controller take before there is anything, in bytes.
const BASE: u64 = 900 << 20;

/// What a Cell takes: a thread and a connection here, five watches in the API server, a lease.
const PER_CELL: u64 = 1600 << 10;

/// What an instance takes: in etcd, in the API server's cache, in the controller, and here.
const PER_INSTANCE: u64 = 22 << 10;

/// Open files of a Cell: its connection to the presence store, and its thread's runtime.
const FILES_PER_CELL: u64 = 8;

/// Open files for everything else.
const FILES: u64 = 1000;

/// What the figures were measured on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// How many of its cores there are.
    pub cores: usize,
    /// Memory, in bytes.
    pub memory: u64,
    /// The kernel's version.
    pub kernel: String,
    /// The load of the minute before it began: who else used the cores.
    pub load: String,
}

impl Machine {
    /// In a line.
    pub fn line(&self) -> String {
        let gigabytes = self.memory as f64 / f64::from(1 << 30);
        format!(
            "{}, {} cores, {gigabytes:.0} GiB, Linux {}",
            self.processor, self.cores, self.kernel
        )
    }

    /// This one.
    pub fn this() -> Result<Machine, Failure> {
        let cpu = read_to_string("/proc/cpuinfo")?;
        let name = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = read_to_string("/proc/loadavg")?;
        Ok(Machine {
            processor: name.map_or("unknown", |(_, name)| name).to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            memory: meminfo("MemTotal")?,
            kernel: read_to_string("/proc/sys/kernel/osrelease")?.trim().into(),
            load: load
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned(),
        })
    }
}

/// Refuses a fleet that this machine can't hold, before anything is started.
pub fn has_room(plan: &Plan) -> Result<(), Failure> {
    let (cells, instances) = (plan.cells as u64, plan.instances() as u64);
    fits(plan, needed(cells, instances), meminfo("MemAvailable")?)?;
    let limits = read_to_string("/proc/self/limits")?;
    let files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(u64::MAX);
    if plan.kind == Kind::Few {
        return Ok(());
    }
    let wanted = cells * FILES_PER_CELL + FILES;
    if wanted > files {
        return Err(format!("{cells} Cells need about {wanted} open files, and this program may have {files}: raise the limit with `ulimit -n {wanted}`, or choose fewer Cells with CELLS").into());
    }
    Ok(())
}

/// Memory of all processes together, in bytes.
fn needed(cells: u64, instances: u64) -> u64 {
    BASE + cells * PER_CELL + instances * PER_INSTANCE
}

/// Whether so much memory is enough.
pub fn fits(plan: &Plan, needed: u64, available: u64) -> Result<(), Failure> {
    if needed <= available {
        return Ok(());
    }
    let gigabytes = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    Err(format!(
        "{} Cells with {} instances each need about {:.1} GiB of memory, and {:.1} GiB are available: choose a smaller SIZE, or CELLS and INSTANCES",
        plan.cells,
        plan.per_cell,
        gigabytes(needed),
        gigabytes(available)
    )
    .into())
}

/// An entry of /proc/meminfo, in bytes.
fn meminfo(name: &str) -> Result<u64, Failure> {
    let text = read_to_string("/proc/meminfo")?;
    let entry = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = entry.and_then(|entry| entry.split_whitespace().next()?.parse::<u64>().ok());
    Ok(number.ok_or_else(|| format!("/proc/meminfo has no {name}"))? << 10)
}
