//! End to end: real kubelets, containers and Services on one machine, each node in namespaces of its own. Needs root.

#[path = "../support/mod.rs"]
mod support;

mod failures;
mod installed;
mod lifecycle;
mod look;
mod nodes;
mod site;
mod stream;
