//! Where callbacks may go: pure, and asked about every address before it is connected to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

/// One entry of `--callback-allowed-hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostEntry {
    /// A host by its name, in lower case.
    Name(String),
    /// Every host below a domain: `*.example.com` is `.example.com` here.
    Below(String),
    /// Every host with an address in this net.
    Net(IpNet),
}

/// Why a text is no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}; write a host name, *.DOMAIN, an IP address or a CIDR such as 10.0.0.0/8, without scheme, port or path"
)]
pub struct EntryError(&'static str);

impl FromStr for HostEntry {
    type Err = EntryError;

    fn from_str(text: &str) -> Result<Self, EntryError> {
        let text = text.trim().to_ascii_lowercase();
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(&text).parse::<IpAddr>() {
            return Ok(HostEntry::Net(IpNet::from(address.to_canonical())));
        }
        if text.contains("://") {
            return Err(EntryError("a URL is no host"));
        }
        if text.contains('/') {
            return match text.parse::<IpNet>() {
                Ok(net) => Ok(HostEntry::Net(net.trunc())),
                Err(_) => Err(EntryError("this is no CIDR")),
            };
        }
        match text.strip_prefix("*.") {
            Some(domain) => Ok(HostEntry::Below(format!(".{}", name(domain)?))),
            None => Ok(HostEntry::Name(name(&text)?)),
        }
    }
}

/// A DNS name without its root dot.
fn name(text: &str) -> Result<String, EntryError> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(inner)
    };
    // What ends in a number is an address to a resolver, and this is none that was written well.
    let numeric = text
        .rsplit('.')
        .next()
        .is_some_and(|last| last.chars().all(|c| c.is_ascii_digit()));
    if text.is_empty() {
        Err(EntryError("an entry is empty"))
    } else if numeric || text.len() > 253 || !text.split('.').all(label) {
        Err(EntryError("this is no host name"))
    } else {
        Ok(text.to_owned())
    }
}

/// Metadata services that are not link-local: Alibaba Cloud's, and EC2's by IPv6.
const METADATA_V4: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Which hosts callbacks may go to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostPolicy {
    /// Empty: every host, but for [`special`] addresses.
    entries: Vec<HostEntry>,
    /// Addresses of the presence store: as little to be reached by a name as the [`special`] ones.
    store: Vec<IpAddr>,
}

/// Why a callback may not go to a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is a list, and it is not on it.
    #[error("the host {host} is not in the controller's --callback-allowed-hosts")]
    NotListed {
        /// The host of the URL.
        host: String,
    },
    /// All its addresses lead to where nobody else may send the controller: its own machine or link, or its store.
    #[error(
        "the host {host} has the {what} address {address}; the controller's --callback-allowed-hosts must name it by address or CIDR"
    )]
    Special {
        /// The host of the URL.
        host: String,
        /// Its address.
        address: IpAddr,
        /// What kind of address that is.
        what: &'static str,
    },
}

impl HostPolicy {
    /// The policy of a list of entries.
    pub fn new(entries: Vec<HostEntry>) -> Self {
        HostPolicy {
            entries,
            store: Vec::new(),
        }
    }

    /// The same, that guards the addresses of the presence store too.
    #[must_use]
    pub fn guarding(mut self, store: impl IntoIterator<Item = IpAddr>) -> Self {
        self.store = store
            .into_iter()
            .map(|address| address.to_canonical())
            .collect();
        self
    }

    /// Whether a connection to `address`, found for `host`, is allowed. `host` is as in the URL: a name or an address.
    ///
    /// # Errors
    /// Why it is not.
    pub fn check(&self, host: &str, address: IpAddr) -> Result<(), Denied> {
        let canonical = address.to_canonical();
        let covered = |entry: &HostEntry| match entry {
            HostEntry::Net(net) => net.contains(&address) || net.contains(&canonical),
            HostEntry::Name(_) | HostEntry::Below(_) => false,
        };
        if self.entries.iter().any(covered) {
            return Ok(());
        }
        if !self.entries.is_empty() && !self.lists(host) {
            return Err(Denied::NotListed { host: host.into() });
        }
        // Whoever owns a name chooses its addresses, so a name alone never leads here.
        let plain = match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => embedded(address).map(IpAddr::V4),
        };
        let is_store = self.store.contains(&canonical)
            || plain.is_some_and(|plain| self.store.contains(&plain));
        match special(address).or(is_store.then_some("presence store's")) {
            None => Ok(()),
            Some(what) => Err(Denied::Special {
                host: host.into(),
                address,
                what,
            }),
        }
    }

    /// Whether there is any use in looking up the addresses of `host`.
    ///
    /// # Errors
    /// Why there is not.
    pub fn check_name(&self, host: &str) -> Result<(), Denied> {
        let any_net = |entry: &HostEntry| matches!(entry, HostEntry::Net(_));
        if self.entries.is_empty() || self.entries.iter().any(any_net) || self.lists(host) {
            return Ok(());
        }
        Err(Denied::NotListed { host: host.into() })
    }

    fn lists(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        self.entries.iter().any(|entry| match entry {
            HostEntry::Name(name) => *name == host,
            HostEntry::Below(suffix) => {
                host.len() > suffix.len() && host.ends_with(suffix.as_str())
            }
            HostEntry::Net(_) => false,
        })
    }
}

impl fmt::Display for HostEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostEntry::Name(name) => f.write_str(name),
            HostEntry::Below(suffix) => write!(f, "*{suffix}"),
            HostEntry::Net(net) => write!(f, "{net}"),
        }
    }
}

/// What kind of address that a name must never lead to this is, also hidden in an IPv6 address.
pub fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address).or_else(|| special_v4(embedded(address)?)),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    if address.is_loopback() {
        Some("loopback")
    } else if address.is_link_local() {
        Some("link-local")
    } else if address.octets()[0] == 0 {
        Some("unspecified")
    } else if address.is_multicast() {
        Some("multicast")
    } else if address.is_broadcast() {
        Some("broadcast")
    } else if address == METADATA_V4 {
        Some("metadata")
    } else {
        None
    }
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_loopback() {
        Some("loopback")
    } else if address.is_unicast_link_local() {
        Some("link-local")
    } else if address.is_unspecified() {
        Some("unspecified")
    } else if address.is_multicast() {
        Some("multicast")
    } else if address == METADATA_V6 {
        Some("metadata")
    } else if address.segments()[..2] == [0x2001, 0] {
        // The IPv4 addresses of server and client are in it; nobody needs it for a callback.
        Some("Teredo")
    } else {
        None
    }
}

/// The IPv4 address that packets to this IPv6 address may end at: mapped (::ffff:0:0/96), compatible (::/96),
/// translated (::ffff:0:0:0/96), NAT64 (64:ff9b::/96, 64:ff9b:1::/48) and 6to4 (2002::/16).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => v4(high, low),
        [0, 0, 0, 0, 0xffff, 0, high, low] => v4(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x64, 0xff9b, 1, _, _, _, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
