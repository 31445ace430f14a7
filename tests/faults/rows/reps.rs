//! Reps that die, freeze, restart and leave.

use std::time::Duration;

use diego_operator::api::{ActualLRPState, CellState};
use kube::api::ListParams;

use crate::observer::facts::Fact;
use crate::renewals;
use crate::row::{Figures, Protection, Row, Tried};
use crate::stage::{ONCE, RECOVERY, Setup, Stage, THREE, WEB};
use crate::support::{Failure, eventually, http, site::START, tree};

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            number: 1,
            fault: "a rep is killed and stays dead",
            promise: "its instances run elsewhere, at most 5.6 s and their start later; its running Tasks fail, pending ones wait on",
            tried: Tried::Here {
                injected: "SIGKILL of the rep",
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
            number: 4,
            fault: "a rep is frozen for less than its TTL",
            promise: "nothing happens at all: no record is written",
            tried: Tried::Here {
                injected: "SIGSTOP of a rep with TTL 8 s just before it renews, SIGCONT 3 s later",
                protection: Protection::Seen {
                    without: "several renewals fit into a TTL (instead: one per 0.9 TTL)",
                    said: "records were written: the Cell was taken for lost",
                },
                short: false,
                run: |stage| Box::pin(frozen_shortly(stage)),
            },
        },
        Row {
            number: 5,
            fault: "a rep is frozen for longer than its TTL",
            promise: "its instances go on as suspects until their replacements run; when it thaws it stops them, says nothing of old, and has a new epoch",
            tried: Tried::Here {
                injected: "SIGSTOP of the rep, SIGCONT 15 s later",
                protection: Protection::Seen {
                    without: "a rep that is back stops what is recorded elsewhere",
                    said: "what it ran had not stopped within 60 s",
                },
                short: false,
                run: |stage| Box::pin(frozen_long(stage)),
            },
        },
        Row {
            number: 6,
            fault: "a whole Cell is frozen, what it runs included",
            promise: "as before; from its thaw until its rep has read the records, its instances run beside their replacements, not routed to",
            tried: Tried::Here {
                injected: "SIGSTOP of the rep and everything below it, SIGCONT 15 s later",
                protection: Protection::Seen {
                    without: "a rep that is back stops what is recorded elsewhere",
                    said: "what it ran had not stopped within 60 s",
                },
                short: false,
                run: |stage| Box::pin(frozen_whole(stage)),
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
    let epoch = epoch(stage, &cell).await?;
    stage.fault();
    stage.site.restart_rep(&cell).await?;
    eventually("it is back under a new epoch", START, || async {
        let now = self::epoch(stage, &cell).await.ok()?;
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

async fn frozen_shortly(stage: &mut Stage) -> Result<Figures, Failure> {
    let setup = Setup {
        controller: &["--convergence-interval-seconds", "1"],
        rep: &["--presence-ttl-seconds", "8"],
        cells: &THREE,
        instances: 6,
        tasks: 3,
        once: 3,
        ..Setup::default()
    };
    stage.set(setup).await?;
    let before = versions(stage).await?;
    let cell = stage.cell("b");
    renewals::just_before(stage, &cell).await?;
    stage.fault();
    stage.site.rep(&cell).process.pause();
    tokio::time::sleep(Duration::from_secs(3)).await;
    stage.site.rep(&cell).process.resume();
    // Longer than the rest of the TTL: the loss, were there one, would be seen by then.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let after = versions(stage).await?;
    if before != after {
        return Err(format!("{before:?} became {after:?}").into());
    }
    none_ended(stage).await?;
    Ok(Figures::default())
}

async fn frozen_long(stage: &mut Stage) -> Result<Figures, Failure> {
    let suspect = frozen(stage, false).await?;
    stage.conclude().await?;
    stage.fresh().await?;
    let strict = frozen_strict(stage).await?;
    let note = format!("{}; {strict}", suspect.note);
    Ok(suspect.and(note))
}

/// With `Strict` what runs is killed by its own supervisor, while the rep is frozen, before anything replaces it.
async fn frozen_strict(stage: &mut Stage) -> Result<String, Failure> {
    let setup = Setup {
        cells: &THREE,
        instances: 9,
        strict: true,
        ..Setup::default()
    };
    let before = stage.set(setup).await?;
    let cell = stage.cell("b");
    let since = stage.fault();
    stage.site.rep(&cell).process.pause();
    // The lock delay, and the controller's look after it.
    let within = RECOVERY.later(2);
    let away = stage.recovered(&before, &["b"], since, within).await?;
    let runs = stage.observer().runs();
    let ends = runs.iter().filter(|(_, run, _)| run.cell == cell);
    let ends: Option<Vec<u64>> = ends.map(|(.., ended)| *ended).collect();
    let ends = ends.ok_or("something still runs on the frozen Cell")?;
    let last = ends.iter().max().ok_or("nothing ran on the frozen Cell")?;
    let killed = (last.saturating_sub(since)) as f64 / 1e9;
    tokio::time::sleep(Duration::from_secs(4)).await;
    stage.fault();
    stage.site.rep(&cell).process.resume();
    stage.site.cell_state(&cell, CellState::Present).await?;
    stage.moved(&before, &["b"], since).await?;
    let first = away.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(format!(
        "Strict: the last one was killed {killed:.2} s after the freeze, the first replacement began after {first:.2} s"
    ))
}

async fn frozen_whole(stage: &mut Stage) -> Result<Figures, Failure> {
    frozen(stage, true).await
}

async fn frozen(stage: &mut Stage, whole: bool) -> Result<Figures, Failure> {
    let setup = Setup {
        cells: &THREE,
        instances: 9,
        tasks: 3,
        // Whoever freezes the supervisor freezes the fence: until it is thawed nothing runs, and then for a moment.
        once: if whole { 0 } else { 3 },
        ..Setup::default()
    };
    let before = stage.set(setup).await?;
    let cell = stage.cell("b");
    let epoch = epoch(stage, &cell).await?;
    let living = stage.observer().living().into_iter();
    let suspects: Vec<u32> = living
        .filter(|run| run.cell == cell && run.process != ONCE)
        .map(|run| run.pid)
        .collect();
    let pid = stage.site.rep(&cell).process.pid();
    let below = tree::descendants(pid);
    let since = stage.fault();
    let frozen = if whole { below.clone() } else { Vec::new() };
    signal_all(&frozen, "STOP")?;
    stage.site.rep(&cell).process.pause();
    let away = stage.recovered(&before, &["b"], since, RECOVERY).await?;
    stage.tasks_failed(1, 2).await?;
    if !suspects.iter().all(|pid| tree::is_alive(*pid)) {
        return Err("something stopped what the frozen Cell ran".into());
    }
    tokio::time::sleep(Duration::from_secs(8)).await;
    let thawed = stage.fault();
    signal_all(&frozen, "CONT")?;
    stage.site.rep(&cell).process.resume();
    stage.site.cell_state(&cell, CellState::Present).await?;
    eventually("what it ran has stopped", START, || async {
        tree::descendants(pid).is_empty().then_some(())
    })
    .await?;
    let stopped = (crate::observer::facts::now() - thawed) as f64 / 1e9;
    if self::epoch(stage, &cell).await? <= epoch {
        return Err("it is back without a new epoch".into());
    }
    // The replacements stay.
    stage.moved(&before, &["b"], since).await?;
    Ok(Figures::away(away).and(format!(
        "after the thaw what it ran was gone in {stopped:.2} s"
    )))
}

fn signal_all(pids: &[u32], signal: &str) -> Result<(), Failure> {
    use nix::sys::signal::{Signal, kill};
    let signal: Signal = format!("SIG{signal}").parse()?;
    for pid in pids {
        kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal)?;
    }
    Ok(())
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
    let epoch = epoch(stage, &cell).await?;
    let since = stage.fault();
    stage.site.kill_cell(&cell).await;
    std::fs::remove_dir_all(stage.site.dir().join(&cell))?;
    stage.site.spawn_rep(&cell, "z2", &[]).await?;
    stage.site.cell_state(&cell, CellState::Present).await?;
    let waited = (crate::observer::facts::now() - since) as f64 / 1e9;
    if self::epoch(stage, &cell).await? <= epoch {
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

/// The epoch in a Cell's ledger.
pub async fn epoch(stage: &Stage, cell: &str) -> Result<i64, Failure> {
    let status = stage.site.cells().get(cell).await?.status;
    let epoch = status.and_then(|status| status.epoch);
    epoch.ok_or_else(|| format!("{cell} has no epoch").into())
}

/// The version of every instance and Task: whatever is written changes it.
pub async fn versions(stage: &Stage) -> Result<Vec<Option<String>>, Failure> {
    versions_of(stage, |_| true).await
}

/// The same of the instances of some processes.
pub async fn versions_of(
    stage: &Stage,
    which: impl Fn(&str) -> bool,
) -> Result<Vec<Option<String>>, Failure> {
    let list = ListParams::default();
    let lrps = stage.site.actual().list(&list).await?.items.into_iter();
    let lrps = lrps.filter(|lrp| which(&lrp.spec.desired_lrp_name));
    let tasks = stage.site.tasks().list(&list).await?.items.into_iter();
    let lrps = lrps.map(|lrp| lrp.metadata.resource_version);
    let tasks = tasks.map(|task| task.metadata.resource_version);
    Ok(lrps.chain(tasks).collect())
}

/// No presence has ended, not even one whose loss the controller does not believe.
pub async fn none_ended(stage: &Stage) -> Result<(), Failure> {
    let entries = stage.observer().log.entries().into_iter();
    let mut ended = entries.filter_map(|entry| match entry.fact {
        Fact::Gone { cell, epoch } => Some((cell, epoch)),
        _ => None,
    });
    match ended.next() {
        None => no_loss(stage).await,
        Some((cell, epoch)) => {
            Err(format!("the presence of {cell} under epoch {epoch} has ended").into())
        }
    }
}

/// The controller has seen no Cell lost, holds back no loss, and has moved nothing off a missing one.
pub async fn no_loss(stage: &Stage) -> Result<(), Failure> {
    let text = stage.site.metrics().await?;
    let sources = ["watch", "timer", "resync"];
    let losses =
        sources.map(|source| format!("diego_cell_presence_expired_total{{source=\"{source}\"}}"));
    let others = [
        "diego_cell_losses_held",
        "diego_actuallrp_starts_total{reason=\"missing-cell\"}",
    ];
    for series in losses.into_iter().chain(others.map(str::to_owned)) {
        let count = http::metric(&text, &series);
        let count = count.ok_or_else(|| format!("there is no metric {series}"))?;
        if count != 0.0 {
            return Err(format!("{series} is {count}").into());
        }
    }
    Ok(())
}
