//! One role per Cell, as docs/security.md gives them: a Cell's certificate is worth its own key and no other.

use diego_operator::presence::PresenceStore;
use diego_operator::presence::etcd::{EtcdStore, PREFIX, key};
use diego_operator::presence::keeper::KeeperReport;
use diego_operator::presence::store::StoreConfig;
use etcd_client::{Client, Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, Txn, TxnOp};
use etcd_client::{Error, WatchOptions};

use super::pki::*;
use crate::support::*;

/// What the store said no to, in its own words; a panic when it did not say no.
fn denied<T: std::fmt::Debug>(what: &str, answer: Result<T, Error>) {
    match answer {
        Err(Error::GRpcStatus(status)) => {
            assert!(
                status.message().contains("permission denied"),
                "{what}: {status}"
            );
        }
        other => panic!("{what}: not refused, but {other:?}"),
    }
}

/// Everything that whoever has this client may try against the presence of Cell `a` under `lease`.
async fn attack(client: &Client, lease: i64) {
    let (victim, own) = (key("a"), key("b"));
    let mut kv = client.kv_client();
    denied("put", kv.put(victim.as_str(), "x", None).await);
    let keep = Some(PutOptions::new().with_ignore_lease());
    denied(
        "put, same lease",
        kv.put(victim.as_str(), value("a"), keep).await,
    );
    denied("delete", kv.delete(victim.as_str(), None).await);
    let all = Some(DeleteOptions::new().with_prefix());
    denied("delete all", kv.delete(PREFIX, all).await);
    denied("a new Cell's key", kv.put(key("z"), value("z"), None).await);
    denied("a key outside", kv.put("/other", "x", None).await);
    let created = Compare::create_revision(victim.as_str(), CompareOp::Greater, 0);
    let delete = TxnOp::delete(victim.as_str(), None);
    let txn = Txn::new()
        .when([created.clone()])
        .and_then([delete.clone()]);
    denied("delete in a transaction", kv.txn(txn).await);
    let inner = Txn::new().and_then([delete]);
    let nested = Txn::new().and_then([TxnOp::txn(inner)]);
    denied("delete in a nested transaction", kv.txn(nested).await);
    let mut leases = client.lease_client();
    denied("revoke", leases.revoke(lease).await);
    denied("renew", leases.keep_alive(lease).await);
    // On the victim's lease its own key would make it a lease of its own.
    denied(
        "a key of its own on the lease",
        kv.put(own.as_str(), value("b"), under(lease)).await,
    );
    let put = TxnOp::put(own.as_str(), value("b"), under(lease));
    denied(
        "the same in a transaction",
        kv.txn(Txn::new().and_then([put])).await,
    );
    let mut auth = client.auth_client();
    denied("a role", auth.user_grant_role("b", "root").await);
    let mut maintenance = client.maintenance_client();
    denied("defragment", maintenance.defragment().await);
}

/// What a Cell must not even see.
async fn spy(client: &Client) {
    let mut kv = client.kv_client();
    denied("read", kv.get(key("a"), None).await);
    let all = Some(GetOptions::new().with_prefix());
    denied("read all", kv.get(PREFIX, all).await);
    let there = Compare::create_revision(key("a"), CompareOp::Greater, 0);
    denied("compare", kv.txn(Txn::new().when([there])).await);
    let watch = client
        .watch_client()
        .watch(PREFIX, Some(WatchOptions::new().with_prefix()))
        .await;
    let refused = match watch {
        Err(_) => true,
        Ok(mut stream) => loop {
            match stream.message().await {
                Ok(Some(message)) if message.canceled() => break true,
                Ok(Some(message)) if message.created() => continue,
                Ok(Some(_)) => break false,
                Ok(None) | Err(_) => break true,
            }
        },
    };
    assert!(refused, "a Cell may watch all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cells_certificate_is_worth_its_own_key() {
    let tmp = tempfile::tempdir().expect("a directory");
    let etcd = TlsEtcd::start(tmp.path()).await;
    for user in ["a", "b", "controller"] {
        certificate(tmp.path(), user, "ca");
    }
    let root = etcd.with_auth().await;
    for cell in ["a", "b"] {
        add_cell_role(&root, cell).await;
        add_user(&root, cell, &format!("diego-cell-{cell}")).await;
    }
    add_controller_role(&root).await;
    add_user(&root, "controller", "diego-controller").await;
    let of = |user| StoreConfig::Etcd(etcd.config(user));

    // The rep's whole life, with no other right than that of its key.
    of("a").check("a").await.expect("a rep may start");
    let error = of("b").check("a").await.expect_err("another's key");
    let error = error.to_string();
    assert!(
        error.contains("permission denied") && error.contains("docs/security.md"),
        "{error}"
    );
    let mut watch = Watch::synced(of("controller")).await;
    let (mut rep, registered) = Rep::registered(of("a"), "a", 5).await;
    assert_eq!(watch.until_held("a").await.epoch, registered.epoch);

    // The controller reads all, and can do no harm.
    let store = EtcdStore::connect(etcd.config("controller")).await;
    let store = store.expect("connected");
    assert_eq!(store.list().await.expect("a list").len(), 1);
    assert!(store.get("a").await.expect("a read").presence.is_some());
    store.roll_call().await.expect("who is late");
    let other = connect(&etcd.config("b")).await;
    let controller = connect(&etcd.config("controller")).await;
    for client in [&other, &controller] {
        attack(client, registered.lease).await;
    }
    spy(&other).await;

    // Of all that, neither rep nor controller noticed anything.
    for _ in 0..2 {
        rep.until("a renewal", |report| {
            matches!(report, KeeperReport::Renewed { .. }).then_some(())
        })
        .await;
    }
    let failed = |report: &KeeperReport| matches!(report, KeeperReport::RenewalFailed { .. });
    assert_eq!((rep.count(failed), rep.losses()), (0, 0));
    assert_eq!(watch.departures("a"), 0);

    // A drain, a key that was deleted by hand, and the end are within a Cell's rights, too.
    let control = rep.keeper.control.clone();
    let draining = diego_operator::presence::PresencePhase::Draining;
    control.set_phase(draining).await.expect("written");
    root.kv_client().delete(key("a"), None).await.expect("gone");
    rep.until_lost().await;
    let again = rep.until_registered().await;
    assert!(again.epoch > registered.epoch);
    assert!(control.release().await.expect("answered"), "given back");
    watch
        .until("the release", |event| match event {
            diego_operator::presence::PresenceEvent::Gone(gone) => {
                (gone.last.epoch == again.epoch).then_some(())
            }
            _ => None,
        })
        .await;
    let left = root.lease_client().leases().await.expect("leases");
    assert!(left.leases().is_empty(), "left: {left:?}");

    // A Cell without a role is told, and goes on trying.
    root.auth_client()
        .user_revoke_role("b", "diego-cell-b")
        .await
        .expect("revoked");
    let mut poor = Rep::start(
        of("b"),
        "b",
        "life-1",
        5,
        diego_operator::presence::identity::Owner::Unproven,
    );
    poor.until("a refusal", |report| {
        matches!(report, KeeperReport::RegistrationFailed { .. }).then_some(())
    })
    .await;
    root.auth_client()
        .user_grant_role("b", "diego-cell-b")
        .await
        .expect("granted");
    poor.until_registered().await;
}
