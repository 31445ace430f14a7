//! The whole system on a real API server, a real etcd and real processes.

#[path = "../support/mod.rs"]
mod support;

mod api;
mod cell_returns;
mod drain;
mod input;
mod joining;
mod kubectl;
mod lost_cell;
mod safety_net;
mod work;
