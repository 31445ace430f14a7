//! Presence against real stores, etcd and the API server: what a rep keeps, what the controller hears of it, and what
//! faults do to both.
//!
//! `contract` holds for every store, and its tests run against each: `contract::etcd::*`, `contract::kubernetes::*`. The
//! others are of one store alone.

mod contract;
mod etcd;
mod kubernetes;
mod proxy;
mod support;
