//! Reads from the store: what is there, since when, and when that was.

use std::time::Duration;

use diego_operator::presence::identity::Owner;
use diego_operator::presence::store;

use super::Site;
use crate::support::*;

pub async fn reads_tell_what_the_store_holds_now(site: Site) {
    let opened = store::open(site.config()).await.expect("connected");
    let store = opened.store;
    assert_eq!(store.list().await.expect("read"), []);
    let mut before = store.get("a").await.expect("read");
    assert_eq!(before.presence, None);
    for cell in ["b", "a", "a-2"] {
        let epoch = site.put(cell, &value(cell)).await;
        let reading = store.get(cell).await.expect("read");
        assert!(
            before.revision < epoch && epoch <= reading.revision,
            "{epoch} is after {before:?} and not after {reading:?}"
        );
        before = reading.clone();
        let presence = reading.presence.expect("there");
        assert_eq!((presence.cell.as_str(), presence.epoch), (cell, epoch));
        assert_eq!(presence.ttl(), Some(Duration::from_secs(5)));
    }
    if let Site::Etcd(etcd) = &site {
        let client = client(&etcd.endpoints()[0]).await;
        let other = "/diego.cloudfoundry.org/v2/other";
        let written = client.kv_client().put(other, "x", None).await;
        written.expect("written");
    }
    let before_deletion = store.get("a").await.expect("read").presence;
    let list = store.list().await.expect("read");
    let cells: Vec<String> = list.into_iter().map(|presence| presence.cell).collect();
    assert_eq!(cells, ["a", "a-2", "b"]);
    site.delete("a").await;
    if !site.is_etcd() {
        // Silent, until its TTL is over for whoever has seen it.
        let silent = store.get("a").await.expect("read");
        assert_eq!(silent.presence, before_deletion);
        assert!(silent.revision > before.revision);
        assert_eq!(store.list().await.expect("read").len(), 3);
    }
    let store = match site.is_etcd() {
        true => store,
        false => {
            let anew = store::open(site.config()).await.expect("connected");
            anew.store
        }
    };
    let after = store.get("a").await.expect("read");
    assert_eq!(after.presence, None);
    assert!(after.revision > before.revision);
}

pub async fn a_value_that_can_not_be_read_is_present_but_unknown(site: Site) {
    let opened = store::open(site.config()).await.expect("connected");
    let mut watch = Watch::of(opened.watcher, 1000);
    let store = opened.store;
    watch.until_synced(false).await;
    let epoch = site.put("a", "{damaged").await;
    let reading = store.get("a").await.expect("read");
    let presence = reading.presence.expect("present");
    assert_eq!((presence.epoch, &presence.value), (epoch, &None));
    assert_eq!(
        store.list().await.expect("read"),
        std::slice::from_ref(&presence)
    );
    assert_eq!(watch.until_held("a").await, presence);
    site.delete("a").await;
    assert_eq!(watch.until_gone("a").await.last, presence);
}

/// Whatever a read said at whatever moment: registrations before it have no greater epoch, and later ones a greater.
pub async fn reads_and_registrations_are_in_one_order(site: Site) {
    let opened = store::open(site.config()).await.expect("connected");
    let store = opened.store;
    let mut reader = tokio::spawn({
        let store = store.clone();
        async move {
            let mut readings = Vec::new();
            loop {
                readings.push(store.get("a").await.expect("read"));
                if readings.last().is_some_and(|last| {
                    let value = last.presence.as_ref().and_then(|now| now.value.as_ref());
                    value.is_some_and(|value| value.incarnation == "last")
                }) {
                    return readings;
                }
            }
        }
    });
    let mut epochs = Vec::new();
    for round in 0..12 {
        let life = if round == 11 { "last" } else { "life" };
        let last = epochs.last().copied().unwrap_or_default();
        let owner = Owner::Boot(life.into());
        let mut rep = Rep::start_after(site.config(), "a", life, 60, owner, last);
        epochs.push(rep.until_registered().await.epoch);
        match round % 3 {
            // It is given back.
            0 => assert_eq!(rep.keeper.control.release().await, Ok(true)),
            // Somebody takes it away.
            1 => {
                rep.die().await;
                site.delete("a").await;
            }
            // It was judged lost, and the next one finds what is left of it.
            _ => drop(rep.die().await),
        }
    }
    let readings = tokio::time::timeout(PATIENCE, &mut reader)
        .await
        .expect("in time")
        .expect("no panic");
    for (one, next) in readings.iter().zip(&readings[1..]) {
        assert!(one.revision <= next.revision, "{one:?} then {next:?}");
        match (&one.presence, &next.presence) {
            (Some(one), Some(next)) => assert!(one.epoch <= next.epoch),
            // Gone: whoever comes after it is later than that reading.
            (None, Some(next)) => assert!(next.epoch > one.revision, "{next:?} after {one:?}"),
            (Some(one), None) => assert!(one.epoch <= next.revision),
            (None, None) => {}
        }
    }
    assert!(epochs.windows(2).all(|two| two[0] < two[1]), "{epochs:?}");
}

/// Those that die together do not expire together: whoever asks sees that the others are late.
pub async fn a_roll_call_names_who_is_late_before_it_is_gone(site: Site) {
    let ttl = Duration::from_secs(9);
    let store::Opened { store, watcher } = store::open(site.config()).await.expect("connected");
    let mut watch = Watch::of(watcher, 64);
    let _alive = Rep::registered(site.config(), "alive", 9).await;
    let (mut dead, _) = Rep::registered(site.config(), "dead", 9).await;
    watch.until_held("alive").await;
    watch.until_held("dead").await;
    dead.until_renewed(1).await;
    let roll = store.roll_call().await.expect("read");
    let both = ["alive", "dead"].map(str::to_owned);
    assert_eq!((roll.held, roll.overdue), (both.into(), [].into()));

    let last_renewal = dead.die().await;
    eventually("it is late", async || {
        let roll = store.roll_call().await.expect("read");
        roll.overdue.contains("dead")
    })
    .await;
    let after = last_renewal.elapsed();
    assert!(after >= ttl / 2 && after < ttl, "late after {after:?}");
    let roll = store.roll_call().await.expect("read");
    assert!(roll.held.contains("dead"), "late, and not gone");
    assert!(!roll.overdue.contains("alive"), "{roll:?}");

    watch.until_gone("dead").await;
    let roll = store.roll_call().await.expect("read");
    assert_eq!(roll.held, ["alive".to_owned()].into());
    assert!(!roll.overdue.contains("dead"), "{roll:?}");
}
