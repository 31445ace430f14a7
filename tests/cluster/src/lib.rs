//! A real Kubernetes API on one machine, without containers: etcd, kube-apiserver and the controllers that collect garbage.
//!
//! Tests, benches and the demo start one with [`LocalCluster::start`] and drop it when they are done. Every start makes an own store,
//! an own certificate authority and own ports, so any number of clusters run side by side. No server outlives the program that
//! started it, however that program ends.
//!
//! [`Nodes`] adds real kubelets with containers, each in namespaces of its own, for tests of what nodes do; that needs root.
//!
//! The binaries come from `KUBEBUILDER_ASSETS`, else from `PATH`, else from `make setup`, which builds them with Go.

mod binaries;
mod child;
mod clients;
mod cluster;
mod dir;
mod error;
mod etcd;
mod http;
mod kubeconfig;
mod nodes;
mod pki;
mod ports;
mod process;
mod run;
mod servers;

pub use binaries::{binary, image};
pub use cluster::{LocalCluster, Options, User};
pub use error::Error;
pub use etcd::{Etcd, EtcdOptions};
pub use nodes::{Node, NodeOptions, Nodes, NodesOptions};
pub use ports::free_port;
pub use process::ServerProcess;

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;
