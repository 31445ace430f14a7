//! Runs a program for its effect or its output, with a deadline and an error that says everything.

use crate::{Error, Result};
use std::{process::Stdio, time::Duration};
use tokio::{io::AsyncWriteExt, process::Command, time};

/// How long a program may take.
const WITHIN: Duration = Duration::from_secs(120);

/// Runs the program with these arguments and `input`, and returns what it prints.
///
/// # Errors
/// [`Error::MissingBinary`] when it is not on `PATH`, [`Error::Command`] when it fails or takes longer than two minutes.
pub(crate) async fn run(program: &str, args: &[&str], input: &str) -> Result<String> {
    let what = format!("{program} {}", args.join(" "));
    let failed = |why: String| Error::Command {
        what: what.clone(),
        why,
    };
    let mut command = Command::new(crate::binary(program)?);
    command.args(args).kill_on_drop(true);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let mut stdin = child.stdin.take();
    let output = async {
        if let Some(stdin) = &mut stdin {
            // A program that does not read its input says so by its status.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        drop(stdin);
        child.wait_with_output().await
    };
    let output = time::timeout(WITHIN, output)
        .await
        .map_err(|_| failed(format!("not done after {WITHIN:?}")))?
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(failed(format!("{}: {}", output.status, complaint.trim())))
    }
}
