//! What a keeper does about etcd's leases.

use diego_operator::presence::identity::Owner;
use diego_operator::presence::keeper::LossReason;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_ttl_that_the_store_would_lengthen_is_an_error() {
    let etcd = etcd(1).await;
    let mut rep = Rep::start(config(etcd.endpoints()), "a", "life-1", 1, Owner::Unproven);
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

/// The lease lives on, so the renewals alone would never notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_deleted_by_hand_is_registered_again() {
    let etcd = etcd(1).await;
    let (mut rep, registered) = Rep::registered(config(etcd.endpoints()), "a", 5).await;
    let client = client(&etcd.endpoints()[0]).await;
    delete(&client, "a").await;
    assert_eq!(rep.until_lost().await, LossReason::KeyGone);
    assert!(rep.until_registered().await.epoch > registered.epoch);
}
