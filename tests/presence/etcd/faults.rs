//! What happens to presence when etcd itself is frozen, restarted, emptied, or not there yet.

use std::path::Path;
use std::time::{Duration, Instant};

use diego_operator::presence::etcd::EtcdStore;
use diego_operator::presence::identity::Owner;
use diego_operator::presence::keeper::KeeperReport;
use diego_operator::presence::{PresenceEvent, PresenceStore};
use local_cluster::{ServerProcess, binary, free_port};

use crate::proxy::Proxy;
use crate::support::*;

/// A single etcd whose data directory is the test's own.
struct OwnEtcd {
    port: u16,
    args: Vec<String>,
    dir: tempfile::TempDir,
}

impl OwnEtcd {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (port, peer) = (free_port().expect("a port"), free_port().expect("a port"));
        let args = [
            format!("--data-dir={}", Self::data(dir.path()).display()),
            format!("--listen-client-urls=http://127.0.0.1:{port}"),
            format!("--advertise-client-urls=http://127.0.0.1:{port}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
            format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
            format!("--initial-cluster=default=http://127.0.0.1:{peer}"),
            "--unsafe-no-fsync".into(),
            "--log-level=warn".into(),
        ];
        Self {
            port,
            args: args.into(),
            dir,
        }
    }

    fn data(dir: &Path) -> std::path::PathBuf {
        dir.join("data")
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn start(&self) -> ServerProcess {
        let program = binary("etcd").expect("etcd");
        ServerProcess::start(
            "etcd",
            &program,
            &self.args,
            &[],
            &self.dir.path().join("log"),
        )
        .expect("etcd starts")
    }
}

/// Whether the member at `endpoint` leads.
async fn leads(endpoint: &str) -> bool {
    let status = client(endpoint).await.status().await.expect("a status");
    status.header().expect("a header").member_id() == status.leader()
}

/// Each member in turn, so the one that the keeper talks to is among them. The leader is killed instead: one that
/// is frozen for longer than the TTL and then goes on may revoke, by what it knew, leases that were renewed with
/// its successor (seen with etcd 3.6.14 in one of about ten runs).
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_or_dead_member_costs_renewals_and_not_the_presence() {
    let mut etcd = etcd(3).await;
    let mut watch = Watch::synced(config(etcd.endpoints())).await;
    let (mut rep, registered) = Rep::registered(config(etcd.endpoints()), "a", 5).await;
    rep.until_renewed(1).await;
    for member in 0..3 {
        if leads(&etcd.endpoints()[member]).await {
            etcd.member(member).kill();
            rep.until_renewed(3).await;
            etcd.restart_member(member).await.expect("it is back");
        } else {
            etcd.member(member).pause();
            rep.until_renewed(3).await;
            etcd.member(member).resume();
        }
        rep.until_renewed(2).await;
    }
    assert_eq!(rep.losses(), 0, "{:#?}", rep.seen);
    assert!(
        rep.count(|report| matches!(report, KeeperReport::RenewalFailed { .. })) > 0,
        "{:#?}",
        rep.seen
    );
    assert_eq!(
        rep.keeper.control.keeping().borrow().epoch,
        Some(registered.epoch)
    );
    let client = client(&etcd.endpoints()[0]).await;
    watch.catch_up(&client).await;
    assert_eq!(watch.departures("a"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_store_is_another_store_and_takes_nobody_away() {
    let own = OwnEtcd::new();
    let server = own.start();
    let mut watch = Watch::synced(config(vec![own.endpoint()])).await;
    let before = client(&own.endpoint()).await;
    for cell in ["x", "y", "z"] {
        put(&before, cell, &value(cell)).await;
    }
    let (mut rep, registered) = Rep::registered(config(vec![own.endpoint()]), "a", 2).await;
    watch.catch_up(&before).await;

    server.kill();
    server.wait().await;
    std::fs::remove_dir_all(OwnEtcd::data(own.dir.path())).expect("emptied");
    let _server = own.start();
    watch.until_synced(true).await;
    rep.until_lost().await;
    let again = rep.until_registered().await;
    let after = client(&own.endpoint()).await;
    watch.catch_up(&after).await;
    for cell in ["x", "y", "z", "a"] {
        assert_eq!(watch.departures(cell), 0, "{cell}: {:#?}", watch.seen);
    }
    let last = watch.seen.iter().rev().find_map(|event| match event {
        PresenceEvent::Held(now) if now.cell == "a" => Some(now.epoch),
        _ => None,
    });
    assert_eq!(last, Some(again.epoch));
    let store = EtcdStore::connect(etcd_config(vec![own.endpoint()])).await;
    let reading = store.expect("connected").get("a").await.expect("read");
    assert_eq!(
        reading
            .presence
            .expect("there")
            .value
            .expect("readable")
            .first_epoch,
        Some(registered.epoch),
        "the incarnation goes on, and so do its epochs"
    );
    assert!(
        again.epoch > registered.epoch,
        "{} after {}: the emptied store begins to count anew, epochs must not",
        again.epoch,
        registered.epoch
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rep_and_a_watcher_that_start_before_the_store_find_it() {
    let own = OwnEtcd::new();
    let mut watch = Watch::start(config(vec![own.endpoint()]), 100);
    let mut rep = Rep::start(
        config(vec![own.endpoint()]),
        "a",
        "life-1",
        5,
        Owner::Unproven,
    );
    rep.until("a try fails", |report| {
        matches!(report, KeeperReport::RegistrationFailed { .. }).then_some(())
    })
    .await;
    watch
        .until("the outage is told", |event| {
            matches!(event, PresenceEvent::Unreachable { .. }).then_some(())
        })
        .await;
    let _server = own.start();
    let registered = rep.until_registered().await;
    assert_eq!(watch.until_held("a").await.epoch, registered.epoch);
}

/// A shutdown must end even without the store.
#[tokio::test(flavor = "multi_thread")]
async fn giving_back_to_a_silent_store_ends() {
    let etcd = etcd(1).await;
    let network = Proxy::to(&etcd.endpoints()[0]).await;
    let (rep, _) = Rep::registered(config(vec![network.endpoint()]), "a", 60).await;
    network.freeze();
    let began = Instant::now();
    let released = tokio::time::timeout(PATIENCE, rep.keeper.control.release())
        .await
        .expect("it ends");
    assert_eq!(released, Ok(false));
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "took {:?}",
        began.elapsed()
    );
}

/// A connection that breaks between two renewals costs no renewal: the next one is sent on another at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_replaced_within_the_ttl() {
    let etcd = etcd(1).await;
    let networks = [
        Proxy::to(&etcd.endpoints()[0]).await,
        Proxy::to(&etcd.endpoints()[0]).await,
    ];
    let endpoints = networks.iter().map(Proxy::endpoint).collect();
    let (mut rep, registered) = Rep::registered(config(endpoints), "a", 2).await;
    for round in 0..4 {
        let network = &networks[round % 2];
        if round < 2 {
            network.cut()
        } else {
            network.freeze()
        }
        rep.until_renewed(3).await;
        network.open();
    }
    assert_eq!(rep.losses(), 0, "{:#?}", rep.seen);
    assert_eq!(
        rep.keeper.control.keeping().borrow().epoch,
        Some(registered.epoch)
    );
}
