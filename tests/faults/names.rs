//! Names that can be looked up, until they can't: a mount namespace with a hosts file of its own, and a name server that
//! never answers. What is started through it finds the servers by name.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use local_cluster::ServerProcess;

use crate::support::{Failure, eventually, site::START};

/// The name of the presence store.
const STORE: &str = "presence.test";

/// The name of the API server: one of those in its certificate.
const SERVER: &str = "kubernetes.default.svc";

/// Where the name server is that never answers; its port can only be this one.
const SILENT: &str = "127.53.0.53:53";

/// Ends when dropped.
pub struct Names {
    /// Holds the namespace.
    holder: ServerProcess,
    hosts: PathBuf,
    _silent: UdpSocket,
}

impl Names {
    /// With both names.
    pub async fn new(dir: &Path) -> Result<Names, Failure> {
        let silent = UdpSocket::bind(SILENT);
        let silent = silent.map_err(|error| format!("a name server at {SILENT}: {error}"))?;
        let dir = tempfile::Builder::new()
            .prefix("names-")
            .tempdir_in(dir)?
            .keep();
        let (hosts, ready) = (dir.join("hosts"), dir.join("ready"));
        let (address, _) = SILENT.split_once(':').unwrap_or_default();
        let resolver = format!("nameserver {address}\noptions timeout:1 attempts:2\n");
        std::fs::write(dir.join("resolv.conf"), resolver)?;
        std::fs::write(dir.join("nsswitch.conf"), "hosts: files dns\n")?;
        std::fs::write(&hosts, known())?;
        let script = r#"cd "$0" && for file in hosts resolv.conf nsswitch.conf; do
            mount --bind "$file" "/etc/$file" || exit; done
            touch ready && exec sleep 100000"#;
        let dir = dir.display().to_string();
        let args = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            &dir,
        ];
        let args = args.map(str::to_owned);
        let log = hosts.with_file_name("holder.log");
        let holder = ServerProcess::start("names", "/usr/bin/env".as_ref(), &args, &[], &log)?;
        holder.ready(START, || async { ready.exists() }).await?;
        let names = Names {
            holder,
            hosts,
            _silent: silent,
        };
        names.look_up(true).await?;
        Ok(names)
    }

    /// What a program is started through to be in there.
    pub fn through(&self) -> Vec<String> {
        let namespace = format!("--mount=/proc/{}/ns/mnt", self.holder.pid());
        ["/usr/bin/env", "nsenter", &namespace, "--"]
            .map(str::to_owned)
            .to_vec()
    }

    /// An endpoint of the presence store such as `http://127.0.0.1:2379`, by name.
    pub fn endpoint(&self, endpoint: &str) -> String {
        endpoint.replace("127.0.0.1", STORE)
    }

    /// A kubeconfig by which the API server is found by name.
    pub fn kubeconfig(&self, of: &Path, server: &str) -> Result<String, Failure> {
        let text = std::fs::read_to_string(of)?;
        let named = server.replace("127.0.0.1", SERVER);
        if named == server || !text.contains(server) {
            return Err(format!("{server} is not in {}, or has no address", of.display()).into());
        }
        let file = self.hosts.with_file_name("kubeconfig");
        std::fs::write(&file, text.replace(server, &named))?;
        Ok(file.display().to_string())
    }

    /// From now on no name can be looked up. Returns when that is seen.
    pub async fn take(&self) -> Result<(), Failure> {
        // In place: what is mounted is this very file.
        std::fs::write(&self.hosts, "# none\n")?;
        self.look_up(false).await
    }

    /// They can be looked up again.
    pub async fn give(&self) -> Result<(), Failure> {
        std::fs::write(&self.hosts, known())?;
        self.look_up(true).await
    }

    /// Looks whether a program in there finds both names.
    pub async fn look_up(&self, found: bool) -> Result<(), Failure> {
        for name in [STORE, SERVER] {
            let what = format!("looking up {name} succeeds: {found}");
            let through = self.through();
            eventually(&what, Duration::from_secs(15), || async {
                let status = tokio::process::Command::new(&through[0])
                    .args(&through[1..])
                    .args(["getent", "hosts", name])
                    .stdout(Stdio::null())
                    .status();
                (status.await.ok()?.success() == found).then_some(())
            })
            .await?;
        }
        Ok(())
    }
}

fn known() -> String {
    format!("127.0.0.1 {STORE} {SERVER}\n")
}
