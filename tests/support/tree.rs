//! The processes below a process.

use std::collections::HashMap;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What runs below `root`: all descendants, children first, but for the witness of a rep's death, which is no work.
pub fn descendants(root: u32) -> Vec<u32> {
    let mut found = all(root);
    found.retain(|pid| !is_diego(*pid, "witness"));
    found
}

/// The witness of a rep's death.
pub fn witness(rep: u32) -> Option<u32> {
    all(rep).into_iter().find(|pid| is_diego(*pid, "witness"))
}

/// Whether a process is our program with this subcommand.
pub fn is_diego(pid: u32, subcommand: &str) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.starts_with(format!("diego\0{subcommand}\0").as_bytes())
}

fn all(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        for child in children.get(&pid).into_iter().flatten() {
            found.push(*child);
            next.push(*child);
        }
    }
    found
}

/// The parent of a process that exists and is no zombie.
fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (state != "Z" && state != "X").then_some(parent)
}

/// Whether the process exists and is no zombie.
pub fn is_alive(pid: u32) -> bool {
    parent(pid).is_some()
}

/// Ends a process and everything below it, as a machine's end would: nobody of them sees another one die.
pub fn kill_tree(root: u32) {
    let mut pids = all(root);
    pids.insert(0, root);
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        for pid in &pids {
            // It may have ended by itself meanwhile.
            let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
        }
    }
}

/// Kills a process alone.
pub fn kill_one(pid: u32) {
    let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
}
