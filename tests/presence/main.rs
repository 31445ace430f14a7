//! Presence against a real etcd: what a rep keeps, what the controller hears of it, and what faults do to both.

mod faults;
mod keeper;
mod proxy;
mod restart;
mod store;
mod support;
mod tls;
mod watcher;
