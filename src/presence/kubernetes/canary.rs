//! The messenger is not the Cell: a Lease of this process's own, which tells whether Leases can be renewed at all.
//!
//! A store that takes no writes (its disk is full, it has lost its quorum, it throttles) looks like one whose Cells have
//! all died. So each controller renews a Lease too, more often than any Cell has to, and the deadline set counts only
//! as far as that went through.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::super::StoreError;
use super::super::etcd::within;
use super::{CANARY, KubernetesConfig, KubernetesStore, MARK, new_lease, now};
use crate::client::brief;
use crate::sync::locked;

/// Every canary is named so; chance follows.
pub(super) const NAME_PREFIX: &str = "presence-canary-";

/// The longest pause between two writes, however long the TTLs are.
const INTERVAL: Duration = Duration::from_secs(5);

/// The pause after a write that failed.
const RETRY: Duration = Duration::from_millis(200);

/// So many failures in a row are an outage.
const OUTAGE: u32 = 2;

/// A canary that did not change for so long is that of a controller that is gone: four times the longest pause.
const STALE: Duration = Duration::from_secs(20);

/// How long a stop waits for its canary to be deleted.
const LEAVE: Duration = Duration::from_secs(1);

/// What a Lease has to be unchanged in: uid and resourceVersion.
type Version = (Option<String>, Option<String>);

/// The Lease of this process.
#[derive(Debug)]
pub(super) struct Canary {
    config: KubernetesConfig,
    name: String,
    leases: Mutex<Api<Lease>>,
    failures: AtomicU32,
    health: watch::Sender<bool>,
}

impl Canary {
    pub(super) fn new(config: &KubernetesConfig) -> Result<Self, StoreError> {
        Ok(Self {
            config: config.clone(),
            name: format!("{NAME_PREFIX}{}", uuid::Uuid::new_v4().simple()),
            leases: Mutex::new(config.leases()?),
            failures: AtomicU32::new(0),
            health: watch::Sender::new(true),
        })
    }

    pub(super) fn health(&self) -> watch::Receiver<bool> {
        self.health.subscribe()
    }

    /// One write. Gives the instant before it was sent.
    pub(super) async fn write(&self, limit: Duration) -> Result<Instant, StoreError> {
        let sent = Instant::now();
        match within(limit, self.renew()).await {
            Ok(()) => {
                self.failures.store(0, Ordering::Relaxed);
                self.tell(true);
                Ok(sent)
            }
            Err(error) => {
                let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
                if failures >= OUTAGE {
                    self.tell(false);
                }
                tracing::debug!(%error, failures, "the presence store takes no write");
                // The connection may be dead; another one may lead to another server.
                if error.status().is_none()
                    && let Ok(leases) = self.config.leases()
                {
                    *locked(&self.leases) = leases;
                }
                Err(error)
            }
        }
    }

    /// Whether the last write failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failures.load(Ordering::Relaxed) > 0
    }

    fn tell(&self, well: bool) {
        self.health
            .send_if_modified(|known| std::mem::replace(known, well) != well);
    }

    fn leases(&self) -> Api<Lease> {
        locked(&self.leases).clone()
    }

    async fn renew(&self) -> kube::Result<()> {
        let leases = self.leases();
        let renewal = Patch::Merge(json!({ "spec": { "renewTime": now() } }));
        match leases
            .patch(&self.name, &PatchParams::default(), &renewal)
            .await
        {
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                let holder = std::fs::read_to_string("/proc/sys/kernel/hostname");
                let holder = holder.unwrap_or_else(|_| "unknown".into());
                let lease = new_lease(&self.name, CANARY, holder.trim(), STALE);
                leases
                    .create(&PostParams::default(), &lease)
                    .await
                    .map(drop)
            }
            answer => answer.map(drop),
        }
    }

    /// Writes again and again until `cancel`, and clears away what dead controllers left.
    pub(super) async fn run(&self, store: &KubernetesStore, cancel: CancellationToken) {
        let work = async { tokio::join!(self.beat(store), self.sweep()) };
        cancel.run_until_cancelled(work).await;
        let (leases, params) = (self.leases(), DeleteParams::default());
        let delete = leases.delete(&self.name, &params);
        if tokio::time::timeout(LEAVE, delete).await.is_err() {
            tracing::debug!("the canary could not be deleted; another controller will");
        }
    }

    async fn beat(&self, store: &KubernetesStore) {
        loop {
            let began = tokio::time::Instant::now();
            let written = store.write().await;
            let ttl = store.deadlines().shortest_ttl();
            let interval = (ttl / 3).min(INTERVAL);
            let next = match written {
                // From one to the next: what counts is the time between them, not between an answer and the next.
                Ok(()) => began + interval,
                Err(error) => {
                    let asked = error.retry_after();
                    tokio::time::Instant::now() + asked.map_or(RETRY, |asked| asked.min(interval))
                }
            };
            tokio::time::sleep_until(next).await;
        }
    }

    async fn sweep(&self) {
        let mut before = HashMap::new();
        loop {
            before = match self.sweep_once(&before).await {
                Ok(seen) => seen,
                Err(error) => {
                    tracing::debug!(error = brief(&error), "canaries can't be listed");
                    HashMap::new()
                }
            };
            tokio::time::sleep(STALE).await;
        }
    }

    /// Deletes every canary that is as it was `before`, and tells how the others are.
    async fn sweep_once(
        &self,
        before: &HashMap<String, Version>,
    ) -> kube::Result<HashMap<String, Version>> {
        let leases = self.leases();
        let params = ListParams::default().labels(&format!("{MARK}={CANARY}"));
        let mut seen = HashMap::new();
        for lease in leases.list(&params).await? {
            let (name, version) = (lease.name_any(), (lease.uid(), lease.resource_version()));
            if name != self.name && before.get(&name) == Some(&version) {
                let (uid, resource_version) = version;
                let unchanged = DeleteParams::default().preconditions(Preconditions {
                    uid,
                    resource_version,
                });
                if leases.delete(&name, &unchanged).await.is_ok() {
                    tracing::info!(name, "deleted the canary of a controller that is gone");
                }
            } else {
                seen.insert(name, version);
            }
        }
        Ok(seen)
    }
}
