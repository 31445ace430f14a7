//! The rows, by kind of fault.

mod answers;
mod api;
mod clocks;
mod dropped;
mod frozen;
mod leaders;
mod looks;
mod mass;
mod names;
mod odds;
mod outages;
mod partitions;
mod pressure;
mod rack;
mod reps;
mod rest;
mod store;

use crate::row::{Row, Store};

/// The rows that are made a second time with presences in Leases. Of the others, docs/failures.md tells why
/// not.
const ON_LEASES: &[u32] = &[
    1, 2, 3, 4, 5, 6, 7, 13, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 37, 38, 40, 41, 47, 49,
];

/// Where the presences are when a row is made: once for each.
pub fn stores(row: &Row) -> &'static [Store] {
    if ON_LEASES.contains(&row.number) {
        &[Store::Etcd, Store::Leases]
    } else {
        &[Store::Etcd]
    }
}

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
    rows.extend(pressure::rows());
    rows.extend(clocks::rows());
    rows.extend(names::rows());
    rows.extend(rest::rows());
    rows.sort_by_key(|row| row.number);
    rows
}
