//! Cells by the hundred in this process. Each has a Cell object and a presence that the product's own keeper holds, but no
//! rep: what is placed there is said to run at once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diego_operator::api::{ActualLRP, ActualLRPState, Cell};
use diego_operator::converge::lrp::transition::{self, Instance, Verb};
use diego_operator::patch;
use diego_operator::presence::etcd::EtcdConfig;
use diego_operator::presence::identity::Owner;
use diego_operator::presence::keeper::{Keeper, KeeperReport, KnownEpoch, Registration};
use diego_operator::presence::store::StoreConfig;
use diego_operator::presence::ttl::Ttl;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::Failure;

/// Cells that register at once.
const STARTS: usize = 16;

/// Writes in flight.
const IN_FLIGHT: usize = 32;

/// Before the instances are listed anew.
const PAUSE: Duration = Duration::from_millis(200);

/// All of them; they die when it is dropped.
pub struct Fleet {
    /// By number.
    keepers: Vec<Option<Keeper>>,
    living: Arc<Mutex<BTreeSet<String>>>,
    answers: JoinHandle<()>,
}

impl Fleet {
    /// So many, named `prefix` and a number, in ten zones by turns, each with room for so many instances.
    pub async fn start(
        client: Client,
        etcd: Vec<String>,
        prefix: &str,
        (count, room): (usize, usize),
    ) -> Result<Fleet, Failure> {
        let store = StoreConfig::Etcd(EtcdConfig {
            endpoints: etcd,
            ..EtcdConfig::default()
        });
        let cells = stream::iter(0..count).map(|n| {
            let (client, store) = (client.clone(), store.clone());
            let name = name(prefix, n);
            async move {
                let keeper = register(client, store, &name, &format!("z{}", n % 10), room).await?;
                Ok::<_, Failure>((name, keeper))
            }
        });
        let cells: Vec<(String, Keeper)> = cells.buffered(STARTS).try_collect().await?;
        let (names, keepers): (BTreeSet<String>, Vec<Option<Keeper>>) = cells
            .into_iter()
            .map(|(name, keeper)| (name, Some(keeper)))
            .unzip();
        let living = Arc::new(Mutex::new(names));
        Ok(Fleet {
            keepers,
            answers: tokio::spawn(answer(client, living.clone())),
            living,
        })
    }

    /// Those of these numbers die, all at once. Returns their names.
    pub fn kill(&mut self, prefix: &str, which: impl Fn(usize) -> bool) -> BTreeSet<String> {
        let dying: Vec<usize> = (0..self.keepers.len()).filter(|n| which(*n)).collect();
        let names: BTreeSet<String> = dying.iter().map(|n| name(prefix, *n)).collect();
        self.living
            .lock()
            .expect("not poisoned")
            .retain(|cell| !names.contains(cell));
        for n in dying {
            // A keeper that is dropped gives nothing back.
            self.keepers[n] = None;
        }
        names
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

fn name(prefix: &str, n: usize) -> String {
    format!("{prefix}-{n}")
}

async fn register(
    client: Client,
    presence: StoreConfig,
    name: &str,
    zone: &str,
    room: usize,
) -> Result<Keeper, Failure> {
    let cell: Cell = serde_json::from_value(json!({
        "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "Cell", "metadata": { "name": name },
        "spec": {
            "zone": zone, "executor": "Process",
            "capacity": { "memory": "16Gi", "disk": "100Gi", "containers": room },
        },
    }))?;
    let cells = Api::<Cell>::all(client);
    match cells.create(&PostParams::default(), &cell).await {
        // The client tries again what a busy server did not answer, and may have done.
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        made => drop(made?),
    }
    let registration = Registration {
        cell_id: name.to_owned(),
        incarnation: format!("{name}-only"),
        ttl: Ttl::seconds(5),
        cells: Default::default(),
        known_epoch: KnownEpoch::default(),
        dead_epoch: KnownEpoch::default(),
        fence: false,
    };
    let mut keeper = Keeper::start(presence, registration, Owner::Unproven)?;
    loop {
        match keeper.reports.recv().await {
            Some(KeeperReport::Registered { .. }) => return Ok(keeper),
            Some(KeeperReport::Failed { error }) => return Err(error.into()),
            Some(_) => {}
            None => return Err("a keeper ended before it was registered".into()),
        }
    }
}

/// Says of each instance that is placed on a living Cell that it runs.
async fn answer(client: Client, living: Arc<Mutex<BTreeSet<String>>>) {
    let api = Api::<ActualLRP>::namespaced(client, "default");
    loop {
        let seen = watcher(api.clone(), watcher::Config::default()).applied_objects();
        // An answer that is refused is about an older record: the newer one is seen next.
        let answers = seen.try_for_each_concurrent(IN_FLIGHT, |lrp| {
            let told = told(&lrp, &living.lock().expect("not poisoned"));
            let api = api.clone();
            async move {
                if let Some(body) = told {
                    let body = Patch::Merge(body);
                    let (name, params) = (lrp.name_any(), PatchParams::default());
                    drop(api.patch_status(&name, &params, &body).await);
                }
                Ok(())
            }
        });
        drop(answers.await);
        tokio::time::sleep(PAUSE).await;
    }
}

/// What is to be written of an instance, if anything.
fn told(lrp: &ActualLRP, living: &BTreeSet<String>) -> Option<serde_json::Value> {
    let status = lrp.status.as_ref()?;
    let cell = status
        .cell_name
        .clone()
        .filter(|cell| living.contains(cell))?;
    if status.state != ActualLRPState::Unclaimed {
        return None;
    }
    let instance = Instance {
        cell,
        epoch: status.cell_epoch?,
        guid: status.instance_guid.clone()?,
    };
    let verb = Verb::Start {
        instance,
        address: "10.0.0.1".into(),
        ports: Vec::new(),
    };
    let next = transition::apply(status, &verb, Timestamp::now()).ok()?;
    let (uid, version) = (lrp.uid(), lrp.resource_version());
    let change = patch::between(status, &next);
    Some(patch::bound(uid.as_deref(), version.as_deref(), change))
}
