//! Free loopback ports that no other local cluster takes meanwhile.

use crate::{Error, Result};
use std::{
    collections::hash_map::RandomState,
    fs,
    hash::BuildHasher,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    ops::Range,
    sync::Mutex,
};

/// The reservations of this process: a UDP socket on the number of every TCP port it was given.
static RESERVED: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

/// How many random numbers are tried before the kernel is asked for one.
const TRIES: usize = 200;

/// A TCP port on 127.0.0.1 that nothing listens on, reserved for this process until it ends: no other call, in whatever process,
/// returns it, even while the server on it is down. The reservation is a UDP socket of the same number.
///
/// The port lies below the range from which the kernel picks ports for outgoing connections, where possible: a client that keeps
/// calling a stopped server would else, sooner or later, be connected to itself and hold the port.
///
/// # Errors
/// [`Error::Io`] when the machine has no free port.
pub fn free_port() -> Result<u16> {
    let range = below_outgoing();
    for _ in 0..TRIES {
        let span = u64::from(range.end - range.start);
        // A fresh RandomState is the standard library's own source of randomness.
        let offset = RandomState::new().hash_one(()) % span;
        if let Some(port) = reserve(range.start + u16::try_from(offset).unwrap_or(0)) {
            return Ok(port);
        }
    }
    for _ in 0..TRIES {
        let any =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let port = any.map_err(Error::io("find a free loopback port"))?.port();
        if let Some(port) = reserve(port) {
            return Ok(port);
        }
    }
    Err(Error::io("find a free loopback port")(
        std::io::ErrorKind::AddrInUse.into(),
    ))
}

/// Takes the port if neither a server nor another reservation has it.
fn reserve(port: u16) -> Option<u16> {
    let reservation = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
    drop(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?);
    RESERVED
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .push(reservation);
    Some(port)
}

/// The unprivileged ports below those of outgoing connections; a fixed high range if there are too few of them.
fn below_outgoing() -> Range<u16> {
    const LOW: u16 = 20_000;
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(32_768_u16);
    if first >= LOW + 1_000 {
        LOW..first
    } else {
        61_000..65_500
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_port_is_given_twice() {
        let ports: HashSet<u16> = (0..200).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 200);
    }

    #[test]
    fn a_port_in_use_is_not_given() {
        let port = free_port().unwrap();
        assert_eq!(reserve(port), None, "reserved");
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert_eq!(
            reserve(taken.local_addr().unwrap().port()),
            None,
            "listened on"
        );
    }
}
