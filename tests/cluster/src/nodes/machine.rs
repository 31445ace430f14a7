//! The processes of one running node, from outside: the first one, entering, and the end of all.

use crate::{Error, Result, ServerProcess, run::run};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};
use tokio::time;

/// How long the kernel may take to end all processes of a node.
const DOWN_WITHIN: Duration = Duration::from_secs(30);

/// The first process, with which all others of the node end.
pub(super) struct Machine {
    /// Its parent outside, which ends when all processes of the node have.
    parent: ServerProcess,
    first: u32,
}

impl Machine {
    /// The one whose first process has this parent.
    pub(super) fn of(parent: ServerProcess) -> Result<Self> {
        let pid = parent.pid();
        let children = format!("/proc/{pid}/task/{pid}/children");
        let first = fs::read_to_string(&children)
            .map_err(Error::io(format!("read {children}")))?
            .split_whitespace()
            .next()
            .and_then(|first| first.parse().ok());
        let first = first.ok_or_else(|| Error::Command {
            what: format!("start the node {}", parent.name()),
            why: format!("{children} names no first process"),
        })?;
        Ok(Self { parent, first })
    }

    /// The first process's number outside of the node.
    pub(super) fn first(&self) -> u32 {
        self.first
    }

    /// The arguments by which nsenter enters the node.
    pub(super) fn inside(&self) -> Vec<String> {
        let target = format!("--target={}", self.first);
        [&target, "--mount", "--uts", "--ipc", "--net", "--pid", "--"]
            .map(str::to_owned)
            .to_vec()
    }

    /// Runs a program inside and returns what it prints.
    pub(super) async fn exec(&self, program: &[&str]) -> Result<String> {
        let inside = self.inside();
        let mut args: Vec<&str> = inside.iter().map(String::as_str).collect();
        args.extend(program);
        run("nsenter", &args, "").await
    }

    /// Gives the node's containerd the images of this archive, under the names that kubelet asks for.
    pub(super) async fn import(&self, archive: &Path) -> Result<()> {
        let archive = archive
            .canonicalize()
            .map_err(Error::io(format!("find {}", archive.display())))?;
        let archive = archive.to_string_lossy();
        let ctr = ["ctr", "--namespace", "k8s.io", "images"];
        let import = [&ctr[..], &["import", "--snapshotter", "native", &archive]].concat();
        let said = self.exec(&import).await?;
        let names: Vec<&str> = said.lines().filter_map(imported_name).collect();
        if names.is_empty() {
            return Err(Error::Command {
                what: format!("ctr images import {archive}"),
                why: format!("it names no image: {}", said.trim()),
            });
        }
        for name in names {
            if let Some(full) = full_name(name) {
                self.exec(&[&ctr[..], &["tag", "--force", name, &full]].concat())
                    .await?;
            }
        }
        Ok(())
    }

    /// Ends all processes and waits until they are gone.
    pub(super) async fn halt(&self) -> Result<()> {
        self.kill();
        let gone = time::timeout(DOWN_WITHIN, self.parent.wait()).await;
        gone.map(|_| ()).map_err(|_| Error::Command {
            what: format!("end the node {}", self.parent.name()),
            why: format!("its processes are not gone after {DOWN_WITHIN:?}"),
        })
    }

    /// Ends the first process, and with it the kernel ends all others.
    fn kill(&self) {
        if self.parent.is_running() {
            let _ = kill(Pid::from_raw(self.first.cast_signed()), Signal::SIGKILL);
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
        let began = Instant::now();
        while self.parent.is_running() && began.elapsed() < DOWN_WITHIN {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The image's name in what `ctr images import` says: `unpacking NAME (DIGEST)...done`.
fn imported_name(line: &str) -> Option<&str> {
    line.strip_prefix("unpacking ")?.split_whitespace().next()
}

/// The name by which kubelet asks for an image that names no registry; nothing if it names one.
fn full_name(name: &str) -> Option<String> {
    match name.split_once('/') {
        None => Some(format!("docker.io/library/{name}")),
        Some((host, _)) if host == "localhost" || host.contains(['.', ':']) => None,
        Some(_) => Some(format!("docker.io/{name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_get_the_names_that_kubelet_uses() {
        let name = imported_name("unpacking test-app:dev (sha256:3ef6)...done");
        assert_eq!(name, Some("test-app:dev"));
        let full = |name| full_name(name);
        assert_eq!(
            full("test-app:dev").unwrap(),
            "docker.io/library/test-app:dev"
        );
        assert_eq!(full("me/app:1").unwrap(), "docker.io/me/app:1");
        assert_eq!(full("localhost/app:1"), None);
        assert_eq!(full("ghcr.io/me/app:1"), None);
    }
}
