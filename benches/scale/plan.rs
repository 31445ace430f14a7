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

/// A row of the table, which can be run alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Row {
    /// Presences and nothing else.
    Presence,
    /// Convergence passes with nothing to do.
    Idle,
    /// One instance of a hundred is wrong.
    Wrong,
    /// Cells lost one after the other.
    Cell,
    /// A tenth of all Cells lost at once.
    Tenth,
    /// A zone lost.
    Zone,
    /// New leaders, warm and cold, and one that is lost together with a Cell.
    Leader,
    /// Few Cells with the shortest TTL.
    Sharp,
    /// Reps that die while their machines live.
    Proof,
}

/// On what rows are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A fleet, and an API server full of instances.
    Loaded,
    /// A fleet of presences without work.
    Presence,
    /// Few real reps.
    Few,
}

impl Row {
    /// All of them, by the names that `ONLY` takes.
    pub const ALL: [(&'static str, Row); 9] = [
        ("presence", Row::Presence),
        ("idle", Row::Idle),
        ("wrong", Row::Wrong),
        ("cell", Row::Cell),
        ("tenth", Row::Tenth),
        ("zone", Row::Zone),
        ("leader", Row::Leader),
        ("sharp", Row::Sharp),
        ("proof", Row::Proof),
    ];

    fn kind(self) -> Kind {
        match self {
            Row::Presence => Kind::Presence,
            Row::Idle | Row::Wrong | Row::Cell | Row::Tenth | Row::Zone | Row::Leader => {
                Kind::Loaded
            }
            Row::Sharp | Row::Proof => Kind::Few,
        }
    }
}

/// One run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The name of the size.
    pub size: String,
    /// On what.
    pub kind: Kind,
    /// What is measured.
    pub rows: Vec<Row>,
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
    pub ttl: f64,
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
    /// How long presences alone are watched, in minutes.
    pub minutes: f64,
    /// How many new leaders are timed.
    pub leaders: usize,
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
            kind: Kind::Loaded,
            rows: of(Kind::Loaded),
            store: Store::Etcd,
            ttl: 5.0,
            convergence: 30,
            idle_passes: 1,
            guard: true,
            sync: 30,
            raw: (250, 15),
            minutes: 0.5,
            leaders: 3,
        };
        let presence = |cells, minutes| Plan {
            kind: Kind::Presence,
            rows: of(Kind::Presence),
            minutes,
            // All Cells but one may be lost at once.
            guard: false,
            ..plan(cells, 0, 0)
        };
        let few = |row, ttl, kills| Plan {
            kind: Kind::Few,
            rows: vec![row],
            store: Store::Kubernetes,
            ttl,
            ..plan(12, 4, kills)
        };
        Ok(match size {
            "tiny" => vec![
                Plan {
                    per_process: 6,
                    ttl: 3.0,
                    convergence: 2,
                    guard: false,
                    sync: 2,
                    raw: (20, 3),
                    leaders: 1,
                    ..plan(9, 4, 1)
                },
                Plan {
                    ttl: 3.0,
                    convergence: 2,
                    ..presence(9, 0.05)
                },
                Plan {
                    cells: 4,
                    per_cell: 2,
                    ..few(Row::Sharp, 1.0, 1)
                },
            ],
            "small" => vec![
                plan(100, 25, 10),
                presence(200, 0.5),
                few(Row::Sharp, 1.0, 5),
            ],
            // A tenth, a third and all of it: how cost grows.
            "full" => {
                let loaded = [100, 333, 1000].map(|cells| Plan {
                    idle_passes: 2,
                    ..plan(cells, 250, 20)
                });
                let presences = [1000, 2000, 5000].map(|cells| presence(cells, 10.0));
                let sharp = [1.0, 0.5].map(|ttl| few(Row::Sharp, ttl, 40));
                let proof = few(Row::Proof, 5.0, 40);
                let all = loaded.into_iter().chain(presences);
                all.chain(sharp).chain([proof]).collect()
            }
            other => {
                return Err(format!(
                    "SIZE={other} is no size: choose tiny, small or full, and change it by ONLY (rows), CELLS, INSTANCES (on each Cell), KILLS, STORE, TTL, MINUTES and SYNC_SECONDS"
                )
                .into());
            }
        })
    }

    /// Whether the row is measured.
    pub fn has(&self, row: Row) -> bool {
        self.rows.contains(&row)
    }

    /// Whether any of these is.
    pub fn has_any(&self, rows: &[Row]) -> bool {
        rows.iter().any(|row| self.has(*row))
    }

    /// The TTL as the fleet's keepers take it.
    pub fn whole_ttl(&self) -> Result<u32, Failure> {
        let whole = self.ttl as u32;
        if f64::from(whole) == self.ttl && whole > 0 {
            return Ok(whole);
        }
        let ttl = self.ttl;
        Err(format!("TTL={ttl} is no whole number of seconds from 1 on: the fleet takes no other; fractions are for ONLY=sharp and ONLY=proof").into())
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

fn of(kind: Kind) -> Vec<Row> {
    let all = Row::ALL.into_iter().map(|(_, row)| row);
    all.filter(|row| row.kind() == kind).collect()
}
