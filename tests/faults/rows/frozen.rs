//! Rows about a rep, or a whole Cell, that stands still for a while.

use std::time::Duration;

use diego_operator::api::CellState;

use super::looks::{epoch, none_ended, versions};
use crate::renewals;
use crate::row::{Figures, Protection, Row, Tried};
use crate::stage::{ONCE, RECOVERY, Setup, Stage, THREE};
use crate::support::{Failure, eventually, site::START, tree};

pub fn rows() -> Vec<Row> {
    vec![
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
    ]
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
