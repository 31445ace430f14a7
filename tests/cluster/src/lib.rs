//! A real Kubernetes API on one machine, without containers: etcd, kube-apiserver and the controllers that collect garbage.
//!
//! Tests, benches and the demo start one with [`LocalCluster::start`] and drop it when they are done. Every start makes an own store,
//! an own certificate authority and own ports, so any number of clusters run side by side. No server outlives the program that
//! started it, however that program ends.
//!
//! The binaries come from `KUBEBUILDER_ASSETS`, else from `PATH`, else from `make setup`, which builds them with Go.

mod binaries;
mod child;
mod cluster;
mod dir;
mod error;
mod etcd;
mod http;
mod kubeconfig;
mod pki;
mod ports;
mod process;
mod servers;

pub use binaries::binary;
pub use cluster::{LocalCluster, Options, User};
pub use error::Error;
pub use etcd::{Etcd, EtcdOptions};
pub use ports::free_port;
pub use process::ServerProcess;

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;
