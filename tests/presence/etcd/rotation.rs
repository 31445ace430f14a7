//! Certificates that are renewed, revoked and run out while a presence is held.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use diego_operator::presence::PresenceStore;
use diego_operator::presence::etcd::{EtcdConfig, EtcdStore};
use diego_operator::presence::keeper::KeeperReport;
use diego_operator::presence::store::StoreConfig;

use super::pki::*;
use crate::proxy::Proxy;
use crate::support::*;

/// Long enough for a registration on a busy machine, short enough to be waited for.
const LIFE: Duration = Duration::from_secs(30);

/// Puts a user's files where a program looks for them, as a renewal does: one after the other.
fn install(dir: &Path, user: &str, place: &str) {
    for ending in ["key", "pem"] {
        let new = dir.join(format!("{place}.{ending}.new"));
        fs::copy(dir.join(format!("{user}.{ending}")), &new).expect("copied");
        fs::rename(&new, dir.join(format!("{place}.{ending}"))).expect("renamed");
    }
}

fn failures(rep: &Rep) -> usize {
    rep.count(|report| matches!(report, KeeperReport::RenewalFailed { .. }))
}

async fn renewals(rep: &mut Rep, count: usize) {
    for _ in 0..count {
        rep.until("a renewal", |report| {
            matches!(report, KeeperReport::Renewed { .. }).then_some(())
        })
        .await;
    }
}

/// Each connection goes through a proxy of its own, which counts how often there was a new one.
async fn through(etcd: &TlsEtcd, place: &str) -> (Proxy, EtcdConfig) {
    let proxy = Proxy::to(&format!("http://127.0.0.1:{}", etcd.port)).await;
    let config = EtcdConfig {
        endpoints: vec![format!("https://{}", proxy.address())],
        ..etcd.config(place)
    };
    (proxy, config)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_in_use_before_the_old_one_ends() {
    let tmp = tempfile::tempdir().expect("a directory");
    let dir = tmp.path();
    let etcd = TlsEtcd::start(dir).await;
    let root = etcd.with_auth().await;
    add_cell_role(&root, "a").await;
    add_controller_role(&root).await;
    for (user, role) in [
        ("a-old", "diego-cell-a"),
        ("a-new", "diego-cell-a"),
        ("controller-old", "diego-controller"),
        ("controller-new", "diego-controller"),
    ] {
        add_user(&root, user, role).await;
    }
    let ends = ["a-old", "controller-old"].map(|user| short_lived(dir, user, "ca", LIFE).1);
    for (user, place) in [
        ("a-old", "rep"),
        ("controller-old", "watcher"),
        ("controller-old", "reader"),
    ] {
        install(dir, user, place);
    }
    let (rep_proxy, rep_config) = through(&etcd, "rep").await;
    let (watch_proxy, watch_config) = through(&etcd, "watcher").await;
    let (read_proxy, read_config) = through(&etcd, "reader").await;
    let mut watch = Watch::synced(StoreConfig::Etcd(watch_config)).await;
    let store = EtcdStore::connect(read_config).await.expect("connected");
    let (mut rep, registered) = Rep::registered(StoreConfig::Etcd(rep_config), "a", 5).await;
    watch.until_held("a").await;
    renewals(&mut rep, 1).await;

    // A certificate that the store does not know: it is tried beside the old one, which is kept.
    authority(dir, "strangers");
    certificate(dir, "stranger", "strangers");
    let before = rep_proxy.taken();
    install(dir, "stranger", "rep");
    eventually("the wrong files are tried", async || {
        rep_proxy.taken() > before
    })
    .await;
    renewals(&mut rep, 2).await;
    assert_eq!((failures(&rep), rep.losses()), (0, 0));

    // The right ones.
    for user in ["a-new", "controller-new"] {
        certificate(dir, user, "ca");
    }
    let proxies = [&rep_proxy, &watch_proxy, &read_proxy];
    let before = proxies.map(Proxy::taken);
    install(dir, "a-new", "rep");
    for place in ["watcher", "reader"] {
        install(dir, "controller-new", place);
    }
    for (proxy, before) in proxies.into_iter().zip(before) {
        eventually("the new files are in use", async || proxy.taken() > before).await;
    }
    watch.until_synced(false).await;
    renewals(&mut rep, 2).await;

    // With their users gone, the old certificates are worth nothing, on no connection.
    for user in ["a-old", "controller-old"] {
        root.auth_client().user_delete(user).await.expect("gone");
    }
    renewals(&mut rep, 4).await;
    let reading = store.get("a").await.expect("read").presence.expect("held");
    assert_eq!(reading.epoch, registered.epoch);
    assert_eq!((failures(&rep), rep.losses()), (0, 0));
    let restarts = |watch: &Watch| {
        let news = watch.seen.iter();
        news.filter(|event| {
            matches!(
                event,
                diego_operator::presence::PresenceEvent::WatchRestarted { .. }
                    | diego_operator::presence::PresenceEvent::Unreachable { .. }
            )
        })
        .count()
    };
    assert_eq!(restarts(&watch), 0);
    assert_eq!(read_proxy.taken(), before[2] + 1, "the reads failed once");

    // And when they have run out, every connection is made anew.
    eventually("the old certificates have run out", async || {
        SystemTime::now() > ends[0].max(ends[1])
    })
    .await;
    for proxy in proxies {
        proxy.cut();
        proxy.open();
    }
    renewals(&mut rep, 3).await;
    store.get("a").await.expect("read").presence.expect("held");
    let (_other, _) = {
        add_cell_role(&root, "b").await;
        add_user(&root, "b", "diego-cell-b").await;
        certificate(dir, "b", "ca");
        Rep::registered(StoreConfig::Etcd(etcd.config("b")), "b", 5).await
    };
    watch.until_held("b").await;
    assert_eq!(rep.losses(), 0);
    assert_eq!(watch.departures("a"), 0, "{:#?}", watch.seen);
}
