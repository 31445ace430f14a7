//! End to end: real kubelets, containers and Services on one machine, each node in namespaces of its own. Needs root.

#[path = "../support/mod.rs"]
mod support;

mod etcd;
mod failures;
mod fencing;
mod image;
mod input;
mod installed;
mod lifecycle;
mod look;
mod monitoring;
mod nodes;
mod prometheus;
mod refusals;
mod site;
mod stream;
