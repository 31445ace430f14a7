//! The Cells that are waited for, as a value: what a watch tells of them, and how it ends for each.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::watcher::Event;

use super::{cell_row, state};
use crate::api::{Cell, CellState};

/// How it ended for a Cell.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing runs there any more.
    Evacuated,
    /// It did not come to that, and why.
    Failed(String),
}

/// The Cells that are waited for.
pub struct Wait {
    /// What each was last.
    cells: BTreeMap<String, Option<Cell>>,
    /// Those that were Evacuated before they were asked: that counts only when they were something else meanwhile.
    doubted: BTreeSet<String>,
    /// What a new list has brought so far: the others are no more.
    listed: BTreeSet<String>,
    /// What begins a command line that is to be pasted.
    command: String,
}

impl Wait {
    /// Waits for these; nothing is known yet.
    pub fn new(names: &[String], doubted: BTreeSet<String>, command: String) -> Wait {
        Wait {
            cells: names.iter().map(|name| (name.clone(), None)).collect(),
            doubted,
            listed: BTreeSet::new(),
            command,
        }
    }

    /// Whether it has ended for all of them.
    pub fn is_over(&self) -> bool {
        self.cells.is_empty()
    }

    /// Takes what the watch tells; for whom it has ended, and how.
    pub fn take(&mut self, event: Event<Cell>) -> Vec<(String, End)> {
        match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(cell) => {
                self.listed.insert(cell.name_any());
                self.heard(cell).into_iter().collect()
            }
            Event::Apply(cell) => self.heard(cell).into_iter().collect(),
            Event::InitDone => {
                let gone = self
                    .cells
                    .keys()
                    .filter(|name| !self.listed.contains(*name));
                let gone: Vec<String> = gone.cloned().collect();
                gone.iter().filter_map(|name| self.gone(name)).collect()
            }
            // The last that was told of it may be news.
            Event::Delete(cell) => {
                let name = cell.name_any();
                let end = self.heard(cell).or_else(|| self.gone(&name));
                end.into_iter().collect()
            }
        }
    }

    /// Time has passed: a Cell that still is Evacuated will not register first.
    pub fn believe(&mut self) -> Vec<(String, End)> {
        let doubted = std::mem::take(&mut self.doubted);
        let known = doubted
            .iter()
            .filter_map(|name| self.cells.get(name).cloned().flatten());
        let known: Vec<Cell> = known.collect();
        known
            .into_iter()
            .filter_map(|cell| self.heard(cell))
            .collect()
    }

    fn heard(&mut self, cell: Cell) -> Option<(String, End)> {
        let name = cell.name_any();
        let slot = self.cells.get_mut(&name)?;
        let state = state(&cell);
        let wanted = cell.spec.evacuate.unwrap_or(false);
        *slot = Some(cell);
        if state != Some(CellState::Evacuated) {
            self.doubted.remove(&name);
        }
        let end = match (state, wanted) {
            (Some(CellState::Evacuated), true) if self.doubted.contains(&name) => return None,
            (Some(CellState::Evacuated), _) => End::Evacuated,
            (Some(CellState::Missing), _) => End::Failed(format!(
                "{name} was lost: what was left there runs elsewhere; {} trace cell/{name} shows it",
                self.command
            )),
            // What has begun goes on to its end, whoever takes it back.
            (Some(CellState::Evacuating), _) => return None,
            (Some(CellState::Present) | None, false) => End::Failed(format!(
                "{name}: somebody has taken the evacuation back before it began"
            )),
            (Some(CellState::Present) | None, true) => return None,
        };
        self.cells.remove(&name);
        Some((name, end))
    }

    /// A Cell is no more. Who was Evacuated last is done.
    fn gone(&mut self, name: &str) -> Option<(String, End)> {
        let last = self.cells.remove(name)?;
        let end = match last.as_ref().and_then(state) {
            Some(CellState::Evacuated) => End::Evacuated,
            Some(CellState::Present | CellState::Missing | CellState::Evacuating) | None => {
                End::Failed(format!(
                    "{name} is gone: somebody deleted it; if its rep still runs it registers again: then {} evacuate {name}",
                    self.command
                ))
            }
        };
        Some((name.to_owned(), end))
    }

    /// How far it is.
    pub fn words(&self) -> String {
        let of = |(name, cell): (&String, &Option<Cell>)| match cell {
            Some(cell) => format!("{name}: {}", cell_row::left(cell)),
            None => format!("{name}: asked"),
        };
        self.cells.iter().map(of).collect::<Vec<_>>().join("; ")
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.cells.keys().map(String::as_str).collect();
        names.join(" ")
    }

    /// What to say when the time is up.
    pub fn overdue(&self, timeout: Duration) -> String {
        let (names, command) = (self.names(), &self.command);
        format!(
            "not done within {} s: {}; it goes on by itself; wait again with {command} evacuate {names}; with {command} uncordon {names} it takes work again when it has ended",
            timeout.as_secs(),
            self.words(),
        )
    }

    /// What to say when nobody wants to wait any more.
    pub fn interrupted(&self) -> String {
        format!(
            "no longer waited for: {}; it goes on by itself; wait again with {} evacuate {}",
            self.words(),
            self.command,
            self.names()
        )
    }
}

#[cfg(test)]
#[path = "wait_tests.rs"]
mod tests;
