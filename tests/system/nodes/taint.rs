//! `--node-taint`: the Node of a lost Cell is tainted at once and freed on return, whatever else happens to its taints.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const TAINT: &str = "diego.cloudfoundry.org/cell-missing";

async fn taints(site: &Site, node: &str) -> Result<BTreeSet<String>, Failure> {
    let spec = nodes(site).get(node).await?.spec.unwrap_or_default();
    let taints = spec.taints.into_iter().flatten();
    Ok(taints
        .map(|taint| format!("{}:{}", taint.key, taint.effect))
        .collect())
}

async fn is_tainted(site: &Site, node: &str, wanted: bool) -> Result<(), Failure> {
    let found = eventually(&format!("{node} tainted: {wanted}"), START, || async {
        let taints = taints(site, node).await.ok()?;
        (taints.contains(&format!("{TAINT}:NoExecute")) == wanted).then_some(())
    })
    .await;
    match found {
        Ok(()) => Ok(()),
        Err(failure) => Err(format!("{failure}\n{}", site.picture().await).into()),
    }
}

/// Only the watches act within these tests.
const SLOW: [&str; 3] = ["--node-taint", "--convergence-interval-seconds", "3600"];

#[tokio::test(flavor = "multi_thread")]
async fn no_other_taint_is_lost_however_many_come_meanwhile() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    make_node(&site, "n1", json!({})).await?;
    site.start_controller(&SLOW).await?;
    let rep = site
        .node_rep("n1", &["--presence-ttl-seconds", "2"])
        .await?;
    ready_is(&site, "n1", "True", "PresenceHeld").await?;
    assert_eq!(taints(&site, "n1").await?, BTreeSet::new());

    // Others add taints all the time, as kubectl does it: by replacing the list they read.
    let over = Arc::new(AtomicBool::new(false));
    let others = tokio::spawn({
        let (api, over) = (nodes(&site), over.clone());
        async move {
            let mut added = BTreeSet::new();
            while !over.load(Ordering::Relaxed) && added.len() < 40 {
                let Ok(mut node) = api.get("n1").await else {
                    continue;
                };
                let name = format!("other-{}", added.len());
                let mut list = node
                    .spec
                    .clone()
                    .unwrap_or_default()
                    .taints
                    .unwrap_or_default();
                list.push(k8s_openapi::api::core::v1::Taint {
                    key: name.clone(),
                    effect: "PreferNoSchedule".into(),
                    ..Default::default()
                });
                node.spec.get_or_insert_default().taints = Some(list);
                // A conflict is tried again.
                if api
                    .replace("n1", &PostParams::default(), &node)
                    .await
                    .is_ok()
                {
                    added.insert(format!("{name}:PreferNoSchedule"));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            added
        }
    });
    rep.kill();
    site.cell_state("n1", CellState::Missing).await?;
    is_tainted(&site, "n1", true).await?;
    let note = eventually("the Event is there", START, || {
        told(&site, "n1", "CellNodeTainted")
    })
    .await?;
    assert!(note.contains(TAINT), "{note}");
    let _rep = site.node_rep("n1", &[]).await?;
    is_tainted(&site, "n1", false).await?;
    over.store(true, Ordering::Relaxed);
    let added = others.await?;
    assert!(!added.is_empty());
    assert_eq!(taints(&site, "n1").await?, added);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_makes_good_what_another_could_not() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    for name in ["n1", "n2"] {
        make_node(&site, name, json!({})).await?;
    }
    site.start_controller(&SLOW).await?;
    let first = site
        .node_rep("n1", &["--presence-ttl-seconds", "2"])
        .await?;
    let second = site
        .node_rep("n2", &["--presence-ttl-seconds", "2"])
        .await?;
    for name in ["n1", "n2"] {
        ready_is(&site, name, "True", "PresenceHeld").await?;
    }
    first.kill();
    is_tainted(&site, "n1", true).await?;
    // While no controller is there the one comes back and the other goes.
    site.kill_controller().await;
    let _first = site.node_rep("n1", &[]).await?;
    second.kill();
    site.start_controller(&SLOW).await?;
    is_tainted(&site, "n1", false).await?;
    is_tainted(&site, "n2", true).await?;
    // An operator who takes it away while the Cell is lost is overruled.
    change_node(&site, "n2", json!({ "taints": null })).await?;
    is_tainted(&site, "n2", true).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_flag_no_node_is_touched() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    let before = make_node(&site, "n1", json!({}))
        .await?
        .metadata
        .resource_version;
    site.start_controller(&["--convergence-interval-seconds", "1"])
        .await?;
    let rep = site
        .node_rep("n1", &["--presence-ttl-seconds", "2"])
        .await?;
    ready_is(&site, "n1", "True", "PresenceHeld").await?;
    rep.kill();
    site.cell_state("n1", CellState::Missing).await?;
    let _rep = site.node_rep("n1", &[]).await?;
    site.cell_state("n1", CellState::Present).await?;
    let after = nodes(&site).get("n1").await?.metadata.resource_version;
    assert_eq!(before, after);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_a_third_is_tainted_at_once() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    let all = ["n1", "n2", "n3"];
    for name in all {
        make_node(&site, name, json!({})).await?;
    }
    // All three are lost in the end, which is what the guard would hold back.
    let unguarded = [&SLOW[..], &["--mass-loss-threshold-percent", "100"]].concat();
    site.start_controller(&unguarded).await?;
    let mut reps = Vec::new();
    for name in all {
        reps.push(
            site.node_rep(name, &["--presence-ttl-seconds", "2"])
                .await?,
        );
        ready_is(&site, name, "True", "PresenceHeld").await?;
    }
    let _third = reps.pop();
    reps.iter().for_each(|rep| rep.kill());
    let lost = ["n1", "n2"];
    for name in lost {
        site.cell_state(name, CellState::Missing).await?;
    }
    let held = eventually("one is held back", START, || async {
        for name in lost {
            if told(&site, name, "CellNodeTaintHeldBack").await.is_some() {
                return Some(name);
            }
        }
        None
    })
    .await?;
    let other = if held == "n1" { "n2" } else { "n1" };
    is_tainted(&site, other, true).await?;
    is_tainted(&site, held, false).await?;
    // When the one is free again, the other's turn comes at once.
    let _rep = site.node_rep(other, &[]).await?;
    is_tainted(&site, other, false).await?;
    is_tainted(&site, held, true).await?;
    Ok(())
}
