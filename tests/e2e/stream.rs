//! Commands as a user types them: with a shell, and those that go on until they are stopped.

use crate::{site::Site, support::Failure};
use local_cluster::binary;
use std::{
    env,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// A command that goes on, such as `kubectl get --watch`, and every line it has printed so far. It ends with this.
pub struct Stream {
    what: String,
    lines: Arc<Mutex<Vec<String>>>,
    _child: Child,
}

impl Stream {
    /// Starts it in a shell with kubectl and helm as the administrator.
    pub fn start(site: &Site, command: &str) -> Result<Self, Failure> {
        // No shell stays between the command and its end.
        let mut child = shell(site, &format!("exec {command}"))?
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let out = child.stdout.take().ok_or("no output")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&lines);
        tokio::spawn(async move {
            let mut out = BufReader::new(out).lines();
            while let Ok(Some(line)) = out.next_line().await {
                seen.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(line);
            }
        });
        Ok(Self {
            what: command.to_owned(),
            lines,
            _child: child,
        })
    }

    /// What it has printed.
    pub fn lines(&self) -> Vec<String> {
        let lines = self.lines.lock();
        lines.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until what it has printed is as wanted.
    pub async fn until(
        &self,
        within: Duration,
        wanted: impl Fn(&[String]) -> bool,
    ) -> Result<(), Failure> {
        let seen = crate::support::eventually(&self.what, within, || async {
            wanted(&self.lines()).then_some(())
        });
        seen.await
            .map_err(|error| format!("{error}; printed: {:#?}", self.lines()).into())
    }
}

/// Runs it in a shell with kubectl and helm as the administrator; everything it says, and whether it succeeded.
pub async fn run(site: &Site, command: &str) -> Result<(bool, String), Failure> {
    let output = shell(site, command)?.kill_on_drop(true).output().await?;
    let said = [output.stdout, output.stderr].concat();
    Ok((
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    ))
}

fn shell(site: &Site, command: &str) -> Result<Command, Failure> {
    let mut path = env::var("PATH").unwrap_or_default();
    for program in ["kubectl", "helm"] {
        if let Some(dir) = binary(program)?.parent() {
            path = format!("{}:{path}", dir.display());
        }
    }
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).env("PATH", path);
    shell.env("KUBECONFIG", site.nodes.cluster().kubeconfig());
    let home = site.dir().join("helm");
    for (variable, dir) in [
        ("HELM_CACHE_HOME", "cache"),
        ("HELM_CONFIG_HOME", "config"),
        ("HELM_DATA_HOME", "data"),
    ] {
        shell.env(variable, home.join(dir));
    }
    shell.env("KUBECACHEDIR", site.dir().join("kubectl-cache"));
    shell.stdin(Stdio::null());
    Ok(shell)
}
