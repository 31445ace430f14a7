//! What is etcd's alone: its members, its leases, its watches and its certificates.

mod faults;
mod keeper;
mod pki;
mod roles;
mod rotation;
mod store;
mod tls;
mod watcher;
