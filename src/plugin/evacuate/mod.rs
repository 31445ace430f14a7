//! `evacuate`: Cells are emptied, start before stop, and waited for.

mod progress;
mod wait;

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use kube::ResourceExt;
use kube::runtime::watcher;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::args::EvacuateArgs;
use super::cell_row::{self, takes_work};
use super::cells::ask;
use super::cluster::Cluster;
use super::done::Done;
use super::failure::Failure;
use super::kind::Kind;
use super::output::{Screen, say};
use super::probe::Probe;
use super::text::count;
use crate::api::{Cell, CellState};
use crate::watching;
use progress::Progress;
use wait::{End, Wait};

/// Progress on a terminal is told again this often, and a broken watch is asked for.
const TICK: Duration = Duration::from_secs(1);

/// So long a Cell may be Evacuated from before it was asked: its rep has to register first.
const DOUBT: Duration = Duration::from_secs(2);

/// Moves the work of Cells away, and waits until it has moved.
///
/// # Errors
/// When one is not there, is lost meanwhile, or takes longer than it may.
pub async fn run(cluster: &Cluster, args: &EvacuateArgs, screen: &Screen) -> Result<(), Failure> {
    let all = cluster.cells_named(&[]).await?;
    let mut doubted = BTreeSet::new();
    for name in &args.cells {
        let Some(cell) = all.iter().find(|cell| cell.name_any() == *name) else {
            return Err(cluster.not_found(&cluster.cells(), Kind::Cell, name).await);
        };
        if let Some(words) = nothing_to_move(cell, &cluster.command()) {
            return Err(Failure::Failed(words));
        }
        if is_doubted(cell) {
            doubted.insert(name.clone());
        }
    }
    if !args.no_wait {
        // Asked first, so that what is missing is told before anything is done.
        cluster.watchable(&cluster.cells()).await?;
    }
    if let Some(words) = no_room(&all, &args.cells) {
        say(&words);
    }
    for (n, name) in args.cells.iter().enumerate() {
        let asked = ask(cluster, name, json!({ "evacuate": true })).await;
        if let Err(failure) = asked {
            if n > 0 {
                let asked = args.cells[..n].join(", ");
                say(&format!(
                    "asked before it failed: {asked}; there it goes on"
                ));
            }
            return Err(failure);
        }
        if args.no_wait {
            Done::new(Kind::Cell, None, name, "evacuating").show(screen)?;
        }
    }
    if args.no_wait {
        return Ok(());
    }
    let mut wait = Wait::new(&args.cells, doubted, cluster.command());
    let mut progress = Progress::new();
    let timeout = async {
        match args.timeout {
            Duration::ZERO => std::future::pending().await,
            timeout => tokio::time::sleep(timeout).await,
        }
    };
    let ended = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Err(None),
        result = until_done(cluster, screen, &mut wait, &mut progress) => Ok(result),
        () = timeout => Err(Some(args.timeout)),
    };
    progress.clear();
    match ended {
        Ok(result) => result,
        Err(Some(timeout)) => Err(Failure::TimedOut(wait.overdue(timeout))),
        Err(None) => Err(Failure::Interrupted(wait.interrupted())),
    }
}

/// Waits until each Cell has come to an end, good or bad.
async fn until_done(
    cluster: &Cluster,
    screen: &Screen,
    wait: &mut Wait,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let (tell, mut breaks) = mpsc::unbounded_channel();
    let broke = move |_| {
        let _ = tell.send(());
    };
    let cells = cluster.cells();
    let mut events = watching::events_telling(cells, watcher::Config::default(), broke);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let believed = tokio::time::sleep(DOUBT);
    tokio::pin!(believed);
    let (mut probe, mut broken, mut doubts, mut lost) = (Probe::default(), false, true, 0);
    while !wait.is_over() {
        let ends = tokio::select! {
            event = events.next() => match event {
                Some(event) => wait.take(event),
                None => return Err(Failure::Failed("the watch ended".into())),
            },
            () = &mut believed, if doubts => {
                doubts = false;
                wait.believe()
            }
            Some(()) = breaks.recv() => {
                broken = true;
                Vec::new()
            }
            answer = probe.answer() => {
                match answer {
                    Err(failure) if failure.is_lasting() => return Err(failure),
                    Err(_) => {}
                    Ok(()) => broken = false,
                }
                Vec::new()
            }
            _ = tick.tick() => {
                if broken {
                    let cluster = cluster.clone();
                    probe.ask(async move { cluster.watchable(&cluster.cells()).await });
                }
                progress.tell(&wait.words());
                Vec::new()
            }
        };
        for (name, end) in ends {
            progress.clear();
            match end {
                End::Evacuated => Done::new(Kind::Cell, None, &name, "evacuated").show(screen)?,
                End::Failed(words) => {
                    say(&words);
                    lost += 1;
                }
            }
        }
    }
    match lost {
        0 => Ok(()),
        number => Err(Failure::Failed(format!(
            "{} could not be evacuated",
            count(number, "Cell")
        ))),
    }
}

fn state(cell: &Cell) -> Option<CellState> {
    cell.status.as_ref().and_then(|status| status.state)
}

/// Why a Cell is not asked: nobody there would hear it.
fn nothing_to_move(cell: &Cell, command: &str) -> Option<String> {
    let name = cell.name_any();
    match state(cell) {
        Some(CellState::Missing) => Some(format!(
            "{name} is Missing: nothing runs there to move; {command} cordon {name} keeps work away when it comes back"
        )),
        None => Some(format!(
            "{name} has not registered yet: nothing runs there to move; {command} cordon {name} keeps work away when it does"
        )),
        Some(CellState::Present | CellState::Evacuating | CellState::Evacuated) => None,
    }
}

/// Whether it is Evacuated from before, and on its way back.
fn is_doubted(cell: &Cell) -> bool {
    state(cell) == Some(CellState::Evacuated) && !cell.spec.evacuate.unwrap_or(false)
}

/// What may go wrong when these Cells are emptied: nobody is left for their work.
fn no_room(all: &[Cell], emptied: &[String]) -> Option<String> {
    let takes = |cell: &&Cell| takes_work(cell) && !emptied.contains(&cell.name_any());
    match all.iter().filter(takes).count() {
        0 => Some(
            "no other Cell is Ready: instances that find no place are stopped when the Cell's --evacuation-timeout-seconds has passed"
                .into(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixtures::{cell, cell_in};

    #[test]
    fn an_evacuation_without_another_cell_is_told_before() {
        let all = [
            cell_in("a", CellState::Present, false),
            cell_in("b", CellState::Present, false),
            cell("c", "z1", "True", "Unschedulable"),
        ];
        assert_eq!(no_room(&all, &["a".into()]), None);
        assert!(no_room(&all, &["a".into(), "b".into()]).is_some());
    }

    #[test]
    fn where_nobody_hears_nothing_is_asked() {
        let words = nothing_to_move(&cell_in("a", CellState::Missing, false), "diego").unwrap();
        assert!(words.starts_with("a is Missing: nothing runs"), "{words}");
        let mut silent = cell_in("a", CellState::Present, false);
        assert_eq!(nothing_to_move(&silent, "diego"), None);
        silent.status = None;
        let words = nothing_to_move(&silent, "diego").unwrap();
        assert!(words.starts_with("a has not registered"), "{words}");
        assert!(is_doubted(&cell_in("a", CellState::Evacuated, false)));
        assert!(!is_doubted(&cell_in("a", CellState::Evacuated, true)));
    }
}
