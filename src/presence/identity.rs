//! Who a rep is across its restarts: a file, and a lock, in its work directory.
//!
//! The file holds a random token that the rep also writes into its presence key. A restarted rep that finds its own
//! token in the key knows that the key is its own, not that of another machine under the same name; the lock says
//! that its former self no longer runs.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

const IDENTITY_FILE: &str = "identity.json";
const LOCK_FILE: &str = "lock";

/// What a rep keeps of itself in its work directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The Cell's name.
    pub cell_id: String,
    /// The incarnation the rep last started with.
    pub incarnation: String,
    /// 128 random bits in hex: the proof of ownership that the presence key carries too.
    pub owner: String,
    /// The lease last held, for whoever looks into the store by hand. Nothing is decided by it.
    #[serde(default)]
    pub lease_id: Option<i64>,
}

/// Whom a rep's presence is marked as belonging to, and with that what proves that a key found there is its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// Nobody who could prove it: a key found there is another's.
    Unproven,
    /// The rep of a work directory, which is locked.
    WorkDir(Identity),
    /// The machine, by the id of its boot: of two reps of the same boot the newer one holds the presence, and after
    /// another boot the presence of the former one is ended at once. No two machines may have the same Cell's name.
    Boot(String),
}

/// Why the work directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkDirError {
    /// Another process holds the lock.
    #[error(
        "--work-dir {} is in use by another rep, which holds its lock: stop that rep, or give this one a \
         directory of its own",
        .0.display()
    )]
    InUse(PathBuf),
    /// A file can't be written or read.
    #[error("--work-dir: {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The right to use a work directory, until dropped or until the process ends, however it ends.
#[derive(Debug)]
pub struct WorkDirLock {
    /// Holds the lock for as long as it is open. Children don't inherit it: std opens with O_CLOEXEC.
    _file: Flock<File>,
}

impl WorkDirLock {
    /// Takes the directory for this process alone; makes it first if it isn't there.
    pub fn acquire(dir: &Path) -> Result<Self, WorkDirError> {
        let failed = |path: &Path, source| WorkDirError::Io {
            path: path.to_owned(),
            source,
        };
        // Readable for the rep alone: the identity and the files of its work are in it.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| failed(dir, source))?;
        let path = dir.join(LOCK_FILE);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| failed(&path, source))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Self { _file: file }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(WorkDirError::InUse(dir.to_owned())),
            Err((_, errno)) => Err(failed(&path, errno.into())),
        }
    }
}

impl Identity {
    /// An identity with a new random token.
    pub fn new(cell_id: &str, incarnation: &str) -> io::Result<Self> {
        Ok(Self {
            cell_id: cell_id.to_owned(),
            incarnation: incarnation.to_owned(),
            owner: random_token()?,
            lease_id: None,
        })
    }

    /// What a former life of this rep left in `dir`. A file that can't be read is no proof of anything, so the rep
    /// goes on without it, with a warning: at worst it waits for its old presence to expire.
    pub fn load(dir: &Path) -> Option<Self> {
        let path = dir.join(IDENTITY_FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the rep's identity can't be read; going on as a new rep");
                return None;
            }
        };
        match serde_json::from_slice::<Self>(&text) {
            Ok(identity) if !identity.owner.is_empty() => Some(identity),
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the rep's identity is damaged; going on as a new rep");
                None
            }
        }
    }

    /// The identity to start with, stored in `dir` before it is used: the former one's token where it belongs to
    /// the same Cell, otherwise a new one. Call it with the [`WorkDirLock`] held.
    pub fn prepare(dir: &Path, cell_id: &str, incarnation: &str) -> Result<Self, WorkDirError> {
        let identity = match Self::load(dir) {
            Some(former) if former.cell_id == cell_id => Self {
                incarnation: incarnation.to_owned(),
                ..former
            },
            _ => Self::new(cell_id, incarnation).map_err(|source| WorkDirError::Io {
                path: RANDOM.into(),
                source,
            })?,
        };
        identity.store(dir)?;
        Ok(identity)
    }

    /// Writes the identity so that a crash leaves either the old file or the new one.
    pub fn store(&self, dir: &Path) -> Result<(), WorkDirError> {
        let path = dir.join(IDENTITY_FILE);
        self.replace(dir, &path)
            .map_err(|source| WorkDirError::Io { path, source })
    }

    fn replace(&self, dir: &Path, path: &Path) -> io::Result<()> {
        let new = dir.join(format!(".{IDENTITY_FILE}.new"));
        // A left-over of a crash may have another mode.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        // The rename itself is durable only once the directory is.
        File::open(dir)?.sync_all()
    }
}

const RANDOM: &str = "/dev/urandom";

fn random_token() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open(RANDOM)?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn dir() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory")
    }

    #[test]
    fn the_token_lasts_over_restarts_of_the_same_cell() {
        let dir = dir();
        let first = Identity::prepare(dir.path(), "a", "boot-1").expect("first");
        assert_eq!(first.owner.len(), 32);
        assert_eq!(Identity::load(dir.path()), Some(first.clone()));
        let second = Identity::prepare(dir.path(), "a", "boot-2").expect("second");
        assert_eq!(
            (second.owner.as_str(), second.incarnation.as_str()),
            (first.owner.as_str(), "boot-2")
        );
        assert_eq!(Identity::load(dir.path()), Some(second));
        let other = Identity::prepare(dir.path(), "b", "boot-2").expect("other cell");
        assert_ne!(other.owner, first.owner);
    }

    #[test]
    fn only_the_rep_may_read_it_even_after_a_crash_in_the_middle() {
        let dir = dir();
        fs::write(dir.path().join(".identity.json.new"), "half").expect("left-over");
        Identity::prepare(dir.path(), "a", "boot-1").expect("stored");
        let mode = fs::metadata(dir.path().join(IDENTITY_FILE))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!dir.path().join(".identity.json.new").exists());
    }

    #[test]
    fn a_damaged_file_is_no_proof_and_no_obstacle() {
        for text in [
            "",
            "{",
            "null",
            r#"{"cellId":"a"}"#,
            r#"{"cellId":"a","incarnation":"i","owner":""}"#,
        ] {
            let dir = dir();
            fs::write(dir.path().join(IDENTITY_FILE), text).expect("written");
            assert_eq!(Identity::load(dir.path()), None, "{text}");
            let identity = Identity::prepare(dir.path(), "a", "boot-1").expect("goes on");
            assert_eq!(Identity::load(dir.path()), Some(identity));
        }
    }

    #[test]
    fn a_work_directory_serves_one_rep_at_a_time() {
        let dir = dir();
        let work = dir.path().join("deep").join("work");
        let lock = WorkDirLock::acquire(&work).expect("free");
        let error = WorkDirLock::acquire(&work).expect_err("held");
        assert!(matches!(error, WorkDirError::InUse(_)));
        let text = error.to_string();
        assert!(
            text.contains("--work-dir") && text.contains("another rep"),
            "{text}"
        );
        drop(lock);
        WorkDirLock::acquire(&work).expect("free again");
    }

    #[test]
    fn a_directory_that_can_not_be_made_is_named() {
        let dir = dir();
        let file = dir.path().join("file");
        fs::write(&file, "").expect("written");
        let error = WorkDirLock::acquire(&file.join("work")).expect_err("not a directory");
        assert!(error.to_string().contains("file/work"), "{error}");
    }
}
