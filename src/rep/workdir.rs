//! The rep's directory: one per running instance, and the logs of the last ones that ended.
//!
//! ```text
//! <work-dir>/instances/<guid>/stdout.log  stdout.log.1  stderr.log  stderr.log.1  cwd/  process.json
//! <work-dir>/ended/<time>-<process>-<index>-<guid>/stdout.log  stdout.log.1  stderr.log  stderr.log.1
//! ```

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::procfs;
use super::supervise::Logs;

/// So many ended instances keep their logs, for whoever wants to know why they ended.
pub const KEPT_LOGS: usize = 20;

/// The limit of each log file where no other is given, in bytes.
const DEFAULT_LOG_LIMIT: u64 = 10 << 20;

/// The variable that marks every process of an instance.
pub const GUID_VARIABLE: &str = "DIEGO_INSTANCE_GUID";

/// How long leftovers of an earlier life may take to die of SIGKILL before the rep gives up on its start.
const LEFTOVERS_TIMEOUT: Duration = Duration::from_secs(10);

/// The work directory, whose lock this rep holds.
#[derive(Debug, Clone)]
pub struct WorkDir {
    root: PathBuf,
    log_limit: u64,
}

/// The directory of one instance.
#[derive(Debug, Clone)]
pub struct InstanceDir {
    path: PathBuf,
    log_limit: u64,
}

/// Which processes an instance was, so that a later rep kills them and no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessRecord {
    /// The boot it was started in.
    pub boot_id: String,
    /// The supervisor, and when it was started.
    pub supervisor: (i32, Option<u64>),
    /// The command, and when it was started. It leads a process group.
    pub command: (i32, Option<u64>),
}

/// Whether a guid may name a directory: the API server does not check it.
pub fn is_safe_guid(guid: &str) -> bool {
    !guid.is_empty()
        && guid.len() <= 64
        && guid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

impl WorkDir {
    /// Takes over the directory: kills what an earlier life of the rep left running and clears its instances.
    ///
    /// # Errors
    /// When a directory can't be made or cleared, or a leftover does not die.
    pub fn open(root: &Path) -> io::Result<WorkDir> {
        let dir = WorkDir {
            // An instance is started in a directory of its own, and from there a relative path leads nowhere.
            root: std::path::absolute(root)?,
            log_limit: DEFAULT_LOG_LIMIT,
        };
        for sub in [dir.instances(), dir.ended()] {
            DirBuilder::new().recursive(true).mode(0o700).create(sub)?;
        }
        for entry in fs::read_dir(dir.instances())? {
            let path = entry?.path();
            let guid = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default()
                .to_owned();
            let left = dir.instance(path);
            kill_leftovers(&guid, left.process())?;
            dir.archive(&left, &format!("leftover-{guid}"), Timestamp::now())?;
        }
        Ok(dir)
    }

    /// The same directory with another limit for each log file of its instances, in bytes.
    pub fn with_log_limit(self, log_limit: u64) -> WorkDir {
        WorkDir { log_limit, ..self }
    }

    fn instance(&self, path: PathBuf) -> InstanceDir {
        InstanceDir {
            path,
            log_limit: self.log_limit,
        }
    }

    fn instances(&self) -> PathBuf {
        self.root.join("instances")
    }

    fn ended(&self) -> PathBuf {
        self.root.join("ended")
    }

    /// Makes the directory of a new instance. `guid` must be safe ([`is_safe_guid`]).
    ///
    /// # Errors
    /// What the file system said.
    pub fn create(&self, guid: &str) -> io::Result<InstanceDir> {
        if !is_safe_guid(guid) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the instance guid can't name a directory",
            ));
        }
        let path = self.instances().join(guid);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path.join("cwd"))?;
        Ok(self.instance(path))
    }

    /// Removes an instance's directory but for its logs, of which the last [`KEPT_LOGS`] are kept.
    ///
    /// # Errors
    /// What the file system said.
    pub fn archive(&self, dir: &InstanceDir, name: &str, now: Timestamp) -> io::Result<()> {
        let target = self
            .ended()
            .join(format!("{}-{name}", now.strftime("%Y%m%dT%H%M%SZ")));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&target)?;
        for log in ["stdout.log", "stdout.log.1", "stderr.log", "stderr.log.1"] {
            match fs::rename(dir.path.join(log), target.join(log)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match fs::remove_dir_all(&dir.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.forget_oldest()
    }

    /// The names begin with the time, so the oldest come first.
    fn forget_oldest(&self) -> io::Result<()> {
        let mut names: Vec<_> = fs::read_dir(self.ended())?
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        names.sort();
        for name in &names[..names.len().saturating_sub(KEPT_LOGS)] {
            match fs::remove_dir_all(self.ended().join(name)) {
                // Instances that end together are cleared beside each other.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

impl InstanceDir {
    /// The directory an instance runs in unless its template names another.
    pub fn cwd(&self) -> PathBuf {
        self.path.join("cwd")
    }

    /// Where its standard output and standard error go.
    pub fn logs(&self) -> Logs {
        Logs {
            dir: self.path.clone(),
            limit: self.log_limit,
        }
    }

    /// Writes down which processes it is.
    ///
    /// # Errors
    /// What the file system said.
    pub fn record(&self, process: &ProcessRecord) -> io::Result<()> {
        fs::write(self.path.join("process.json"), serde_json::to_vec(process)?)
    }

    /// Which processes it was, if that was written down.
    pub fn process(&self) -> Option<ProcessRecord> {
        serde_json::from_slice(&fs::read(self.path.join("process.json")).ok()?).ok()
    }
}

/// The instances whose directories are there, when nobody is to use these any more.
#[derive(Debug)]
pub struct Leftovers {
    /// The marks in the environment of their processes.
    marks: BTreeSet<Vec<u8>>,
    records: Vec<ProcessRecord>,
}

impl Leftovers {
    /// Those in this work directory now.
    ///
    /// # Errors
    /// When that can't be read; a directory that is not there has none.
    pub fn of(root: &Path) -> io::Result<Leftovers> {
        let boot = procfs::boot_id()?;
        let mut left = Leftovers {
            marks: BTreeSet::new(),
            records: Vec::new(),
        };
        let entries = match fs::read_dir(root.join("instances")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(left),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if let Some(guid) = entry.file_name().to_str().filter(|guid| is_safe_guid(guid)) {
                left.marks
                    .insert(format!("{GUID_VARIABLE}={guid}").into_bytes());
            }
            let dir = InstanceDir {
                path: entry.path(),
                log_limit: DEFAULT_LOG_LIMIT,
            };
            left.records
                .extend(dir.process().filter(|record| record.boot_id == boot));
        }
        Ok(left)
    }

    /// Whether any process of theirs lives.
    pub fn any(&self) -> bool {
        let lives = |(pid, started): (i32, Option<u64>)| {
            started.is_some() && procfs::start_ticks(pid) == started && !procfs::is_zombie(pid)
        };
        let mut recorded = self.records.iter();
        recorded.any(|record| lives(record.command) || lives(record.supervisor))
            || !self.marks.is_empty() && procfs::any_with_environment(&self.marks)
    }
}

/// Kills every process of an instance and waits until they are gone: those on record, and those that carry its guid
/// in their environment.
///
/// # Errors
/// When one is still there after ten seconds.
pub fn kill_leftovers(guid: &str, record: Option<ProcessRecord>) -> io::Result<()> {
    let boot = procfs::boot_id()?;
    let record = record.filter(|record| record.boot_id == boot);
    let entry = format!("{GUID_VARIABLE}={guid}");
    let deadline = Instant::now() + LEFTOVERS_TIMEOUT;
    let mut told = false;
    loop {
        let mut left: Vec<i32> = if guid.is_empty() {
            Vec::new()
        } else {
            procfs::with_environment(&entry)
        };
        for (pid, started) in record
            .iter()
            .flat_map(|record| [record.command, record.supervisor])
        {
            if started.is_some() && procfs::start_ticks(pid) == started && !procfs::is_zombie(pid) {
                // The command leads a group; the supervisor does too.
                let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
                left.push(pid);
            }
        }
        left.retain(|pid| *pid != Pid::this().as_raw());
        if left.is_empty() {
            return Ok(());
        }
        if !told {
            tracing::warn!(instance = guid, processes = ?left, "killing what an earlier run left behind");
            told = true;
        }
        for pid in &left {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        if Instant::now() > deadline {
            let text =
                format!("processes {left:?} of instance {guid} do not die: end them by hand");
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_can_not_leave_the_directory() {
        for (guid, safe) in [
            ("a-1", true),
            ("", false),
            ("..", false),
            ("a/b", false),
            ("a.b", false),
            ("\0", false),
        ] {
            assert_eq!(is_safe_guid(guid), safe, "{guid:?}");
        }
        assert!(!is_safe_guid(&"a".repeat(65)));
    }

    #[test]
    fn the_logs_of_the_last_ended_instances_are_kept() {
        let root = tempfile::tempdir().expect("a directory");
        let work = WorkDir::open(root.path()).expect("opened");
        for i in 0..KEPT_LOGS + 5 {
            let dir = work.create(&format!("guid-{i}")).expect("created");
            for log in ["stderr.log", "stderr.log.1"] {
                fs::write(dir.logs().dir.join(log), "x").expect("written");
            }
            let now = Timestamp::from_second(i64::try_from(i).expect("small")).expect("a time");
            work.archive(&dir, &format!("web-0-guid-{i}"), now)
                .expect("archived");
        }
        let mut names: Vec<_> = fs::read_dir(work.ended())
            .expect("there")
            .flatten()
            .map(|e| e.file_name().into_string().expect("text"))
            .collect();
        names.sort();
        assert_eq!(names.len(), KEPT_LOGS);
        assert_eq!(names[0], "19700101T000005Z-web-0-guid-5");
        for log in ["stderr.log", "stderr.log.1"] {
            assert!(work.ended().join(&names[0]).join(log).exists(), "{log}");
        }
        assert_eq!(fs::read_dir(work.instances()).expect("there").count(), 0);
    }

    #[test]
    fn what_an_earlier_life_left_is_killed_and_cleared() {
        let root = tempfile::tempdir().expect("a directory");
        let work = WorkDir::open(root.path()).expect("opened");
        let guid = uuid::Uuid::new_v4().to_string();
        work.create(&guid).expect("created");
        let mut left = std::process::Command::new("sleep")
            .arg("600")
            .env(GUID_VARIABLE, &guid)
            .spawn()
            .expect("sleep");
        assert!(Leftovers::of(root.path()).expect("read").any());
        WorkDir::open(root.path()).expect("opened again");
        assert!(!Leftovers::of(root.path()).expect("read").any());
        // Killed, and only not collected yet, because it is our child.
        assert!(!left.wait().expect("ended").success());
        assert_eq!(fs::read_dir(work.instances()).expect("there").count(), 0);
    }
}
