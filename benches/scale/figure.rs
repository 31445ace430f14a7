//! A figure of the report, in one shape for all rows: so that the sizes can be laid beside each other, and each beside its
//! aim.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use super::numbers::growth;
use super::plan::{Plan, Store};

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Aim {
    /// Not more than this.
    AtMost(f64),
    /// Not less than this.
    AtLeast(f64),
}

/// One number.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figure {
    /// The row of the table.
    pub row: String,
    /// What of it.
    pub what: String,
    /// How many Cells there were.
    pub cells: usize,
    /// How many instances in all.
    pub instances: usize,
    /// Where the presences were.
    pub store: String,
    /// Their TTL, in seconds.
    pub ttl: f64,
    /// The number.
    pub value: f64,
    /// Of what.
    pub unit: String,
    /// What it should be.
    pub aim: Option<Aim>,
}

impl Figure {
    /// Of a run.
    pub fn of(plan: &Plan, row: &str, what: &str, value: f64, unit: &str) -> Figure {
        let store = match plan.store {
            Store::Etcd => "etcd",
            Store::Kubernetes => "Leases",
        };
        Figure {
            row: row.into(),
            what: what.into(),
            cells: plan.cells,
            instances: plan.instances(),
            store: store.into(),
            ttl: plan.ttl,
            value,
            unit: unit.into(),
            aim: None,
        }
    }

    /// The same with an aim.
    pub fn aim(self, aim: Aim) -> Figure {
        let aim = Some(aim);
        Figure { aim, ..self }
    }

    /// Whether the aim is met; `None` without an aim.
    pub fn met(&self) -> Option<bool> {
        Some(match self.aim? {
            Aim::AtMost(most) => self.value <= most,
            Aim::AtLeast(least) => self.value >= least,
        })
    }

    /// What is the same at all sizes.
    fn kind(&self) -> (String, String, String, String, String) {
        let (row, what, unit) = (self.row.clone(), self.what.clone(), self.unit.clone());
        (row, what, unit, self.store.clone(), self.ttl.to_string())
    }

    /// What it grows with.
    fn size(&self) -> f64 {
        self.instances.max(self.cells) as f64
    }
}

/// A table of all figures: a line for each, a column for each size, how it grows, and the aim.
pub fn table(figures: &[Figure]) -> String {
    let mut out = String::new();
    // Writing into a String can't fail.
    let _ = write_table(&mut out, figures);
    out
}

fn write_table(out: &mut String, figures: &[Figure]) -> fmt::Result {
    // In the order in which they first come.
    let mut kinds = Vec::new();
    let mut lines: BTreeMap<_, Vec<&Figure>> = BTreeMap::new();
    for figure in figures.iter().filter(|figure| figure.value.is_finite()) {
        let kind = figure.kind();
        if !kinds.contains(&kind) {
            kinds.push(kind.clone());
        }
        lines.entry(kind).or_default().push(figure);
    }
    writeln!(
        out,
        "| row | figure | store, TTL | by Cells x instances | grows as | aim at the greatest size |\n| --- | --- | --- | --- | --- | --- |"
    )?;
    for kind in kinds {
        let Some(mut line) = lines.remove(&kind) else {
            continue;
        };
        line.sort_by(|a, b| a.size().total_cmp(&b.size()));
        let values: Vec<String> = line
            .iter()
            .map(|one| {
                let each = one.instances / one.cells.max(1);
                format!("{} x {each}: **{}**", one.cells, short(one.value))
            })
            .collect();
        let points: Vec<(f64, f64)> = line.iter().map(|one| (one.size(), one.value)).collect();
        let grows = growth(&points).map_or("-".to_owned(), |x| format!("size^{x:.2}"));
        let last = line.last();
        let aim = last.map_or("-".to_owned(), |last| match (last.aim, last.met()) {
            (Some(aim), Some(met)) => {
                let (sign, bound) = match aim {
                    Aim::AtMost(most) => ("<=", most),
                    Aim::AtLeast(least) => (">=", least),
                };
                let met = if met { "met" } else { "**missed**" };
                format!("{sign} {}: {met}", short(bound))
            }
            _ => "-".into(),
        });
        let (row, what, unit, store, ttl) = kind;
        let values = values.join("; ");
        writeln!(
            out,
            "| {row} | {what}, {unit} | {store}, {ttl} s | {values} | {grows} | {aim} |"
        )?;
    }
    Ok(())
}

/// With three digits that count.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        size if size == 0.0 || size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.1 => 3,
        _ => 4,
    };
    format!("{value:.digits$}")
}
