//! What is the API server's alone: Leases that do not run out by themselves, and faults in which only some of it works.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use diego_operator::presence::identity::Owner;
use diego_operator::presence::keeper::{FailureKind, KeeperReport};
use diego_operator::presence::kubernetes::{KubernetesConfig, KubernetesStore, MARK, lease_name};
use diego_operator::presence::store::{self, StoreConfig};
use diego_operator::presence::{Notice, PresenceEvent};
use etcd_client::{AlarmAction, AlarmType};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use local_cluster::LocalCluster;
use serde_json::json;

use crate::contract::site::{Site, cluster, in_new_namespace, leases};
use crate::proxy::Proxy;
use crate::support::*;

async fn site() -> (Site, KubernetesConfig, Api<Lease>) {
    let site = Site::kubernetes().await;
    let StoreConfig::Kubernetes(config) = site.config() else {
        panic!("not the API server");
    };
    let leases = leases(&config);
    (site, *config, leases)
}

async fn until_unreachable(watch: &mut Watch) {
    watch
        .until("the outage is told", |event| {
            matches!(event, PresenceEvent::Unreachable { .. }).then_some(())
        })
        .await;
}

/// Breaks the store for longer than the TTL, in a way that leaves it standing: nobody is lost, it is told, and who died
/// meanwhile is gone a full TTL after it is well again.
async fn nobody_is_lost_by(
    cluster: &LocalCluster,
    break_it: impl AsyncFnOnce(),
    mend_it: impl AsyncFnOnce(),
) {
    const TTL: Duration = Duration::from_secs(3);
    let config = StoreConfig::Kubernetes(Box::new(in_new_namespace(cluster).await));
    let mut watch = Watch::synced(config.clone()).await;
    let (mut lives, registered) = Rep::registered(config.clone(), "lives", 3).await;
    let (dies, _) = Rep::registered(config.clone(), "dies", 3).await;
    lives.until_renewed(2).await;
    watch.until_held("dies").await;
    break_it().await;
    let broken = Instant::now();
    dies.die().await;
    until_unreachable(&mut watch).await;
    // The time of the fault, not a wait.
    tokio::time::sleep((TTL + Duration::from_secs(2)).saturating_sub(broken.elapsed())).await;
    let mended = Instant::now();
    mend_it().await;
    lives.until_renewed(2).await;
    let departure = watch.until_gone("dies").await;
    assert_eq!(departure.notice, Notice::Timer);
    assert!(
        departure.at >= mended + TTL,
        "gone {:?} after the store was mended: too early",
        departure.at - mended
    );
    assert_eq!(watch.departures("lives"), 0, "{:#?}", watch.seen);
    assert_eq!(lives.losses(), 0, "{:#?}", lives.seen);
    let keeping = *lives.keeper.control.keeping().borrow();
    assert_eq!(keeping.epoch, Some(registered.epoch));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_api_server_loses_nobody() {
    let cluster = cluster().await;
    let server = cluster.apiserver();
    nobody_is_lost_by(&cluster, async || server.pause(), async || server.resume()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_etcd_behind_the_api_server_loses_nobody() {
    let cluster = cluster().await;
    let etcd = cluster.etcd().member(0);
    nobody_is_lost_by(&cluster, async || etcd.pause(), async || etcd.resume()).await;
}

/// Reads and watches work on, and every Lease looks as if its Cell had died.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_behind_the_api_server_loses_nobody() {
    let cluster = cluster().await;
    let endpoint = cluster.etcd().endpoints().remove(0);
    let alarm = async |action| {
        let mut etcd = client(&endpoint).await;
        etcd.alarm(action, AlarmType::Nospace, None)
            .await
            .expect("the alarm is set");
    };
    nobody_is_lost_by(
        &cluster,
        async || alarm(AlarmAction::Activate).await,
        async || alarm(AlarmAction::Deactivate).await,
    )
    .await;
}

/// Decision 0009, case by case: an expired Lease that is still there, one that somebody deleted, and a new one.
#[tokio::test(flavor = "multi_thread")]
async fn epochs_grow_whatever_becomes_of_the_lease() {
    let (site, config, _) = site().await;
    let opened = store::open(site.config()).await.expect("connected");
    let (store, mut watch) = (opened.store, Watch::of(opened.watcher, 1000));
    watch.until_synced(false).await;
    let (first, registered) = Rep::registered(site.config(), "a", 2).await;
    watch.until_held("a").await;
    first.die().await;
    let departure = watch.until_gone("a").await;
    assert_eq!(departure.notice, Notice::Timer);
    // (a) It is still there, and nobody is registered by it.
    assert!(site.is_there("a").await);
    let expired = store.get("a").await.expect("read");
    assert_eq!(expired.presence, None);
    assert_eq!(
        expired.revision, registered.epoch,
        "up to this one all are gone"
    );
    assert_eq!(store.list().await.expect("read"), []);
    let (second, again) = Rep::registered(site.config(), "a", 2).await;
    assert!(
        again.epoch > expired.revision,
        "{again:?} after {expired:?}"
    );
    assert_eq!(watch.until_held("a").await.epoch, again.epoch);
    let there = store.get("a").await.expect("read").presence;
    assert_eq!(there.expect("present").epoch, again.epoch);
    second.die().await;
    // (b) Somebody deletes it, and registrations elsewhere go on meanwhile.
    site.delete("a").await;
    assert_eq!(watch.until_gone("a").await.notice, Notice::Timer);
    for cell in ["b", "c"] {
        site.put(cell, &value(cell)).await;
    }
    let deleted = store.get("a").await.expect("read");
    assert_eq!(deleted.presence, None);
    assert!(deleted.revision > again.epoch);
    // (c) It is made anew.
    let (third, anew) = Rep::registered(site.config(), "a", 2).await;
    assert!(anew.epoch > deleted.revision, "{anew:?} after {deleted:?}");
    third.die().await;
    watch.until_gone("a").await;
    // Made, and never registered by: nobody's, and the next one may use it.
    site.delete("a").await;
    let made = json!({ "metadata": { "name": lease_name("a"), "labels": { MARK: "cell" } }, "spec": { "holderIdentity": "dead" } });
    let made: Lease = serde_json::from_value(made).expect("a Lease");
    let made = leases(&config).create(&Default::default(), &made).await;
    let made = made.expect("made").metadata.resource_version;
    let half = store.get("a").await.expect("read");
    assert_eq!(half.presence, None);
    let (_fourth, last) = Rep::registered(site.config(), "a", 2).await;
    assert!(half.revision < last.epoch && last.epoch > anew.epoch);
    assert_eq!(Some(last.epoch.to_string()), made);
}

/// Whoever begins to look gives everybody a full TTL, and then knows the dead.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_controller_finds_the_dead_a_ttl_later_and_tells_of_each_once() {
    let (site, ..) = site().await;
    let (dead, _) = Rep::registered(site.config(), "dead", 2).await;
    dead.die().await;
    let (mut lives, _) = Rep::registered(site.config(), "lives", 2).await;
    lives.until_renewed(4).await;
    let opened = store::open(site.config()).await.expect("connected");
    let began = Instant::now();
    let (store, mut watch) = (opened.store, Watch::of(opened.watcher, 1000));
    assert!(store.get("dead").await.expect("read").presence.is_some());
    let departure = watch.until_gone("dead").await;
    assert!(departure.at - began >= Duration::from_secs(2));
    assert_eq!(store.get("dead").await.expect("read").presence, None);
    assert!(store.get("lives").await.expect("read").presence.is_some());
    // A change by somebody else revives it for one TTL: that is all a change can say.
    site.delete("dead").await;
    site.catch_up(&mut watch).await;
    assert_eq!(watch.departures("dead"), 1, "{:#?}", watch.seen);
    assert_eq!(watch.departures("lives"), 0);
}

/// The controller's own clock times it, so it need not be whole seconds; the field for people is.
#[tokio::test(flavor = "multi_thread")]
async fn with_half_a_second_the_dead_are_gone_and_the_living_stay_on_busy_processors() {
    let half = Duration::from_millis(500);
    let (site, _, leases) = site().await;
    let mut watch = site.watch().await;
    let (mut lives, dies) = (lasting(&site, "lives", half), lasting(&site, "dies", half));
    lives.until_renewed(3).await;
    let held = watch.until_held("dies").await;
    assert_eq!(held.ttl(), Some(half));
    let lease = leases.get(&lease_name("dies")).await.expect("there");
    let spec = lease.spec.expect("there");
    assert_eq!(spec.lease_duration_seconds, Some(1));
    // Loops that leave no processor idle, until the end of the test.
    let busy = Arc::new(AtomicBool::new(true));
    for _ in 0..4 {
        let busy = busy.clone();
        std::thread::spawn(move || {
            while busy.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
    }
    let last = dies.die().await;
    let departure = watch.until_gone("dies").await;
    let after = departure.at - last;
    assert!(after >= half, "gone {after:?} after the last renewal");
    assert_eq!(departure.notice, Notice::Timer);
    lives.until_renewed(20).await;
    busy.store(false, Ordering::Relaxed);
    site.catch_up(&mut watch).await;
    assert_eq!((lives.losses(), watch.departures("lives")), (0, 0));
}

fn lasting(site: &Site, cell: &str, ttl: Duration) -> Rep {
    Rep::start_with(site.config(), Owner::Unproven, 0, |registration| {
        registration.cell_id = cell.into();
        registration.ttl = ttl.into();
    })
}

/// More than are confirmed one by one.
#[tokio::test(flavor = "multi_thread")]
async fn many_that_die_at_once_are_all_gone_and_nobody_else() {
    let (site, ..) = site().await;
    let mut watch = site.watch().await;
    let (mut lives, _) = Rep::registered(site.config(), "lives", 5).await;
    let cells: Vec<String> = (0..20).map(|n| format!("cell-{n}")).collect();
    for cell in &cells {
        site.put(cell, &value(cell).replace('5', "3")).await;
    }
    for cell in &cells {
        watch
            .until("gone", |event| match event {
                PresenceEvent::Gone(departure) => {
                    assert_eq!(departure.notice, Notice::Timer);
                    Some(())
                }
                _ => None,
            })
            .await;
        let _each = cell;
    }
    lives.until_renewed(1).await;
    assert!(cells.iter().all(|cell| watch.departures(cell) == 1));
    assert_eq!(watch.departures("lives"), 0);
}

/// Whoever deletes the Lease of a Cell that lives costs it a new epoch, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_lease_is_made_anew_and_nobody_is_lost() {
    let (site, ..) = site().await;
    let opened = store::open(site.config()).await.expect("connected");
    let (store, mut watch) = (opened.store, Watch::of(opened.watcher, 1000));
    watch.until_synced(false).await;
    let (mut rep, registered) = Rep::registered(site.config(), "a", 3).await;
    watch.until_held("a").await;
    let mut last = registered.epoch;
    for _ in 0..3 {
        site.delete("a").await;
        // Between its end and its new beginning no reading misses it.
        let again = loop {
            let reading = store.get("a").await.expect("read");
            let presence = reading.presence.expect("it lives");
            if presence.epoch > last {
                break presence.epoch;
            }
        };
        rep.until_lost().await;
        assert_eq!(rep.until_registered().await.epoch, again);
        last = again;
    }
    rep.until_renewed(4).await;
    site.catch_up(&mut watch).await;
    assert_eq!(watch.departures("a"), 0, "{:#?}", watch.seen);
    // One that does not come back is lost by its silence.
    rep.die().await;
    let deleted = Instant::now();
    site.delete("a").await;
    let departure = watch.until_gone("a").await;
    assert_eq!(departure.notice, Notice::Timer);
    assert!(departure.at - deleted < Duration::from_secs(9));
    assert_eq!(store.get("a").await.expect("read").presence, None);
}

/// Whoever has the token of one node may write its Lease: that harms nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_lease_leaves_the_others_detected() {
    let (site, ..) = site().await;
    let mut watch = site.watch().await;
    for (cell, ttl) in [("zero", "0"), ("one", "1"), ("ages", "4294967295")] {
        let poison = value(cell).replace('5', ttl);
        site.put(cell, &poison).await;
        watch.until_held(cell).await;
    }
    let (mut lives, _) = Rep::registered(site.config(), "lives", 3).await;
    let (dies, _) = Rep::registered(site.config(), "dies", 3).await;
    watch.until_held("dies").await;
    let died = dies.die().await;
    let departure = watch.until_gone("dies").await;
    let after = departure.at - died;
    assert!(after < Duration::from_secs(9), "gone only after {after:?}");
    // Present, and unknown: their TTL is ours to choose.
    watch.until_gone("zero").await;
    lives.until_renewed(1).await;
    assert_eq!(watch.departures("lives"), 0, "{:#?}", watch.seen);
}

/// An answer is no reason to give up the connection that brought it, nor to ask again at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_no_is_asked_again_later_over_the_same_connection() {
    let (_, mut config, _) = site().await;
    let url = config.config.cluster_url.clone();
    let authority = url.authority().expect("one").to_string();
    let proxy = Proxy::to(&authority).await;
    let through = format!("https://{}", proxy.address());
    config.config.cluster_url = through.parse().expect("a URL");
    // Somebody without any right.
    config.config.auth_info.impersonate = Some("nobody".into());
    let store = StoreConfig::Kubernetes(Box::new(config));
    let began = Instant::now();
    let mut rep = Rep::start(store, "a", "life", 3, Owner::Unproven);
    for _ in 0..6 {
        rep.until("refused", |report| {
            matches!(
                report,
                KeeperReport::RegistrationFailed {
                    kind: FailureKind::Error
                }
            )
            .then_some(())
        })
        .await;
    }
    assert_eq!(proxy.taken(), 1, "connections");
    assert!(began.elapsed() > Duration::from_secs(1), "in a hot loop");
    // One that breaks is replaced.
    proxy.cut();
    eventually("it tries on", async || proxy.refused() > 1).await;
    proxy.open();
    eventually("it is connected again", async || proxy.taken() > 1).await;
}

/// Without its label the watch can't see it; without its value or its holder it is nobody's.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_somebody_spoilt_is_mended() {
    let (site, _, leases) = site().await;
    let name = lease_name("a");
    let (mut rep, registered) = Rep::registered(site.config(), "a", 2).await;
    let mut last = registered.epoch;
    for spoil in [
        json!({ "metadata": { "labels": { MARK: null } } }),
        json!({ "metadata": { "annotations": { MARK: "{damaged" } } }),
        json!({ "metadata": { "annotations": { MARK: null } } }),
        json!({ "spec": { "holderIdentity": null } }),
    ] {
        let params = PatchParams::default();
        let spoilt = leases.patch(&name, &params, &Patch::Merge(&spoil)).await;
        spoilt.expect("spoilt");
        rep.until_lost().await;
        let again = rep.until_registered().await;
        // With its value there, it goes on.
        assert!(again.epoch >= last, "{spoil}: {again:?} after {last}");
        last = again.epoch;
        let lease = leases.get(&name).await.expect("there");
        let labels = lease.metadata.labels.expect("labelled");
        assert_eq!(labels[MARK], "cell");
    }
    rep.until_renewed(2).await;
}

/// What others write beside a renewal is no loss.
#[tokio::test(flavor = "multi_thread")]
async fn others_may_write_to_the_lease() {
    let (site, _, leases) = site().await;
    let (mut rep, _) = Rep::registered(site.config(), "a", 2).await;
    for n in 0..20 {
        let note = json!({ "metadata": { "annotations": { "example.org/n": n.to_string() } } });
        let params = PatchParams::default();
        leases
            .patch(&lease_name("a"), &params, &Patch::Merge(&note))
            .await
            .expect("written");
        if n % 5 == 0 {
            rep.until_renewed(1).await;
        }
    }
    assert_eq!(rep.losses(), 0, "{:#?}", rep.seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_canary_of_a_dead_controller_is_deleted() {
    let (site, _, leases) = site().await;
    let canaries = async || {
        let params = ListParams::default().labels(&format!("{MARK}=canary"));
        leases.list(&params).await.expect("listed").items.len()
    };
    // It made its canary, and never renews it: as after a crash.
    drop(store::open(site.config()).await.expect("connected"));
    assert_eq!(canaries().await, 1);
    let _watch = site.watch().await;
    assert_eq!(canaries().await, 2);
    eventually("one is left", async || canaries().await == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_not_there_is_told_with_the_remedy() {
    let (_, config, _) = site().await;
    let config = KubernetesConfig {
        namespace: "nowhere".into(),
        ..config
    };
    let error = KubernetesStore::connect(config).await.expect_err("refused");
    let text = error.to_string();
    for part in ["namespace nowhere", "\"nowhere\" not found", "--namespace"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}
