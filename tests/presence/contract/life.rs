//! The life of one presence: registered, renewed, given back, expired, refused, taken away.

use std::time::{Duration, Instant};

use diego_operator::converge::fence::reach;
use diego_operator::presence::identity::Owner;
use diego_operator::presence::keeper::{KeeperError, KeeperReport, LossReason};
use diego_operator::presence::{Notice, Presence, PresenceEvent, PresencePhase};

use super::Site;
use crate::support::*;

/// etcd counts from when it got the last renewal, and looks every half second; with the API server the controller
/// counts from when it saw it.
pub async fn a_dead_rep_is_gone_one_ttl_after_its_last_renewal(site: Site) {
    let mut watch = site.watch().await;
    let (mut rep, registered) = Rep::registered(site.config(), "a", 2).await;
    let held = watch.until_held("a").await;
    assert_eq!(
        (held.epoch, held.ttl()),
        (registered.epoch, Some(Duration::from_secs(2)))
    );
    assert_eq!(
        (published_first(&held), held.first_epoch()),
        (None, registered.epoch)
    );
    rep.until_renewed(2).await;

    let last_renewal = rep.die().await;
    let departure = watch.until_gone("a").await;
    let after = departure.at - last_renewal;
    assert!(
        after >= Duration::from_secs(2),
        "gone {after:?} after the last renewal: too early"
    );
    // Usually 2.5 s at most; the rest is for a machine that is busy with other tests.
    assert!(
        after < Duration::from_secs(9),
        "gone {after:?} after the last renewal: too late"
    );
    let notice = match site.is_etcd() {
        true => Notice::Watch,
        false => Notice::Timer,
    };
    assert_eq!(departure.notice, notice);
    assert_eq!(departure.last, held);
    assert_eq!(departure.last.phase(), PresencePhase::Held);
}

pub async fn a_renewed_presence_outlives_its_ttl(site: Site) {
    let mut watch = site.watch().await;
    let started = Instant::now();
    let (mut rep, registered) = Rep::registered(site.config(), "a", 2).await;
    while started.elapsed() < Duration::from_secs(6) {
        rep.until_renewed(1).await;
    }
    site.catch_up(&mut watch).await;
    let about = |event: &&PresenceEvent| match event {
        PresenceEvent::Held(now) => now.cell == "a",
        PresenceEvent::Gone(departure) => departure.last.cell == "a",
        _ => false,
    };
    let told: Vec<_> = watch.seen.iter().filter(about).collect();
    assert!(
        matches!(told[..], [PresenceEvent::Held(_)]),
        "a renewal is no news: {told:#?}"
    );
    let keeping = *rep.keeper.control.keeping().borrow();
    assert_eq!(
        (keeping.held, keeping.epoch),
        (true, Some(registered.epoch))
    );
    let sent = keeping.last_renewal_sent.expect("renewed");
    assert!(sent.at.elapsed() < Duration::from_secs(2));
    // What must not run twice is killed well before the store can let go, and moves on with each renewal.
    let deadline = keeping.fence_deadline().expect("the TTL is long enough");
    assert_eq!(Some(deadline.since(sent.boot)), reach(keeping.ttl).ok());
}

pub async fn a_presence_given_back_is_seen_as_released(site: Site) {
    let mut watch = site.watch().await;
    let (mut rep, registered) = Rep::registered(site.config(), "a", 60).await;
    // As in a graceful stop. The end of the key while this is its last word would be a death.
    let control = rep.keeper.control.clone();
    assert_eq!(control.set_phase(PresencePhase::Draining).await, Ok(()));
    assert_eq!(control.release().await, Ok(true));
    let departure = watch.until_gone("a").await;
    assert_eq!(
        (departure.last.phase(), departure.last.epoch),
        (PresencePhase::Released, registered.epoch)
    );
    assert_eq!(departure.notice, Notice::Watch);
    assert!(!site.is_there("a").await);
    assert!(!control.keeping().borrow().held);
    rep.until("released", |report| {
        matches!(report, KeeperReport::Released { given_back: true }).then_some(())
    })
    .await;
    assert!(rep.keeper.reports.recv().await.is_none(), "nothing follows");
    assert_eq!(control.release().await, Err(KeeperError::Ended));
}

pub async fn a_phase_still_on_its_way_never_hides_that_the_presence_was_given_back(site: Site) {
    let mut watch = site.watch().await;
    for _ in 0..25 {
        let (rep, _) = Rep::registered(site.config(), "a", 60).await;
        let control = &rep.keeper.control;
        // Whichever of the two the store gets first.
        let (_, given_back) = tokio::join!(
            control.set_phase(PresencePhase::Draining),
            control.release()
        );
        assert_eq!(given_back, Ok(true));
        let departure = watch.until_gone("a").await;
        assert_eq!(departure.last.phase(), PresencePhase::Released);
    }
}

pub async fn a_phase_is_published_under_the_same_epoch(site: Site) {
    let mut watch = site.watch().await;
    let (mut rep, registered) = Rep::registered(site.config(), "a", 2).await;
    assert_eq!(watch.until_held("a").await.phase(), PresencePhase::Held);
    assert_eq!(
        rep.keeper.control.set_phase(PresencePhase::Draining).await,
        Ok(())
    );
    let now = watch.until_held("a").await;
    assert_eq!(
        (now.phase(), now.epoch),
        (PresencePhase::Draining, registered.epoch)
    );
    // The lease still holds the key, and the key the lease.
    rep.until_renewed(4).await;
    rep.die().await;
    let last = watch.until_gone("a").await.last;
    assert_eq!(last.phase(), PresencePhase::Draining);
}

pub async fn a_second_rep_under_the_same_name_is_refused(site: Site) {
    let mut watch = site.watch().await;
    let (mut first, registered) = Rep::registered(site.config(), "a", 2).await;
    let mut second = Rep::start(site.config(), "a", "life-2", 2, Owner::Unproven);
    let holder = second
        .until("refused", |report| match report {
            KeeperReport::Refused { incarnation, epoch } => Some((incarnation.clone(), *epoch)),
            _ => None,
        })
        .await;
    assert_eq!(holder, (Some("life-1".into()), registered.epoch));
    let error = second.until_failed().await;
    assert_eq!(
        error,
        format!(
            "cell id \"a\" is held by another rep (incarnation life-1, epoch {}); \
             give this rep another --cell-id, or stop the other one",
            registered.epoch
        )
    );
    let refusals = second.count(|report| matches!(report, KeeperReport::Refused { .. }));
    assert_eq!(refusals, 1, "told once");
    first.until_renewed(2).await;
    site.catch_up(&mut watch).await;
    assert_eq!(watch.departures("a"), 0, "the first one is not disturbed");
}

/// A machine whose disk was replaced has no proof, but its dead self's key is over soon.
pub async fn a_rep_without_proof_gets_the_name_once_its_holder_is_dead(site: Site) {
    let (first, registered) = Rep::registered(site.config(), "a", 3).await;
    first.die().await;
    let mut second = Rep::start(site.config(), "a", "life-2", 3, Owner::Unproven);
    let again = second.until_registered().await;
    assert!(
        again.epoch > registered.epoch && !again.took_over,
        "{again:?} after {registered:?}"
    );
    let refusals = second.count(|report| matches!(report, KeeperReport::Refused { .. }));
    assert_eq!(refusals, 1);
}

pub async fn a_presence_that_is_taken_away_is_registered_again(site: Site) {
    let mut watch = site.watch().await;
    let (mut rep, registered) = Rep::registered(site.config(), "a", 3).await;
    rep.until_renewed(1).await;
    site.take_away(registered, "a").await;
    rep.until_lost().await;
    let again = rep.until_registered().await;
    assert!(
        again.epoch > registered.epoch && !again.took_over,
        "{again:?} after {registered:?}"
    );
    if site.is_etcd() {
        assert_eq!(watch.until_gone("a").await.last.epoch, registered.epoch);
    }
    let mut held = watch.until_held("a").await;
    while held.epoch != again.epoch {
        held = watch.until_held("a").await;
    }
    assert_eq!(
        (published_first(&held), held.first_epoch()),
        (Some(registered.epoch), registered.epoch),
        "the same incarnation goes on"
    );
    // A phase must not drop it, and a third registration still names the first.
    let published = rep.keeper.control.set_phase(PresencePhase::Draining).await;
    assert_eq!(published, Ok(()));
    let draining = watch.until_held("a").await;
    assert_eq!(published_first(&draining), Some(registered.epoch));
    site.take_away(again, "a").await;
    assert!(rep.until_registered().await.epoch > again.epoch);
    let third = watch.until_held("a").await;
    assert_eq!(published_first(&third), Some(registered.epoch));
    if !site.is_etcd() {
        // Anybody may delete a Lease: that is no proof of anything.
        assert_eq!(watch.departures("a"), 0, "{:#?}", watch.seen);
    }
}

/// The store may hold the key still, or again: a Lease does not end by itself. Under its epoch nobody would hear the Cell.
pub async fn a_cell_that_was_judged_lost_goes_on_under_a_new_epoch(site: Site) {
    let mut watch = site.watch().await;
    let (mut rep, registered) = Rep::registered(site.config(), "a", 2).await;
    rep.until_renewed(1).await;
    rep.dead_epoch.hear(registered.epoch);
    assert_eq!(rep.until_lost().await, LossReason::LeaseGone);
    let again = rep.until_registered().await;
    assert!(
        again.epoch > registered.epoch && !again.took_over,
        "{again:?} after {registered:?}"
    );
    while watch.until_held("a").await.epoch != again.epoch {}
    let held = watch.seen.last();
    assert!(
        matches!(held, Some(PresenceEvent::Held(now)) if now.first_epoch() == registered.epoch),
        "{held:?}"
    );
    rep.until_renewed(2).await;
    assert_eq!(rep.losses(), 1, "{:#?}", rep.seen);
}

/// The keeper has a thread of its own: a rep that computes, or waits for a disk, on all of its threads stays present.
pub async fn a_rep_whose_threads_are_all_busy_stays_present(site: Site) {
    let (mut rep, registered) = Rep::registered(site.config(), "a", 2).await;
    // What the rep runs on does nothing else for three TTLs. This is the load, not a wait.
    let busy = |_| std::thread::spawn(|| std::thread::sleep(Duration::from_secs(6)));
    tokio::task::block_in_place(|| {
        let threads: Vec<_> = (0..2).map(busy).collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().expect("it ends"));
    });
    rep.until_renewed(8).await;
    assert_eq!(rep.losses(), 0, "{:#?}", rep.seen);
    let keeping = *rep.keeper.control.keeping().borrow();
    assert_eq!(keeping.epoch, Some(registered.epoch));
}

fn published_first(presence: &Presence) -> Option<i64> {
    presence.value.as_ref().expect("readable").first_epoch
}
