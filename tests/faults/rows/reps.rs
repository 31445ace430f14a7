//! Reps that die, restart and leave, and such as take another's name.

use diego_operator::api::{ActualLRPState, CellState};

use super::looks::{self, no_loss, none_ended, versions};
use crate::row::{Figures, Protection, Row, Tried};
use crate::stage::{RECOVERY, Setup, Stage, THREE, WEB};
use crate::support::{Failure, eventually, site::START, tree};

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            number: 1,
            fault: "a rep is killed and stays dead",
            promise: "its instances run elsewhere, at most 5.6 s and their start later; its running Tasks fail, pending ones wait on",
            tried: Tried::Here {
                injected: "SIGKILL of the rep and of its witness, as when the machine ends",
                protection: Protection::Seen {
                    without: "the controller reacts to a presence that ends, and does not wait for its periodic pass",
                    said: "all ran elsewhere after 30.31 s",
                },
                short: true,
                run: |stage| Box::pin(killed(stage)),
            },
        },
        Row {
            number: 2,
            fault: "a rep is killed and restarted within its TTL",
            promise: "what it ran died with it: it runs again on the same Cell under a new epoch, its Task fails, and nothing is moved",
            tried: Tried::Here {
                injected: "SIGKILL of a rep with TTL 20 s, started again at once",
                protection: Protection::Seen {
                    without: "the controller tells a new incarnation from a return",
                    said: "the instances that died with the rep did not run again within 60 s",
                },
                short: false,
                run: |stage| Box::pin(restarted(stage)),
            },
        },
        Row {
            number: 3,
            fault: "a rep is asked to stop",
            promise: "each instance starts elsewhere before it stops here; no loss is counted",
            tried: Tried::Here {
                injected: "SIGTERM of the rep",
                protection: Protection::Seen {
                    without: "a rep that is to stop waits until its work runs elsewhere",
                    said: "an instance began after its predecessor had ended",
                },
                short: false,
                run: |stage| Box::pin(asked_to_stop(stage)),
            },
        },
        Row {
            number: 32,
            fault: "two reps have the same name",
            promise: "the second one ends and says why; the first one is not disturbed",
            tried: Tried::Here {
                injected: "a second rep with the same --cell-id and a work directory of its own",
                protection: Protection::Seen {
                    without: "a presence is registered only where there is none, or one of its own",
                    said: "the second rep did not end: it had taken the presence away",
                },
                short: true,
                run: |stage| Box::pin(same_name(stage)),
            },
        },
        Row {
            number: 33,
            fault: "a Cell comes back with an empty disk while its old presence is still held",
            promise: "it waits until that has expired, and then has a new epoch; what it ran is treated as lost",
            tried: Tried::Here {
                injected: "SIGKILL of the Cell, started at once with another work directory",
                protection: Protection::Seen {
                    without: "only the owner's token takes a presence over",
                    said: "it took the presence over after 0.62 s",
                },
                short: false,
                run: |stage| Box::pin(empty_disk(stage)),
            },
        },
    ]
}

async fn killed(stage: &mut Stage) -> Result<Figures, Failure> {
    let setup = Setup {
        cells: &THREE,
        instances: 15,
        tasks: 3,
        once: 3,
        ..Setup::default()
    };
    let before = stage.set(setup).await?;
    stage.run_waiting_task("nowhere").await?;
    let since = stage.fault();
    let lost = stage.cell("b");
    let rep = stage.site.rep(&lost).process.pid();
    tree::kill_one(tree::witness(rep).ok_or("the rep has no witness")?);
    stage.site.rep(&lost).process.kill();
    let away = stage.recovered(&before, &["b"], since, RECOVERY).await?;
    stage.tasks_failed(1, 2).await?;
    stage.site.cell_state(&lost, CellState::Missing).await?;
    Ok(Figures::away(away))
}

async fn restarted(stage: &mut Stage) -> Result<Figures, Failure> {
    let setup = Setup {
        rep: &["--presence-ttl-seconds", "20"],
        cells: &THREE,
        instances: 9,
        tasks: 3,
        ..Setup::default()
    };
    let before = stage.set(setup).await?;
    let cell = stage.cell("b");
    let epoch = looks::epoch(stage, &cell).await?;
    stage.fault();
    stage.site.restart_rep(&cell).await?;
    eventually("it is back under a new epoch", START, || async {
        let now = looks::epoch(stage, &cell).await.ok()?;
        (now > epoch).then_some(())
    })
    .await?;
    // Each instance is where it was, and those of the restarted rep are new runs.
    eventually("all run again where they ran", START, || async {
        let now = stage.site.instances(WEB).await.ok()?;
        let well = now.iter().zip(&before).all(|(now, before)| {
            let now = now.status.clone().unwrap_or_default();
            let before = before.status.clone().unwrap_or_default();
            let fresh = now.instance_guid != before.instance_guid;
            let was_there = before.cell_name.as_deref() == Some(&cell);
            let runs = now.state == ActualLRPState::Running;
            runs && now.cell_name == before.cell_name && fresh == was_there
        });
        well.then_some(())
    })
    .await?;
    stage.tasks_failed(1, 2).await?;
    no_loss(stage).await?;
    Ok(Figures::default())
}

async fn asked_to_stop(stage: &mut Stage) -> Result<Figures, Failure> {
    let setup = Setup {
        cells: &THREE,
        instances: 9,
        ..Setup::default()
    };
    let before = stage.set(setup).await?;
    let cell = stage.cell("b");
    let since = stage.fault();
    let status = stage.site.stop_rep(&cell).await?;
    if !status.success() {
        return Err(format!("the rep ended with {status}").into());
    }
    let away = stage.moved(&before, &["b"], since).await?;
    let runs = stage.observer().runs();
    let mut overlaps = Vec::new();
    for (began, run, _) in &runs {
        let ended = runs.iter().find_map(|(_, other, ended)| {
            let same_slot = other.index == run.index && other.guid != run.guid;
            (same_slot && other.cell == cell).then_some(*ended)
        });
        let Some(ended) = ended.flatten().filter(|_| run.cell != cell) else {
            continue;
        };
        // Seen to be gone before its replacement began.
        if ended < *began {
            return Err(format!("{run:?} began after its predecessor had ended").into());
        }
        overlaps.push((ended - *began) as f64 / 1e9);
    }
    if overlaps.len() != stage.on(&before, "b") || overlaps.is_empty() {
        return Err(format!("{} instances were seen to be handed over", overlaps.len()).into());
    }
    let least = overlaps.iter().copied().fold(f64::INFINITY, f64::min);
    no_loss(stage).await?;
    stage.site.cell_state(&cell, CellState::Evacuated).await?;
    Ok(Figures::away(away).and(format!(
        "each predecessor went on for {least:.2} s or longer"
    )))
}

async fn same_name(stage: &mut Stage) -> Result<Figures, Failure> {
    let setup = Setup {
        cells: &[("a", "z1")],
        instances: 3,
        tasks: 1,
        ..Setup::default()
    };
    stage.set(setup).await?;
    let before = versions(stage).await?;
    let cell = stage.cell("a");
    stage.fault();
    let second = stage
        .site
        .start_extra_rep(&cell, &format!("{cell}-second"), &[])?;
    let status = tokio::time::timeout(START, second.wait()).await?;
    let said = std::fs::read_to_string(second.log())?;
    if status.success() || !said.contains("held by another rep") || !said.contains("--cell-id") {
        return Err(format!("the second rep ended with {status} and said: {said}").into());
    }
    let after = versions(stage).await?;
    if before != after {
        return Err(format!("{before:?} became {after:?}").into());
    }
    none_ended(stage).await?;
    Ok(Figures::default())
}

async fn empty_disk(stage: &mut Stage) -> Result<Figures, Failure> {
    let setup = Setup {
        cells: &THREE,
        instances: 9,
        tasks: 3,
        ..Setup::default()
    };
    let before = stage.set(setup).await?;
    let cell = stage.cell("b");
    let epoch = looks::epoch(stage, &cell).await?;
    let since = stage.fault();
    stage.site.kill_cell(&cell).await;
    std::fs::remove_dir_all(stage.site.dir().join(&cell))?;
    stage.site.spawn_rep(&cell, "z2", &[]).await?;
    stage.site.cell_state(&cell, CellState::Present).await?;
    let waited = (crate::observer::facts::now() - since) as f64 / 1e9;
    if looks::epoch(stage, &cell).await? <= epoch {
        return Err("it is back without a new epoch".into());
    }
    if waited < 3.0 {
        return Err(format!("it took the presence over after {waited:.2} s").into());
    }
    // Elsewhere, or on the Cell that is back: what it ran is gone either way.
    let after = stage.running(|_| true).await?;
    for (now, before) in after.iter().zip(&before) {
        let now = now.status.clone().unwrap_or_default();
        let before = before.status.clone().unwrap_or_default();
        let was_lost = before.cell_name.as_deref() == Some(&cell);
        if was_lost != (now.instance_guid != before.instance_guid) {
            return Err(format!("{before:?} became {now:?}").into());
        }
    }
    stage.tasks_failed(1, 2).await?;
    Ok(Figures::note(format!("it was back after {waited:.1} s")))
}
