//! Diego on Kubernetes: when a Cell dies, its work runs elsewhere about five seconds later, and nothing is
//! ever moved because the messenger, not the Cell, was lost.
//!
//! ```text
//!  kubectl, helm ──> kube-apiserver: DesiredLRP  ActualLRP  Task  Cell  Pod       (the data)
//!                      ^ watch, write                ^ own Cell, own assignments
//!                 ┌────┴───────┐                ┌────┴───┐
//!                 │ controller │──> Pods        │  rep   │──> processes
//!                 └────┬───────┘                └────┬───┘
//!                      │ watch, confirm              │ renew every TTL/3
//!                      └────> presence store <───────┘                           (the services)
//!                             etcd lease | Lease of the API server
//! ```
//!
//! # The way of a lost Cell
//!
//! 1. [`presence::keeper`]: the rep renews a lease; when its machine dies the lease runs out.
//! 2. [`presence::watcher`]: the controller's watch delivers the DELETE, a re-list finds the difference, or the
//!    controller's own deadline for a Lease passes.
//! 3. [`controller`] (its fast lane): a linearizable read confirms it; the verdict is written on the Cell.
//! 4. [`converge`]: the pure rules decide about everything on that Cell, the auction places it in one batch.
//! 5. [`controller`] (its executor): one compare-and-swap per object, bounded in number and time.
//! 6. On a node the controller makes the Pod ([`converge::pods`] decides); elsewhere the [`rep`] of the chosen Cell
//!    sees its assignment, claims it and starts it.
//!
//! # What always holds
//!
//! - At most one ordinary instance per DesiredLRP and index; a Task runs at most once.
//! - Nothing is moved or failed for a Cell whose presence existed at the confirming read. An error, or a view
//!   that may be stale, is never a loss; an unreadable presence is a presence.
//! - Epochs only grow. What is recorded under an epoch before the incarnation's first died with an earlier one.
//! - Every write is conditional on the version it was decided on.
//! - The immediate reaction and the periodic resync run the same rules, from the same code.

pub mod api;
mod backoff;
pub mod boottime;
pub mod callback;
pub mod check;
pub mod client;
pub mod config;
pub mod controller;
pub mod converge;
pub mod fence;
pub mod http;
mod lenient;
pub mod metrics;
pub mod patch;
pub mod plugin;
pub mod presence;
pub mod rep;
pub mod start;
mod sync;
pub mod telemetry;
mod told;
mod watching;
pub mod witness;
