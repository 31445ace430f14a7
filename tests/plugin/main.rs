//! `kubectl diego` on a real API server, with a real controller and real reps.

#[path = "../support/mod.rs"]
mod support;

mod cells;
mod check;
mod input;
mod kubectl;
mod recovery;
mod rights;
mod terminal;
mod watch;
mod work;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use support::{Failure, site::Site};
use tokio::process::Command;

/// The plugin with one kubeconfig.
struct Plugin {
    kubeconfig: PathBuf,
    columns: &'static str,
}

/// What it said and how it ended.
struct Said {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Plugin {
    /// As the administrator of a site.
    fn of(site: &Site) -> Plugin {
        Plugin::at(site.cluster.kubeconfig())
    }

    fn at(kubeconfig: &Path) -> Plugin {
        Plugin {
            kubeconfig: kubeconfig.to_owned(),
            columns: "120",
        }
    }

    fn program() -> &'static str {
        env!("CARGO_BIN_EXE_kubectl-diego")
    }

    /// The command, not yet started.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(Plugin::program());
        command
            .args(line.split(' '))
            .env("KUBECONFIG", &self.kubeconfig)
            .env("LC_ALL", "C.UTF-8")
            .env("COLUMNS", self.columns)
            .env_remove("NO_COLOR")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs it to its end, however that is.
    async fn run(&self, line: &str) -> Result<Said, Failure> {
        let output = self.command(line).output().await?;
        let said = Said {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout)?,
            stderr: String::from_utf8(output.stderr)?,
        };
        println!("$ kubectl diego {line}\n{}{}", said.stdout, said.stderr);
        Ok(said)
    }

    /// Runs it to a good end, and gives its results.
    async fn ok(&self, line: &str) -> Result<String, Failure> {
        let said = self.run(line).await?;
        match said.status {
            0 => Ok(said.stdout),
            status => Err(format!("kubectl diego {line}: status {status}: {}", said.stderr).into()),
        }
    }

    /// Runs it to a bad end, and gives its words.
    async fn fails(&self, line: &str, status: i32) -> Result<String, Failure> {
        let said = self.run(line).await?;
        assert_eq!(said.status, status, "{line}: {}", said.stderr);
        assert_eq!(said.stdout, "", "{line}: results only on stdout");
        Ok(said.stderr)
    }
}

/// JSON, one object a line.
fn objects(text: &str) -> Result<Vec<serde_json::Value>, Failure> {
    Ok(text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?)
}
