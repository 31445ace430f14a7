//! What runs where, as a value: Cells by zone, their instances, and what has no Cell.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;

use crate::api::{ActualLRP, ActualLRPState, Cell, Task, TaskState};
use crate::plugin::cell_row::{self, Load};
use crate::plugin::kind::Kind;
use crate::plugin::output::Row;

/// What a block stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Mark {
    /// An instance that runs.
    Running,
    /// An instance that its Cell starts, or is to start.
    Starting,
    /// The instance on a missing Cell, kept until its replacement runs.
    Suspect,
    /// The instance on a Cell that is being drained, kept until its replacement runs.
    Evacuating,
    /// A Task that runs.
    Task,
    /// A Task that its Cell is to start.
    TaskStarting,
}

impl Mark {
    /// All of them, in the order in which they are drawn.
    pub const ALL: [Mark; 6] = [
        Mark::Running,
        Mark::Starting,
        Mark::Suspect,
        Mark::Evacuating,
        Mark::Task,
        Mark::TaskStarting,
    ];
}

/// One instance or Task on a Cell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Block {
    /// What it stands for.
    pub mark: Mark,
    /// Its namespace.
    pub namespace: String,
    /// The DesiredLRP it is an instance of; empty for a Task.
    #[serde(rename = "desiredLRP", skip_serializing_if = "String::is_empty")]
    pub process: String,
    /// Its name.
    pub name: String,
}

impl Block {
    /// What has one colour: a DesiredLRP.
    pub fn owner(&self) -> (&str, &str) {
        (&self.namespace, &self.process)
    }
}

/// A Cell and what is on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OnCell {
    /// The Cell's name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// How it is, in one word.
    pub state: String,
    /// What it has and what is used of it.
    #[serde(flatten)]
    pub load: Load,
    /// What is on it, of the namespaces that were looked at.
    pub blocks: Vec<Block>,
}

/// An instance without a Cell, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its namespace and name.
    pub name: (String, String),
    /// What it waits for.
    pub why: String,
}

/// What runs where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Picture {
    /// Cells by zone and name.
    pub zones: BTreeMap<String, Vec<OnCell>>,
    /// Instances without a Cell.
    pub waiting: Vec<Waiting>,
}

impl Picture {
    /// The picture of these objects.
    pub fn new<'a>(
        cells: impl IntoIterator<Item = &'a Cell>,
        lrps: impl IntoIterator<Item = &'a ActualLRP>,
        tasks: impl IntoIterator<Item = &'a Task>,
    ) -> Picture {
        let mut blocks: BTreeMap<String, Vec<Block>> = BTreeMap::new();
        let mut waiting = Vec::new();
        for lrp in lrps {
            for (cell, mark) in places(lrp) {
                blocks.entry(cell).or_default().push(Block {
                    mark,
                    namespace: lrp.namespace().unwrap_or_default(),
                    process: lrp.spec.desired_lrp_name.clone(),
                    name: lrp.name_any(),
                });
            }
            waiting.extend(why_it_waits(lrp));
        }
        for task in tasks {
            let status = task.status.clone().unwrap_or_default();
            let mark = match status.state {
                TaskState::Running => Mark::Task,
                TaskState::Pending => Mark::TaskStarting,
                TaskState::Completed | TaskState::Resolving => continue,
            };
            if let Some(cell) = status.cell_name {
                blocks.entry(cell).or_default().push(Block {
                    mark,
                    namespace: task.namespace().unwrap_or_default(),
                    process: String::new(),
                    name: task.name_any(),
                });
            }
        }
        let mut zones: BTreeMap<String, Vec<OnCell>> = BTreeMap::new();
        for cell in cells {
            let name = cell.name_any();
            let mut blocks = blocks.remove(&name).unwrap_or_default();
            // Instances of one DesiredLRP stand together, Tasks last.
            blocks.sort_by_cached_key(|block| {
                let owner = (block.namespace.clone(), block.process.clone());
                (
                    block.process.is_empty(),
                    owner,
                    block.mark,
                    block.name.clone(),
                )
            });
            zones
                .entry(cell.spec.zone.clone())
                .or_default()
                .push(OnCell {
                    name,
                    zone: cell.spec.zone.clone(),
                    state: cell_row::state(cell),
                    load: Load::new(cell),
                    blocks,
                });
        }
        for cells in zones.values_mut() {
            cells.sort_by(|a, b| a.name.cmp(&b.name));
        }
        // What is left names Cells that are no more: their instances are still told of, but for those that were to be
        // replaced: their slot is told of where it runs or waits.
        for (name, blocks) in blocks {
            let own = |block: &Block| !matches!(block.mark, Mark::Suspect | Mark::Evacuating);
            let lost = blocks.into_iter().filter(own).map(|block| Waiting {
                name: (block.namespace, block.name),
                why: format!("its Cell {name} is deleted"),
            });
            waiting.extend(lost);
        }
        waiting.sort_by(|a, b| a.name.cmp(&b.name));
        Picture { zones, waiting }
    }

    /// All Cells, by zone and name.
    pub fn cells(&self) -> impl Iterator<Item = &OnCell> {
        self.zones.values().flatten()
    }
}

/// The Cells that an ActualLRP names, and as what.
fn places(lrp: &ActualLRP) -> Vec<(String, Mark)> {
    let status = lrp.status.clone().unwrap_or_default();
    let ordinary = match status.state {
        ActualLRPState::Running => Mark::Running,
        ActualLRPState::Claimed | ActualLRPState::Unclaimed | ActualLRPState::Crashed => {
            Mark::Starting
        }
    };
    let ordinary = status.cell_name.map(|cell| (cell, ordinary));
    let suspect = status.suspect.map(|one| (one.cell_name, Mark::Suspect));
    let evacuating = status
        .evacuating
        .map(|one| (one.cell_name, Mark::Evacuating));
    [ordinary, suspect, evacuating]
        .into_iter()
        .flatten()
        .collect()
}

/// Why an ActualLRP has no Cell, if it has none.
fn why_it_waits(lrp: &ActualLRP) -> Option<Waiting> {
    let status = lrp.status.clone().unwrap_or_default();
    let why = match (status.state, status.cell_name) {
        (_, Some(_)) => return None,
        (ActualLRPState::Crashed, None) => {
            let crashes = status.crash_count.unwrap_or(0);
            let reason = status.crash_reason.unwrap_or_default();
            format!("crashed {crashes} times: {reason}")
        }
        (_, None) => status.placement_error.unwrap_or("waits for a Cell".into()),
    };
    Some(Waiting {
        name: (lrp.namespace().unwrap_or_default(), lrp.name_any()),
        why,
    })
}

impl Row for OnCell {
    // Drawn instead where people look at it.
    const HEADS: &'static [(&'static str, bool)] = &[("CELL", false)];

    fn values(&self, _: Timestamp) -> Vec<String> {
        vec![self.name.clone()]
    }

    fn id(&self) -> String {
        Kind::Cell.id(&self.name)
    }
}
