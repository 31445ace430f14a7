//! The life of one presence: registered, renewed, given back, expired, refused.

use std::time::{Duration, Instant};

use diego_operator::presence::keeper::{KeeperError, KeeperReport, LossReason};
use diego_operator::presence::{Notice, Presence, PresencePhase};

use crate::support::*;

/// The store counts from when it got the last renewal; etcd looks every half second.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_rep_is_gone_one_ttl_after_its_last_renewal() {
    let etcd = etcd(1).await;
    let mut watch = Watch::synced(config(etcd.endpoints())).await;
    let (mut rep, registered) = Rep::registered(config(etcd.endpoints()), "a", 2).await;
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
    // Usually 2.5 s; the rest is for a machine that is busy with other tests.
    assert!(
        after < Duration::from_secs(7),
        "gone {after:?} after the last renewal: too late"
    );
    assert_eq!(departure.notice, Notice::Watch);
    assert_eq!(departure.last, held);
    assert_eq!(departure.last.phase(), PresencePhase::Held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_presence_outlives_its_ttl() {
    let etcd = etcd(1).await;
    let mut watch = Watch::synced(config(etcd.endpoints())).await;
    let started = Instant::now();
    let (mut rep, registered) = Rep::registered(config(etcd.endpoints()), "a", 2).await;
    while started.elapsed() < Duration::from_secs(6) {
        rep.until_renewed(1).await;
    }
    watch.catch_up(&client(&etcd.endpoints()[0]).await).await;
    assert_eq!(watch.departures("a"), 0);
    let keeping = *rep.keeper.control.keeping().borrow();
    assert_eq!(
        (keeping.held, keeping.epoch),
        (true, Some(registered.epoch))
    );
    assert!(keeping.last_renewal_sent.expect("renewed").elapsed() < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_presence_given_back_is_seen_as_released() {
    let etcd = etcd(1).await;
    let mut watch = Watch::synced(config(etcd.endpoints())).await;
    let (mut rep, registered) = Rep::registered(config(etcd.endpoints()), "a", 60).await;
    // As in a graceful stop. The end of the key while this is its last word would be a death.
    assert_eq!(
        rep.keeper.control.set_phase(PresencePhase::Draining).await,
        Ok(())
    );
    assert_eq!(rep.keeper.control.release().await, Ok(true));
    let departure = watch.until_gone("a").await;
    assert_eq!(
        (departure.last.phase(), departure.last.epoch),
        (PresencePhase::Released, registered.epoch)
    );
    assert!(!rep.keeper.control.keeping().borrow().held);
    rep.until("released", |report| {
        matches!(report, KeeperReport::Released { given_back: true }).then_some(())
    })
    .await;
    assert!(rep.keeper.reports.recv().await.is_none(), "nothing follows");
    assert_eq!(rep.keeper.control.release().await, Err(KeeperError::Ended));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phase_still_on_its_way_never_hides_that_the_presence_was_given_back() {
    let etcd = etcd(1).await;
    let mut watch = Watch::synced(config(etcd.endpoints())).await;
    for _ in 0..25 {
        let (rep, _) = Rep::registered(config(etcd.endpoints()), "a", 60).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_phase_is_published_under_the_same_epoch() {
    let etcd = etcd(1).await;
    let mut watch = Watch::synced(config(etcd.endpoints())).await;
    let (mut rep, registered) = Rep::registered(config(etcd.endpoints()), "a", 2).await;
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
    assert_eq!(
        watch.until_gone("a").await.last.phase(),
        PresencePhase::Draining
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_rep_under_the_same_name_is_refused() {
    let etcd = etcd(1).await;
    let mut watch = Watch::synced(config(etcd.endpoints())).await;
    let (mut first, registered) = Rep::registered(config(etcd.endpoints()), "a", 2).await;
    let mut second = Rep::start(config(etcd.endpoints()), "a", "life-2", 2, None);
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
    let refusals = second
        .seen
        .iter()
        .filter(|r| matches!(r, KeeperReport::Refused { .. }))
        .count();
    assert_eq!(refusals, 1, "told once");
    first.until_renewed(2).await;
    watch.catch_up(&client(&etcd.endpoints()[0]).await).await;
    assert_eq!(watch.departures("a"), 0, "the first one is not disturbed");
}

/// A machine whose disk was replaced has no proof, but its dead self's key expires soon.
#[tokio::test(flavor = "multi_thread")]
async fn a_rep_without_proof_gets_the_name_once_its_holder_is_dead() {
    let etcd = etcd(1).await;
    let (first, registered) = Rep::registered(config(etcd.endpoints()), "a", 3).await;
    first.die().await;
    let mut second = Rep::start(config(etcd.endpoints()), "a", "life-2", 3, None);
    let again = second.until_registered().await;
    assert!(
        again.epoch > registered.epoch && !again.took_over,
        "{again:?} after {registered:?}"
    );
    assert!(
        second
            .seen
            .iter()
            .any(|report| matches!(report, KeeperReport::Refused { .. }))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ttl_that_the_store_would_lengthen_is_an_error() {
    let etcd = etcd(1).await;
    let mut rep = Rep::start(config(etcd.endpoints()), "a", "life-1", 1, None);
    let error = rep.until_failed().await;
    assert!(
        error.contains("--presence-ttl-seconds 1 ") && error.contains("at least 2 s"),
        "{error}"
    );
    let client = client(&etcd.endpoints()[0]).await;
    let leases = client.lease_client().leases().await.expect("leases");
    assert!(
        leases.leases().is_empty(),
        "the lease was given back: {leases:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_revoked_by_somebody_else_is_a_loss_and_a_new_epoch() {
    let etcd = etcd(1).await;
    let mut watch = Watch::synced(config(etcd.endpoints())).await;
    let (mut rep, registered) = Rep::registered(config(etcd.endpoints()), "a", 3).await;
    rep.until_renewed(1).await;
    let client = client(&etcd.endpoints()[0]).await;
    revoke(&client, registered.lease).await;
    rep.until("lost", |report| {
        matches!(
            report,
            KeeperReport::Lost {
                reason: LossReason::LeaseGone
            }
        )
        .then_some(())
    })
    .await;
    let again = rep.until_registered().await;
    assert!(
        again.epoch > registered.epoch && !again.took_over,
        "{again:?} after {registered:?}"
    );
    assert_eq!(watch.until_gone("a").await.last.epoch, registered.epoch);
    let held = watch.until_held("a").await;
    assert_eq!(held.epoch, again.epoch);
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
    revoke(&client, again.lease).await;
    assert!(rep.until_registered().await.epoch > again.epoch);
    let third = watch.until_held("a").await;
    assert_eq!(published_first(&third), Some(registered.epoch));
}

fn published_first(presence: &Presence) -> Option<i64> {
    presence.value.as_ref().expect("readable").first_epoch
}

/// The lease lives on, so the renewals alone would never notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_deleted_by_hand_is_registered_again() {
    let etcd = etcd(1).await;
    let (mut rep, registered) = Rep::registered(config(etcd.endpoints()), "a", 5).await;
    let client = client(&etcd.endpoints()[0]).await;
    delete(&client, "a").await;
    rep.until("lost", |report| {
        matches!(
            report,
            KeeperReport::Lost {
                reason: LossReason::KeyGone
            }
        )
        .then_some(())
    })
    .await;
    assert!(rep.until_registered().await.epoch > registered.epoch);
}

/// The keeper has a thread of its own: a rep that computes, or waits for a disk, on all of its threads stays present.
#[tokio::test(flavor = "current_thread")]
async fn a_rep_whose_threads_are_all_busy_stays_present() {
    let etcd = etcd(1).await;
    let (mut rep, registered) = Rep::registered(config(etcd.endpoints()), "a", 2).await;
    // The only thread of this test's runtime does nothing else for three TTLs. This is the load, not a wait.
    std::thread::sleep(Duration::from_secs(6));
    rep.until_renewed(8).await;
    assert!(
        !rep.seen
            .iter()
            .any(|report| matches!(report, KeeperReport::Lost { .. })),
        "{:#?}",
        rep.seen
    );
    assert_eq!(
        rep.keeper.control.keeping().borrow().epoch,
        Some(registered.epoch)
    );
}
