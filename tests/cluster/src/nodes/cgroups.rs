//! The cgroups of real nodes: made in every hierarchy, removed at the end, and swept later if their owner was killed.

use crate::{Error, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Where the kernel's cgroup file systems are.
const ROOT: &str = "/sys/fs/cgroup";
/// How the groups begin that the sweep looks at; the owner's pid and start time follow.
const PREFIX: &str = "local-cluster-";
/// How long the kernel may take to empty a group whose processes are dead.
const EMPTY_WITHIN: Duration = Duration::from_secs(5);

/// One group of its own in every hierarchy, for all nodes of one cluster.
#[derive(Debug)]
pub(crate) struct Cgroups {
    hierarchies: Vec<PathBuf>,
    name: String,
}

impl Cgroups {
    /// Makes it, after removing those whose owners are dead.
    pub(crate) fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let hierarchies = hierarchies(Path::new(ROOT))?;
        for hierarchy in &hierarchies {
            sweep(hierarchy);
        }
        let pid = process::id();
        let name = format!(
            "{PREFIX}{pid}-{}-{}",
            start_time(pid).unwrap_or_default(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let groups = Self { hierarchies, name };
        groups.make("")?;
        Ok(groups)
    }

    /// Makes a node's two groups: one for its servers, of which this returns the directories, and one for its Pods. Those of a
    /// former start go first, as with any machine that is switched off: a kubelet looks for their containers for seconds each.
    pub(crate) fn node(&self, node: &str) -> Result<Vec<PathBuf>> {
        for hierarchy in &self.hierarchies {
            remove_soon(&hierarchy.join(&self.name).join(node));
        }
        self.make(node)?;
        self.make(&format!("{node}/pods"))?;
        self.make(&format!("{node}/servers"))
    }

    /// The path of a node's group for Pods, as kubelet wants it.
    pub(crate) fn pods(&self, node: &str) -> String {
        format!("/{}/{node}/pods", self.name)
    }

    fn make(&self, below: &str) -> Result<Vec<PathBuf>> {
        let mut made = Vec::with_capacity(self.hierarchies.len());
        for hierarchy in &self.hierarchies {
            let group = hierarchy.join(&self.name).join(below);
            fs::create_dir_all(&group)
                .map_err(Error::io(format!("make the cgroup {}", group.display())))?;
            let parent = group.parent().unwrap_or(hierarchy);
            // A new group of the cpuset hierarchy is empty: it takes its parent's processors.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let own = fs::read_to_string(group.join(file)).unwrap_or_default();
                if hierarchy.ends_with("cpuset")
                    && own.trim().is_empty()
                    && let Ok(given) = fs::read(parent.join(file))
                {
                    fs::write(group.join(file), given)
                        .map_err(Error::io(format!("write {file} of {}", group.display())))?;
                }
            }
            // In the one hierarchy of version 2 a group's children have the controllers that it hands down; the servers' group
            // is a leaf, as that hierarchy demands of a group with processes.
            if hierarchy == Path::new(ROOT) && !below.ends_with("servers") {
                let controllers =
                    fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
                for controller in controllers.split_whitespace() {
                    let _ = fs::write(
                        group.join("cgroup.subtree_control"),
                        format!("+{controller}"),
                    );
                }
            }
            made.push(group);
        }
        Ok(made)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for hierarchy in &self.hierarchies {
            remove_soon(&hierarchy.join(&self.name));
        }
    }
}

/// Removes the group with all below it, as soon as the kernel lets it go.
fn remove_soon(group: &Path) {
    let began = Instant::now();
    while !remove(group) && began.elapsed() < EMPTY_WITHIN {
        thread::sleep(Duration::from_millis(20));
    }
}

/// The mount points: the one of version 2, or those of version 1, with that of version 2 beside them if there is one.
fn hierarchies(root: &Path) -> Result<Vec<PathBuf>> {
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let entries =
        fs::read_dir(root).map_err(Error::io(format!("list the cgroups in {}", root.display())))?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        // Combined controllers have symbolic links as their other names.
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .filter(|path| path.join("cgroup.procs").exists())
        .collect();
    found.sort();
    Ok(found)
}

/// Removes the groups of owners that are gone. The kernel refuses to remove a group with processes.
fn sweep(hierarchy: &Path) {
    for entry in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if owner.is_some_and(|owner| !is_alive(owner)) {
            remove(&entry.path());
        }
    }
}

/// Whether the process of `pid-start-number` lives; what is not such a name is somebody's, and alive.
fn is_alive(owner: &str) -> bool {
    let mut parts = owner.split('-').map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(start)), Some(Ok(_)), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return true;
    };
    u32::try_from(pid).ok().and_then(start_time) == Some(start)
}

/// When the process started, in ticks since boot: with the pid, this names one process for good.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name, which may hold anything; the 22nd is the start time.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// Removes the group with all below it; whether nothing is left of it.
fn remove(group: &Path) -> bool {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
    !group.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_dead_owners_are_swept_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let me = process::id();
        let mine = format!("{PREFIX}{me}-{}-0", start_time(me).unwrap());
        let reused_pid = format!("{PREFIX}{me}-1-0");
        for name in [mine.as_str(), &reused_pid, "local-cluster-other", "docker"] {
            fs::create_dir_all(dir.path().join(name).join("node/pods")).unwrap();
        }
        sweep(dir.path());
        assert!(!dir.path().join(&reused_pid).exists());
        for name in [mine.as_str(), "local-cluster-other", "docker"] {
            assert!(dir.path().join(name).join("node/pods").exists(), "{name}");
        }
    }
}
