//! Many Cells in one process: for each the rep's own keeper of the presence, its own Cell object with a watch, and an
//! executor. A Cell is killed by dropping all of it: its presence is not renewed any more, and nothing is given back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use diego_operator::api::{Capacity, ExecutorKind};
use diego_operator::client;
use diego_operator::converge::harmony::ContainerState;
use diego_operator::metrics::ClientMetrics;
use diego_operator::presence::identity::Owner;
use diego_operator::presence::keeper::{
    Keeper, KeeperControl, KeeperReport, KnownEpoch, Registration,
};
use diego_operator::presence::store::StoreConfig;
use diego_operator::presence::ttl::Ttl;
use diego_operator::rep::cell::OwnCell;
use diego_operator::rep::store::Store;
use diego_operator::rep::{RepConfig, RepMetrics};
use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::executor::{ADDRESS, Containers, Executor, lock};
use super::loader::MEMORY;
use super::plan::Plan;
use crate::support::Failure;

/// Cells that register at once: TLS handshakes would hold each other up for longer than a registration may take.
const STARTS: usize = 16;

/// Cells that share a connection to the API server: it allows 100 streams on each, and a Cell has three watches.
const CELLS_PER_CLIENT: usize = 10;

/// For how many times its first work a Cell has room: enough for what is left when a tenth and then a zone are lost.
const ROOM: usize = 3;

/// And for so many instances of whoever else wants some meanwhile.
const SPARE: usize = 20;

/// All Cells.
pub struct Fleet {
    cells: Vec<Member>,
    clients: Vec<Client>,
    sync: Option<Duration>,
    renewals: Arc<Renewals>,
}

/// One Cell.
struct Member {
    own: OwnCell,
    epoch: i64,
    containers: Containers,
    /// `None` when it is dead.
    life: Option<Life>,
}

/// Ends when it is dropped.
struct Life {
    keeper: KeeperControl,
    tasks: JoinSet<()>,
}

/// What the keepers of living Cells reported.
#[derive(Default)]
pub struct Renewals {
    /// How long each answer took, in seconds.
    pub answered: Mutex<Vec<f64>>,
    /// Renewals without an answer.
    pub failed: AtomicUsize,
    /// Presences that were lost though nothing died.
    pub lost: AtomicUsize,
}

/// A Cell that was killed.
pub struct Dead {
    /// Which.
    pub cell: String,
    /// When.
    pub at: Instant,
    /// When its presence runs out if the store counts from the last renewal that it answered.
    pub expires: Instant,
    /// What it ran: the guid of each record.
    pub instances: HashMap<String, String>,
}

impl Renewals {
    /// Begins to count anew.
    pub fn forget(&self) {
        lock(&self.answered).clear();
        self.failed.store(0, Ordering::Relaxed);
        self.lost.store(0, Ordering::Relaxed);
    }
}

impl Fleet {
    /// Registers all Cells, presence and object; none works yet.
    pub async fn register(
        plan: &Plan,
        config: &kube::Config,
        store: StoreConfig,
    ) -> Result<Fleet, Failure> {
        let ttl = plan.whole_ttl()?;
        let metrics = ClientMetrics::new(&mut Registry::default());
        let clients = (0..plan.cells.div_ceil(CELLS_PER_CLIENT))
            .map(|_| client::build(config, &metrics))
            .collect::<Result<Vec<_>, _>>()?;
        let renewals = Arc::new(Renewals::default());
        let rep = RepMetrics::new(&mut Registry::default());
        let cells = stream::iter(0..plan.cells).map(|n| {
            let config = config_of(plan, (n, ttl), store.clone());
            let client = clients[n / CELLS_PER_CLIENT].clone();
            let own = OwnCell::new(client, &config, None, rep.clone());
            Member::register(own, config, renewals.clone())
        });
        let cells = cells.buffered(STARTS).try_collect().await?;
        Ok(Fleet {
            cells,
            clients,
            sync: (plan.sync > 0).then(|| Duration::from_secs(plan.sync)),
            renewals,
        })
    }

    /// The epoch of a Cell's presence.
    pub fn epoch(&self, n: usize) -> i64 {
        self.cells[n].epoch
    }

    /// The Cell runs this instance already.
    pub fn adopt(&self, n: usize, guid: String, record: String) {
        let running = (record, ContainerState::Running);
        lock(&self.cells[n].containers).insert(guid, running);
    }

    /// All Cells begin to watch, as their reps would.
    pub fn work(&mut self) {
        // As long as it may take, so that a Cell is looked after at least now and then.
        let look = self.sync.unwrap_or(Duration::from_secs(3600));
        for (n, member) in self.cells.iter_mut().enumerate() {
            let Some(life) = &mut member.life else {
                continue;
            };
            let client = self.clients[n / CELLS_PER_CLIENT].clone();
            let executor = Arc::new(Executor {
                cell: Plan::cell(n),
                store: Store::new(client.clone()),
                keeping: life.keeper.keeping(),
                dead: member.own.dead_epoch.clone(),
                containers: member.containers.clone(),
                busy: Mutex::default(),
            });
            let own = member.own.clone();
            life.tasks.spawn(async move { own.look_after(look).await });
            life.tasks.spawn(executor.run(client, self.sync));
        }
    }

    /// Cells that live.
    pub fn living(&self) -> Vec<usize> {
        let all = self.cells.iter().enumerate();
        let living = all.filter(|(_, member)| member.life.is_some());
        living.map(|(n, _)| n).collect()
    }

    /// Kills these Cells, all in one moment.
    pub fn kill(&mut self, cells: &[usize]) -> Vec<Dead> {
        let mut dead = Vec::new();
        for n in cells {
            let member = &mut self.cells[*n];
            let Some(life) = member.life.take() else {
                continue;
            };
            let keeping = *life.keeper.keeping().borrow();
            drop(life);
            let at = Instant::now();
            let sent = keeping.last_renewal_sent.map_or(at, |sent| sent.at);
            let containers = std::mem::take(&mut *lock(&member.containers));
            let instances = containers
                .into_iter()
                .map(|(guid, (record, _))| (record, guid));
            dead.push(Dead {
                cell: Plan::cell(*n),
                at,
                expires: sent + keeping.ttl,
                instances: instances.collect(),
            });
        }
        dead
    }

    /// What the keepers reported.
    pub fn renewals(&self) -> &Renewals {
        &self.renewals
    }
}

impl Member {
    async fn register(
        own: OwnCell,
        config: RepConfig,
        renewals: Arc<Renewals>,
    ) -> Result<Member, Failure> {
        own.register().await?;
        let registration = Registration {
            cell_id: config.cell_id.clone(),
            incarnation: uuid::Uuid::new_v4().to_string(),
            ttl: config.ttl,
            cells: Default::default(),
            known_epoch: KnownEpoch::default(),
            dead_epoch: own.dead_epoch.clone(),
            fence: false,
        };
        let Keeper {
            mut reports,
            control,
            holder: _,
        } = Keeper::start(config.presence, registration, Owner::Unproven)?;
        let epoch = loop {
            match reports.recv().await {
                Some(KeeperReport::Registered { epoch, .. }) => break epoch,
                Some(KeeperReport::Failed { error }) => return Err(error.into()),
                None => return Err("a keeper ended before it was registered".into()),
                Some(_) => {}
            }
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(follow(reports, renewals));
        Ok(Member {
            own,
            epoch,
            containers: Containers::default(),
            life: Some(Life {
                keeper: control,
                tasks,
            }),
        })
    }
}

async fn follow(mut reports: mpsc::Receiver<KeeperReport>, renewals: Arc<Renewals>) {
    while let Some(report) = reports.recv().await {
        match report {
            KeeperReport::Renewed { took } => {
                lock(&renewals.answered).push(took.as_secs_f64());
            }
            KeeperReport::RenewalFailed { .. } => {
                renewals.failed.fetch_add(1, Ordering::Relaxed);
            }
            KeeperReport::Lost { .. } | KeeperReport::Failed { .. } => {
                renewals.lost.fetch_add(1, Ordering::Relaxed);
            }
            KeeperReport::Registered { .. }
            | KeeperReport::RegistrationFailed { .. }
            | KeeperReport::TtlChanged { .. }
            | KeeperReport::Refused { .. }
            | KeeperReport::Superseded
            | KeeperReport::Released { .. } => {}
        }
    }
}

/// What the Cell's rep would be told.
fn config_of(plan: &Plan, (n, ttl_seconds): (usize, u32), presence: StoreConfig) -> RepConfig {
    let room = plan.per_cell * ROOM + SPARE;
    RepConfig {
        cell_id: Plan::cell(n),
        zone: Plan::zone(n),
        capacity: Capacity {
            memory: format!("{}Mi", room * MEMORY),
            disk: "100Gi".into(),
            containers: i32::try_from(room).unwrap_or(i32::MAX),
        },
        placement_tags: Vec::new(),
        optional_placement_tags: Vec::new(),
        executor: ExecutorKind::Process,
        ttl: Ttl::seconds(ttl_seconds),
        work_dir: "/nonexistent".into(),
        instance_log_size: 0,
        address: ADDRESS.into(),
        evacuation_timeout: Duration::ZERO,
        sync_interval: Duration::from_secs(plan.sync),
        presence,
        node_name: None,
        offer: Default::default(),
        boot_id_file: "/nonexistent".into(),
        fence: None,
        witness: None,
        hurry: CancellationToken::new(),
    }
}
