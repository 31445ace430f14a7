//! `evacuate`: Cells are emptied, start before stop, and waited for.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::args::EvacuateArgs;
use super::cell_row::{self, takes_work};
use super::cells::ask;
use super::cluster::Cluster;
use super::done::Done;
use super::failure::Failure;
use super::kind::Kind;
use super::mirror::Mirror;
use super::output::{Screen, say};
use super::text::{age, count};
use crate::api::{ActualLRP, Cell, CellState};
use crate::watching;

/// Progress on a terminal is told again this often.
const TICK: Duration = Duration::from_secs(1);

/// Moves the work of Cells away, and waits until it has moved.
///
/// # Errors
/// When one is not there, is lost meanwhile, or takes longer than it may.
pub async fn run(cluster: &Cluster, args: &EvacuateArgs, screen: &Screen) -> Result<(), Failure> {
    let all = cluster.cells_named(&[]).await?;
    for name in &args.cells {
        if !all.iter().any(|cell| cell.name_any() == *name) {
            return Err(cluster.not_found(&cluster.cells(), Kind::Cell, name).await);
        }
    }
    if let Some(words) = no_room(&all, &args.cells) {
        say(&words);
    }
    for name in &args.cells {
        ask(cluster, name, json!({ "evacuate": true })).await?;
        if args.no_wait {
            Done::new(Kind::Cell, None, name, "evacuating").show(screen)?;
        }
    }
    if args.no_wait {
        return Ok(());
    }
    let mut wait = Wait::new(&args.cells);
    match args.timeout {
        Duration::ZERO => wait.until_done(cluster, screen).await,
        timeout => match tokio::time::timeout(timeout, wait.until_done(cluster, screen)).await {
            Ok(result) => result,
            Err(_) => {
                wait.progress.clear();
                Err(Failure::TimedOut(wait.overdue(timeout)))
            }
        },
    }
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

fn deleted(name: &str) -> Failure {
    Failure::Failed(format!("{name} was deleted meanwhile"))
}

/// The Cells that are waited for.
struct Wait {
    /// What each was last.
    cells: BTreeMap<String, Option<Cell>>,
    /// All instances, where they may be seen.
    lrps: Mirror<ActualLRP>,
    progress: Progress,
}

impl Wait {
    fn new(names: &[String]) -> Wait {
        Wait {
            cells: names.iter().map(|name| (name.clone(), None)).collect(),
            lrps: Mirror::new(),
            progress: Progress::new(),
        }
    }

    async fn until_done(&mut self, cluster: &Cluster, screen: &Screen) -> Result<(), Failure> {
        let mut events = watching::events(cluster.cells(), watcher::Config::default());
        let of_all = Api::<ActualLRP>::all(cluster.client.clone());
        let mut instances = watching::events(of_all, watcher::Config::default());
        let mut tick = tokio::time::interval(TICK);
        let mut lost = Vec::new();
        while !self.cells.is_empty() {
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::Apply(cell) | Event::InitApply(cell)) => {
                        match self.heard(cell) {
                            Some(Ok(name)) => {
                                self.progress.clear();
                                Done::new(Kind::Cell, None, &name, "evacuated").show(screen)?;
                            }
                            Some(Err(words)) => {
                                self.progress.clear();
                                say(&words);
                                lost.push(words);
                            }
                            None => {}
                        }
                    }
                    Some(Event::Delete(cell)) => {
                        if self.cells.remove(&cell.name_any()).is_some() {
                            return Err(deleted(&cell.name_any()));
                        }
                    }
                    Some(Event::Init) => {}
                    Some(Event::InitDone) => {
                        if let Some((name, _)) = self.cells.iter().find(|(_, cell)| cell.is_none()) {
                            return Err(deleted(name));
                        }
                    }
                    None => return Err(Failure::Failed("the watch ended".into())),
                },
                Some(event) = instances.next() => {
                    self.lrps.apply(event);
                }
                _ = tick.tick() => self.progress.tell(&self.words()),
            }
        }
        match lost.len() {
            0 => Ok(()),
            number => Err(Failure::Failed(format!(
                "{} could not be evacuated",
                count(number, "Cell")
            ))),
        }
    }

    /// Takes what is new of a Cell; tells its end, good or bad.
    fn heard(&mut self, cell: Cell) -> Option<Result<String, String>> {
        let name = cell.name_any();
        let slot = self.cells.get_mut(&name)?;
        let state = cell.status.as_ref().and_then(|status| status.state);
        let wanted = cell.spec.evacuate.unwrap_or(false);
        *slot = Some(cell);
        let end = match (state, wanted) {
            (Some(CellState::Evacuated), _) => Ok(name.clone()),
            (Some(CellState::Missing), _) => Err(format!(
                "{name} was lost: what was left there runs elsewhere; kubectl diego trace cell/{name} shows it"
            )),
            (_, false) => Err(format!("{name}: somebody has taken the evacuation back")),
            (Some(CellState::Present | CellState::Evacuating) | None, true) => return None,
        };
        self.cells.remove(&name);
        Some(end)
    }

    /// How far it is.
    fn words(&self) -> String {
        let of = |(name, cell): (&String, &Option<Cell>)| {
            let status = cell.as_ref().and_then(|cell| cell.status.as_ref());
            match status {
                Some(status) => {
                    let left = cell_row::left(status, self.instances(name));
                    format!("{name}: {left}")
                }
                None => format!("{name}: asked"),
            }
        };
        self.cells.iter().map(of).collect::<Vec<_>>().join("; ")
    }

    /// How many instances name a Cell, if that is known.
    fn instances(&self, cell: &str) -> Option<usize> {
        let is_there = |lrp: &&ActualLRP| {
            let status = lrp.status.as_ref();
            status.is_some_and(|status| status.named().any(|one| one.cell == cell))
        };
        let count = || self.lrps.shown.values().filter(is_there).count();
        self.lrps.listed.then(count)
    }

    /// What to say when the time is up.
    fn overdue(&self, timeout: Duration) -> String {
        let names: Vec<&str> = self.cells.keys().map(String::as_str).collect();
        format!(
            "not done within {} s: {}; it goes on by itself; wait again with kubectl diego evacuate {names}, or take it back with kubectl diego uncordon {names}",
            timeout.as_secs(),
            self.words(),
            names = names.join(" ")
        )
    }
}

/// Words on stderr: one line that changes on a terminal, else one line for each change.
struct Progress {
    terminal: bool,
    last: String,
    began: Timestamp,
}

impl Progress {
    fn new() -> Progress {
        Progress {
            terminal: std::io::stderr().is_terminal(),
            last: String::new(),
            began: Timestamp::now(),
        }
    }

    fn tell(&mut self, words: &str) {
        if words.is_empty() {
            return;
        }
        if self.terminal {
            let age = age(self.began, Timestamp::now());
            let _ = write!(
                std::io::stderr(),
                "\r\x1b[K{}",
                super::text::cut(&format!("{age}  {words}"), 79)
            );
        } else if self.last != words {
            say(words);
        }
        self.last = words.to_owned();
    }

    /// Makes room for a result.
    fn clear(&mut self) {
        if self.terminal && !self.last.is_empty() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixtures::cell;

    fn in_state(name: &str, state: CellState, evacuate: bool) -> Cell {
        let mut cell = cell(name, "z1", "True", "PresenceHeld");
        cell.spec.evacuate = Some(evacuate);
        cell.status.as_mut().unwrap().state = Some(state);
        cell
    }

    #[test]
    fn an_evacuation_ends_well_or_is_told_otherwise() {
        let names = ["a", "b", "c"].map(String::from);
        let mut wait = Wait::new(&names);
        assert_eq!(
            wait.heard(in_state("other", CellState::Evacuated, true)),
            None
        );
        assert_eq!(wait.heard(in_state("a", CellState::Present, true)), None);
        assert_eq!(wait.heard(in_state("a", CellState::Evacuating, true)), None);
        assert_eq!(
            wait.words(),
            "a: Evacuating, 0 Tasks left; b: asked; c: asked"
        );
        assert_eq!(
            wait.heard(in_state("a", CellState::Evacuated, true)),
            Some(Ok("a".into()))
        );
        let lost = wait.heard(in_state("b", CellState::Missing, true)).unwrap();
        assert!(lost.unwrap_err().starts_with("b was lost"));
        let back = wait
            .heard(in_state("c", CellState::Evacuating, false))
            .unwrap();
        assert!(back.unwrap_err().contains("taken the evacuation back"));
        assert!(wait.cells.is_empty());
    }

    #[test]
    fn an_evacuation_without_another_cell_is_told_before() {
        let all = [
            in_state("a", CellState::Present, false),
            in_state("b", CellState::Present, false),
            cell("c", "z1", "True", "Unschedulable"),
        ];
        assert_eq!(no_room(&all, &["a".into()]), None);
        assert!(no_room(&all, &["a".into(), "b".into()]).is_some());
    }
}
