//! `top`: what Cells have, and what is used of it.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;

use super::cell_row::{self, Load};
use super::cluster::Cluster;
use super::failure::Failure;
use super::kind::Kind;
use super::output::{Row, Screen, say};
use crate::api::Cell;

/// A Cell's use.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Use {
    cell: String,
    zone: String,
    executor: crate::api::ExecutorKind,
    state: String,
    #[serde(rename = "actualLRPs")]
    actual_lrps: i32,
    tasks: i32,
    #[serde(flatten)]
    load: Load,
}

impl Use {
    /// The Cell's.
    pub fn of(cell: &Cell) -> Use {
        let status = cell.status.clone().unwrap_or_default();
        Use {
            cell: cell.name_any(),
            zone: cell.spec.zone.clone(),
            executor: cell.spec.executor,
            state: cell_row::state(cell),
            actual_lrps: status.actual_lrps.unwrap_or(0),
            tasks: status.tasks.unwrap_or(0),
            load: Load::new(cell),
        }
    }
}

impl Row for Use {
    const HEADS: &'static [(&'static str, bool)] = &[
        ("CELL", false),
        ("ZONE", false),
        ("STATE", false),
        ("LRPS", false),
        ("TASKS", false),
        ("CONTAINERS", false),
        ("MEMORY", false),
        ("DISK", false),
        ("EXECUTOR", true),
    ];

    fn values(&self, _: Timestamp) -> Vec<String> {
        vec![
            self.cell.clone(),
            self.zone.clone(),
            self.state.clone(),
            self.actual_lrps.to_string(),
            self.tasks.to_string(),
            self.load.containers(),
            self.load.memory(),
            self.load.disk(),
            format!("{:?}", self.executor),
        ]
    }

    fn id(&self) -> String {
        Kind::Cell.id(&self.cell)
    }
}

/// Shows it, by zone and name.
///
/// # Errors
/// When the Cells can't be read.
pub async fn run(cluster: &Cluster, names: &[String], screen: &Screen) -> Result<(), Failure> {
    let cells = cluster.cells_named(names).await?;
    let mut uses: Vec<Use> = cells.iter().map(Use::of).collect();
    uses.sort_by(|a, b| (&a.zone, &a.cell).cmp(&(&b.zone, &b.cell)));
    if uses.is_empty() {
        say("there are no Cells: no rep has registered; look at the reps' logs");
    }
    screen.show(&uses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixtures::cell;

    #[test]
    fn a_cell_in_one_row() {
        let row = Use::of(&cell("a", "z1", "True", "PresenceHeld")).values(Timestamp::UNIX_EPOCH);
        assert_eq!(
            row.join(" "),
            "a z1 Ready 2 0 2/250 1Gi/4Gi 25% 0/10Gi 0% Process"
        );
    }
}
