//! Real nodes on one machine: kubelet, containerd and kube-proxy in namespaces of their own, around a local cluster.
//!
//! A node is a tree of processes below one first process, with its own network, mounts, process numbers and cgroups: its own `/run`,
//! `/var/lib` and `/var/log`, its own boot id, and Pods with addresses that all others reach. Killing the first process ends them
//! all, as a power cut would.

mod cgroups;
mod config;
mod dns;
mod machine;
mod network;
mod node;

pub use node::Node;

use crate::{Error, LocalCluster, Options, Result, ServerProcess, User, binaries, binary, image};
use cgroups::Cgroups;
use network::{MOST_NODES, Network};
use node::{Shared, Spec};
use serde_json::{Map, Value};
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinSet;

/// How long a node may take until it is Ready.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// The user as which kube-proxy acts, to whom RBAC gives what it needs.
const PROXY: &str = "system:kube-proxy";
/// What a node runs, looked for before anything starts.
const PROGRAMS: [&str; 11] = [
    "containerd",
    "ctr",
    "runc",
    "ip",
    "iptables",
    "kube-proxy",
    "kube-scheduler",
    "kubelet",
    "nsenter",
    "sleep",
    "unshare",
];
/// Where distributions put the plugins that connect Pods.
const CNI_PLUGINS: [&str; 4] = [
    "/usr/lib/cni",
    "/opt/cni/bin",
    "/usr/libexec/cni",
    "/usr/local/libexec/cni",
];
/// What a node sees of its own under these names; nothing that nodes share may be there.
const OWN_DIRS: [&str; 3] = ["/run", "/var/lib", "/var/log"];

/// One node to be.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Its name.
    pub name: String,
    /// Its label `topology.kubernetes.io/zone`, if it is to have one.
    pub zone: Option<String>,
    /// Fields of its kubelet's configuration (KubeletConfiguration) that are not as those of the others.
    pub kubelet: Map<String, Value>,
}

/// How a cluster with real nodes is to be; three nodes, each in a zone, by default.
#[derive(Clone, Debug)]
pub struct NodesOptions {
    /// The nodes, with different names.
    pub nodes: Vec<NodeOptions>,
    /// Whether Pods can resolve the names of Services and of one another. Off by default.
    pub dns: bool,
    /// The control plane. Its scheduler and all its controllers run, whatever is said there.
    pub cluster: Options,
}

impl Default for NodesOptions {
    fn default() -> Self {
        Self::count(3)
    }
}

impl NodesOptions {
    /// So many nodes: `node-1` in zone `z1`, `node-2` in zone `z2`, and so on.
    pub fn count(nodes: usize) -> Self {
        let node = |i| NodeOptions {
            name: format!("node-{i}"),
            zone: Some(format!("z{i}")),
            kubelet: Map::new(),
        };
        Self {
            nodes: (1..=nodes).map(node).collect(),
            dns: false,
            cluster: Options::default(),
        }
    }
}

/// A local cluster with real nodes. Dropping it ends everything and removes all files, interfaces and cgroups.
pub struct Nodes {
    // In this order: the nodes end before what they need.
    nodes: Vec<Arc<Node>>,
    _dns: Option<ServerProcess>,
    cluster: LocalCluster,
    _shared: Arc<Shared>,
}

impl Nodes {
    /// Starts the control plane and all nodes, and waits until every Node is Ready.
    ///
    /// # Errors
    /// [`Error::NotRoot`] without root; [`Error::MissingBinary`] or [`Error::MissingImage`] when `hack/setup.sh e2e` was not run;
    /// [`Error::Option`] for names that are empty, no host names or given twice; [`Error::Exited`] or [`Error::NotReady`], with
    /// the end of the log, when something fails or a node takes longer than two minutes.
    pub async fn start(options: NodesOptions) -> Result<Self> {
        if !nix::unistd::Uid::effective().is_root() {
            return Err(Error::NotRoot);
        }
        for program in PROGRAMS {
            binary(program)?;
        }
        image("pause")?;
        let specs = check(&options.nodes)?;
        let cni_plugins = cni_plugins()?;

        // It is there before the API server, which listens on it.
        let network = Network::new().await?;
        let mut control = options.cluster;
        control.users.extend(options.nodes.iter().map(|node| User {
            name: user(&node.name),
            groups: vec!["system:nodes".to_owned()],
        }));
        control.users.push(User {
            name: PROXY.to_owned(),
            groups: Vec::new(),
        });
        let cluster = LocalCluster::start_at(control, network.place()).await?;
        visible_everywhere(cluster.dir())?;
        visible_everywhere(&binaries::tools_dir())?;
        let dns = if options.dns {
            Some(dns::start(&cluster).await?)
        } else {
            None
        };

        let shared = Arc::new(Shared {
            network,
            cgroups: Cgroups::new()?,
            ca: cluster.ca_file().to_owned(),
            cni_plugins,
            dir: cluster.dir().to_owned(),
            dns: dns.is_some().then(|| cluster.address()),
            proxy_kubeconfig: cluster.kubeconfig_for(PROXY)?,
            count: specs.len(),
        });
        let mut nodes = Vec::with_capacity(specs.len());
        for spec in specs {
            let kubeconfig = cluster.kubeconfig_for(&user(&spec.name))?;
            nodes.push(Arc::new(Node::new(spec, kubeconfig, Arc::clone(&shared))?));
        }
        let nodes = Self {
            nodes,
            _dns: dns,
            cluster,
            _shared: shared,
        };
        let mut starts = JoinSet::new();
        for node in &nodes.nodes {
            let node = Arc::clone(node);
            starts.spawn(async move { node.start().await });
        }
        while let Some(started) = starts.join_next().await {
            started.map_err(|error| Error::io("start a node")(error.into()))??;
        }
        for node in &nodes.nodes {
            nodes.ready(node.name()).await?;
        }
        Ok(nodes)
    }

    /// The control plane.
    pub fn cluster(&self) -> &LocalCluster {
        &self.cluster
    }

    /// The same, to restart its servers.
    pub fn cluster_mut(&mut self) -> &mut LocalCluster {
        &mut self.cluster
    }

    /// The nodes, in the order of the options.
    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().map(AsRef::as_ref)
    }

    /// The node of this name.
    ///
    /// # Errors
    /// [`Error::UnknownNode`] when there is none.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.iter()
            .find(|node| node.name() == name)
            .ok_or_else(|| Error::UnknownNode(name.to_owned()))
    }

    /// Waits until the API server knows the node as Ready with its present boot id.
    ///
    /// # Errors
    /// [`Error::NodeDown`] when it is not running; [`Error::Exited`] or [`Error::NotReady`] with the end of kubelet's log when it
    /// is not Ready within two minutes; [`Error::MissingBinary`] without a kubectl.
    pub async fn ready(&self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        binary("kubectl")?;
        let wanted = format!("True {}", node.boot_id()?);
        let path =
            r#"jsonpath={.status.conditions[?(@.type=="Ready")].status} {.status.nodeInfo.bootID}"#;
        let probe = || async {
            // kubectl costs processor time that the nodes need.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let args = ["get", "node", name, "-o", path];
            let output = self.cluster.kubectl(&args).await;
            output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout) == wanted)
        };
        node.kubelet()?.kubelet.ready(READY_WITHIN, probe).await
    }

    /// Gives every running node the images of this archive (oci-archive or `docker save`), under the names that Pods use.
    ///
    /// # Errors
    /// [`Error::NodeDown`] when a node is not running, [`Error::Command`] when containerd refuses the archive.
    pub async fn import(&self, archive: &Path) -> Result<()> {
        for node in self.iter() {
            node.import(archive).await?;
        }
        Ok(())
    }
}

/// The user as which a node's kubelet acts.
fn user(node: &str) -> String {
    format!("system:node:{node}")
}

fn check(nodes: &[NodeOptions]) -> Result<Vec<Spec>> {
    if nodes.is_empty() || nodes.len() > MOST_NODES {
        return Err(Error::Option(format!(
            "{} nodes; 1 to {MOST_NODES} are possible",
            nodes.len()
        )));
    }
    let mut names = HashSet::new();
    let mut specs = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        let NodeOptions {
            name,
            zone,
            kubelet,
        } = node;
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || !name.chars().all(letters) || !names.insert(name) {
            return Err(Error::Option(format!(
                "the node name {name:?} is taken or not of a-z, 0-9 and -"
            )));
        }
        specs.push(Spec {
            index,
            name: name.clone(),
            zone: zone.clone(),
            kubelet: kubelet.clone(),
        });
    }
    Ok(specs)
}

fn cni_plugins() -> Result<PathBuf> {
    let dirs = CNI_PLUGINS.iter().map(PathBuf::from);
    dirs.into_iter()
        .find(|dir| dir.join("bridge").exists() && dir.join("host-local").exists())
        .ok_or_else(|| {
            Error::Option(format!(
                "no CNI plugins in any of {CNI_PLUGINS:?}: run `hack/setup.sh e2e`"
            ))
        })
}

/// Refuses what a node could not see behind its own directories.
fn visible_everywhere(path: &Path) -> Result<()> {
    let real = path
        .canonicalize()
        .map_err(Error::io(format!("find {}", path.display())))?;
    match OWN_DIRS.iter().find(|own| real.starts_with(own)) {
        None => Ok(()),
        Some(own) => Err(Error::Option(format!(
            "nodes have an own {own} and cannot see {}: set TMPDIR and DIEGO_TOOLS_DIR to somewhere else",
            real.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        let named = |names: &[&str]| {
            let node = |name: &&str| NodeOptions {
                name: (*name).to_owned(),
                zone: None,
                kubelet: Map::new(),
            };
            check(&names.iter().map(node).collect::<Vec<_>>())
        };
        assert!(named(&["a", "b-2"]).is_ok());
        for bad in [&["a", "a"][..], &[""], &["A"], &["a'b"], &[]] {
            assert!(named(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_nodes_hide_is_refused() {
        assert!(visible_everywhere(Path::new("/run")).is_err());
        assert!(visible_everywhere(Path::new("/usr")).is_ok());
    }
}
