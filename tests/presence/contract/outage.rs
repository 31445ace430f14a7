//! A store that is away says nothing about its Cells.

use std::time::{Duration, Instant};

use diego_operator::presence::PresenceEvent;
use diego_operator::presence::keeper::KeeperReport;

use super::Site;
use crate::support::*;

const TTL: u32 = 3;

async fn until_unreachable(watch: &mut Watch) {
    watch
        .until("the outage is told", |event| {
            matches!(event, PresenceEvent::Unreachable { .. }).then_some(())
        })
        .await;
}

pub async fn a_store_that_is_away_for_longer_than_the_ttl_loses_nobody(site: Site) {
    let mut site = site.alone().await;
    let mut watch = site.watch().await;
    let (mut rep, registered) = Rep::registered(site.config(), "a", TTL).await;
    watch.until_held("a").await;
    site.kill().await;
    let killed = Instant::now();
    while killed.elapsed() < Duration::from_secs(u64::from(TTL) + 2) {
        rep.until("a renewal fails", |report| {
            matches!(report, KeeperReport::RenewalFailed { .. }).then_some(())
        })
        .await;
    }
    until_unreachable(&mut watch).await;
    assert!(
        rep.keeper.control.keeping().borrow().held,
        "unanswered is not lost"
    );
    site.restart().await;
    watch.until_synced(false).await;
    rep.until_renewed(3).await;
    assert_eq!(rep.losses(), 0, "{:#?}", rep.seen);
    let keeping = *rep.keeper.control.keeping().borrow();
    assert_eq!(keeping.epoch, Some(registered.epoch));
    site.catch_up(&mut watch).await;
    assert_eq!(watch.departures("a"), 0, "{:#?}", watch.seen);
    let outages = |event: &&PresenceEvent| matches!(event, PresenceEvent::Unreachable { .. });
    let outages = watch.seen.iter().filter(outages).count();
    assert!(
        outages <= 2,
        "told once, or once more as it comes up: {outages}"
    );
    // With one server, one that is away is away for good pauses, not in a hot loop.
    let tries = rep.count(|report| matches!(report, KeeperReport::RenewalFailed { .. }));
    assert!(tries < 150, "{tries} tries");
}

pub async fn who_dies_while_the_store_is_away_is_gone_a_ttl_after_it_is_back(site: Site) {
    let mut site = site.alone().await;
    let mut watch = site.watch().await;
    let (mut lives, _) = Rep::registered(site.config(), "lives", TTL).await;
    let (dies, registered) = Rep::registered(site.config(), "dies", TTL).await;
    watch.until_held("dies").await;
    site.kill().await;
    dies.die().await;
    until_unreachable(&mut watch).await;
    let restarted = Instant::now();
    site.restart().await;
    let departure = watch.until_gone("dies").await;
    assert_eq!(departure.last.epoch, registered.epoch);
    assert!(
        departure.at - restarted >= Duration::from_secs(TTL.into()),
        "everybody had a full TTL to show"
    );
    lives.until_renewed(2).await;
    site.catch_up(&mut watch).await;
    assert_eq!(watch.departures("lives"), 0, "{:#?}", watch.seen);
}
