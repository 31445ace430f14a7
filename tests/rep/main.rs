//! The process executor with real processes and without a cluster: what is started ends when it must.

mod executor;
mod fence;
mod hostile;
mod instance;
mod probes;
mod supervisor;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use diego_operator::rep::procfs;
use diego_operator::rep::workdir::GUID_VARIABLE;

/// Longer than any of these conditions takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// The program under test.
fn diego() -> PathBuf {
    env!("CARGO_BIN_EXE_diego").into()
}

/// Waits until a condition holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A guid that marks the processes of one test.
fn guid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Every living process that carries the guid.
fn marked(guid: &str) -> Vec<i32> {
    procfs::with_environment(&format!("{GUID_VARIABLE}={guid}"))
}
