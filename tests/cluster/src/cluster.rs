//! The whole local cluster: etcd, kube-apiserver and kube-controller-manager, started and stopped together.

use crate::{
    Error, Etcd, EtcdOptions, Result, ServerProcess, binary,
    dir::ScratchDir,
    free_port,
    http::TlsClient,
    kubeconfig::{Identity, token_file},
    pki::{self, Pki},
    servers::{self, Place},
};
use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

/// The user behind [`LocalCluster::kubeconfig`], who may do everything.
const ADMIN: &str = "admin";
/// The user as which kube-controller-manager acts.
const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
/// The user as which kube-scheduler acts, to whom RBAC gives what it needs.
const SCHEDULER: &str = "system:kube-scheduler";
/// The group to which the API server allows everything.
const MASTERS: &str = "system:masters";

/// How long the API server, and then the controllers, may take until they work.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How often a start is tried while others take the port it chose.
const TRIES: usize = 3;

/// An identity that can log in besides the administrator.
#[derive(Clone, Debug, Default)]
pub struct User {
    /// The user name, as RBAC bindings name it.
    pub name: String,
    /// The groups it belongs to, besides `system:authenticated`.
    pub groups: Vec<String>,
}

/// How a cluster is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether kube-controller-manager runs, with the controllers that collect garbage, empty deleted namespaces, make service
    /// accounts and fill the roles `view`, `edit` and `admin`. On by default. Without it, owned objects stay when their owner
    /// goes, deleted namespaces stay `Terminating`, those roles are empty, and Pods are admitted without a service account.
    ///
    /// As in every cluster, the collector learns of a new kind (a CRD) within 30 s; owned objects of that kind may stay so long.
    pub garbage_collection: bool,
    /// More identities, without any rights of their own. None by default.
    pub users: Vec<User>,
    /// The cluster's own etcd. By default one member with a short election, to start fast.
    pub etcd: EtcdOptions,
    /// More arguments for kube-apiserver. None by default.
    pub apiserver_args: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            garbage_collection: true,
            users: Vec::new(),
            etcd: EtcdOptions {
                election_timeout: Duration::from_millis(100),
                ..EtcdOptions::default()
            },
            apiserver_args: Vec::new(),
        }
    }
}

/// A running cluster. Dropping it stops all servers and removes all files, unless `DIEGO_KEEP_LOGS=1` is set.
pub struct LocalCluster {
    scheduler: Option<ServerProcess>,
    controllers: Option<ServerProcess>,
    apiserver: ServerProcess,
    etcd: Etcd,
    client: TlsClient,
    place: Place,
    port: u16,
    pki: Pki,
    /// User names with their kubeconfigs; the administrator's is the first.
    kubeconfigs: Vec<(String, PathBuf)>,
    // Last: it must not vanish under the servers.
    dir: ScratchDir,
}

impl LocalCluster {
    /// Starts a cluster with own ports, keys and data, and waits until it works: the API server is ready, and with
    /// [`Options::garbage_collection`] the controllers have made the first service account.
    ///
    /// # Errors
    /// [`Error::MissingBinary`] when a server's binary is nowhere; [`Error::Exited`] or [`Error::NotReady`] with the end of the
    /// log when a server fails or takes longer than a minute; [`Error::Option`] for a user name that is taken.
    pub async fn start(options: Options) -> Result<Self> {
        Self::start_at(options, Place::loopback()).await
    }

    /// The same at this place, which must be there already; with real nodes the scheduler and all controllers run.
    pub(crate) async fn start_at(mut options: Options, place: Place) -> Result<Self> {
        if place.nodes {
            options.garbage_collection = true;
            options.users.push(User {
                name: SCHEDULER.to_owned(),
                groups: Vec::new(),
            });
        }
        let identities = identities(&options)?;
        let manager = if options.garbage_collection {
            Some(binary("kube-controller-manager")?)
        } else {
            None
        };
        let program = binary("kube-apiserver")?;
        let dir = ScratchDir::new()?;
        let path = dir.path();
        let pki = Pki::new(path, &[place.address, place.first_service])?;
        let tokens = pki::write(path, "tokens.csv", &token_file(&identities))?;
        let client = TlsClient::new(pki.ca.clone(), &identities[0].token, place.address)?;
        let etcd = Etcd::start_in(options.etcd, path).await?;

        let mut tried = 1;
        let (apiserver, port) = loop {
            let port = free_port()?;
            let mut args = servers::apiserver(
                &pki,
                &etcd.endpoints(),
                &tokens,
                port,
                manager.is_some(),
                &place,
            );
            args.extend_from_slice(&options.apiserver_args);
            let process = ServerProcess::start(
                "kube-apiserver",
                &program,
                &args,
                &[],
                &path.join("kube-apiserver.log"),
            )?;
            match apiserver_ready(&process, &client, port).await {
                Ok(()) => break (process, port),
                Err(error) if error.is_port_taken() && tried < TRIES => tried += 1,
                Err(error) => return Err(error),
            }
        };

        let mut kubeconfigs = Vec::with_capacity(identities.len());
        for (i, identity) in identities.iter().enumerate() {
            // User names may hold what file names must not.
            let name = if i == 0 {
                "kubeconfig".to_owned()
            } else {
                format!("kubeconfig-{i}")
            };
            let server = format!("https://{}:{port}", place.address);
            let text = identity.kubeconfig(&server, &pki.ca_pem);
            kubeconfigs.push((identity.name.clone(), pki::write(path, &name, &text)?));
        }

        let mut cluster = Self {
            scheduler: None,
            controllers: None,
            apiserver,
            etcd,
            client,
            place,
            port,
            pki,
            kubeconfigs,
            dir,
        };
        if let Some(program) = manager {
            cluster.start_controllers(&program).await?;
        }
        if cluster.place.nodes {
            let args = servers::scheduler(&cluster.kubeconfig_for(SCHEDULER)?);
            let log = cluster.dir().join("kube-scheduler.log");
            let program = binary("kube-scheduler")?;
            cluster.scheduler = Some(ServerProcess::start(
                "kube-scheduler",
                &program,
                &args,
                &[],
                &log,
            )?);
        }
        Ok(cluster)
    }

    async fn start_controllers(&mut self, program: &Path) -> Result<()> {
        let kubeconfig = self.kubeconfig_for(CONTROLLER_MANAGER)?;
        let args = servers::controller_manager(&kubeconfig, &self.pki, &self.place);
        let log = self.dir().join("kube-controller-manager.log");
        let process = ServerProcess::start("kube-controller-manager", program, &args, &[], &log)?;
        let made = "/api/v1/namespaces/default/serviceaccounts/default";
        process
            .ready(READY_WITHIN, || self.client.is_ok(self.port, made))
            .await?;
        self.controllers = Some(process);
        Ok(())
    }

    /// The administrator's kubeconfig, a file of its own that needs no other.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfigs[0].1
    }

    /// The kubeconfig of a user of [`Options::users`], or of `admin`.
    ///
    /// # Errors
    /// [`Error::UnknownUser`] for any other name.
    pub fn kubeconfig_for(&self, user: &str) -> Result<PathBuf> {
        let found = self.kubeconfigs.iter().find(|(name, _)| name == user);
        found
            .map(|(_, file)| file.clone())
            .ok_or_else(|| Error::UnknownUser(user.to_owned()))
    }

    /// The API server's address, `https://address:port`; it survives restarts.
    pub fn server_url(&self) -> String {
        format!("https://{}:{}", self.place.address, self.port)
    }

    /// The address of the control plane, which Pods of real nodes reach too.
    pub fn address(&self) -> Ipv4Addr {
        self.place.address
    }

    /// The file with the certificate of the cluster's own authority.
    pub(crate) fn ca_file(&self) -> &Path {
        &self.pki.ca_file
    }

    /// The directory with the logs (`*.log`), keys and data.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The API server's process, to kill, pause or resume it.
    pub fn apiserver(&self) -> &ServerProcess {
        &self.apiserver
    }

    /// The cluster's store, to kill, pause or restart it.
    pub fn etcd(&self) -> &Etcd {
        &self.etcd
    }

    /// The same, to restart members.
    pub fn etcd_mut(&mut self) -> &mut Etcd {
        &mut self.etcd
    }

    /// The controller manager's process, if there is one. It ends by itself when it cannot reach the API server as it starts.
    pub fn controllers(&self) -> Option<&ServerProcess> {
        self.controllers.as_ref()
    }

    /// The scheduler's process, if there are real nodes.
    pub fn scheduler(&self) -> Option<&ServerProcess> {
        self.scheduler.as_ref()
    }

    /// Ends the API server without notice and waits until it is gone; its clients' connections break.
    pub async fn stop_apiserver(&self) {
        self.apiserver.kill();
        self.apiserver.wait().await;
    }

    /// Starts the API server again at the same address, after stopping it if it still runs, and waits until it is ready.
    ///
    /// # Errors
    /// [`Error::Exited`] or [`Error::NotReady`] when it fails or takes longer than a minute.
    pub async fn restart_apiserver(&mut self) -> Result<()> {
        self.stop_apiserver().await;
        self.apiserver = self.apiserver.restart()?;
        apiserver_ready(&self.apiserver, &self.client, self.port).await
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        // All at once; each server's own drop then waits for its end.
        if let Some(controllers) = &self.controllers {
            controllers.kill();
        }
        if let Some(scheduler) = &self.scheduler {
            scheduler.kill();
        }
        self.apiserver.kill();
    }
}

async fn apiserver_ready(process: &ServerProcess, client: &TlsClient, port: u16) -> Result<()> {
    process
        .ready(READY_WITHIN, || client.is_ok(port, "/readyz"))
        .await
}

/// All who can log in, the administrator first, each with a fresh token.
fn identities(options: &Options) -> Result<Vec<Identity>> {
    let privileged = |name: &str| User {
        name: name.to_owned(),
        groups: vec![MASTERS.to_owned()],
    };
    let users = [privileged(ADMIN), privileged(CONTROLLER_MANAGER)]
        .into_iter()
        .chain(options.users.iter().cloned());
    let mut identities: Vec<Identity> = Vec::new();
    for User { name, groups } in users {
        if name.is_empty() || identities.iter().any(|identity| identity.name == name) {
            return Err(Error::Option(format!(
                "the user name {name:?} is empty or taken"
            )));
        }
        identities.push(Identity {
            name,
            groups,
            token: pki::token()?,
        });
    }
    Ok(identities)
}
