//! How an instance ended, in the words of its record; and the result of a Task.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use nix::sys::signal::Signal;

pub use crate::converge::task::transition::Outcome;

/// The longest result a Task may leave, in bytes (Diego's limit, 10 KB).
pub const MAX_RESULT: usize = 10_240;

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It could not be started.
    StartFailed(String),
    /// It exited with this status.
    Exited(i32),
    /// This signal killed it.
    Signaled(i32),
    /// It was stopped because it was not ready within so many seconds.
    NotReady(u64),
    /// It was stopped because a probe failed, and how.
    Unhealthy(String),
    /// Its supervisor was killed, and the instance after it.
    SupervisorLost,
    /// Its supervisor killed it because the presence was not renewed in time: it must not run twice.
    Fenced,
}

impl End {
    /// The reason as the record tells it.
    pub fn reason(&self) -> String {
        match self {
            End::StartFailed(reason) => format!("could not be started: {reason}"),
            End::Exited(code) => format!("exited with status {code}"),
            End::Signaled(number) => match Signal::try_from(*number) {
                Ok(signal) => format!("killed by signal {number} ({signal})"),
                Err(_) => format!("killed by signal {number}"),
            },
            End::Unhealthy(reason) => reason.clone(),
            End::NotReady(seconds) => format!("not ready within {seconds} s"),
            End::SupervisorLost => "its supervisor was killed".into(),
            End::Fenced => "fenced: the presence could not be renewed".into(),
        }
    }
}

/// The outcome of a Task that ended so. `stopped` is why the rep stopped it, if it did; the result file is looked
/// for below `cwd`.
pub fn task_outcome(
    end: &End,
    stopped: Option<&str>,
    result_file: Option<&str>,
    cwd: &Path,
) -> Outcome {
    if let Some(reason) = stopped {
        return Outcome::Failed(reason.into());
    }
    match (end, result_file) {
        (End::Exited(0), None) => Outcome::Succeeded(None),
        (End::Exited(0), Some(file)) => match read_result(&cwd.join(file)) {
            Ok(result) => Outcome::Succeeded(Some(result)),
            Err(reason) => Outcome::Failed(reason),
        },
        (End::StartFailed(reason), _) => {
            Outcome::Failed(format!("failed to run container: {reason}"))
        }
        (
            End::Exited(_)
            | End::Signaled(_)
            | End::NotReady(_)
            | End::Unhealthy(_)
            | End::SupervisorLost
            | End::Fenced,
            _,
        ) => Outcome::Failed(end.reason()),
    }
}

fn read_result(path: &Path) -> Result<String, String> {
    let failed = |error: io::Error| format!("failed to fetch result: {}: {error}", path.display());
    let metadata = path.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(io::Error::other("is no regular file")));
    }
    let too_long = |bytes: u64| {
        format!(
            "result file {} is {bytes} bytes, more than {MAX_RESULT}",
            path.display()
        )
    };
    if metadata.len() > MAX_RESULT as u64 {
        return Err(too_long(metadata.len()));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_RESULT as u64 + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.len() > MAX_RESULT {
        return Err(too_long(bytes.len() as u64));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_precisely() {
        for (end, reason) in [
            (
                End::StartFailed("x: not found".into()),
                "could not be started: x: not found",
            ),
            (End::Exited(3), "exited with status 3"),
            (End::Signaled(9), "killed by signal 9 (SIGKILL)"),
            (End::Signaled(40), "killed by signal 40"),
            (End::NotReady(60), "not ready within 60 s"),
            (
                End::Unhealthy("liveness probe failed: HTTP status 500".into()),
                "liveness probe failed: HTTP status 500",
            ),
        ] {
            assert_eq!(end.reason(), reason);
        }
    }

    #[test]
    fn a_task_fails_by_status_signal_stop_or_missing_result() {
        let dir = tempfile::tempdir().expect("a directory");
        let outcome = |end: End, stopped, file| task_outcome(&end, stopped, file, dir.path());
        let failed = |reason: &str| Outcome::Failed(reason.into());
        assert_eq!(
            outcome(End::Exited(0), None, None),
            Outcome::Succeeded(None)
        );
        assert_eq!(
            outcome(End::Exited(2), None, None),
            failed("exited with status 2")
        );
        assert_eq!(
            outcome(End::Signaled(9), None, None),
            failed("killed by signal 9 (SIGKILL)")
        );
        assert_eq!(
            outcome(End::StartFailed("x".into()), None, None),
            failed("failed to run container: x")
        );
        assert_eq!(
            outcome(End::Exited(0), Some("task was cancelled"), None),
            failed("task was cancelled")
        );
        let Outcome::Failed(reason) = outcome(End::Exited(0), None, Some("none")) else {
            panic!("no such file")
        };
        assert!(reason.starts_with("failed to fetch result: "), "{reason}");
    }

    #[test]
    fn a_result_has_a_limit() {
        let dir = tempfile::tempdir().expect("a directory");
        for (size, good) in [(0, true), (MAX_RESULT, true), (MAX_RESULT + 1, false)] {
            std::fs::write(dir.path().join("out"), "x".repeat(size)).expect("written");
            match task_outcome(&End::Exited(0), None, Some("out"), dir.path()) {
                Outcome::Succeeded(result) => {
                    assert!(good && result.map(|r| r.len()) == Some(size))
                }
                Outcome::Failed(reason) => {
                    assert!(!good);
                    assert!(
                        reason.ends_with("is 10241 bytes, more than 10240"),
                        "{reason}"
                    );
                }
            }
        }
        std::fs::create_dir(dir.path().join("sub")).expect("made");
        assert!(matches!(
            task_outcome(&End::Exited(0), None, Some("sub"), dir.path()),
            Outcome::Failed(_)
        ));
    }
}
