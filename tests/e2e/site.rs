//! A cluster with real nodes, and short ways to ask it things.

use crate::support::{Failure, eventually};
use local_cluster::{Node, Nodes, NodesOptions, image};
use std::{fs, path::Path, process::Output, time::Duration};
use tokio::sync::{Mutex, MutexGuard};

/// Three kubelets fill a small machine: the tests of this program take turns.
static TURN: Mutex<()> = Mutex::const_new(());

/// Waits for its turn, which lasts until this is dropped.
pub async fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().await
}

/// The cluster of one test, with the image `test-app:dev` (busybox under all its names) on every node.
pub struct Site {
    /// The nodes and the control plane.
    pub nodes: Nodes,
    turn: MutexGuard<'static, ()>,
}

impl Site {
    /// Waits for its turn, starts the cluster and waits until all nodes are Ready.
    pub async fn start(options: NodesOptions) -> Result<Self, Failure> {
        let turn = turn().await;
        let nodes = Nodes::start(options).await?;
        nodes.import(&image("test-app")?).await?;
        Ok(Self { nodes, turn })
    }

    /// Ends the cluster and keeps the turn, for who looks what is left of it.
    pub fn end(self) -> MutexGuard<'static, ()> {
        self.turn
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Result<&Node, Failure> {
        Ok(self.nodes.node(name)?)
    }

    /// What kubectl prints as the administrator; the arguments are separated by spaces.
    pub async fn kubectl(&self, args: &str) -> Result<String, Failure> {
        let args: Vec<&str> = args.split_whitespace().collect();
        let output = self.nodes.cluster().kubectl(&args).await?;
        said(&format!("kubectl {}", args.join(" ")), output)
    }

    /// What kubectl says as the administrator although it must fail.
    pub async fn kubectl_refused(&self, args: &str) -> Result<String, Failure> {
        match self.kubectl(args).await {
            Ok(said) => Err(format!("kubectl {args} was not refused: {said}").into()),
            Err(refusal) => Ok(refusal.to_string()),
        }
    }

    /// What helm prints as the administrator; the arguments are separated by spaces.
    pub async fn helm(&self, args: &str) -> Result<String, Failure> {
        let args: Vec<&str> = args.split_whitespace().collect();
        let output = self.nodes.cluster().helm(&args).await?;
        said(&format!("helm {}", args.join(" ")), output)
    }

    /// Applies these objects, YAML or JSON.
    pub async fn apply(&self, manifest: &str) -> Result<(), Failure> {
        let file = self.dir().join("apply.yaml");
        fs::write(&file, manifest)?;
        self.kubectl(&format!("apply -f {}", file.display()))
            .await
            .map(|_| ())
    }

    /// Waits until what kubectl prints is as wanted, and returns it.
    pub async fn until(
        &self,
        args: &str,
        within: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String, Failure> {
        let last = std::sync::Mutex::new(String::new());
        let found = eventually(args, within, || async {
            // kubectl costs processor time that the nodes need.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let printed = self
                .kubectl(args)
                .await
                .unwrap_or_else(|error| error.to_string());
            if wanted(&printed) {
                return Some(printed);
            }
            *last.lock().ok()? = printed;
            None
        });
        let found = found.await;
        found.map_err(|error| {
            let last = last.lock().map(|last| last.clone()).unwrap_or_default();
            format!(
                "{error}; last printed: {last}; logs in {}",
                self.dir().display()
            )
            .into()
        })
    }

    /// The directory with all logs.
    pub fn dir(&self) -> &Path {
        self.nodes.cluster().dir()
    }
}

fn said(what: &str, output: Output) -> Result<String, Failure> {
    if output.status.success() {
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    } else {
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(format!("{what}: {}: {}", output.status, complaint.trim()).into())
    }
}
