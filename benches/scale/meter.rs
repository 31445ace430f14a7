//! CPU time and memory of each process, from /proc.

use std::fs::read_to_string;

use serde::Serialize;

use super::plan::{Plan, Store};
use crate::support::{Failure, site::Site};

/// What a process used so far, or in a while.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Which process.
    pub program: &'static str,
    /// Its CPU time, in seconds.
    pub cpu_seconds: f64,
    /// Its memory now, in bytes.
    pub memory: u64,
    /// The most it ever had, in bytes.
    pub peak: u64,
}

/// All processes of the site that are of interest, and this one, which is the fleet and the observer.
pub fn all(site: &Site, plan: &Plan) -> Result<Vec<Usage>, Failure> {
    let mut programs = vec![
        ("controller", site.controller().process.pid()),
        ("API server", site.cluster.apiserver().pid()),
        ("its etcd", site.cluster.etcd().member(0).pid()),
    ];
    if plan.store == Store::Etcd {
        programs.push(("presence etcd", site.etcd.member(0).pid()));
    }
    programs.push(("fleet and observer", std::process::id()));
    programs
        .into_iter()
        .map(|(program, pid)| of(program, pid))
        .collect()
}

/// What each used since `before`.
pub fn since(before: &[Usage], now: &[Usage]) -> Vec<Usage> {
    let used = before.iter().zip(now).map(|(before, now)| Usage {
        cpu_seconds: now.cpu_seconds - before.cpu_seconds,
        ..now.clone()
    });
    used.collect()
}

fn of(program: &'static str, pid: u32) -> Result<Usage, Failure> {
    let stat = read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |at: usize| {
        let field: Option<f64> = fields.get(at).and_then(|field| field.parse().ok());
        field.ok_or_else(|| format!("/proc/{pid}/stat can't be read"))
    };
    let status = read_to_string(format!("/proc/{pid}/status"))?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        number.map_or(0, |kilobytes| kilobytes << 10)
    };
    Ok(Usage {
        program,
        // utime and stime, in hundredths of a second on every Linux that matters.
        cpu_seconds: (ticks(11)? + ticks(12)?) / 100.0,
        memory: bytes("VmRSS:"),
        peak: bytes("VmHWM:"),
    })
}
