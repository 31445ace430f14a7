//! Diego on Kubernetes.

pub mod api;
mod backoff;
pub mod client;
pub mod config;
pub mod controller;
pub mod converge;
pub mod http;
pub mod metrics;
pub mod presence;
pub mod rep;
pub mod telemetry;
mod watching;
