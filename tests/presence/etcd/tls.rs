//! Presence over mutual TLS: both sides prove who they are, or nothing is said.

use diego_operator::presence::PresenceStore;
use diego_operator::presence::etcd::{EtcdConfig, EtcdStore};
use diego_operator::presence::store::StoreConfig;

use super::pki::*;
use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_prove_who_they_are() {
    let tmp = tempfile::tempdir().expect("a directory");
    let dir = tmp.path();
    let etcd = TlsEtcd::start(dir).await;
    certificate(dir, "client", "ca");
    let good = etcd.config("client");

    // All three users of the store.
    let mut watch = Watch::synced(StoreConfig::Etcd(good.clone())).await;
    let (_rep, registered) = Rep::registered(StoreConfig::Etcd(good.clone()), "a", 5).await;
    assert_eq!(watch.until_held("a").await.epoch, registered.epoch);
    let store = EtcdStore::connect(good.clone()).await.expect("connected");
    assert_eq!(
        store
            .get("a")
            .await
            .expect("read")
            .presence
            .expect("there")
            .epoch,
        registered.epoch
    );

    let nobody = EtcdConfig {
        cert: None,
        key: None,
        ..good.clone()
    };
    EtcdStore::connect(nobody)
        .await
        .expect_err("the store wants to know who asks");
    let strangers = authority(dir, "strangers");
    let mistrust = EtcdConfig {
        ca: Some(strangers),
        ..good.clone()
    };
    EtcdStore::connect(mistrust)
        .await
        .expect_err("the store is not known to this authority");
    let (cert, key) = certificate(dir, "stranger", "strangers");
    let stranger = EtcdConfig {
        cert: Some(cert),
        key: Some(key),
        ..good.clone()
    };
    EtcdStore::connect(stranger)
        .await
        .expect_err("the client is not known to the store");
    let missing = EtcdConfig {
        ca: Some(dir.join("missing.pem")),
        ..good
    };
    let error = EtcdStore::connect(missing)
        .await
        .expect_err("no such file")
        .to_string();
    assert!(
        error.contains("missing.pem") && error.contains("--etcd-ca"),
        "{error}"
    );
}
