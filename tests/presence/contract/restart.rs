//! A rep that comes back on the same machine: what its identity is good for.

use std::time::{Duration, Instant};

use diego_operator::presence::PresencePhase;
use diego_operator::presence::identity::{Identity, Owner, WorkDirLock};
use diego_operator::presence::store;

use super::Site;
use crate::support::*;

/// What a rep does at its start.
fn prepare(dir: &tempfile::TempDir, incarnation: &str) -> (WorkDirLock, Owner) {
    let lock = WorkDirLock::acquire(dir.path()).expect("the work directory is free");
    let identity = Identity::prepare(dir.path(), "a", incarnation).expect("an identity");
    (lock, Owner::WorkDir(identity))
}

pub async fn the_same_incarnation_goes_on_with_its_epoch(site: Site) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut watch = site.watch().await;
    let (lock, identity) = prepare(&dir, "boot-1");
    let mut first = Rep::start(site.config(), "a", "boot-1", 3, identity);
    let registered = first.until_registered().await;
    let last_renewal = first.die().await;
    drop(lock);

    let (_lock, identity) = prepare(&dir, "boot-1");
    let mut second = Rep::start(site.config(), "a", "boot-1", 3, identity);
    let again = second.until_registered().await;
    assert_eq!((again.epoch, again.took_over), (registered.epoch, true));
    if let Site::Etcd(etcd) = &site {
        assert_ne!(
            again.lease, registered.lease,
            "the time of the new lease is known, that of the old one was not"
        );
        let client = client(&etcd.endpoints()[0]).await;
        let leases = client.lease_client().leases().await.expect("leases");
        let leases: Vec<i64> = leases.leases().iter().map(|lease| lease.id()).collect();
        assert_eq!(leases, [again.lease], "the old lease was given back");
    }

    // Past the time when the first one's lease would have ended.
    while last_renewal.elapsed() < Duration::from_secs(5) {
        second.until_renewed(1).await;
    }
    site.catch_up(&mut watch).await;
    assert_eq!(watch.departures("a"), 0);
}

/// Since when the containers of an incarnation may be running is known to the key, even where the rep has forgotten it.
pub async fn the_first_epoch_of_an_incarnation_lasts_over_a_takeover(site: Site) {
    let opened = store::open(site.config()).await.expect("connected");
    let store = opened.store;
    let first_epoch = async || {
        let presence = store.get("a").await.expect("read").presence;
        let presence = presence.expect("there");
        (
            presence.epoch,
            presence.value.expect("readable").first_epoch,
        )
    };
    let dir = tempfile::tempdir().expect("a directory");
    let (lock, identity) = prepare(&dir, "boot-1");
    let mut first = Rep::start(site.config(), "a", "boot-1", 60, identity);
    let registered = first.until_registered().await;
    assert_eq!(first_epoch().await, (registered.epoch, None));
    first.die().await;
    drop(lock);

    let (lock, identity) = prepare(&dir, "boot-1");
    let mut second = Rep::start(site.config(), "a", "boot-1", 3, identity);
    let again = second.until_registered().await;
    assert!(again.took_over);
    assert_eq!(first_epoch().await, (registered.epoch, None));
    site.take_away(again, "a").await;
    let anew = second.until_registered().await;
    assert_eq!(first_epoch().await, (anew.epoch, Some(registered.epoch)));
    second.die().await;
    drop(lock);

    let (lock, identity) = prepare(&dir, "boot-1");
    let mut third = Rep::start(site.config(), "a", "boot-1", 3, identity);
    let again = third.until_registered().await;
    assert!(again.took_over && again.epoch == anew.epoch);
    assert_eq!(first_epoch().await, (anew.epoch, Some(registered.epoch)));
    site.take_away(again, "a").await;
    let anew = third.until_registered().await;
    assert_eq!(first_epoch().await, (anew.epoch, Some(registered.epoch)));
    third.die().await;
    drop(lock);

    let (_lock, identity) = prepare(&dir, "boot-2");
    let mut next = Rep::start(site.config(), "a", "boot-2", 3, identity);
    let registered = next.until_registered().await;
    assert_eq!(first_epoch().await, (registered.epoch, None));
}

pub async fn a_new_incarnation_ends_the_old_one_without_a_loss(site: Site) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut watch = site.watch().await;
    let (lock, identity) = prepare(&dir, "boot-1");
    let mut first = Rep::start(site.config(), "a", "boot-1", 60, identity);
    let registered = first.until_registered().await;
    first.die().await;
    drop(lock);

    let began = Instant::now();
    let (_lock, identity) = prepare(&dir, "boot-2");
    let mut second = Rep::start(site.config(), "a", "boot-2", 60, identity);
    let again = second.until_registered().await;
    assert!(
        again.epoch > registered.epoch && !again.took_over,
        "{again:?} after {registered:?}"
    );
    let departure = watch.until_gone("a").await;
    assert_eq!(departure.last.epoch, registered.epoch);
    assert_eq!(departure.last.phase(), PresencePhase::Restarting);
    let value = departure.last.value.expect("readable");
    assert_eq!(value.incarnation, "boot-1");
    let held = watch.until_held("a").await;
    assert_eq!(
        (held.epoch, held.phase()),
        (again.epoch, PresencePhase::Held)
    );
    assert_eq!(held.value.expect("readable").incarnation, "boot-2");
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "it does not wait for the old lease"
    );
}

pub async fn a_copy_of_the_work_directory_takes_the_name_once_and_not_in_turns(site: Site) {
    let dir = tempfile::tempdir().expect("a directory");
    let (_lock, identity) = prepare(&dir, "boot-1");
    let mut first = Rep::start(site.config(), "a", "boot-1", 2, identity.clone());
    let registered = first.until_registered().await;
    let mut copy = Rep::start(site.config(), "a", "boot-1", 2, identity);
    assert!(copy.until_registered().await.took_over);
    first.until_lost().await;
    let error = first.until_failed().await;
    assert!(error.contains("is held by another rep"), "{error}");
    copy.until_renewed(1).await;
    assert_eq!(copy.losses(), 0, "{:#?}", copy.seen);
    assert_eq!(
        copy.keeper.control.keeping().borrow().epoch,
        Some(registered.epoch)
    );
}

/// In etcd its key is gone; a Lease is still there, but its epoch is over.
pub async fn a_rep_that_returns_after_its_loss_has_a_new_epoch(site: Site) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut watch = site.watch().await;
    let (lock, identity) = prepare(&dir, "boot-1");
    let mut first = Rep::start(site.config(), "a", "boot-1", 2, identity);
    let registered = first.until_registered().await;
    first.die().await;
    drop(lock);
    let lost = watch.until_gone("a").await.last.epoch;
    assert_eq!(lost, registered.epoch);

    let (_lock, identity) = prepare(&dir, "boot-1");
    let mut second = Rep::start_after(site.config(), "a", "boot-1", 2, identity, lost);
    let again = second.until_registered().await;
    assert!(
        again.epoch > lost && !again.took_over,
        "{again:?} after {registered:?}"
    );
    assert_eq!(watch.until_held("a").await.epoch, again.epoch);
    second.until_renewed(4).await;
    site.catch_up(&mut watch).await;
    assert_eq!(watch.departures("a"), 1, "{:#?}", watch.seen);
}
