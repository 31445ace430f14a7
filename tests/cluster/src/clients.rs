//! kubectl and helm, as the administrator of a local cluster.

use crate::{Error, LocalCluster, Result, binary};
use std::process::{Output, Stdio};
use tokio::process::Command;

impl LocalCluster {
    /// Runs `kubectl` with these arguments as the administrator, and returns its exit status and output.
    ///
    /// # Errors
    /// [`Error::MissingBinary`] without a kubectl, [`Error::Io`] when it cannot be run. That kubectl itself fails is no error
    /// here: look at the status.
    pub async fn kubectl(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary("kubectl")?);
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(args);
        // What kubectl remembers of a server is filed by address, and another cluster may have had this one.
        command.env("KUBECACHEDIR", self.dir().join("kubectl-cache"));
        command.stdin(Stdio::null()).kill_on_drop(true);
        command.output().await.map_err(Error::io("run kubectl"))
    }

    /// Runs `helm` with these arguments as the administrator, and returns its exit status and output. It reads and writes no
    /// settings of the user.
    ///
    /// # Errors
    /// [`Error::MissingBinary`] without a helm, [`Error::Io`] when it cannot be run. That helm itself fails is no error here:
    /// look at the status.
    pub async fn helm(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary("helm")?);
        command.args(args).env("KUBECONFIG", self.kubeconfig());
        let home = self.dir().join("helm");
        for (variable, dir) in [
            ("HELM_CACHE_HOME", "cache"),
            ("HELM_CONFIG_HOME", "config"),
            ("HELM_DATA_HOME", "data"),
        ] {
            command.env(variable, home.join(dir));
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        command.output().await.map_err(Error::io("run helm"))
    }
}
