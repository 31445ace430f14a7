//! The processes below a process.

use std::collections::HashMap;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// All descendants of `root`, children first.
pub fn descendants(root: u32) -> Vec<u32> {
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

/// Sends SIGKILL to a process and everything below it, as a machine's end would.
pub fn kill_tree(root: u32) {
    let mut pids = descendants(root);
    pids.insert(0, root);
    for pid in pids {
        // It may have ended by itself meanwhile.
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
    }
}
