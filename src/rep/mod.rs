//! The rep: registers its machine as a Cell, keeps its presence, and runs what is assigned to it.
//!
//! Read [`run`] first, then `actor` (what runs here), `settle` (record against container, by the table in
//! [`crate::converge::harmony`]), [`process`] and [`supervise`] (one instance), [`drain`] (a graceful stop).

pub mod actor;
pub mod cell;
pub mod container;
pub mod drain;
pub mod environ;
mod jobs;
mod leave;
pub mod metrics;
pub mod outcome;
pub mod patches;
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
pub mod workdir;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kube::Client;
use tokio::sync::{mpsc, watch as channel};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::api::{Capacity, CellSpec, ExecutorKind};
use crate::client::CallError;
use crate::presence::PresencePhase;
use crate::presence::etcd::EtcdConfig;
use crate::presence::identity::{Identity, WorkDirError, WorkDirLock};
use crate::presence::keeper::{Keeper, KeeperControl, KeeperError, Registration};

pub use metrics::RepMetrics;

use actor::{Actor, Setup};
use store::Store;
use workdir::WorkDir;

/// The rep's own program, whatever became of its file since it was started.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Sightings that wait for the actor; the watches pause beyond that.
const SIGHTINGS: usize = 1024;

/// How often a Cell with executor Pods that shuts down asks whether its work has moved away.
const MOVED_AWAY_INTERVAL: Duration = Duration::from_secs(1);

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
    pub ttl_seconds: u32,
    /// For its identity and its instances' files.
    pub work_dir: PathBuf,
    /// The address at which instances are reached.
    pub address: String,
    /// How long a graceful stop waits for the work to be moved away.
    pub evacuation_timeout: Duration,
    /// How often everything is compared with all records.
    pub sync_interval: Duration,
    /// Where the presence is kept.
    pub etcd: EtcdConfig,
    /// The Kubernetes node, with executor Pods.
    pub node_name: Option<String>,
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
    #[error("the boot id of this machine can't be read: {0}")]
    BootId(std::io::Error),
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

/// Runs a rep until `shutdown`, and then until its work has moved away.
///
/// # Errors
/// When it can't start, or another rep has taken its name.
pub async fn run(
    config: RepConfig,
    client: Client,
    metrics: RepMetrics,
    ready: channel::Sender<bool>,
    shutdown: CancellationToken,
) -> Result<(), RepError> {
    metrics.set_capacity(&config.capacity);
    let _lock = WorkDirLock::acquire(&config.work_dir)?;
    let work_dir = take_over(&config).await?;
    let incarnation = incarnation(config.executor)?;
    let identity = Identity::prepare(&config.work_dir, &config.cell_id, &incarnation)?;
    let spec = cell::spec(&config);
    let applied = cell::register(&client, &config.cell_id, &spec).await;
    applied.map_err(|error| cell_error(&config.cell_id, error))?;
    tracing::info!(cell = config.cell_id, zone = config.zone, executor = ?config.executor, "Cell registered");

    let registration = Registration {
        cell_id: config.cell_id.clone(),
        incarnation,
        ttl_seconds: config.ttl_seconds,
    };
    let keeper = Keeper::start(config.etcd.clone(), registration, Some(identity))?;
    let control = keeper.control.clone();
    let mut follower = tokio::spawn(presence::follow(keeper.reports, metrics.clone()));
    let failed = |ended: Result<Result<(), KeeperError>, tokio::task::JoinError>| match ended {
        Ok(Err(error)) => RepError::Presence(error),
        Ok(Ok(())) | Err(_) => RepError::Presence(KeeperError::Ended),
    };

    let mut keeping = control.keeping();
    tokio::select! {
        // Only whether: the value itself must not be borrowed across an await.
        registered = async { keeping.wait_for(|keeping| keeping.held).await.is_ok() } => {
            if !registered {
                return Err(failed(follower.await));
            }
        }
        ended = &mut follower => return Err(failed(ended)),
        () = shutdown.cancelled() => return give_back(&control).await,
    }
    // Nobody listens any more only when the program ends.
    let _ = ready.send(true);

    let keep_registered = keep_registered(
        client.clone(),
        config.cell_id.clone(),
        spec,
        config.sync_interval,
    );
    let work = work(
        &config,
        client,
        &metrics,
        work_dir,
        control.clone(),
        shutdown,
    );
    tokio::select! {
        () = work => {}
        () = keep_registered => {}
        ended = &mut follower => return Err(failed(ended)),
    }
    give_back(&control).await
}

/// Runs what is assigned here until nothing is left after `shutdown`.
async fn work(
    config: &RepConfig,
    client: Client,
    metrics: &RepMetrics,
    work_dir: Option<WorkDir>,
    keeper: KeeperControl,
    shutdown: CancellationToken,
) {
    let store = Store::new(client.clone());
    let Some(work_dir) = work_dir else {
        shutdown.cancelled().await;
        metrics.set_evacuating();
        return wait_until_moved_away(config, &store, &keeper).await;
    };
    let setup = Setup {
        cell: config.cell_id.clone(),
        // Registered just now: there is no work before that.
        first_epoch: keeper.keeping().borrow().epoch.unwrap_or(i64::MIN),
        address: config.address.clone(),
        supervisor: OWN_PROGRAM.into(),
        work_dir,
        sync_interval: config.sync_interval,
        evacuation_timeout: config.evacuation_timeout,
        store,
        metrics: metrics.clone(),
    };
    let (seen, sightings) = mpsc::channel(SIGHTINGS);
    let watches = tokio::spawn(watch::run(client, config.cell_id.clone(), seen));
    Actor::new(setup, keeper)
        .run(sightings, shutdown, config.hurry.clone())
        .await;
    watches.abort();
}

/// With executor Pods the controller moves the work; the rep only has to be there until that is done.
async fn wait_until_moved_away(config: &RepConfig, store: &Store, keeper: &KeeperControl) {
    tracing::info!(
        cell = config.cell_id,
        "stopping: waiting until the work has moved away"
    );
    if let Err(error) = keeper.set_phase(PresencePhase::Draining).await {
        tracing::warn!(%error, "the presence store was not told that this Cell drains");
    }
    let until = Instant::now() + config.evacuation_timeout;
    while Instant::now() < until {
        match store.assigned(&config.cell_id).await {
            Ok(records) if !records.iter().any(records::Record::is_unfinished) => return,
            Ok(_) | Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(MOVED_AWAY_INTERVAL) => {}
            () = config.hurry.cancelled() => return,
        }
    }
}

/// Takes over the work directory, where processes run in it.
async fn take_over(config: &RepConfig) -> Result<Option<WorkDir>, RepError> {
    match config.executor {
        ExecutorKind::Pods => Ok(None),
        ExecutorKind::Process => {
            let path = config.work_dir.clone();
            let opened = tokio::task::spawn_blocking(move || WorkDir::open(&path)).await;
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

/// One life of the containers: processes die with the rep, Pods with the machine.
fn incarnation(executor: ExecutorKind) -> Result<String, RepError> {
    match executor {
        ExecutorKind::Process => Ok(uuid::Uuid::new_v4().to_string()),
        ExecutorKind::Pods => procfs::boot_id().map_err(RepError::BootId),
    }
}

fn cell_error(cell_id: &str, error: CallError) -> RepError {
    let remedy = match &error {
        CallError::Kube(kube::Error::Api(status)) if status.is_not_found() => {
            "install the CRDs: `diego crds | kubectl apply --server-side -f -`"
        }
        CallError::Kube(kube::Error::Api(status)) if status.is_forbidden() => {
            "let this rep get and patch cells.diego.cloudfoundry.org"
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

/// Sees to it that the Cell object is there and says what this rep says.
async fn keep_registered(client: Client, cell_id: String, spec: CellSpec, every: Duration) {
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once, and that is done already.
    tick.tick().await;
    let mut failing = false;
    loop {
        tick.tick().await;
        match cell::register(&client, &cell_id, &spec).await {
            Ok(applied) => {
                failing = false;
                if applied {
                    tracing::warn!(
                        cell = cell_id,
                        "the Cell object was gone or changed; registered again"
                    );
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(cell = cell_id, %error, "the Cell object can't be read or registered; trying again");
                }
            }
        }
    }
}

/// The presence goes last, when nothing runs here any more.
async fn give_back(control: &KeeperControl) -> Result<(), RepError> {
    match control.release().await {
        Ok(true) | Err(KeeperError::Ended) => {}
        Ok(false) => tracing::warn!("the presence could not be given back; it ends with its TTL"),
        Err(error) => {
            tracing::warn!(%error, "the presence could not be given back; it ends with its TTL")
        }
    }
    Ok(())
}
