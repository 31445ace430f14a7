//! What is measured.

use std::time::Duration;

use serde::Serialize;

use crate::support::Failure;

/// The presence store of the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Store {
    /// Leases of an etcd of its own.
    Etcd,
    /// Leases of the API server.
    Kubernetes,
}

/// One run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The name of the size.
    pub size: String,
    /// Cells, in three zones.
    pub cells: usize,
    /// Instances on each of them at first.
    pub per_cell: usize,
    /// Instances of each DesiredLRP.
    pub per_process: usize,
    /// How many Cells are killed one after the other.
    pub kills: usize,
    /// Where the presences are.
    pub store: Store,
    /// Their TTL, in seconds.
    pub ttl: u32,
    /// `--convergence-interval-seconds` of the controller.
    pub convergence: u64,
    /// Convergence intervals for which nothing happens.
    pub idle_passes: u32,
    /// Whether the mass-loss guard is at work. Then its window is waited for before many Cells are lost at once.
    pub guard: bool,
    /// How often each Cell lists its assignments, in seconds, as its rep would; 0 is never.
    pub sync: u64,
    /// How many writes make one burst of the raw rate, and how many bursts are counted.
    pub raw: (usize, usize),
}

impl Plan {
    /// The sizes of that name.
    pub fn named(size: &str) -> Result<Vec<Plan>, Failure> {
        let plan = |cells, per_cell, kills| Plan {
            size: size.to_owned(),
            cells,
            per_cell,
            per_process: 25,
            kills,
            store: Store::Etcd,
            ttl: 5,
            convergence: 30,
            idle_passes: 1,
            guard: true,
            sync: 30,
            raw: (250, 15),
        };
        Ok(match size {
            "tiny" => vec![Plan {
                per_process: 6,
                ttl: 3,
                convergence: 2,
                guard: false,
                sync: 2,
                raw: (20, 3),
                ..plan(9, 4, 1)
            }],
            "small" => vec![plan(100, 25, 10)],
            // A tenth, a third and all of it: how cost grows.
            "full" => [100, 333, 1000]
                .map(|cells| Plan {
                    idle_passes: 2,
                    ..plan(cells, 250, 20)
                })
                .into(),
            other => {
                return Err(format!(
                    "SIZE={other} is no size: choose tiny, small or full, and change it by CELLS, INSTANCES (on each Cell), KILLS, STORE, TTL and SYNC_SECONDS"
                )
                .into());
            }
        })
    }

    /// All instances.
    pub fn instances(&self) -> usize {
        self.cells * self.per_cell
    }

    /// The name of a Cell.
    pub fn cell(n: usize) -> String {
        format!("cell-{n}")
    }

    /// Its zone.
    pub fn zone(n: usize) -> String {
        format!("z{}", n % 3)
    }

    /// How many Cells are lost at once where a tenth of them is.
    pub fn tenth(&self) -> usize {
        (self.cells / 10).max(1)
    }

    /// How long the fleet waits for what takes the API server a while, whatever it is.
    pub fn patience(&self) -> Duration {
        // At 50 writes a second, and 3 for each instance.
        Duration::from_secs(120 + self.instances() as u64 * 3 / 50)
    }
}
