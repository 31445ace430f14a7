//! A TTL that the rep chooses: it changes while the presence is held, and nobody notices but by its length.

use std::time::{Duration, Instant};

use diego_operator::boottime;
use diego_operator::presence::PresenceEvent;
use diego_operator::presence::identity::Owner;
use diego_operator::presence::keeper::{CellCount, KeeperReport};
use diego_operator::presence::store::StoreConfig;
use diego_operator::presence::ttl::{Bounds, Ttl};

use super::Site;
use crate::proxy::Proxy;
use crate::support::*;

const SHORTEST: Duration = Duration::from_secs(2);

/// In a hurry.
fn bounds() -> Bounds {
    Bounds {
        min: SHORTEST,
        max: Duration::from_secs(8),
        patience: Duration::from_millis(200),
    }
}

/// A proxy before the store, and how the store is reached through it.
async fn through(site: &Site) -> (Proxy, StoreConfig) {
    match site.config() {
        StoreConfig::Etcd(config) => {
            let proxy = Proxy::to(&config.endpoints[0]).await;
            let through = crate::support::config(vec![proxy.endpoint()]);
            (proxy, through)
        }
        StoreConfig::Kubernetes(mut config) => {
            let url = config.config.cluster_url.clone();
            let proxy = Proxy::to(url.authority().expect("one").as_str()).await;
            let through = format!("https://{}", proxy.address());
            config.config.cluster_url = through.parse().expect("a URL");
            (proxy, StoreConfig::Kubernetes(config))
        }
    }
}

async fn until_changed(rep: &mut Rep, what: &str, pick: impl Fn(Duration, Duration) -> bool) {
    rep.until(what, |report| match report {
        KeeperReport::TtlChanged { from, ttl, .. } => pick(*from, *ttl).then_some(()),
        _ => None,
    })
    .await;
}

/// What the watch told of the Cell's TTL.
fn told(watch: &Watch) -> Vec<Duration> {
    let held = |event: &PresenceEvent| match event {
        PresenceEvent::Held(now) if now.cell == "a" => now.ttl(),
        _ => None,
    };
    watch.seen.iter().filter_map(held).collect()
}

pub async fn a_ttl_that_is_chosen_falls_and_rises_and_nobody_is_lost(site: Site) {
    let (proxy, config) = through(&site).await;
    let mut watch = site.watch().await;
    let mut rep = Rep::start_with(config, Owner::Unproven, 0, |registration| {
        registration.ttl = Ttl::Auto(bounds());
    });
    let registered = rep.until_registered().await;
    let first = watch.until_held("a").await;
    assert_eq!(first.ttl(), Some(Duration::from_secs(5)));
    until_changed(&mut rep, "the shortest", |_, ttl| ttl == SHORTEST).await;
    // About three tenths of a second for every answer: in time, and too near to the end of it. To the API server a
    // request goes in two pieces.
    let delay = if site.is_etcd() { 150 } else { 100 };
    proxy.slow(Duration::from_millis(delay));
    until_changed(&mut rep, "raised", |from, ttl| ttl > from).await;
    proxy.open();
    until_changed(&mut rep, "the shortest again", |_, ttl| ttl == SHORTEST).await;
    rep.until_renewed(2).await;

    site.catch_up(&mut watch).await;
    let told = told(&watch);
    assert_eq!(told[0], Duration::from_secs(5));
    assert_eq!(told.last(), Some(&SHORTEST), "{told:?}");
    assert!(told.windows(2).any(|two| two[1] > two[0]), "{told:?}");
    assert_eq!((rep.losses(), watch.departures("a")), (0, 0));
    let keeping = *rep.keeper.control.keeping().borrow();
    assert_eq!(
        (keeping.epoch, keeping.ttl),
        (Some(registered.epoch), SHORTEST)
    );
    // What counts is the TTL that was told last.
    let last = rep.die().await;
    let departure = watch.until_gone("a").await;
    let after = departure.at - last;
    assert!(after >= SHORTEST, "{after:?}");
    assert_eq!(departure.last.epoch, registered.epoch);
}

/// What must not run twice lives by deadlines that are never taken back. So a shorter TTL is told to the store only when
/// it can't let go before the last of them.
pub async fn no_promise_outlasts_a_shorter_ttl(site: Site) {
    let mut watch = site.watch().await;
    let rep = Rep::start_with(site.config(), Owner::Unproven, 0, |registration| {
        registration.ttl = Ttl::Auto(bounds());
        registration.fence = true;
    });
    let mut keeping = rep.keeper.control.keeping();
    let (promises, mut promised) = tokio::sync::watch::channel(None);
    let follow = tokio::spawn(async move {
        while keeping.changed().await.is_ok() {
            let deadline = keeping.borrow_and_update().fence_deadline();
            promises.send_if_modified(|last| {
                let later = deadline > *last;
                *last = deadline.max(*last);
                later
            });
        }
    });
    let mut ttl = watch.until_held("a").await.ttl().expect("readable");
    while ttl > SHORTEST {
        let now = watch.until_held("a").await.ttl().expect("readable");
        assert!(now < ttl, "{now:?} after {ttl:?}");
        // Whenever the store was told, it was before this.
        let lets_go = boottime::now().after(now);
        let last = promised.borrow_and_update().expect("a deadline");
        assert!(
            last <= lets_go,
            "a promise until {last}, and the store may let go at {lets_go}, by a TTL of {now:?} after {ttl:?}"
        );
        ttl = now;
    }
    drop(rep);
    follow.await.expect("it ends with the keeper");
}

pub async fn a_ttl_that_changes_over_a_bad_network_loses_nobody(site: Site) {
    let (proxy, config) = through(&site).await;
    let mut watch = site.watch().await;
    let cells = CellCount::default();
    let counted = cells.clone();
    let mut rep = Rep::start_with(config, Owner::Unproven, 0, |registration| {
        registration.cells = counted;
        registration.ttl = Ttl::Auto(Bounds {
            patience: Duration::from_millis(50),
            ..bounds()
        });
    });
    let registered = rep.until_registered().await;
    let began = Instant::now();
    let mut changes = 0;
    // For a while many Cells come and go, and each answer may be the one that is lost.
    for turn in 0.. {
        if began.elapsed() > Duration::from_secs(20) && changes >= 4 {
            break;
        }
        cells.set(if turn % 8 < 4 { 4000 } else { 0 });
        rep.until("renewed", |report| {
            changes += usize::from(matches!(report, KeeperReport::TtlChanged { .. }));
            matches!(report, KeeperReport::Renewed { .. }).then_some(())
        })
        .await;
        // The report comes before the change is asked for: this is in the middle of it.
        tokio::time::sleep(Duration::from_micros(turn * 397 % 6000)).await;
        // Every other one, so that changes are made, too.
        if turn % 4 < 2 {
            proxy.cut();
            tokio::time::sleep(Duration::from_millis(60)).await;
            proxy.open();
        }
    }
    rep.until_renewed(4).await;
    site.catch_up(&mut watch).await;
    assert_eq!(
        (rep.losses(), watch.departures("a")),
        (0, 0),
        "{:#?}",
        rep.seen
    );
    let keeping = *rep.keeper.control.keeping().borrow();
    assert_eq!(
        (keeping.held, keeping.epoch),
        (true, Some(registered.epoch))
    );
    // A phase finds the lease that the key hangs on.
    let released = rep.keeper.control.release().await;
    assert_eq!(released, Ok(true));
    assert!(!site.is_there("a").await);
}
