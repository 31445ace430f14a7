//! What every test here needs: a listener, a rep, an etcd; and waits that end.

use std::time::Duration;

use diego_operator::presence::etcd::{EtcdConfig, key};
use diego_operator::presence::identity::Owner;
use diego_operator::presence::keeper::{
    CellCount, Keeper, KeeperReport, KnownEpoch, LossReason, Registration,
};
use diego_operator::presence::store::{self, StoreConfig};
use diego_operator::presence::ttl::Ttl;
use diego_operator::presence::{Departure, Presence, PresenceEvent};
use etcd_client::{Client, PutOptions};
use local_cluster::{Etcd, EtcdOptions};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Every wait ends after this; far longer than any of them takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(40);

pub async fn etcd(members: usize) -> Etcd {
    Etcd::start(EtcdOptions {
        members,
        ..EtcdOptions::default()
    })
    .await
    .expect("etcd starts")
}

pub fn etcd_config(endpoints: Vec<String>) -> EtcdConfig {
    EtcdConfig {
        endpoints,
        ..EtcdConfig::default()
    }
}

pub fn config(endpoints: Vec<String>) -> StoreConfig {
    StoreConfig::Etcd(etcd_config(endpoints))
}

/// A client of the test's own, beside the code under test.
pub async fn client(endpoint: &str) -> Client {
    Client::connect([endpoint], None).await.expect("a client")
}

/// Writes a Cell's key without a rep; gives its epoch.
pub async fn put(client: &Client, cell: &str, value: &str) -> i64 {
    let mut kv = client.kv_client();
    kv.put(key(cell), value, Some(PutOptions::new()))
        .await
        .expect("written");
    kv.get(key(cell), None).await.expect("read").kvs()[0].create_revision()
}

pub fn value(cell: &str) -> String {
    format!(r#"{{"cellId":"{cell}","incarnation":"i","ttlSeconds":5}}"#)
}

pub async fn delete(client: &Client, cell: &str) {
    client
        .kv_client()
        .delete(key(cell), None)
        .await
        .expect("deleted");
}

/// Ends a lease, as its expiry would.
pub async fn revoke(client: &Client, lease: i64) {
    client.lease_client().revoke(lease).await.expect("revoked");
}

/// Waits until the condition holds.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "not within {PATIENCE:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A listener to the watcher, which remembers everything it heard.
pub struct Watch {
    events: mpsc::Receiver<PresenceEvent>,
    pub seen: Vec<PresenceEvent>,
    _cancel: DropGuard,
}

impl Watch {
    /// Starts the watcher; nothing is received yet.
    pub fn of(watcher: store::Watcher, queue: usize) -> Self {
        let (sender, events) = mpsc::channel(queue);
        let cancel = CancellationToken::new();
        tokio::spawn(watcher.run(Some(sender), cancel.clone()));
        Self {
            events,
            seen: Vec::new(),
            _cancel: cancel.drop_guard(),
        }
    }

    /// Starts the watcher of an etcd, which need not be there; nothing is received yet.
    pub fn start(config: StoreConfig, queue: usize) -> Self {
        let StoreConfig::Etcd(config) = config else {
            panic!("not an etcd");
        };
        Self::of(store::Watcher::Etcd(config), queue)
    }

    /// Starts the watcher and waits for its first list.
    pub async fn synced(config: StoreConfig) -> Self {
        let watcher = match config {
            StoreConfig::Etcd(config) => store::Watcher::Etcd(config),
            config => {
                let opened = store::open(config).await;
                opened.expect("the store is there").watcher
            }
        };
        let mut watch = Self::of(watcher, 1000);
        watch.until_synced(false).await;
        watch
    }

    /// The next event that `pick` takes; the ones before it are remembered as well.
    pub async fn until<T>(
        &mut self,
        what: &str,
        mut pick: impl FnMut(&PresenceEvent) -> Option<T>,
    ) -> T {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let event = match tokio::time::timeout_at(deadline, self.events.recv()).await {
                Ok(Some(event)) => event,
                Ok(None) => panic!("the watcher ended before: {what}; heard {:#?}", self.seen),
                Err(_) => panic!("not within {PATIENCE:?}: {what}; heard {:#?}", self.seen),
            };
            let picked = pick(&event);
            self.seen.push(event);
            if let Some(picked) = picked {
                return picked;
            }
        }
    }

    pub async fn until_synced(&mut self, reset: bool) {
        self.until("a list", |event| match event {
            PresenceEvent::Synced { reset: is, .. } if *is == reset => Some(()),
            _ => None,
        })
        .await;
    }

    pub async fn until_held(&mut self, cell: &str) -> Presence {
        self.until(&format!("{cell} held"), |event| match event {
            PresenceEvent::Held(now) if now.cell == cell => Some(now.clone()),
            _ => None,
        })
        .await
    }

    pub async fn until_gone(&mut self, cell: &str) -> Departure {
        self.until(&format!("{cell} gone"), |event| match event {
            PresenceEvent::Gone(departure) if departure.last.cell == cell => {
                Some(departure.clone())
            }
            _ => None,
        })
        .await
    }

    pub async fn until_restarted(&mut self) -> &'static str {
        self.until("the watch begins again", |event| match event {
            PresenceEvent::WatchRestarted { reason } => Some(*reason),
            _ => None,
        })
        .await
    }

    /// Hears everything that the etcd did before now: changes come in order, so a change made now is the mark.
    pub async fn catch_up(&mut self, client: &Client) {
        let epoch = put(client, "mark", &value("mark")).await;
        loop {
            if self.until_held("mark").await.epoch == epoch {
                break;
            }
        }
        delete(client, "mark").await;
        loop {
            if self.until_gone("mark").await.last.epoch == epoch {
                break;
            }
        }
    }

    /// How often a Cell was told to be gone so far.
    pub fn departures(&self, cell: &str) -> usize {
        let gone =
            |event: &&PresenceEvent| matches!(event, PresenceEvent::Gone(d) if d.last.cell == cell);
        self.seen.iter().filter(gone).count()
    }
}

/// A keeper, and everything it reported.
pub struct Rep {
    pub keeper: Keeper,
    pub seen: Vec<KeeperReport>,
    /// What the ledger would tell it.
    pub dead_epoch: KnownEpoch,
}

/// What a registration said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    pub epoch: i64,
    pub lease: i64,
    pub took_over: bool,
}

impl Rep {
    /// Starts a keeper.
    pub fn start(
        config: StoreConfig,
        cell: &str,
        incarnation: &str,
        ttl: u32,
        owner: Owner,
    ) -> Self {
        Self::start_after(config, cell, incarnation, ttl, owner, 0)
    }

    /// Starts a keeper whose Cell was judged lost under an epoch.
    pub fn start_after(
        config: StoreConfig,
        cell: &str,
        incarnation: &str,
        ttl: u32,
        owner: Owner,
        dead: i64,
    ) -> Self {
        Self::start_with(config, owner, dead, |registration| {
            registration.cell_id = cell.into();
            registration.incarnation = incarnation.into();
            registration.ttl = Ttl::seconds(ttl);
        })
    }

    /// Starts a keeper of Cell "a" that is told something else than usual.
    pub fn start_with(
        config: StoreConfig,
        owner: Owner,
        dead: i64,
        change: impl FnOnce(&mut Registration),
    ) -> Self {
        let dead_epoch = KnownEpoch::default();
        dead_epoch.hear(dead);
        let mut registration = Registration {
            cell_id: "a".into(),
            incarnation: "life-1".into(),
            ttl: Ttl::seconds(5),
            cells: CellCount::default(),
            known_epoch: KnownEpoch::default(),
            dead_epoch: dead_epoch.clone(),
            fence: false,
        };
        change(&mut registration);
        let keeper = Keeper::start(config, registration, owner).expect("the keeper starts");
        Self {
            keeper,
            seen: Vec::new(),
            dead_epoch,
        }
    }

    /// Starts a keeper without an identity, and waits until it holds its key.
    pub async fn registered(config: StoreConfig, cell: &str, ttl: u32) -> (Self, Registered) {
        let mut rep = Self::start(config, cell, "life-1", ttl, Owner::Unproven);
        let registered = rep.until_registered().await;
        (rep, registered)
    }

    pub async fn until<T>(
        &mut self,
        what: &str,
        mut pick: impl FnMut(&KeeperReport) -> Option<T>,
    ) -> T {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let report = match tokio::time::timeout_at(deadline, self.keeper.reports.recv()).await {
                Ok(Some(report)) => report,
                Ok(None) => panic!("the keeper ended before: {what}; reported {:#?}", self.seen),
                Err(_) => panic!("not within {PATIENCE:?}: {what}; reported {:#?}", self.seen),
            };
            let picked = pick(&report);
            self.seen.push(report);
            if let Some(picked) = picked {
                return picked;
            }
        }
    }

    pub async fn until_registered(&mut self) -> Registered {
        self.until("registered", |report| match report {
            KeeperReport::Registered {
                epoch,
                lease_id,
                took_over,
                ..
            } => Some(Registered {
                epoch: *epoch,
                lease: *lease_id,
                took_over: *took_over,
            }),
            _ => None,
        })
        .await
    }

    /// Waits for so many more answered renewals.
    pub async fn until_renewed(&mut self, times: usize) {
        let mut left = times;
        self.until("renewed", |report| {
            left -= usize::from(matches!(report, KeeperReport::Renewed { .. }));
            (left == 0).then_some(())
        })
        .await;
    }

    pub async fn until_lost(&mut self) -> LossReason {
        self.until("lost", |report| match report {
            KeeperReport::Lost { reason } => Some(*reason),
            _ => None,
        })
        .await
    }

    /// How often something was reported so far.
    pub fn count(&self, pick: impl Fn(&KeeperReport) -> bool) -> usize {
        self.seen.iter().filter(|report| pick(report)).count()
    }

    /// How often it lost its presence so far.
    pub fn losses(&self) -> usize {
        self.count(|report| matches!(report, KeeperReport::Lost { .. }))
    }

    pub async fn until_failed(&mut self) -> String {
        self.until("failed for good", |report| match report {
            KeeperReport::Failed { error } => Some(error.to_string()),
            _ => None,
        })
        .await
    }

    /// The rep dies: nothing is renewed or given back any more. Gives when its last answered renewal was sent.
    pub async fn die(self) -> std::time::Instant {
        let mut keeping = self.keeper.control.keeping();
        drop(self);
        // The channel closes with the keeper's thread.
        tokio::time::timeout(PATIENCE, async { while keeping.changed().await.is_ok() {} })
            .await
            .expect("the keeper ends");
        keeping
            .borrow()
            .last_renewal_sent
            .expect("it was registered")
            .at
    }
}
