//! The whole system on a real API server, a real etcd and real processes.

#[path = "../support/mod.rs"]
mod support;

mod api;
mod auction;
mod bench;
mod callbacks;
mod cell_returns;
mod crowd;
mod drain;
mod epochs;
mod evacuate;
mod fence;
mod guard;
mod histories;
mod input;
mod joining;
mod kubectl;
mod leader;
mod lost_cell;
mod metrics;
mod metrics_access;
mod nodes;
mod observer;
mod old_cluster;
mod pods;
mod probes;
mod proof;
mod reasons;
mod retire;
mod safety_net;
mod scale;
mod secrets;
mod story;
mod unreadable;
mod work;
