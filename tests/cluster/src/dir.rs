//! The directory of one cluster: data, keys and logs, removed at the end, and swept later if its owner was killed.

use crate::{Error, Result};
use std::{
    env,
    fs::{self, DirBuilder, File},
    io::Write,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

/// How the directories begin that the sweep looks at.
const PREFIX: &str = "local-cluster-";
/// How a directory begins until its owner file is locked.
const UNOWNED: &str = ".new-local-cluster-";
/// The file inside that holds the owner's pid, and that the owner keeps locked for as long as it lives.
const OWNER: &str = "owner";
/// A directory with this file inside was kept on purpose.
const KEPT: &str = "kept";

/// An own directory below the system's temporary directory, readable by its owner only.
#[derive(Debug)]
pub(crate) struct ScratchDir {
    path: PathBuf,
    _owner: File,
}

impl ScratchDir {
    /// Makes a new one, after removing those whose owners are dead.
    pub(crate) fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let parent = env::temp_dir();
        sweep(&parent);
        loop {
            let unique = format!("{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = parent.join(format!("{PREFIX}{unique}"));
            // Left by a dead process that had our pid, and kept: the next number is as good.
            if path.exists() {
                continue;
            }
            // The name that the sweep knows comes last: until then there is no lock that tells the sweep to keep off.
            let unowned = parent.join(format!("{UNOWNED}{unique}"));
            let failed = || Error::io(format!("make the directory {}", path.display()));
            if unowned.exists() {
                fs::remove_dir_all(&unowned).map_err(failed())?;
            }
            DirBuilder::new()
                .mode(0o700)
                .create(&unowned)
                .map_err(failed())?;
            let mut owner = File::create(unowned.join(OWNER)).map_err(failed())?;
            owner.lock().map_err(failed())?;
            writeln!(owner, "{}", process::id()).map_err(failed())?;
            fs::rename(&unowned, &path).map_err(failed())?;
            return Ok(Self {
                path,
                _owner: owner,
            });
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        if env::var_os("DIEGO_KEEP_LOGS").is_some_and(|value| value == "1") {
            let _ = File::create(self.path.join(KEPT));
            eprintln!(
                "local-cluster: {} is kept because DIEGO_KEEP_LOGS=1",
                self.path.display()
            );
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            // A panic here would hide the failure that a test is about to report.
            if !thread::panicking() {
                eprintln!(
                    "local-cluster: cannot remove {}: {error}",
                    self.path.display()
                );
            }
        }
    }
}

/// Removes the directories of owners that are gone. What cannot be read or removed belongs to somebody else and is left alone.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_ours = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(PREFIX));
        // file_type does not follow symbolic links.
        if !is_ours
            || !entry.file_type().is_ok_and(|kind| kind.is_dir())
            || path.join(KEPT).exists()
        {
            continue;
        }
        // The kernel releases the lock with the last process that holds it, whatever ended that process.
        if let Ok(owner) = File::open(path.join(OWNER))
            && owner.try_lock().is_ok()
        {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_owners_are_swept_and_living_ones_are_not() {
        let living = ScratchDir::new().unwrap();
        let parent = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let dir = parent.path().join(name);
            fs::create_dir(&dir).unwrap();
            File::create(dir.join(OWNER)).unwrap()
        };
        drop(make("local-cluster-dead"));
        drop(make("somebody-else"));
        let held = make("local-cluster-living");
        held.lock().unwrap();
        drop(make("local-cluster-kept"));
        File::create(parent.path().join("local-cluster-kept").join(KEPT)).unwrap();

        sweep(parent.path());

        let mut left: Vec<_> = fs::read_dir(parent.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(
            left,
            [
                "local-cluster-kept",
                "local-cluster-living",
                "somebody-else"
            ]
        );
        sweep(&env::temp_dir());
        assert!(living.path().exists());
    }

    #[test]
    fn two_at_once_differ_and_vanish() {
        let (one, two) = (ScratchDir::new().unwrap(), ScratchDir::new().unwrap());
        let path = one.path().to_owned();
        assert_ne!(path, two.path());
        drop(one);
        assert!(!path.exists() && two.path().exists());
    }
}
