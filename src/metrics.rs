//! Every metric of the controller, of the API client and of the build, defined once.
//!
//! Names that stock dashboards expect are taken over to the letter (`controller_runtime_*`,
//! `rest_client_*`); the domain's own begin with `diego_`. All label sets exist from the start, since
//! `increase()` misses the jump of a series that first appears with its first event.

mod buckets;
pub mod build;
mod client;
mod controller;
mod labels;
mod pods;

pub use client::ClientMetrics;
pub use controller::ControllerMetrics;
pub use labels::*;
pub use pods::{POD_CREATIONS, PodMetrics};
