//! A control group in which a row puts Cells, to leave them little of something.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{Failure, eventually};

/// Where the kernel's hierarchies are.
const ROOT: &str = "/sys/fs/cgroup";

/// How long the kernel may take to empty a group whose processes were killed.
const EMPTY: Duration = Duration::from_secs(10);

/// What a group limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// Bytes.
    Memory,
    /// Processes and threads.
    Pids,
}

/// A group; [`Cgroup::remove`] ends it.
pub struct Cgroup {
    dir: PathBuf,
    limited: Limited,
    /// Version 1 has a hierarchy for each kind.
    is_old: bool,
}

impl Cgroup {
    /// Made, without a limit.
    pub fn new(limited: Limited) -> Result<Cgroup, Failure> {
        let kind = match limited {
            Limited::Memory => "memory",
            Limited::Pids => "pids",
        };
        let old = Path::new(ROOT).join(kind);
        let is_old = old.is_dir();
        let hierarchy = if is_old { old } else { ROOT.into() };
        let dir = hierarchy.join(format!("diego-faults-{}-{kind}", std::process::id()));
        std::fs::create_dir_all(&dir)
            .map_err(|error| format!("the control group {}: {error}", dir.display()))?;
        let group = Cgroup {
            dir,
            limited,
            is_old,
        };
        group.used()?;
        Ok(group)
    }

    /// What a program is started through to be in it, with all it starts.
    pub fn through(&self) -> Vec<String> {
        let file = self.dir.join("cgroup.procs").display().to_string();
        let script = r#"echo $$ > "$0" && exec "$@""#;
        ["/bin/sh", "-c", script, &file].map(str::to_owned).to_vec()
    }

    /// What is used now.
    pub fn used(&self) -> Result<u64, Failure> {
        Ok(self.read(self.name("usage_in_bytes", "current"))?.parse()?)
    }

    /// From now on it may use no more than this.
    pub fn limit(&self, most: u64) -> Result<(), Failure> {
        let file = self.dir.join(self.name("limit_in_bytes", "max"));
        std::fs::write(&file, most.to_string())
            .map_err(|error| format!("{}: {error}", file.display()).into())
    }

    /// How often the limit took effect: processes that the kernel killed, or that it did not start.
    pub fn struck(&self) -> Result<u64, Failure> {
        let (file, word) = match self.limited {
            Limited::Memory => (self.name("oom_control", "events"), "oom_kill"),
            Limited::Pids => ("pids.events".to_owned(), "max"),
        };
        let text = self.read(file)?;
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let line = lines.find(|(name, _)| *name == word);
        let (_, count) = line.ok_or_else(|| format!("no {word} in {text}"))?;
        Ok(count.parse()?)
    }

    /// Removes it, once it is empty.
    pub async fn remove(&self) -> Result<(), Failure> {
        eventually("the control group is empty", EMPTY, || async {
            std::fs::remove_dir(&self.dir).ok()
        })
        .await
    }

    fn name(&self, memory_old: &str, new: &str) -> String {
        match self.limited {
            Limited::Memory if self.is_old => format!("memory.{memory_old}"),
            Limited::Memory => format!("memory.{new}"),
            Limited::Pids => format!("pids.{new}"),
        }
    }

    fn read(&self, file: String) -> Result<String, Failure> {
        let file = self.dir.join(file);
        let text = std::fs::read_to_string(&file)
            .map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(text.trim().to_owned())
    }
}
