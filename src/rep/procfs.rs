//! Reading /proc: who descends from whom, since when a process runs, and whose environment it was given.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

/// Where the kernel tells which boot this is.
pub const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Every process that descends from `root`, which itself is not among them.
pub fn descendants(root: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for pid in pids() {
        if let Some(parent) = stat(pid).map(|stat| stat.parent) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        // Each process is taken out of the map once, so that a number used twice while reading can't loop.
        for child in children.remove(&pid).unwrap_or_default() {
            found.push(child);
            open.push(child);
        }
    }
    found
}

/// When a process was started, in clock ticks since boot: with its number this names one process for sure.
pub fn start_ticks(pid: i32) -> Option<u64> {
    stat(pid).map(|stat| stat.start_ticks)
}

/// Whether a process has ended and only waits to be collected.
pub fn is_zombie(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| stat.zombie)
}

/// Whether any process that is not a zombie was given one of these variables (`NAME=value`).
pub fn any_with_environment(entries: &BTreeSet<Vec<u8>>) -> bool {
    pids().any(|pid| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
            environ
                .split(|byte| *byte == 0)
                .any(|one| entries.contains(one))
        })
    })
}

/// Every process that was given the variable `entry` (`NAME=value`) and is not a zombie.
pub fn with_environment(entry: &str) -> Vec<i32> {
    let has = |pid: &i32| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
            environ
                .split(|byte| *byte == 0)
                .any(|one| one == entry.as_bytes())
        })
    };
    pids().filter(has).collect()
}

/// The identity of this boot of the machine.
///
/// # Errors
/// When the kernel does not tell.
pub fn boot_id() -> std::io::Result<String> {
    read_boot_id(Path::new(BOOT_ID))
}

/// The same, told by another file.
///
/// # Errors
/// When it can't be read, or is empty.
pub fn read_boot_id(file: &Path) -> std::io::Result<String> {
    match fs::read_to_string(file)?.trim() {
        "" => Err(std::io::Error::other("the file is empty")),
        id => Ok(id.to_owned()),
    }
}

/// The range of ports the kernel gives to outgoing connections.
pub fn ephemeral_ports() -> Option<(u16, u16)> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut words = text.split_whitespace();
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
        })
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    zombie: bool,
    parent: i32,
    start_ticks: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The second field, the name, may hold spaces and parentheses; everything after its last `)` is regular.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let zombie = matches!(fields.first(), Some(&"Z" | &"X"));
    Some(Stat {
        zombie,
        parent: fields.get(1)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_confuses_nobody() {
        let text = "12 (a) b (c)) S 7 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        assert_eq!(
            parse_stat(text),
            Some(Stat {
                zombie: false,
                parent: 7,
                start_ticks: 4711
            })
        );
        assert_eq!(parse_stat("12 (a"), None);
        assert_eq!(parse_stat("12 (a) S 1"), None);
    }

    #[test]
    fn this_process_is_found() {
        let me = i32::try_from(std::process::id()).expect("a process number");
        assert!(start_ticks(me).expect("running") > 0);
        assert!(!boot_id().expect("linux").is_empty());
    }
}
