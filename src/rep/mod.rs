//! The rep: registers its machine as a Cell, keeps its presence, and runs what is assigned to it.
//!
//! Read [`run`] first, then `life` (from a registration to its end), `actor` (what runs here), `settle` (record
//! against container, by the table in [`crate::converge::harmony`]), [`process`] and [`supervise`] (one instance),
//! [`drain`] (leaving).

pub mod actor;
pub mod cell;
pub mod container;
pub mod deadline_file;
pub mod drain;
pub mod environ;
pub mod fence;
mod jobs;
mod leave;
mod life;
pub mod metrics;
pub mod node;
pub mod outcome;
pub mod ports;
pub mod presence;
pub mod probe;
pub mod process;
pub mod procfs;
pub mod records;
mod settle;
pub mod store;
pub mod supervise;
pub mod watch;
pub mod witness;
pub mod workdir;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Client;
use tokio::sync::watch as channel;
use tokio_util::sync::CancellationToken;

use crate::api::{Capacity, ExecutorKind};
use crate::client::CallError;
use crate::presence::identity::{WorkDirError, WorkDirLock};
use crate::presence::keeper::KeeperError;
use crate::presence::store::StoreConfig;
use crate::presence::ttl::Ttl;

pub use metrics::RepMetrics;

use cell::OwnCell;
use deadline_file::FenceFiles;
use node::{NodeError, Offer, OwnNode};
use witness::Witness;
use workdir::WorkDir;

/// The rep's own program, whatever became of its file since it was started.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// All that a rep is told.
#[derive(Debug, Clone)]
pub struct RepConfig {
    /// The Cell's name.
    pub cell_id: String,
    /// The failure domain it stands in.
    pub zone: String,
    /// What it offers.
    pub capacity: Capacity,
    /// Tags that work must carry to be placed here.
    pub placement_tags: Vec<String>,
    /// Tags that work may carry to be placed here.
    pub optional_placement_tags: Vec<String>,
    /// What runs the work.
    pub executor: ExecutorKind,
    /// How long the presence lasts without a renewal.
    pub ttl: Ttl,
    /// For its identity and its instances' files.
    pub work_dir: PathBuf,
    /// The limit of each log file of an instance, in bytes.
    pub instance_log_size: u64,
    /// The address at which instances are reached.
    pub address: String,
    /// How long a graceful stop waits for the work to be moved away.
    pub evacuation_timeout: Duration,
    /// How often everything is compared with all records.
    pub sync_interval: Duration,
    /// Where the presence is kept.
    pub presence: StoreConfig,
    /// The Kubernetes node, with executor Pods.
    pub node_name: Option<String>,
    /// What of `capacity` the operator gave; with executor Pods the rest is the Node's.
    pub offer: Offer,
    /// Where the machine tells which boot it is in.
    pub boot_id_file: PathBuf,
    /// The files between this rep and its fencer, with executor Pods.
    pub fence: Option<FenceFiles>,
    /// How the witness of its death is started, with executor Process: what follows `diego witness`.
    pub witness: Option<Vec<OsString>>,
    /// Cancelled when the operator asks a second time to stop: what is left is stopped at once.
    pub hurry: CancellationToken,
}

/// Why a rep can't start, or can't go on.
#[derive(Debug, thiserror::Error)]
pub enum RepError {
    /// The work directory can't be used.
    #[error(transparent)]
    WorkDir(#[from] WorkDirError),
    /// What an earlier life left in the work directory can't be cleared.
    #[error("--work-dir {}: {source}", path.display())]
    Leftovers {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The machine does not tell which boot it is in.
    #[error("--boot-id-file {}: the boot id of this machine can't be read: {source}", path.display())]
    BootId {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The Node that this machine is can't be used.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The API server did not take the Cell object.
    #[error("Cell {cell_id} can't be registered with the API server: {error}; {remedy}")]
    Cell {
        /// The Cell.
        cell_id: String,
        /// What it said.
        error: CallError,
        /// What to do.
        remedy: &'static str,
    },
    /// The presence can't be kept.
    #[error(transparent)]
    Presence(#[from] KeeperError),
}

/// Runs a rep until `shutdown`, and then until its work has moved away. While the Cell is to be evacuated it has
/// no presence; each time it is not any more, a new life begins.
///
/// # Errors
/// When it can't start, or another rep has taken its name.
pub async fn run(
    mut config: RepConfig,
    client: Client,
    metrics: RepMetrics,
    ready: channel::Sender<bool>,
    shutdown: CancellationToken,
) -> Result<(), RepError> {
    let node = config
        .node_name
        .as_ref()
        .filter(|_| config.executor == ExecutorKind::Pods)
        .map(|name| OwnNode::new(client.clone(), name, config.offer.clone()));
    if let Some(node) = &node {
        let facts = node.read().await?;
        config.zone = facts.zone.unwrap_or(config.zone);
        config.capacity = facts.capacity;
    }
    metrics.set_capacity(&config.capacity);
    // With executor Pods nothing runs here, and the rep's identity is the machine's boot.
    let _lock = match config.executor {
        ExecutorKind::Process => Some(WorkDirLock::acquire(&config.work_dir)?),
        ExecutorKind::Pods => None,
    };
    let work_dir = take_over(&config).await?;
    let cell = OwnCell::new(client.clone(), &config, node, metrics.clone());
    let registered = cell.register().await;
    registered.map_err(|error| cell_error(&config.cell_id, error))?;
    tracing::info!(cell = config.cell_id, zone = config.zone, executor = ?config.executor, "Cell registered");
    let witness = config.witness.as_ref().and_then(|args| {
        let started = Witness::start(Path::new(OWN_PROGRAM), args);
        started
            .inspect_err(|error| {
                tracing::warn!(%error, "no death witness can be started; should this rep die, that will be known by the TTL");
            })
            .ok()
    });
    let rep = Rep {
        witness,
        config,
        client,
        metrics,
        ready,
        cell: cell.clone(),
    };
    tokio::select! {
        ended = rep.lives(work_dir, &shutdown) => ended,
        () = cell.look_after(rep.config.sync_interval) => Ok(()),
    }
}

/// What lasts over all lives of a rep.
struct Rep {
    config: RepConfig,
    client: Client,
    metrics: RepMetrics,
    ready: channel::Sender<bool>,
    cell: OwnCell,
    /// One for all lives: its pipe ends with this process.
    witness: Option<Witness>,
}

impl Rep {
    async fn lives(
        &self,
        mut work_dir: Option<WorkDir>,
        shutdown: &CancellationToken,
    ) -> Result<(), RepError> {
        let mut first = true;
        loop {
            let waited = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                waited = self.until_wanted(first) => waited,
            };
            // The object may have been deleted, evacuation and all. If this fails it is done with the next look at it.
            if (waited || !first)
                && let Err(error) = self.cell.register().await
            {
                let cell = &self.config.cell_id;
                tracing::warn!(cell, %error, "the Cell object can't be read or registered; trying again");
            }
            let lived = self.live(work_dir, shutdown).await;
            self.ready.send_replace(false);
            self.metrics.set_evacuating(false);
            lived?;
            if shutdown.is_cancelled() {
                return Ok(());
            }
            // What this life left running, if anything, runs for nobody.
            work_dir = take_over(&self.config).await?;
            first = false;
        }
    }

    /// Waits while operators ask that this Cell be evacuated. Returns whether it had to.
    async fn until_wanted(&self, first: bool) -> bool {
        // What an earlier rep of this machine began, while its Pods ran on, is brought to its end. What this one began
        // is at its end, whether the ledger says so yet or not.
        let pods = self.config.executor == ExecutorKind::Pods;
        let goes_on = first && pods && self.cell.may_have_work();
        if !self.cell.is_to_evacuate() || goes_on {
            return false;
        }
        let cell = &self.config.cell_id;
        tracing::warn!(
            cell,
            "not registering: spec.evacuate of this Cell is true. To let it work, run: kubectl patch cell {cell} --type=merge -p '{{\"spec\":{{\"evacuate\":false}}}}'"
        );
        self.cell.until_evacuate(false).await;
        tracing::info!(cell, "the Cell is not to be evacuated any more");
        true
    }
}

/// Takes over the work directory, where processes run in it.
async fn take_over(config: &RepConfig) -> Result<Option<WorkDir>, RepError> {
    match config.executor {
        ExecutorKind::Pods => Ok(None),
        ExecutorKind::Process => {
            let path = config.work_dir.clone();
            let limit = config.instance_log_size;
            let open = move || WorkDir::open(&path).map(|dir| dir.with_log_limit(limit));
            let opened = tokio::task::spawn_blocking(open).await;
            let failed = |source| RepError::Leftovers {
                path: config.work_dir.clone(),
                source,
            };
            opened
                .map_err(|error| failed(error.into()))?
                .map(Some)
                .map_err(failed)
        }
    }
}

fn cell_error(cell_id: &str, error: CallError) -> RepError {
    let remedy = match &error {
        CallError::Kube(kube::Error::Api(status)) if status.is_not_found() => {
            "install the CRDs: `diego crds | kubectl apply --server-side -f -`"
        }
        CallError::Kube(kube::Error::Api(status)) if status.is_forbidden() => {
            "let this rep get, patch and watch cells.diego.cloudfoundry.org"
        }
        CallError::Kube(kube::Error::Api(_)) => "correct the flags that it names",
        CallError::Timeout | CallError::Kube(_) => {
            "check --kubeconfig, --context and that the server can be reached from here"
        }
    };
    RepError::Cell {
        cell_id: cell_id.to_owned(),
        error,
        remedy,
    }
}
