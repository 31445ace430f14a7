//! What is etcd's alone: its members, its leases, its watches and its certificates.

mod faults;
mod keeper;
mod store;
mod tls;
mod watcher;
