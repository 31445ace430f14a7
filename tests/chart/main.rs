//! The chart: what it renders, what it refuses, and that a real API server takes it.

mod alerts;
mod api_server;
mod dashboard;
mod flags;
mod flow;
mod generated;
mod helm;
mod hostile_rep;
mod lint;
mod metrics_access;
mod objects;
mod release;
mod rights;
mod schemas;
mod tenants;
mod values;
