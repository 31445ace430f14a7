//! What every instance and Task of the rows runs: this program again, which writes its own start and its own stop.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use nix::sys::signal::{SigSet, Signal};

use crate::observer::facts::now;
use crate::support::Failure;

/// Appends `start` with the moment and who this is, waits to be asked to stop, and appends `stop`.
pub fn run(log: &Path) -> Result<(), Failure> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    // Before the line: whoever reads it may send the signal at once.
    signals.thread_block()?;
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| "-".to_owned());
    let index = variable("INSTANCE_INDEX");
    let [process, guid, cell] = ["DIEGO_PROCESS", "INSTANCE_GUID", "DIEGO_CELL_ID"].map(variable);
    let pid = std::process::id();
    append(
        log,
        &format!("start {} {process} {index} {guid} {pid} {cell}\n", now()),
    )?;
    signals.wait()?;
    append(log, &format!("stop {} {guid} {pid}\n", now()))
}

/// One write: lines of several processes don't mix.
fn append(log: &Path, line: &str) -> Result<(), Failure> {
    let mut file = OpenOptions::new().append(true).open(log)?;
    Ok(file.write_all(line.as_bytes())?)
}
