//! A Cell that was only silent: back before its replacements run, back after, restarted, or taken twice.

use std::time::Duration;

use diego_operator::api::{ActualLRP, ActualLRPState, CellState, MissingCellPolicy};
use kube::ResourceExt;
use serde_json::json;

use crate::support::{Failure, eventually, objects, proxy::Proxy, site::START, site::Site, tree};

/// Instances that need a file to be ready, so that a test decides when a replacement runs.
fn gated(name: &str, instances: i32, gate: &std::path::Path) -> diego_operator::api::DesiredLRP {
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.05; done; exec python3 -m http.server \"$PORT\" --bind 127.0.0.1",
        gate.display()
    );
    let ports = json!([{ "containerPort": 8080 }]);
    let container = json!({ "name": "main", "command": ["sh", "-c", script], "ports": ports });
    objects::lrp(name, instances, json!({ "containers": [container] }))
}

#[tokio::test(flavor = "multi_thread")]
async fn back_before_the_replacements_run_the_originals_are_kept() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &[]).await?;
    let gate = site.dir().join("gate");
    std::fs::write(&gate, "")?;
    site.desire(&gated("web", 2, &gate)).await?;
    let before = site.running("web", 2, |cell| cell == "a").await?;
    let processes = tree::descendants(site.rep("a").process.pid());
    site.start_rep("b", "z2", &[]).await?;
    // From now on a new instance comes up, but is not ready.
    std::fs::remove_file(&gate)?;

    site.rep("a").process.pause();
    site.cell_state("a", CellState::Missing).await?;
    eventually(
        "the replacements are claimed, the originals kept as suspects",
        START,
        || async {
            let instances = site.instances("web").await.ok()?;
            let replaced = instances.iter().all(|lrp| {
                lrp.status.as_ref().is_some_and(|status| {
                    status.state == ActualLRPState::Claimed
                        && status.cell_name.as_deref() == Some("b")
                        && status
                            .suspect
                            .as_ref()
                            .is_some_and(|suspect| suspect.cell_name == "a")
                })
            });
            (replaced && instances.len() == 2).then_some(())
        },
    )
    .await?;

    site.rep("a").process.resume();
    let after = site.running("web", 2, |cell| cell == "a").await?;
    for (after, before) in after.iter().zip(&before) {
        let (after, before) = (
            after.status.as_ref().unwrap(),
            before.status.as_ref().unwrap(),
        );
        assert_eq!(
            after.instance_guid, before.instance_guid,
            "the original is kept"
        );
        assert_eq!(
            (&after.address, &after.ports),
            (&before.address, &before.ports)
        );
        assert_eq!(after.suspect, None);
        assert!(
            after.cell_epoch > before.cell_epoch,
            "under the epoch of its return"
        );
    }
    assert!(
        processes.iter().all(|pid| tree::is_alive(*pid)),
        "no process of the Cell that was silent was touched"
    );
    let b = site.rep("b").process.pid();
    eventually("the replacements are gone", START, || async move {
        tree::descendants(b).is_empty().then_some(())
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn back_after_the_replacements_run_the_originals_are_stopped() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &[]).await?;
    site.desire(&objects::sleepers("web", 2)).await?;
    site.running("web", 2, |cell| cell == "a").await?;
    site.start_rep("b", "z2", &[]).await?;
    let a = site.rep("a").process.pid();
    assert!(!tree::descendants(a).is_empty());
    site.rep("a").process.pause();
    let moved = site.running("web", 2, |cell| cell == "b").await?;
    assert!(
        !tree::descendants(a).is_empty(),
        "nothing stops the processes of a Cell that is only silent"
    );
    site.rep("a").process.resume();
    site.cell_state("a", CellState::Present).await?;
    eventually("the originals are stopped", START, || async move {
        tree::descendants(a).is_empty().then_some(())
    })
    .await?;
    let after = site.running("web", 2, |cell| cell == "b").await?;
    for (after, moved) in after.iter().zip(&moved) {
        assert_eq!(
            after.status.as_ref().unwrap().instance_guid,
            moved.status.as_ref().unwrap().instance_guid
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rep_restarted_within_its_ttl_moves_nothing() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &["--presence-ttl-seconds", "20"])
        .await?;
    site.start_rep("b", "z2", &[]).await?;
    site.desire(&objects::sleepers("web", 4)).await?;
    let before = site.running("web", 4, |_| true).await?;
    let ledger = site.cells().get("a").await?.status.unwrap_or_default();

    // The rep is back before the controller looks: it must leave what its earlier life ran to the controller.
    site.controller().process.pause();
    site.restart_rep("a").await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    site.controller().process.resume();
    let returned = eventually("the new incarnation is entered", START, || async {
        let status = site.cells().get("a").await.ok()?.status?;
        (status.epoch > ledger.epoch).then_some(status)
    })
    .await?;
    assert_ne!(
        returned.incarnation, ledger.incarnation,
        "processes died with the rep: another incarnation"
    );
    eventually(
        "every instance runs on the Cell it was on, under a live run",
        START,
        || async {
            let instances = site.instances("web").await.ok()?;
            let settled = instances.iter().zip(&before).all(|(now, before)| {
                let (now, before) = (
                    now.status.clone().unwrap_or_default(),
                    before.status.clone().unwrap_or_default(),
                );
                let fresh = before.cell_name.as_deref() != Some("a")
                    || now.instance_guid != before.instance_guid;
                now.state == ActualLRPState::Running && now.cell_name == before.cell_name && fresh
            });
            settled.then_some(())
        },
    )
    .await?;
    for (now, before) in site.instances("web").await?.iter().zip(&before) {
        let (status, old) = (
            now.status.as_ref().unwrap(),
            before.status.as_ref().unwrap(),
        );
        assert_eq!(status.crash_count.unwrap_or(0), 0);
        if old.cell_name.as_deref() == Some("b") {
            assert_eq!(
                now.metadata.resource_version,
                before.metadata.resource_version,
                "{} was touched",
                now.name_any()
            );
        }
    }
    let text = site.metrics().await?;
    assert!(text.contains("diego_cell_presence_expired_total{source=\"watch\"} 0"));
    assert!(text.contains("diego_cell_presence_expired_total{source=\"resync\"} 0"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_rep_of_the_same_name_is_refused_and_harms_nothing() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &[]).await?;
    site.desire(&objects::sleepers("web", 2)).await?;
    let before = site.running("web", 2, |_| true).await?;
    let ledger = site.cells().get("a").await?.status.unwrap_or_default();
    let second = site.start_extra_rep("a", "second", &[])?;
    let status = tokio::time::timeout(START, second.wait()).await?;
    assert!(!status.success(), "{status}");
    let said = std::fs::read_to_string(second.log())?;
    assert!(
        said.contains("--cell-id") && said.contains("held by another rep"),
        "{said}"
    );
    let now = site.cells().get("a").await?.status.unwrap_or_default();
    assert_eq!((now.state, now.epoch), (ledger.state, ledger.epoch));
    for (now, before) in site.instances("web").await?.iter().zip(&before) {
        assert_eq!(
            now.metadata.resource_version,
            before.metadata.resource_version
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_silence_is_no_loss() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&["--convergence-interval-seconds", "1"])
        .await?;
    site.start_rep("a", "z1", &["--presence-ttl-seconds", "8"])
        .await?;
    site.start_rep("b", "z1", &[]).await?;
    site.desire(&objects::sleepers("web", 2)).await?;
    let before = site.running("web", 2, |_| true).await?;
    site.rep("a").process.pause();
    tokio::time::sleep(Duration::from_secs(3)).await;
    site.rep("a").process.resume();
    // Longer than the rest of the TTL: the loss, were there one, would be seen by then.
    tokio::time::sleep(Duration::from_secs(8)).await;
    for (now, before) in site.instances("web").await?.iter().zip(&before) {
        assert_eq!(
            now.metadata.resource_version,
            before.metadata.resource_version
        );
    }
    let text = site.metrics().await?;
    assert!(text.contains("diego_cell_presence_expired_total{source=\"watch\"} 0"));
    assert!(text.contains("diego_cell_presence_expired_total{source=\"resync\"} 0"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rep_cut_off_from_the_presence_store_alone_stops_speaking_at_the_verdict()
-> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    let target = site.etcd.endpoints()[0].replace("http://", "");
    let proxy = Proxy::start(target).await?;
    let by_way_of = format!("http://{}", proxy.address());
    let short = ["--presence-ttl-seconds", "2"];
    site.spawn_rep_at(&by_way_of, "a", "z1", &short).await?;
    site.cell_state("a", CellState::Present).await?;
    let mut web = objects::sleepers("web", 2);
    // Fenced: its rep gives the slots up, and must not take them back when it hears the presence store again.
    web.spec.missing_cell_policy = MissingCellPolicy::Strict;
    site.desire(&web).await?;
    site.running("web", 2, |cell| cell == "a").await?;
    site.start_rep("b", "z2", &short).await?;

    proxy.cut();
    site.cell_state("a", CellState::Missing).await?;
    let replaced = site.running("web", 2, |cell| cell == "b").await?;
    let starts = "diego_actuallrp_starts_total{reason=\"missing-cell\"}";
    assert!(
        site.metric(starts).await? <= 4.0,
        "{}",
        site.picture().await
    );
    eventually("the originals have stopped", START, || async {
        let left = tree::descendants(site.rep("a").process.pid());
        left.is_empty().then_some(())
    })
    .await?;
    proxy.mend();
    site.cell_state("a", CellState::Present).await?;
    let after = site.running("web", 2, |cell| cell == "b").await?;
    let guids = |all: &[ActualLRP]| -> Vec<Option<String>> {
        let status = all.iter().map(|lrp| lrp.status.clone().unwrap_or_default());
        status.map(|status| status.instance_guid).collect()
    };
    assert_eq!(
        guids(&after),
        guids(&replaced),
        "they are left where they are"
    );
    Ok(())
}
