//! One real node: its first process and its servers, and all that can happen to a node.

use super::{
    cgroups::Cgroups,
    config::{self, CONTAINERD_SOCKET},
    machine::Machine,
    network::Network,
};
use crate::{Error, Result, ServerProcess, binary, image, pki};
use serde_json::{Map, Value};
use std::{
    env,
    ffi::OsStr,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::net::UnixStream;

/// How long the first process, or containerd, may take until it works.
const UP_WITHIN: Duration = Duration::from_secs(60);
/// Enters the cgroups in $NODE_CGROUPS, then becomes the program.
const IN_CGROUPS: &str =
    r#"for group in $NODE_CGROUPS; do echo $$ >"$group/cgroup.procs" || exit 1; done; exec "$@""#;
/// A kubelet ends when containerd answers already and is not ready yet; elsewhere systemd starts it again.
const AGAIN: &str = r#"for try in 1 2 3 4 5; do "$@"; sleep 1; done; exit 1"#;

/// What the nodes of one cluster have in common.
pub(super) struct Shared {
    pub(super) network: Network,
    pub(super) cgroups: Cgroups,
    /// The file with the certificate of the API server's authority.
    pub(super) ca: PathBuf,
    pub(super) cni_plugins: PathBuf,
    /// The directory of the cluster.
    pub(super) dir: PathBuf,
    /// Where Pods ask for names, if anywhere.
    pub(super) dns: Option<Ipv4Addr>,
    pub(super) proxy_kubeconfig: PathBuf,
    /// How many nodes there are.
    pub(super) count: usize,
}

/// What makes a node this one.
pub(super) struct Spec {
    pub(super) index: usize,
    pub(super) name: String,
    pub(super) zone: Option<String>,
    pub(super) kubelet: Map<String, Value>,
}

/// A node, running or not. It ends when its [`Nodes`](crate::Nodes) are dropped.
pub struct Node {
    spec: Spec,
    kubeconfig: PathBuf,
    /// Its disk and its configuration.
    dir: PathBuf,
    groups: Vec<PathBuf>,
    running: Mutex<Option<Arc<Running>>>,
    shared: Arc<Shared>,
}

/// The processes of a running node.
pub(super) struct Running {
    pub(super) kubelet: ServerProcess,
    _proxy: ServerProcess,
    _containerd: ServerProcess,
    machine: Machine,
}

impl Node {
    pub(super) fn new(spec: Spec, kubeconfig: PathBuf, shared: Arc<Shared>) -> Result<Self> {
        let dir = shared.dir.join("nodes").join(&spec.name);
        for sub in ["lib", "log"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).map_err(Error::io(format!("make {}", path.display())))?;
        }
        let groups = shared.cgroups.node(&spec.name)?;
        let cgroup = shared.cgroups.pods(&spec.name);
        let pods = shared.network.pods(spec.index);
        for (file, text) in [
            ("init.sh", config::init(&dir, &spec.name)),
            ("containerd.toml", config::containerd(&shared.cni_plugins)),
            ("cni.conflist", config::cni(&pods)),
            (
                "kubelet.json",
                config::kubelet(&shared.ca, &cgroup, shared.dns, &spec.kubelet),
            ),
        ] {
            pki::write(&dir, file, &text)?;
        }
        Ok(Self {
            spec,
            kubeconfig,
            dir,
            groups,
            running: Mutex::new(None),
            shared,
        })
    }

    /// Its name, which is that of its Node object.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.shared.network.address(self.spec.index)
    }

    /// Its boot id: every start makes a new one. Pods find it in the file `/run/diego-test/boot-id` of their node; the file
    /// `/proc/sys/kernel/random/boot_id` of a container tells that of the machine below.
    ///
    /// # Errors
    /// [`Error::Io`] when it was never started.
    pub fn boot_id(&self) -> Result<String> {
        let file = self.dir.join("boot-id");
        let text = fs::read_to_string(&file);
        let text = text.map_err(Error::io(format!("read {}", file.display())))?;
        Ok(text.trim().to_owned())
    }

    /// Switches it on, with a new boot id, and returns when its servers are started: [`Nodes::ready`](crate::Nodes::ready) waits
    /// for more. What it had on disk is still there; its cable is plugged in.
    ///
    /// # Errors
    /// [`Error::Option`] when it is running; [`Error::Exited`] or [`Error::NotReady`] with the end of the log when a part of it
    /// fails; [`Error::Command`] when the network can't be made.
    pub async fn start(&self) -> Result<()> {
        if self.current().is_some() {
            let name = self.name();
            return Err(Error::Option(format!("the node {name} is running already")));
        }
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/uuid")
            .map_err(Error::io("read /proc/sys/kernel/random/uuid"))?;
        pki::write(&self.dir, "boot-id", &boot_id)?;
        self.shared.cgroups.node(self.name())?;
        let Shared { network, count, .. } = &*self.shared;
        let machine = self.machine().await?;
        network
            .connect(self.spec.index, *count, machine.first())
            .await?;

        let config = self.dir.join("containerd.toml");
        let args = [format!("--config={}", config.display())];
        let containerd = self.server(&machine, "containerd", &args)?;
        let socket = format!("/proc/{}/root{CONTAINERD_SOCKET}", machine.first());
        containerd
            .ready(UP_WITHIN, || async {
                UnixStream::connect(&socket).await.is_ok()
            })
            .await?;
        let first_start = self.dir.join("lib/images-imported");
        if !first_start.exists() {
            machine.import(&image("pause")?).await?;
            fs::write(&first_start, "").map_err(Error::io("mark the node's first start"))?;
        }

        let labels = self.spec.zone.as_ref();
        let labels = labels.map(|zone| format!("topology.kubernetes.io/zone={zone}"));
        let args = config::kubelet_args(
            &self.dir.join("kubelet.json"),
            &self.kubeconfig,
            self.name(),
            self.address(),
            &labels.unwrap_or_default(),
        );
        let kubelet = self.server(&machine, "kubelet", &args)?;
        let pods = network.pods(self.spec.index);
        let args = config::proxy_args(&self.shared.proxy_kubeconfig, self.name(), &pods);
        let proxy = self.server(&machine, "kube-proxy", &args)?;
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(Running {
            kubelet,
            _proxy: proxy,
            _containerd: containerd,
            machine,
        }));
        Ok(())
    }

    /// A power cut: the cable goes dead, then all its processes end at once, containers and all. Nobody hears a word of it.
    /// Does nothing when it is not running.
    ///
    /// # Errors
    /// [`Error::Command`] when the cable can't be cut or a process outlives its end for half a minute.
    pub async fn kill(&self) -> Result<()> {
        if self.current().is_none() {
            return Ok(());
        }
        self.cut().await?;
        self.halt().await
    }

    /// Ends all its processes and starts it again at once, with a new boot id and the cable plugged in all the while.
    ///
    /// # Errors
    /// As [`Node::kill`] and [`Node::start`].
    pub async fn reboot(&self) -> Result<()> {
        self.halt().await?;
        self.start().await
    }

    /// Pulls its cable: all its processes live on, and nobody reaches them.
    ///
    /// # Errors
    /// [`Error::Command`] when the interface can't be set down.
    pub async fn cut(&self) -> Result<()> {
        self.shared.network.cut(self.spec.index).await
    }

    /// Plugs its cable in again.
    ///
    /// # Errors
    /// [`Error::Command`] when the interface can't be set up, as after [`Node::kill`].
    pub async fn heal(&self) -> Result<()> {
        self.shared.network.heal(self.spec.index).await
    }

    /// Runs a program as a process of this node, outside of any Pod, and returns what it prints.
    ///
    /// # Errors
    /// [`Error::NodeDown`] when it is not running, [`Error::Command`] when the program fails or takes longer than two minutes.
    pub async fn exec(&self, program: &[&str]) -> Result<String> {
        self.kubelet()?.machine.exec(program).await
    }

    /// Gives it the images of this archive, as [`Nodes::import`](crate::Nodes::import) does for all.
    pub(super) async fn import(&self, archive: &Path) -> Result<()> {
        self.kubelet()?.machine.import(archive).await
    }

    /// Its processes, of which kubelet is the one to wait for.
    pub(super) fn kubelet(&self) -> Result<Arc<Running>> {
        self.current()
            .ok_or_else(|| Error::NodeDown(self.name().to_owned()))
    }

    fn current(&self) -> Option<Arc<Running>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.clone()
    }

    fn log(&self, what: &str) -> PathBuf {
        self.shared.dir.join(format!("{}-{what}.log", self.name()))
    }

    /// Starts the first process, in new namespaces.
    async fn machine(&self) -> Result<Machine> {
        let up = self.dir.join("up");
        let _ = fs::remove_file(&up);
        let unshare = "unshare --mount --uts --ipc --net --pid --fork --kill-child --mount-proc";
        let script = self.dir.join("init.sh");
        let mut program: Vec<String> = unshare.split(' ').map(str::to_owned).collect();
        program.extend(["/bin/sh".to_owned(), script.display().to_string()]);
        let parent = self.launch(self.name(), program, &self.log("init"))?;
        parent.ready(UP_WITHIN, || async { up.exists() }).await?;
        Machine::of(parent)
    }

    /// Starts a server inside.
    fn server(&self, machine: &Machine, name: &str, args: &[String]) -> Result<ServerProcess> {
        let mut program = vec!["nsenter".to_owned()];
        program.extend(machine.inside());
        if name == "kubelet" {
            program.extend(["/bin/sh", "-c", AGAIN, "sh"].map(str::to_owned));
        }
        program.push(binary(name)?.display().to_string());
        program.extend_from_slice(args);
        self.launch(
            &format!("{name} of {}", self.name()),
            program,
            &self.log(name),
        )
    }

    /// Starts a program in the node's cgroups.
    fn launch(&self, name: &str, program: Vec<String>, log: &Path) -> Result<ServerProcess> {
        let mut args = vec!["-c".to_owned(), IN_CGROUPS.to_owned(), "sh".to_owned()];
        args.extend(program);
        let groups: Vec<_> = self
            .groups
            .iter()
            .map(|path| path.to_string_lossy())
            .collect();
        let path = env::var_os("PATH").unwrap_or_default();
        // containerd and kube-proxy look for runc and iptables, which are not on everybody's path.
        let path =
            [&path, OsStr::new("/usr/local/sbin:/usr/sbin:/sbin")].map(OsStr::to_string_lossy);
        let envs = [
            ("NODE_CGROUPS".to_owned(), groups.join(" ")),
            ("PATH".to_owned(), path.join(":")),
        ];
        ServerProcess::start(name, Path::new("/bin/sh"), &args, &envs, log)
    }

    /// Ends all processes and waits until they are gone.
    async fn halt(&self) -> Result<()> {
        let Some(running) = self.take() else {
            return Ok(());
        };
        running.machine.halt().await
    }

    fn take(&self) -> Option<Arc<Running>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.take()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.take());
        // A directory that is kept for its logs need not hold images.
        let _ = fs::remove_dir_all(self.dir.join("lib"));
    }
}
