//! What a keeper does about etcd's leases.

use std::time::Duration;

use diego_operator::presence::identity::Owner;
use diego_operator::presence::keeper::{
    CellCount, Keeper, KeeperReport, KnownEpoch, LossReason, Registration,
};
use diego_operator::presence::ttl::{Bounds, Ttl};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_fraction_of_a_second_is_refused_with_the_remedy() {
    let registration = Registration {
        cell_id: "a".into(),
        incarnation: "life-1".into(),
        ttl: Duration::from_millis(500).into(),
        cells: CellCount::default(),
        known_epoch: KnownEpoch::default(),
        dead_epoch: KnownEpoch::default(),
        fence: false,
    };
    let config = config(vec!["http://127.0.0.1:1".into()]);
    let error = Keeper::start(config, registration, Owner::Unproven).expect_err("refused");
    let told = error.to_string();
    for part in [
        "--presence-ttl-seconds 0.5:",
        "to 2 or more",
        "--presence kubernetes",
    ] {
        assert!(told.contains(part), "{told}");
    }
}

/// One that chooses takes the shortest there is.
#[tokio::test(flavor = "multi_thread")]
async fn a_rep_that_chooses_asks_for_none_that_the_store_does_not_do() {
    let etcd = etcd(1).await;
    let bounds = Bounds {
        min: Duration::from_secs(1),
        max: Duration::from_secs(4),
        patience: Duration::from_millis(50),
    };
    let mut rep = Rep::start_with(
        config(etcd.endpoints()),
        Owner::Unproven,
        0,
        |registration| {
            registration.ttl = Ttl::Auto(bounds);
        },
    );
    rep.until_registered().await;
    let two = Duration::from_secs(2);
    rep.until("the shortest", |report| {
        matches!(report, KeeperReport::TtlChanged { ttl, .. } if *ttl == two).then_some(())
    })
    .await;
    rep.until_renewed(3).await;
    let changes = rep.count(|report| matches!(report, KeeperReport::TtlChanged { .. }));
    assert_eq!((changes, rep.losses()), (2, 0), "{:#?}", rep.seen);
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
