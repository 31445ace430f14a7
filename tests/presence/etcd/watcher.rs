//! What the watcher tells when its connection, or the history of the store, is taken away from it.

use std::time::Duration;

use diego_operator::presence::{Notice, PresenceEvent};
use etcd_client::Client;

use crate::proxy::Proxy;
use crate::support::*;

/// Forgets everything before now, so that no watch can go on from there.
async fn compact(client: &Client) {
    let mut kv = client.kv_client();
    let revision = kv
        .get("any", None)
        .await
        .expect("read")
        .header()
        .expect("a header")
        .revision();
    kv.compact(revision, None).await.expect("compacted");
}

fn outages(watch: &Watch) -> usize {
    watch
        .seen
        .iter()
        .filter(|event| matches!(event, PresenceEvent::Unreachable { .. }))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cut_connection_hid_is_made_good_by_the_next_list() {
    let etcd = etcd(1).await;
    let network = Proxy::to(&etcd.endpoints()[0]).await;
    let client = client(&etcd.endpoints()[0]).await;
    for cell in ["stays", "leaves", "returns"] {
        put(&client, cell, &value(cell)).await;
    }
    let mut watch = Watch::synced(config(vec![network.endpoint()])).await;
    watch.catch_up(&client).await;

    network.cut();
    watch
        .until("the outage is told", |event| {
            matches!(event, PresenceEvent::Unreachable { .. }).then_some(())
        })
        .await;
    delete(&client, "leaves").await;
    delete(&client, "returns").await;
    let epoch = put(&client, "returns", &value("returns")).await;
    put(&client, "comes", &value("comes")).await;
    compact(&client).await;
    let refused = network.refused();
    eventually("it tries again and again", async || {
        network.refused() >= refused + 3
    })
    .await;
    network.open();

    watch.seen.clear();
    watch.until_synced(false).await;
    for cell in ["leaves", "returns"] {
        let notices: Vec<Notice> = watch
            .seen
            .iter()
            .filter_map(|event| match event {
                PresenceEvent::Gone(departure) if departure.last.cell == cell => {
                    Some(departure.notice)
                }
                _ => None,
            })
            .collect();
        assert_eq!(notices, [Notice::Relist], "{cell}: {:#?}", watch.seen);
    }
    let held: Vec<(&str, i64)> = watch
        .seen
        .iter()
        .filter_map(|event| match event {
            PresenceEvent::Held(now) => Some((now.cell.as_str(), now.epoch)),
            _ => None,
        })
        .collect();
    assert_eq!(
        held,
        [("comes", epoch + 1), ("returns", epoch)],
        "{:#?}",
        watch.seen
    );
    assert_eq!(
        outages(&watch),
        0,
        "an outage is told once: {:#?}",
        watch.seen
    );

    // And the watch works again, though its first revision is the compacted one.
    delete(&client, "stays").await;
    assert_eq!(watch.until_gone("stays").await.notice, Notice::Watch);
    let restarted = |event: &PresenceEvent| matches!(event, PresenceEvent::WatchRestarted { .. });
    assert!(!watch.seen.iter().any(restarted), "{:#?}", watch.seen);
}

/// The list is answered, and its revision compacted before the watch begins there: a full queue makes the gap.
#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_between_list_and_watch_is_made_good() {
    let etcd = etcd(1).await;
    let client = client(&etcd.endpoints()[0]).await;
    for cell in ["a", "b", "c"] {
        put(&client, cell, &value(cell)).await;
    }
    let mut watch = Watch::start(config(etcd.endpoints()), 1);
    watch.until_held("a").await;
    // With room for one event, the watcher can't have told of "c" yet, and so can't have begun to watch.
    delete(&client, "b").await;
    put(&client, "d", &value("d")).await;
    compact(&client).await;
    assert_eq!(watch.until_restarted().await, "compacted");
    assert_eq!(watch.until_gone("b").await.notice, Notice::Relist);
    watch.until_held("d").await;
    watch.until_synced(false).await;
    delete(&client, "c").await;
    assert_eq!(watch.until_gone("c").await.notice, Notice::Watch);
    assert_eq!(outages(&watch), 0, "{:#?}", watch.seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_endpoint_is_left_for_another() {
    let etcd = etcd(1).await;
    let client = client(&etcd.endpoints()[0]).await;
    let networks = [
        Proxy::to(&etcd.endpoints()[0]).await,
        Proxy::to(&etcd.endpoints()[0]).await,
    ];
    let endpoints = networks.iter().map(Proxy::endpoint).collect();
    let mut watch = Watch::synced(config(endpoints)).await;
    watch.catch_up(&client).await;
    // Whichever it began with: it is on the second one at the latest when that freezes.
    for network in &networks {
        network.freeze();
        watch.catch_up(&client).await;
        network.open();
    }
    let reasons: Vec<&str> = watch
        .seen
        .iter()
        .filter_map(|event| match event {
            PresenceEvent::WatchRestarted { reason } => Some(*reason),
            _ => None,
        })
        .collect();
    assert!(
        matches!(reasons[..], ["silent"] | ["silent", "silent"]),
        "{reasons:?}"
    );
    assert_eq!(
        outages(&watch),
        0,
        "there was another endpoint: {:#?}",
        watch.seen
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_store_is_unreachable_and_nobody_is_gone() {
    let etcd = etcd(1).await;
    let client = client(&etcd.endpoints()[0]).await;
    put(&client, "a", &value("a")).await;
    let network = Proxy::to(&etcd.endpoints()[0]).await;
    let mut watch = Watch::synced(config(vec![network.endpoint()])).await;
    watch.catch_up(&client).await;
    network.freeze();
    let frozen = std::time::Instant::now();
    assert_eq!(watch.until_restarted().await, "silent");
    let heard = watch
        .until("the outage is told", |event| match event {
            PresenceEvent::Unreachable { at } => Some(*at),
            _ => None,
        })
        .await;
    assert!(
        heard < frozen + Duration::from_secs(1),
        "when it was last heard, not when that was noticed"
    );
    network.open();
    watch.until_synced(false).await;
    watch.catch_up(&client).await;
    assert_eq!(
        (watch.departures("a"), outages(&watch)),
        (0, 1),
        "{:#?}",
        watch.seen
    );
}

/// A quiet store answers the signs of life, so nothing is begun again.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_store_is_not_taken_for_a_silent_one() {
    let etcd = etcd(1).await;
    let client = client(&etcd.endpoints()[0]).await;
    let mut watch = Watch::synced(config(etcd.endpoints())).await;
    // Longer than the silence that would count as death; nothing shall happen, so there is no condition to wait for.
    tokio::time::sleep(Duration::from_secs(8)).await;
    watch.catch_up(&client).await;
    let restarts = watch
        .seen
        .iter()
        .filter(|e| matches!(e, PresenceEvent::WatchRestarted { .. }))
        .count();
    assert_eq!(restarts, 0, "{:#?}", watch.seen);
}
