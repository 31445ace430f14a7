//! Cells that are gone for good lose their objects.

use super::*;

async fn is_deleted(site: &Site, cell: &str) -> Result<(), Failure> {
    eventually(&format!("Cell {cell} is deleted"), START, || async {
        site.cells()
            .get_opt(cell)
            .await
            .ok()?
            .is_none()
            .then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_removed_takes_its_cell_along_after_its_work_has_moved()
-> Result<(), Failure> {
    let mut site = Site::start().await?;
    for name in ["n1", "n2"] {
        make_node(&site, name, json!({})).await?;
    }
    site.start_controller(&["--convergence-interval-seconds", "1"])
        .await?;
    let rep = site
        .node_rep("n1", &["--presence-ttl-seconds", "2"])
        .await?;
    ready_is(&site, "n1", "True", "PresenceHeld").await?;
    site.desire(&asks("web", 1, "1", json!({}))).await?;
    assert_eq!(placed(&site, "web-0").await?, "n1");

    nodes(&site).delete("n1", &DeleteParams::default()).await?;
    // The presence is held: it is a Cell still, and takes nothing new.
    ready_is(&site, "n1", "False", "NodeNotFound").await?;
    rep.kill();
    site.cell_state("n1", CellState::Missing).await?;
    // Nobody can take its work: it stays on record, and the Cell with it.
    waits(&site, "web-0", |error| {
        error.contains("unable to communicate")
    })
    .await?;
    let _other = site.node_rep("n2", &[]).await?;
    ready_is(&site, "n2", "True", "PresenceHeld").await?;
    eventually("web-0 is placed on n2", START, || async {
        let status = site.actual().get_opt("web-0").await.ok()??.status?;
        (status.cell_name.as_deref() == Some("n2")).then_some(())
    })
    .await?;
    // Without a kubelet the replacement never runs, and its suspect is kept.
    site.desired()
        .delete("web", &DeleteParams::default())
        .await?;
    is_deleted(&site, "n1").await?;
    let note = eventually("the Event is there", START, || {
        told(&site, "n1", "CellForgotten")
    })
    .await?;
    assert!(note.contains("Node n1 was removed"), "{note}");
    assert!(site.cells().get_opt("n2").await?.is_some());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_that_stays_away_is_forgotten_and_one_that_an_operator_marked_is_not()
-> Result<(), Failure> {
    let mut site = Site::start().await?;
    let retention = [
        "--convergence-interval-seconds",
        "1",
        "--missing-cell-retention-seconds",
        "3",
    ];
    site.start_controller(&retention).await?;
    for name in ["a", "b"] {
        site.start_rep(name, "z1", &["--presence-ttl-seconds", "2"])
            .await?;
    }
    let cordon = Patch::Merge(json!({ "spec": { "unschedulable": true } }));
    site.cells()
        .patch("b", &PatchParams::default(), &cordon)
        .await?;
    for name in ["a", "b"] {
        site.kill_cell(name).await;
        site.cell_state(name, CellState::Missing).await?;
    }
    is_deleted(&site, "a").await?;
    let note = eventually("the Event is there", START, || {
        told(&site, "a", "CellForgotten")
    })
    .await?;
    assert!(note.contains("more than 3 s"), "{note}");
    assert!(
        site.cells().get_opt("b").await?.is_some(),
        "an operator marked it"
    );
    // It comes back as if it had never been away.
    site.start_rep("a", "z1", &[]).await?;
    Ok(())
}
