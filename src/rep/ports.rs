//! Free ports of the machine, one per declared port of an instance.
//!
//! Several reps may share a machine, and the port is bound by the instance, some time after it was chosen. So each
//! port is claimed by a lock that lives in the same network namespace as the ports themselves: an abstract Unix
//! socket named after the port. It is gone with the rep, however that ends.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::procfs;
use crate::api::PortMapping;
use crate::converge::process_spec::SpecPort;

/// Where ports are taken from: above the kernel's usual range for outgoing connections (as in Diego).
const FIRST: u16 = 61_001;

/// The last one.
const LAST: u16 = 65_534;

/// The ports of one instance, kept from others until this is dropped.
#[derive(Debug, Default)]
pub struct Ports {
    /// What the record and the environment tell of them, in the order declared.
    pub mappings: Vec<PortMapping>,
    _locks: Vec<UnixDatagram>,
}

/// Why an instance can't have its ports.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Somebody uses the port it wants.
    #[error("port {0} (hostPort) is in use on this machine")]
    InUse(u16),
    /// All are taken.
    #[error("no free port is left on this machine between {FIRST} and {LAST}")]
    NoneLeft,
}

impl Ports {
    /// Finds a port of the machine for each declared one: the one it wants, else any free one.
    ///
    /// # Errors
    /// When a wanted port is taken, or none is left.
    pub fn allocate(declared: &[SpecPort]) -> Result<Ports, PortError> {
        let mut ports = Ports::default();
        // A random start keeps the reps of one machine apart and a port from being used again at once.
        let span = u32::from(LAST - FIRST) + 1;
        let start = uuid::Uuid::new_v4().as_fields().0 % span;
        let ephemeral = procfs::ephemeral_ports();
        let wanted: HashSet<u16> = declared.iter().filter_map(|port| port.host_port).collect();
        let outgoing =
            |port: u16| ephemeral.is_some_and(|(low, high)| (low..=high).contains(&port));
        // The kernel's range is used too when nothing else is left: where it covers everything, it must do.
        let candidates =
            || (0..span).filter_map(|i| u16::try_from(u32::from(FIRST) + (start + i) % span).ok());
        let mut rest = candidates()
            .filter(|port| !outgoing(*port))
            .chain(candidates().filter(|port| outgoing(*port)))
            .filter(|port| !wanted.contains(port));
        for port in declared {
            let (host_port, lock) = match port.host_port {
                Some(host_port) => (
                    host_port,
                    take(host_port).ok_or(PortError::InUse(host_port))?,
                ),
                None => rest
                    .find_map(|port| Some((port, take(port)?)))
                    .ok_or(PortError::NoneLeft)?,
            };
            ports.mappings.push(PortMapping {
                container_port: i32::from(port.container_port),
                host_port: i32::from(host_port),
                name: port.name.clone(),
            });
            ports._locks.push(lock);
        }
        Ok(ports)
    }

    /// The machine's port for a declared one; a port that was not declared stands for itself.
    pub fn host_port(&self, container_port: u16) -> u16 {
        self.mappings
            .iter()
            .find(|port| port.container_port == i32::from(container_port))
            .and_then(|port| u16::try_from(port.host_port).ok())
            .unwrap_or(container_port)
    }

    /// `PORT` for the first port, and for each one `PORT_<containerPort>` and `PORT_<NAME>`.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut env = Vec::new();
        for (i, port) in self.mappings.iter().enumerate() {
            let value = port.host_port.to_string();
            if i == 0 {
                env.push(("PORT".into(), value.clone()));
            }
            env.push((format!("PORT_{}", port.container_port), value.clone()));
            if let Some(name) = &port.name {
                let name: String = name
                    .chars()
                    .map(|c| {
                        if c.is_ascii_alphanumeric() {
                            c.to_ascii_uppercase()
                        } else {
                            '_'
                        }
                    })
                    .collect();
                env.push((format!("PORT_{name}"), value));
            }
        }
        env
    }
}

/// Claims a port, if no other rep has it and nobody listens on it.
fn take(port: u16) -> Option<UnixDatagram> {
    let name = SocketAddr::from_abstract_name(format!("diego-operator/port/{port}")).ok()?;
    let lock = UnixDatagram::bind_addr(&name).ok()?;
    is_free(port).ok()?;
    Some(lock)
}

fn is_free(port: u16) -> io::Result<()> {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(container_port: u16, host_port: Option<u16>, name: Option<&str>) -> SpecPort {
        SpecPort {
            container_port,
            host_port,
            name: name.map(Into::into),
        }
    }

    #[test]
    fn instances_never_share_a_port() {
        let list = [
            declared(80, None, None),
            declared(81, None, Some("my-admin")),
        ];
        let all: Vec<Ports> = (0..50)
            .map(|_| Ports::allocate(&list).expect("free ports"))
            .collect();
        let distinct: HashSet<i32> = all
            .iter()
            .flat_map(|ports| &ports.mappings)
            .map(|port| port.host_port)
            .collect();
        assert_eq!(distinct.len(), 100);
        let first = &all[0];
        let (one, two) = (
            first.host_port(80).to_string(),
            first.host_port(81).to_string(),
        );
        let env = first.environment();
        for (name, value) in [
            ("PORT", &one),
            ("PORT_80", &one),
            ("PORT_81", &two),
            ("PORT_MY_ADMIN", &two),
        ] {
            assert!(
                env.contains(&(name.into(), value.clone())),
                "{name} in {env:?}"
            );
        }
        assert_eq!(first.host_port(9999), 9999);
    }

    #[test]
    fn a_wanted_port_is_given_or_refused() {
        let free = Ports::allocate(&[declared(80, None, None)])
            .expect("a free port")
            .host_port(80);
        let list = [declared(80, Some(free), None)];
        let held = Ports::allocate(&list).expect("free again");
        assert_eq!(held.host_port(80), free);
        let error = Ports::allocate(&list).expect_err("taken").to_string();
        assert_eq!(
            error,
            format!("port {free} (hostPort) is in use on this machine")
        );
        drop(held);
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, free)).expect("free once more");
        Ports::allocate(&list).expect_err("somebody listens");
        drop(listener);
    }
}
