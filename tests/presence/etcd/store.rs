//! Reads from the store: linearizable, bounded in time, over any endpoint that answers.

use std::time::{Duration, Instant};

use diego_operator::presence::etcd::{ConnectError, EtcdConfig, EtcdStore};
use diego_operator::presence::{PresenceStore, StoreError};
use local_cluster::free_port;

use crate::proxy::Proxy;
use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_answer_at_start_is_told_with_the_remedy() {
    let endpoints: Vec<String> = (0..2)
        .map(|_| format!("http://127.0.0.1:{}", free_port().expect("a port")))
        .collect();
    let error = EtcdStore::connect(etcd_config(endpoints.clone()))
        .await
        .expect_err("nobody is there");
    let text = error.to_string();
    for part in ["--etcd-endpoints", &endpoints[0], &endpoints[1]] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    let error = EtcdStore::connect(EtcdConfig::default())
        .await
        .expect_err("no endpoint");
    assert!(matches!(error, ConnectError::Config(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_endpoint_that_is_dead_or_silent_does_not_hide_the_store() {
    let etcd = etcd(1).await;
    let good = etcd.endpoints().remove(0);
    let dead = format!("http://127.0.0.1:{}", free_port().expect("a port"));
    let silent = Proxy::to(&good).await;
    silent.freeze();
    for bad in [dead, silent.endpoint()] {
        // Whichever comes first by chance.
        for _ in 0..4 {
            let store = EtcdStore::connect(etcd_config(vec![bad.clone(), good.clone()]))
                .await
                .expect("connected");
            assert_eq!(store.list().await.expect("read"), []);
        }
    }
}

/// The store fails over while it is in use, and a read that nobody answers ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_falls_silent_costs_a_read_and_not_the_reader() {
    let etcd = etcd(1).await;
    let first = Proxy::to(&etcd.endpoints()[0]).await;
    let second = Proxy::to(&etcd.endpoints()[0]).await;
    let store = EtcdStore::connect(etcd_config(vec![first.endpoint(), second.endpoint()]))
        .await
        .expect("connected");
    for (frozen, other) in [(&first, &second), (&second, &first)] {
        frozen.freeze();
        let reading = store.get("a").await.expect("the other one answers");
        assert_eq!(reading.presence, None);
        other.freeze();
        let began = Instant::now();
        let error = store.get("a").await.expect_err("nobody answers");
        assert!(matches!(error, StoreError::Timeout(_)), "{error}");
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "took {:?}",
            began.elapsed()
        );
        first.open();
        second.open();
        let reading = store.get("a").await.expect("both answer again");
        assert_eq!(reading.presence, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_three_that_is_frozen_does_not_hide_the_store() {
    let etcd = etcd(3).await;
    let store = EtcdStore::connect(etcd_config(etcd.endpoints()))
        .await
        .expect("connected");
    let client = client(&etcd.endpoints()[0]).await;
    put(&client, "a", &value("a")).await;
    for member in 0..3 {
        etcd.member(member).pause();
        // Reads fail while a new leader is elected; that is an error, never an absence.
        eventually("a read is answered", async || match store.get("a").await {
            Ok(reading) => {
                assert_eq!(reading.presence.expect("never absent").cell, "a");
                true
            }
            Err(_) => false,
        })
        .await;
        etcd.member(member).resume();
        eventually("all members answer", async || {
            let mut answers = true;
            for endpoint in etcd.endpoints() {
                answers &= EtcdStore::connect(etcd_config(vec![endpoint]))
                    .await
                    .is_ok();
            }
            answers
        })
        .await;
    }
}
