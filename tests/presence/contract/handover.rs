//! A rep whose identity is its machine's boot, and its successor: an upgrade loses no Cell.

use std::time::{Duration, Instant};

use diego_operator::presence::PresencePhase;
use diego_operator::presence::identity::Owner;
use diego_operator::presence::keeper::KeeperReport;

use super::Site;
use crate::support::*;

fn start(site: &Site, boot: &str, ttl: u32) -> Rep {
    Rep::start(site.config(), "a", boot, ttl, Owner::Boot(boot.into()))
}

async fn until_superseded(rep: &mut Rep) {
    rep.until("superseded", |report| {
        matches!(report, KeeperReport::Superseded).then_some(())
    })
    .await;
}

pub async fn a_newer_rep_of_the_same_boot_takes_over_at_once(site: Site) {
    let mut watch = site.watch().await;
    let mut older = start(&site, "boot", 2);
    let registered = older.until_registered().await;
    older.until_renewed(1).await;
    let mut newer = start(&site, "boot", 2);
    let began = Instant::now();
    let again = newer.until_registered().await;
    assert_eq!((again.epoch, again.took_over), (registered.epoch, true));
    assert_eq!(
        newer.count(|report| matches!(report, KeeperReport::Refused { .. })),
        0
    );
    until_superseded(&mut older).await;
    assert!(!older.keeper.control.keeping().borrow().held);
    // Both go on for two TTLs, and only one of them renews.
    while began.elapsed() < Duration::from_secs(5) {
        newer.until_renewed(1).await;
    }
    assert_eq!((older.losses(), newer.losses()), (0, 0));
    while let Ok(report) = older.keeper.reports.try_recv() {
        older.seen.push(report);
    }
    let superseded = older.count(|report| matches!(report, KeeperReport::Superseded));
    assert_eq!(superseded, 1, "told once: {:#?}", older.seen);
    // SIGTERM of the older one: it has nothing to give back.
    assert_eq!(older.keeper.control.release().await, Ok(true));
    newer.until_renewed(2).await;
    site.catch_up(&mut watch).await;
    assert_eq!(watch.departures("a"), 0, "{:#?}", watch.seen);
    let keeping = *newer.keeper.control.keeping().borrow();
    assert_eq!((keeping.held, keeping.epoch), (true, Some(again.epoch)));
}

pub async fn a_rep_that_stops_leaves_a_full_ttl_to_its_successor(site: Site) {
    // Out of turn: the next renewal is due in four seconds at the earliest.
    let mut older = start(&site, "boot", 15);
    older.until_registered().await;
    let keeping = older.keeper.control.keeping();
    let before = keeping.borrow().last_renewal_sent.map(|sent| sent.at);
    let began = Instant::now();
    assert_eq!(older.keeper.control.renew().await, Ok(true));
    let renewed = keeping.borrow().last_renewal_sent.map(|sent| sent.at);
    assert!(
        renewed >= Some(began) && renewed > before,
        "{renewed:?} after {before:?}"
    );
    // What is not held any more is not renewed.
    let mut newer = start(&site, "boot", 15);
    assert!(newer.until_registered().await.took_over);
    assert_eq!(older.keeper.control.renew().await, Ok(false));
}

/// In etcd it can't see that its successor does not renew; with Leases it is back before anybody misses the Cell.
pub async fn a_superseded_rep_goes_on_when_its_successor_is_dead(site: Site) {
    const TTL: Duration = Duration::from_secs(5);
    let mut watch = site.watch().await;
    let mut older = start(&site, "boot", 5);
    let registered = older.until_registered().await;
    let mut newer = start(&site, "boot", 5);
    assert!(newer.until_registered().await.took_over);
    until_superseded(&mut older).await;
    let last = newer.die().await;
    let again = older.until_registered().await;
    let after = last.elapsed();
    if site.is_etcd() {
        assert!(after >= TTL, "not before its end is certain");
        assert!(
            again.epoch > registered.epoch && !again.took_over,
            "{again:?} after {registered:?}"
        );
        older.until_renewed(2).await;
        return;
    }
    assert!(after < TTL, "the Cell is gone by then: {after:?}");
    assert_eq!((again.epoch, again.took_over), (registered.epoch, true));
    older.until_renewed(4).await;
    assert_eq!(older.losses(), 0, "{:#?}", older.seen);
    site.catch_up(&mut watch).await;
    assert_eq!(watch.departures("a"), 0, "{:#?}", watch.seen);
    // And once more, in the other direction: its own successor has all the rights.
    let mut newest = start(&site, "boot", 5);
    assert!(newest.until_registered().await.took_over);
    until_superseded(&mut older).await;
}

pub async fn a_superseded_rep_begins_anew_when_its_successor_has_left(site: Site) {
    let mut older = start(&site, "boot", 6);
    let registered = older.until_registered().await;
    let mut newer = start(&site, "boot", 6);
    newer.until_registered().await;
    until_superseded(&mut older).await;
    assert_eq!(newer.keeper.control.release().await, Ok(true));
    let again = older.until_registered().await;
    assert!(again.epoch > registered.epoch, "{again:?}");
}

/// Its containers are gone, so nothing is gained by waiting.
pub async fn a_rep_of_another_boot_does_not_wait_for_the_old_ones_end(site: Site) {
    let mut watch = site.watch().await;
    let mut first = start(&site, "boot-1", 60);
    let registered = first.until_registered().await;
    first.die().await;
    let began = Instant::now();
    let mut second = start(&site, "boot-2", 60);
    let again = second.until_registered().await;
    assert!(again.epoch > registered.epoch && !again.took_over);
    assert!(began.elapsed() < Duration::from_secs(30));
    let departure = watch.until_gone("a").await;
    assert_eq!(departure.last.phase(), PresencePhase::Restarting);
    let held = watch.until_held("a").await;
    assert_eq!(held.epoch, again.epoch);
    assert_eq!(held.value.expect("readable").incarnation, "boot-2");
}
