//! The rows, by kind of fault.

mod answers;
mod api;
mod clocks;
mod frozen;
mod leaders;
mod looks;
mod mass;
mod names;
mod odds;
mod outages;
mod partitions;
mod rack;
mod reps;
mod rest;
mod store;

use crate::row::Row;

/// All rows, by number.
pub fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(reps::rows());
    rows.extend(frozen::rows());
    rows.extend(partitions::rows());
    rows.extend(store::rows());
    rows.extend(api::rows());
    rows.extend(leaders::rows());
    rows.extend(mass::rows());
    rows.extend(odds::rows());
    rows.extend(clocks::rows());
    rows.extend(names::rows());
    rows.extend(rest::rows());
    rows.sort_by_key(|row| row.number);
    rows
}
