//! Reads of who is alive, from the API server itself, judged by what this process has seen change so far.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, ListParams, ObjectList, Preconditions};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::super::etcd::within;
use super::super::{Presence, PresenceStore, Reading, RollCall, StoreError};
use super::canary::Canary;
use super::deadlines::{Deadlines, FLOOR};
use super::{CELL, KubernetesConfig, MARK, Sighting, lease_name, version};
use crate::sync::locked;

/// A try that has not been answered by then is made again, over a new connection.
const TRY_TIMEOUT: Duration = Duration::from_secs(1);

/// How many tries a read gets.
const TRIES: usize = 2;

/// The pause after an answer that is none, such as that there are too many requests.
const PAUSE: Duration = Duration::from_millis(100);

/// Why the store can't be used at start.
#[derive(Debug, thiserror::Error)]
#[error(
    "the Leases that keep the presence can't be used in namespace {namespace}: {error}; check --namespace, and the \
     rights to {needs} leases.coordination.k8s.io in it"
)]
pub struct ConnectError {
    /// The namespace.
    pub namespace: String,
    /// What was tried and failed.
    #[source]
    pub error: StoreError,
    /// The verbs.
    pub needs: &'static str,
}

/// The presence store, and what this process knows of the time in it.
#[derive(Debug)]
pub struct KubernetesStore {
    config: KubernetesConfig,
    /// Shared with the watcher. Never held across an exchange with the store.
    deadlines: Mutex<Deadlines>,
    /// For reads; replaced after one that failed.
    leases: Mutex<Api<Lease>>,
    canary: Canary,
}

impl KubernetesStore {
    /// The store, after it took a write and answered a read.
    ///
    /// # Errors
    /// When it did not.
    pub async fn connect(config: KubernetesConfig) -> Result<Arc<Self>, ConnectError> {
        let failed = |error| ConnectError {
            namespace: config.namespace.clone(),
            error,
            needs: "get, list, watch, create, patch and delete",
        };
        let store = Self {
            deadlines: Mutex::default(),
            leases: Mutex::new(config.leases().map_err(failed)?),
            canary: Canary::new(&config).map_err(failed)?,
            config: config.clone(),
        };
        let mut last = store.write().await;
        if last.is_err() {
            last = store.write().await;
        }
        last.map_err(failed)?;
        store.list_now().await.map_err(failed)?;
        Ok(Arc::new(store))
    }

    /// Whether a rep can read the Lease of its Cell, where there is one.
    ///
    /// # Errors
    /// When it can't.
    pub async fn check(config: &KubernetesConfig, cell: &str) -> Result<(), ConnectError> {
        let look = async {
            let (leases, name) = (config.leases()?, lease_name(cell));
            // The first connection takes longer than a request.
            within(2 * TRY_TIMEOUT, leases.get_opt(&name)).await
        };
        look.await.map(drop).map_err(|error| ConnectError {
            namespace: config.namespace.clone(),
            error,
            needs: "get, create, update, patch and delete its own of the",
        })
    }

    /// How it is reached.
    pub(crate) fn config(&self) -> &KubernetesConfig {
        &self.config
    }

    /// The deadline set. Never held across an await.
    pub(crate) fn deadlines(&self) -> MutexGuard<'_, Deadlines> {
        locked(&self.deadlines)
    }

    /// Tries whether Leases can be renewed, again and again, until `cancel`. Without it nobody is ever over.
    pub(crate) async fn try_writes(&self, cancel: CancellationToken) {
        self.canary.run(self, cancel).await;
    }

    /// Whether Leases can be renewed, as far as is known.
    pub(crate) fn health(&self) -> watch::Receiver<bool> {
        self.canary.health()
    }

    /// Tries now whether a Lease can be renewed, and enters it into the deadline set if so.
    pub(crate) async fn write(&self) -> Result<(), StoreError> {
        // Soon, so that the next try follows in time; and if that is too soon for this store, not the next time.
        let limit = match self.canary.is_failing() {
            true => TRY_TIMEOUT,
            false => (self.deadlines().shortest_ttl().max(FLOOR) / 5).min(TRY_TIMEOUT),
        };
        let sent = self.canary.write(limit).await?;
        self.deadlines().wrote(sent, Instant::now());
        Ok(())
    }

    /// Every Cell's Lease, as a live list shows it, and the version of that list.
    pub(crate) async fn list_now(&self) -> Result<(Vec<Sighting>, i64), StoreError> {
        let params = ListParams::default().labels(&format!("{MARK}={CELL}"));
        let list = self.list_leases(params).await?;
        let version = version(list.metadata.resource_version.as_deref());
        Ok((list.iter().filter_map(Sighting::of).collect(), version))
    }

    /// The Lease of a Cell as a live read shows it; without one, the version of the store that has none.
    pub(crate) async fn get_now(&self, cell: &str) -> Result<Result<Sighting, i64>, StoreError> {
        let name = lease_name(cell);
        let get = |leases: Api<Lease>| {
            let name = name.clone();
            async move { leases.get_opt(&name).await }
        };
        let found = self.read(get).await?;
        if let Some(seen) = found.as_ref().and_then(Sighting::of) {
            return Ok(Ok(seen));
        }
        // "Not found" does not say when; a list does.
        let params = ListParams::default().fields(&format!("metadata.name={name}"));
        let list = self.list_leases(params).await?;
        let version = version(list.metadata.resource_version.as_deref());
        Ok(list.iter().find_map(Sighting::of).ok_or(version))
    }

    /// What a live read showed, as the presence that it is.
    fn judged(&self, seen: &Sighting) -> Option<Presence> {
        let mut deadlines = self.deadlines();
        deadlines.observe(seen, Instant::now());
        match deadlines.is_over(&seen.cell) {
            true => None,
            false => deadlines.presence(seen),
        }
    }

    async fn list_leases(&self, params: ListParams) -> Result<ObjectList<Lease>, StoreError> {
        let list = |leases: Api<Lease>| {
            let params = params.clone();
            async move { leases.list(&params).await }
        };
        self.read(list).await
    }

    async fn read<T, R>(&self, read: impl Fn(Api<Lease>) -> R) -> Result<T, StoreError>
    where
        R: Future<Output = kube::Result<T>>,
    {
        let mut last = StoreError::Timeout(TRY_TIMEOUT);
        for _ in 0..TRIES {
            let leases = locked(&self.leases).clone();
            match within(TRY_TIMEOUT, read(leases)).await {
                Ok(answer) => return Ok(answer),
                Err(error) if !error.may_pass() => return Err(error),
                Err(error) => last = error,
            }
            if last.status().is_some() {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            // The connection may be dead; another one may lead to another server.
            match self.config.leases() {
                Ok(leases) => *locked(&self.leases) = leases,
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl PresenceStore for KubernetesStore {
    fn get<'a>(&'a self, cell: &'a str) -> BoxFuture<'a, Result<Reading, StoreError>> {
        async move {
            Ok(match self.get_now(cell).await? {
                Ok(seen) => Reading {
                    presence: self.judged(&seen),
                    revision: seen.last_count(),
                },
                Err(revision) => Reading {
                    // Deleted by anybody: its rep may live, and is about to make it anew.
                    presence: self.deadlines().unannounced(cell),
                    revision,
                },
            })
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Presence>, StoreError>> {
        async move {
            let (list, _) = self.list_now().await?;
            let mut deadlines = self.deadlines();
            let now = Instant::now();
            list.iter().for_each(|seen| deadlines.observe(seen, now));
            Ok(deadlines.live().collect())
        }
        .boxed()
    }

    fn roll_call(&self) -> BoxFuture<'_, Result<RollCall, StoreError>> {
        async move {
            // All Leases may take long just when many are gone; the watch may know as well.
            let watched = self.deadlines().is_fresh(Instant::now());
            let list = match watched {
                true => within(TRY_TIMEOUT, self.list_now()).await,
                false => self.list_now().await,
            };
            let mut deadlines = self.deadlines();
            let now = Instant::now();
            match list {
                Ok((list, _)) => list.iter().for_each(|seen| deadlines.observe(seen, now)),
                Err(error) if deadlines.is_fresh(now) => {
                    tracing::debug!(%error, "no list of all Leases: a roll call by what the watch told");
                }
                Err(error) => return Err(error),
            }
            Ok(RollCall {
                held: deadlines.live().map(|presence| presence.cell).collect(),
                overdue: deadlines.overdue(now).map(str::to_owned).collect(),
            })
        }
        .boxed()
    }

    /// A Lease that is over stays until somebody deletes it: as it was seen, so that no renewal is lost.
    fn forget<'a>(&'a self, cell: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
        async move {
            let Ok(seen) = self.get_now(cell).await? else {
                return Ok(true);
            };
            let is_over = {
                let mut deadlines = self.deadlines();
                deadlines.observe(&seen, Instant::now());
                deadlines.is_over(cell)
            };
            if !is_over {
                return Ok(false);
            }
            let params = DeleteParams::default().preconditions(Preconditions {
                uid: Some(seen.uid.clone()),
                resource_version: Some(seen.version.to_string()),
            });
            let (leases, name) = (locked(&self.leases).clone(), lease_name(cell));
            match within(TRY_TIMEOUT, leases.delete(&name, &params)).await {
                Ok(_) => Ok(true),
                Err(StoreError::Kubernetes(kube::Error::Api(status))) if status.is_not_found() => {
                    Ok(true)
                }
                Err(StoreError::Kubernetes(kube::Error::Api(status))) if status.is_conflict() => {
                    Ok(false)
                }
                Err(error) => Err(error),
            }
        }
        .boxed()
    }
}
