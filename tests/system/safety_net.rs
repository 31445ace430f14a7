//! What a lost watch event hid is made good: by the re-list, or by the periodic pass.

use std::time::Duration;

use diego_operator::api::CellState;
use diego_operator::presence::etcd::PREFIX;
use etcd_client::GetOptions;
use kube::api::Patch;
use serde_json::json;

use crate::support::{Failure, eventually, objects, proxy::Proxy, site::START, site::Site};

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_while_disconnected_and_compacted_is_found_by_the_relist() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    let endpoint = site.etcd.endpoints().remove(0);
    let target = endpoint.trim_start_matches("http://").to_owned();
    let proxy = Proxy::start(target).await?;
    let through_proxy = format!("http://{}", proxy.address());
    // So long an interval that the periodic pass has no part in it.
    site.start_controller_at(&through_proxy, &["--convergence-interval-seconds", "3600"])
        .await?;
    site.start_rep("a", "z1", &[]).await?;
    site.start_rep("b", "z2", &[]).await?;
    site.desire(&objects::sleepers("web", 4)).await?;
    site.running("web", 4, |_| true).await?;

    proxy.cut();
    site.kill_cell("b").await;
    let mut etcd = etcd_client::Client::connect([endpoint], None).await?;
    let key = diego_operator::presence::etcd::key("b");
    let revision = loop {
        let answer = etcd
            .get(key.clone(), Some(GetOptions::new().with_count_only()))
            .await?;
        if answer.count() == 0 {
            break answer
                .header()
                .map(|header| header.revision())
                .unwrap_or_default();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    // The event is gone from the store's history: no watch can deliver it any more.
    etcd.compact(revision, None).await?;
    let before = site
        .cells()
        .get("b")
        .await?
        .status
        .unwrap_or_default()
        .state;
    assert_eq!(
        before,
        Some(CellState::Present),
        "nobody could have told the controller"
    );
    proxy.mend();

    site.running("web", 4, |cell| cell == "a").await?;
    site.cell_state("b", CellState::Missing).await?;
    assert_eq!(
        site.metric("diego_cell_presence_expired_total{source=\"watch\"}")
            .await?,
        1.0
    );
    assert_eq!(
        site.metric("diego_cell_presence_expired_total{source=\"resync\"}")
            .await?,
        0.0
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_watch_the_periodic_pass_finds_the_loss() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    let args = [
        "--disable-presence-watch",
        "--convergence-interval-seconds",
        "3",
    ];
    site.start_controller(&args).await?;
    site.start_rep("a", "z1", &[]).await?;
    site.start_rep("b", "z2", &[]).await?;
    site.desire(&objects::sleepers("web", 4)).await?;
    site.running("web", 4, |_| true).await?;
    // Diego's loop began its interval anew with every event; here a stream of events postpones nothing.
    let desired = site.desired();
    let noise = tokio::spawn(async move {
        for n in 0.. {
            let patch = Patch::Merge(json!({ "spec": { "annotation": n.to_string() } }));
            let _ = desired.patch("web", &Default::default(), &patch).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    site.kill_cell("b").await;
    site.running("web", 4, |cell| cell == "a").await?;
    noise.abort();
    assert_eq!(
        site.metric("diego_cell_presence_expired_total{source=\"resync\"}")
            .await?,
        1.0
    );
    assert_eq!(
        site.metric("diego_cell_presence_expired_total{source=\"watch\"}")
            .await?,
        0.0
    );
    let events = eventually("the Event is published", START, || async {
        let output = site
            .cluster
            .kubectl(&["events", "--for", "cell.diego.cloudfoundry.org/b"])
            .await
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.contains("CellMissedByWatch").then_some(text)
    })
    .await?;
    assert!(events.contains("CellPresenceExpired"), "{events}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_that_died_while_the_controller_was_down_is_recovered_when_it_is_back()
-> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &[]).await?;
    site.start_rep("b", "z2", &[]).await?;
    site.desire(&objects::sleepers("web", 4)).await?;
    site.running("web", 4, |_| true).await?;
    site.kill_controller().await;
    site.kill_cell("b").await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    site.start_controller(&[]).await?;
    site.running("web", 4, |cell| cell == "a").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn losing_the_presence_store_moves_nothing() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&["--convergence-interval-seconds", "1"])
        .await?;
    site.start_rep("a", "z1", &[]).await?;
    site.start_rep("b", "z2", &[]).await?;
    site.desire(&objects::sleepers("web", 4)).await?;
    let before = site.running("web", 4, |_| true).await?;
    // Killed, not stopped: a store that starts anew gives every lease its whole time again. One that only hangs,
    // and alone, lets all of them run out when it goes on; that is what a mass-loss guard is for.
    site.etcd.member(0).kill();
    eventually(
        "the controller notices that it can't hear the store",
        START,
        || async {
            (site.metric("diego_presence_store_reachable").await.ok()? == 0.0).then_some(())
        },
    )
    .await?;
    // Longer than the TTL, with many passes of the safety net in between.
    tokio::time::sleep(Duration::from_secs(8)).await;
    site.etcd.restart_member(0).await?;
    eventually("the controller hears the store again", START, || async {
        (site.metric("diego_presence_store_reachable").await.ok()? == 1.0).then_some(())
    })
    .await?;
    for cell in ["a", "b"] {
        site.cell_state(cell, CellState::Present).await?;
    }
    let text = site.metrics().await?;
    for never in [
        "diego_cell_presence_expired_total{source=\"watch\"} 0",
        "diego_cell_presence_expired_total{source=\"resync\"} 0",
        "diego_actuallrp_starts_total{reason=\"missing-cell\"} 0",
    ] {
        assert!(text.contains(never), "not {never}");
    }
    for (now, before) in site.running("web", 4, |_| true).await?.iter().zip(&before) {
        let (now, before) = (
            now.status.as_ref().unwrap(),
            before.status.as_ref().unwrap(),
        );
        assert_eq!(
            (&now.cell_name, &now.instance_guid),
            (&before.cell_name, &before.instance_guid)
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_server_what_runs_goes_on_and_a_loss_is_made_good_when_it_is_back()
-> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &[]).await?;
    site.start_rep("b", "z2", &[]).await?;
    site.desire(&objects::sleepers("web", 4)).await?;
    let before = site.running("web", 4, |_| true).await?;
    site.cluster.stop_apiserver().await;
    site.kill_cell("b").await;
    // Long enough for the loss to be noticed, and for many tries.
    tokio::time::sleep(Duration::from_secs(12)).await;
    site.cluster.restart_apiserver().await?;
    let after = site.running("web", 4, |cell| cell == "a").await?;
    for (now, before) in after.iter().zip(&before) {
        let (now, before) = (
            now.status.as_ref().unwrap(),
            before.status.as_ref().unwrap(),
        );
        if before.cell_name.as_deref() == Some("a") {
            assert_eq!(now.instance_guid, before.instance_guid, "what ran goes on");
        }
    }
    let log = std::fs::read_to_string(site.controller().process.log())?;
    // Two watches are of Pods: all of them, and our own.
    let broke = |kind| format!("the watch broke; trying again kind=\"{kind}\"");
    let once = ["Cell", "DesiredLRP", "ActualLRP", "Task", "Node"].map(|kind| (broke(kind), 2));
    let verdict = ("no verdict on the Cell is possible yet".to_owned(), 4);
    for (line, most) in once.into_iter().chain([(broke("Pod"), 4), verdict]) {
        let count = log.lines().filter(|logged| logged.contains(&line)).count();
        assert!(
            (1..=most).contains(&count),
            "{count} times {line:?}: a line per change of state, not per try: {log}"
        );
    }
    let failed = site.metrics().await?;
    assert!(
        failed.contains("rest_client_requests_total{code=\"<error>\""),
        "failures are counted"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_presence_store_that_lost_its_data_moves_nothing_and_losses_are_still_found()
-> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&["--convergence-interval-seconds", "2"])
        .await?;
    // A store with a past, so that the epochs of the emptied one are smaller.
    let mut etcd = etcd_client::Client::connect(site.etcd.endpoints(), None).await?;
    for n in 0..50 {
        etcd.put("past", n.to_string(), None).await?;
    }
    for (cell, zone) in [("a", "z1"), ("b", "z2"), ("c", "z3")] {
        site.start_rep(cell, zone, &[]).await?;
    }
    site.desire(&objects::sleepers("web", 6)).await?;
    let before = site.running("web", 6, |_| true).await?;
    site.etcd.wipe().await?;
    let mut etcd = etcd_client::Client::connect(site.etcd.endpoints(), None).await?;
    eventually(
        "every rep has registered with the emptied store",
        START,
        || {
            let mut etcd = etcd.clone();
            async move {
                let answer = etcd
                    .get(PREFIX, Some(GetOptions::new().with_prefix()))
                    .await
                    .ok()?;
                (answer.count() == 3).then_some(())
            }
        },
    )
    .await?;
    // Passes of the safety net and what is left of any TTL.
    tokio::time::sleep(Duration::from_secs(8)).await;
    for (now, before) in site.running("web", 6, |_| true).await?.iter().zip(&before) {
        let (now, before) = (
            now.status.as_ref().unwrap(),
            before.status.as_ref().unwrap(),
        );
        assert_eq!(
            (&now.cell_name, &now.instance_guid),
            (&before.cell_name, &before.instance_guid)
        );
    }
    let small = etcd
        .get(diego_operator::presence::etcd::key("c"), None)
        .await?
        .kvs()[0]
        .create_revision();
    let recorded = site
        .cells()
        .get("c")
        .await?
        .status
        .unwrap_or_default()
        .epoch;
    assert!(
        Some(small) < recorded,
        "the test is of an epoch that went back: {small} after {recorded:?}"
    );
    site.kill_cell("c").await;
    site.running("web", 6, |cell| cell != "c").await?;
    site.cell_state("c", CellState::Missing).await?;
    // Its epochs go on where they were, so it returns by itself.
    site.start_rep("c", "z3", &[]).await?;
    let again = site
        .cells()
        .get("c")
        .await?
        .status
        .unwrap_or_default()
        .epoch;
    assert!(again > recorded, "{again:?} after {recorded:?}");
    Ok(())
}
