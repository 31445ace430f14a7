//! Which connections of a port stay open: so many at most, so many of one address, and the newest rather than the oldest.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use crate::sync::locked;

/// The most open connections.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// Of one address.
    pub per_peer: usize,
    /// Of all.
    pub all: usize,
}

/// The open connections of one port.
#[derive(Clone)]
pub struct Connections {
    caps: Caps,
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    next: u64,
    /// By age.
    open: BTreeMap<u64, Open>,
}

struct Open {
    peer: IpAddr,
    /// Requests that are being answered.
    answering: Arc<AtomicUsize>,
    end: CancellationToken,
}

/// The place of a connection; it is free again once this is dropped.
pub struct Place {
    id: u64,
    table: Arc<Mutex<Table>>,
    answering: Arc<AtomicUsize>,
    /// Cancelled when the place is wanted for a newer one.
    pub end: CancellationToken,
}

/// Held while a request is answered.
pub struct Answering(Arc<AtomicUsize>);

impl Connections {
    /// None yet.
    pub fn new(caps: Caps) -> Self {
        Self {
            caps,
            table: Arc::default(),
        }
    }

    /// Takes one more in. Where there are too many, an old one goes: who opens connections and leaves them shuts nobody out.
    pub fn admit(&self, peer: IpAddr) -> Place {
        let mut table = locked(&self.table);
        let of_peer = |open: &&Open| open.peer == peer;
        if table.open.values().filter(of_peer).count() >= self.caps.per_peer {
            table.end_oldest(|open| open.peer == peer);
        } else if table.open.len() >= self.caps.all {
            table.end_oldest(|_| true);
        }
        let id = table.next;
        table.next += 1;
        let (answering, end) = (Arc::<AtomicUsize>::default(), CancellationToken::new());
        let open = Open {
            peer,
            answering: answering.clone(),
            end: end.clone(),
        };
        table.open.insert(id, open);
        Place {
            id,
            table: self.table.clone(),
            answering,
            end,
        }
    }
}

impl Table {
    /// The oldest that waits for a request; where all are being answered, the oldest.
    fn end_oldest(&mut self, which: impl Fn(&Open) -> bool) {
        let mut all = self.open.iter().filter(|(_, open)| which(open));
        let oldest = all.clone().next();
        let idle = all.find(|(_, open)| open.answering.load(Ordering::Relaxed) == 0);
        let id = idle.or(oldest).map(|(id, _)| *id);
        if let Some(open) = id.and_then(|id| self.open.remove(&id)) {
            open.end.cancel();
        }
    }
}

impl Place {
    /// To be held while a request is answered.
    pub fn answering(&self) -> Answering {
        self.answering.fetch_add(1, Ordering::Relaxed);
        Answering(self.answering.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        locked(&self.table).open.remove(&self.id);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps {
        per_peer: 2,
        all: 3,
    };

    fn peer(last: u8) -> IpAddr {
        [127, 0, 0, last].into()
    }

    #[test]
    fn one_address_ends_only_its_own() {
        let connections = Connections::new(CAPS);
        let other = connections.admit(peer(2));
        let many: Vec<Place> = (0..10).map(|_| connections.admit(peer(1))).collect();
        assert!(!other.end.is_cancelled());
        let open = many.iter().filter(|place| !place.end.is_cancelled());
        assert_eq!(open.count(), CAPS.per_peer);
        assert!(!many[9].end.is_cancelled(), "the newest stays");
    }

    #[test]
    fn many_addresses_are_bounded_together() {
        let connections = Connections::new(CAPS);
        let many: Vec<Place> = (0..10).map(|i| connections.admit(peer(i))).collect();
        let open = many.iter().filter(|place| !place.end.is_cancelled());
        assert_eq!(open.count(), CAPS.all);
        assert_eq!(locked(&connections.table).open.len(), CAPS.all);
        drop(many);
        assert!(
            locked(&connections.table).open.is_empty(),
            "places are free again"
        );
    }

    #[test]
    fn those_that_are_answered_go_last() {
        let connections = Connections::new(CAPS);
        let [first, second, third] = [1, 2, 3].map(|i| connections.admit(peer(i)));
        let busy = [first.answering(), third.answering()];
        let fourth = connections.admit(peer(4));
        assert!(second.end.is_cancelled() && !first.end.is_cancelled());
        let _busy = fourth.answering();
        let _fifth = connections.admit(peer(5));
        assert!(first.end.is_cancelled(), "all are being answered");
        drop(busy);
        let _sixth = connections.admit(peer(6));
        assert!(third.end.is_cancelled(), "the oldest that waits");
    }
}
