//! Many Cells at once, and Cells that come and go.

use std::time::Duration;

use diego_operator::api::{ActualLRPState, CellState};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::looks::{no_loss, versions, versions_of};
use super::rack;
use crate::network::Way;
use crate::observer::facts::now;
use crate::row::{Figures, Protection, Row, Tried};
use crate::stage::{ONCE, RECOVERY, Setup, Stage, THREE, WEB};
use crate::support::{Failure, eventually, site::START, tree};

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            number: 34,
            fault: "a Cell flaps",
            promise: "each flap moves an instance once at most; from its second return on it gets no new work for 30 s, 60 s, ...",
            tried: Tried::Here {
                injected: "a proxy before etcd that loses both directions until the Cell is lost, three times; instances are added after each return",
                protection: Protection::Seen {
                    without: "a Cell that came back again is held down",
                    said: "it was open for new work",
                },
                short: false,
                run: |stage| Box::pin(flapping(stage)),
            },
        },
        Row {
            number: 35,
            fault: "all Cells are lost at once, as by a broken switch; and then half of them for good",
            promise: "nothing is moved and no Task fails: when they are back, all is as it was; what an operator confirms is recovered",
            tried: Tried::Here {
                injected: "four Cells in two zones; a proxy before etcd that loses both directions of all of them, mended 8 s after their expiry; then one Cell of each zone killed, and both losses confirmed, from which on it is measured",
                protection: Protection::Seen {
                    without: "while held Cells come back one after the other, what is left of them is held for one TTL more",
                    said: "the instances of the Cell that came back last were moved",
                },
                short: false,
                run: |stage| Box::pin(all(stage)),
            },
        },
        Row {
            number: 36,
            fault: "up to a third of the Cells is lost at once",
            promise: "all of it is recovered as if it were one Cell",
            tried: Tried::Here {
                injected: "ten Cells in three zones, one of each zone killed at the same time; then 1,000 Cells without reps (their presences are kept by the test, which says of what is placed there that it runs), 300 of which die in one moment",
                protection: Protection::Seen {
                    without: "the mass-loss guard lets a third pass (instead: 1 %)",
                    said: "nothing ran elsewhere within 60 s",
                },
                short: false,
                run: |stage| Box::pin(a_third(stage)),
            },
        },
        Row {
            number: 37,
            fault: "there is no room for what a lost Cell ran",
            promise: "it waits with the reason, is not tried again and again, and starts when there is room",
            tried: Tried::Here {
                injected: "Cells that hold four instances each, full; one killed; another Cell 8 s later",
                protection: Protection::Seen {
                    without: "a placement error that says the same is not written again",
                    said: "what waits was written again",
                },
                short: false,
                run: |stage| Box::pin(no_room(stage)),
            },
        },
    ]
}

async fn a_third(stage: &mut Stage) -> Result<Figures, Failure> {
    const TEN: [(&str, &str); 10] = [
        ("a", "z1"),
        ("b", "z1"),
        ("c", "z1"),
        ("d", "z1"),
        ("e", "z2"),
        ("f", "z2"),
        ("g", "z2"),
        ("h", "z3"),
        ("i", "z3"),
        ("j", "z3"),
    ];
    let setup = Setup {
        cells: &TEN,
        instances: 36,
        tasks: 10,
        ..Setup::default()
    };
    let before = stage.set(setup).await?;
    let lost = ["a", "e", "h"];
    let since = stage.fault();
    for cell in lost {
        // With its witness: these are machines, and their presences expire.
        tree::kill_tree(stage.site.rep(&stage.cell(cell)).process.pid());
    }
    // The last of them may have renewed a third of a TTL later than the first; they are judged together.
    let within = RECOVERY.later(2);
    let away = stage.recovered(&before, &lost, since, within).await?;
    stage.tasks_failed(3, 7).await?;
    stage.conclude().await?;
    stage.fresh().await?;
    let note = rack::lost(stage).await?;
    stage.fresh().await?;
    Ok(Figures::away(away).and(note))
}

/// Two in each of two zones.
const FOUR: [(&str, &str); 4] = [("a", "z1"), ("b", "z1"), ("c", "z2"), ("d", "z2")];

async fn all(stage: &mut Stage) -> Result<Figures, Failure> {
    let reach = stage.before_store().await?;
    let switch = &reach.network;
    let setup = Setup {
        rep: &reach.flags(),
        cells: &FOUR,
        instances: 12,
        tasks: 4,
        once: 4,
        store: Some(reach.endpoint()),
        ..Setup::default()
    };
    let before = stage.set(setup).await?;
    // What may run once only is stopped by its own Cell, which can't know that all others were cut off as well.
    let versions_before = versions_of(stage, |name| name != ONCE).await?;
    stage.fault();
    switch.set(Way::Lost);
    held(stage, &["a", "b", "c", "d"]).await?;
    // Long after all have expired.
    tokio::time::sleep(Duration::from_secs(8)).await;
    if versions_of(stage, |name| name != ONCE).await? != versions_before {
        return Err("something was written of what runs".into());
    }
    let mended = stage.fault();
    switch.set(Way::Open);
    eventually("the guard lets go by itself", START, || async {
        let active = stage.site.metric(ACTIVE).await.ok()?;
        (active == 0.0).then_some(())
    })
    .await?;
    let took = (now() - mended) as f64 / 1e9;
    stage.unmoved(&before).await?;
    no_loss(stage).await?;

    // Half of them, and for good: an operator knows.
    stage.fault();
    for cell in ["a", "c"] {
        stage.site.kill_cell(&stage.cell(cell)).await;
    }
    held(stage, &["a", "c"]).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    stage.unmoved(&before).await?;
    let since = stage.fault();
    let word =
        json!({ "metadata": { "annotations": { "diego.cloudfoundry.org/confirm-loss": "true" } } });
    for cell in ["a", "c"] {
        let cells = stage.site.cells();
        let word = Patch::Merge(&word);
        cells
            .patch(&stage.cell(cell), &PatchParams::default(), &word)
            .await?;
    }
    let away = stage.moved(&before, &["a", "c"], since).await?;
    stage.tasks_failed(2, 2).await?;
    stage.keep(reach);
    Ok(Figures::away(away).and(format!(
        "the guard let go {took:.1} s after the network was mended"
    )))
}

/// 1 while the guard holds anything.
const ACTIVE: &str = "diego_mass_loss_guard_active";

/// Waits until the losses of these Cells are held, and said to be.
async fn held(stage: &Stage, cells: &[&str]) -> Result<(), Failure> {
    eventually("the guard holds", START, || async {
        let count = stage.site.metric("diego_cell_losses_held").await.ok()?;
        (count == cells.len() as f64).then_some(())
    })
    .await?;
    for cell in cells {
        let name = stage.cell(cell);
        reason_is(stage, &name, "MassLossHeld").await?;
    }
    Ok(())
}

/// Waits until a Cell is not ready for this reason.
async fn reason_is(stage: &Stage, cell: &str, reason: &str) -> Result<(), Failure> {
    eventually(&format!("{cell} is {reason}"), START, || async {
        let status = stage.site.cells().get(cell).await.ok()?.status?;
        let ready = status
            .conditions
            .into_iter()
            .find(|one| one.type_ == "Ready")?;
        (ready.reason == reason && ready.status == "False").then_some(())
    })
    .await
}

async fn flapping(stage: &mut Stage) -> Result<Figures, Failure> {
    let reach = stage.before_store().await?;
    let network = &reach.network;
    stage.site.start_controller(&[]).await?;
    let cell = stage.cell("a");
    stage
        .site
        .spawn_rep_at(reach.endpoint(), &cell, "z1", &reach.flags())
        .await?;
    stage.site.cell_state(&cell, CellState::Present).await?;
    let setup = Setup {
        without_controller: true,
        cells: &[("b", "z2"), ("c", "z3")],
        instances: 9,
        tasks: 3,
        ..Setup::default()
    };
    stage.set(setup).await?;
    for (flap, instances) in [(1, 15), (2, 21), (3, 27)] {
        let before = stage.running(|_| true).await?;
        let had = stage.on(&before, "a");
        let since = stage.fault();
        network.set(Way::Lost);
        stage.site.cell_state(&cell, CellState::Missing).await?;
        stage.moved(&before, &["a"], since).await?;
        stage.fault();
        network.set(Way::Open);
        stage.site.cell_state(&cell, CellState::Present).await?;
        // New work after its return: the first time it may come here, later not.
        if flap > 1 {
            reason_is(stage, &cell, "HeldDown").await?;
        }
        let more = Patch::Merge(json!({ "spec": { "instances": instances } }));
        let desired = stage.site.desired();
        desired.patch(WEB, &PatchParams::default(), &more).await?;
        stage.want(WEB, Some(instances));
        let after = stage.running(|_| true).await?;
        let has = stage.on(&after, "a");
        match flap {
            1 if had == 0 || has == 0 => {
                return Err("nothing ran on the flapping Cell: the row shows nothing".into());
            }
            2 if had == 0 => {
                return Err("nothing ran on the flapping Cell: the row shows nothing".into());
            }
            2 | 3 if has > 0 => {
                return Err(format!("flap {flap}: {has} instances were given to it").into());
            }
            _ => {}
        }
        stage.unmoved(&after).await?;
    }
    stage.keep(reach);
    Ok(Figures::default())
}

async fn no_room(stage: &mut Stage) -> Result<Figures, Failure> {
    let small = ["--max-containers", "4"];
    let setup = Setup {
        rep: &small,
        cells: &THREE,
        instances: 12,
        ..Setup::default()
    };
    let before = stage.set(setup).await?;
    stage.fault();
    stage.site.kill_cell(&stage.cell("b")).await;
    eventually("four wait and say why", START, || async {
        let now = stage.site.instances(WEB).await.ok()?;
        let waiting = now
            .iter()
            .filter_map(|lrp| lrp.status.as_ref())
            .filter(|status| {
                let why = status.placement_error.as_deref().unwrap_or_default();
                status.state == ActualLRPState::Unclaimed && why.contains("insufficient resources")
            });
        (waiting.count() == 4).then_some(())
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let rest = versions(stage).await?;
    tokio::time::sleep(Duration::from_secs(7)).await;
    if versions(stage).await? != rest {
        return Err("what waits was written again".into());
    }
    let since = stage.fault();
    stage.start_rep("d", "z2", &small).await?;
    let away = stage.moved(&before, &["b"], since).await?;
    let longest = away.iter().copied().fold(0.0, f64::max);
    Ok(Figures::note(format!(
        "all ran {longest:.1} s after another Cell was started"
    )))
}
