//! The network between real nodes and the control plane: a bridge in a namespace of its own, with a cable to everybody.
//!
//! The machine's own network gets one interface with a free range of addresses, and no firewall rule. The kernel removes it with
//! the bridge when the last process of the bridge's namespace ends, however that happens.

use crate::{Error, Result, ServerProcess, binary, dir::ScratchDir, run::run, servers::Place};
use std::{
    collections::hash_map::RandomState,
    fs,
    hash::BuildHasher,
    net::Ipv4Addr,
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// How long the bridge's namespace may take until it is there.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// The second bytes of 10.x.0.0/16 that are tried, outside of what home networks and clusters like to use.
const SECOND: std::ops::Range<u8> = 100..244;
/// The host numbers of nodes begin here.
const FIRST_NODE: usize = 10;
/// More nodes than anybody's machine carries, and less than the ranges allow.
pub(crate) const MOST_NODES: usize = 100;

/// The bridge and the range 10.x.0.0/16: the control plane at 10.x.0.1, node `i` at 10.x.0.10+i with its Pods in 10.x.1+i.0/24,
/// Services in 10.x.255.0/24.
#[derive(Debug)]
pub(crate) struct Network {
    hub: ServerProcess,
    link: String,
    second: u8,
    // Last: its log is in there.
    _dir: ScratchDir,
}

impl Network {
    /// Makes the bridge and takes a range of addresses that the machine has no route to.
    pub(crate) async fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let dir = ScratchDir::new()?;
        let log = dir.path().join("bridge.log");
        let args = ["--net", "sleep", "infinity"].map(str::to_owned);
        let hub = ServerProcess::start("bridge", &binary("unshare")?, &args, &[], &log)?;
        let ours = fs::read_link("/proc/self/ns/net");
        let ours = ours.map_err(Error::io("read /proc/self/ns/net"))?;
        let theirs = format!("/proc/{}/ns/net", hub.pid());
        // Until then it is in our own namespace, and so would be the bridge.
        hub.ready(READY_WITHIN, || async {
            fs::read_link(&theirs).is_ok_and(|link| link != ours)
        })
        .await?;

        let link = format!(
            "lc{}-{}",
            process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let mut network = Self {
            hub,
            link,
            second: 0,
            _dir: dir,
        };
        network
            .on_bridge("link set lo up\nlink add bridge type bridge\nlink set bridge up\n")
            .await?;
        let (link, pid) = (&network.link, network.hub.pid());
        ip(&format!(
            "link add {link} type veth peer name control netns {pid}\nlink set {link} up\n"
        ))
        .await?;
        network
            .on_bridge("link set control master bridge\nlink set control up\n")
            .await?;
        network.second = network.take_range().await?;
        let (link, own) = (&network.link, network.control());
        ip(&format!("addr add {own}/32 dev {link}\n")).await?;
        Ok(network)
    }

    /// Takes a range by a route that nobody else can add.
    async fn take_range(&self) -> Result<u8> {
        let count = SECOND.end - SECOND.start;
        let random = RandomState::new().hash_one(()) % u64::from(count);
        let random = u8::try_from(random).unwrap_or_default();
        let mut refused = String::new();
        for i in 0..count {
            let second = SECOND.start + (random + i) % count;
            let range = format!("10.{second}.0.0/16");
            let within = run("ip", &["-4", "route", "show", "root", &range], "").await?;
            let around = run("ip", &["-4", "route", "show", "match", &range], "").await?;
            let free = within.trim().is_empty()
                && around.lines().all(|route| route.starts_with("default"));
            if free {
                match ip(&format!("route add {range} dev {}\n", self.link)).await {
                    Ok(()) => return Ok(second),
                    Err(error) => refused = error.to_string(),
                }
            }
        }
        Err(Error::Option(format!(
            "no range of 10.{}.0.0/16 to 10.{}.0.0/16 is free on this machine; {refused}",
            SECOND.start,
            SECOND.end - 1
        )))
    }

    /// Where the control plane is to be.
    pub(crate) fn place(&self) -> Place {
        Place {
            address: self.control(),
            services: self.services(),
            first_service: Ipv4Addr::new(10, self.second, 255, 1),
            nodes: true,
        }
    }

    fn control(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.second, 0, 1)
    }

    /// The addresses of Services.
    pub(crate) fn services(&self) -> String {
        format!("10.{}.255.0/24", self.second)
    }

    /// The address of node `i`.
    pub(crate) fn address(&self, i: usize) -> Ipv4Addr {
        let host = u8::try_from(FIRST_NODE + i).unwrap_or(u8::MAX);
        Ipv4Addr::new(10, self.second, 0, host)
    }

    /// The addresses of the Pods of node `i`.
    pub(crate) fn pods(&self, i: usize) -> String {
        format!("10.{}.{}.0/24", self.second, i + 1)
    }

    /// Connects node `i` of `count`, whose first process is `pid`, and gives it its addresses and routes.
    pub(crate) async fn connect(&self, i: usize, count: usize, pid: u32) -> Result<()> {
        // The cable of an earlier run of this node, which the kernel may not have removed yet.
        let _ = self.on_bridge(&format!("link del node{i}\n")).await;
        self.on_bridge(&format!(
            "link add node{i} type veth peer name eth0 netns {pid}\nlink set node{i} master bridge\nlink set node{i} up\n"
        ))
        .await?;
        let (control, address) = (self.control(), self.address(i));
        // Always the same hardware address: the others remember it over a reboot.
        let mut batch = format!(
            "link set lo up\nlink set eth0 address 02:00:0a:{:02x}:00:{i:02x}\naddr add {address}/24 dev eth0\n\
             link set eth0 up\nroute add default via {control}\n",
            self.second
        );
        for other in (0..count).filter(|other| *other != i) {
            let (pods, via) = (self.pods(other), self.address(other));
            batch.push_str(&format!("route add {pods} via {via}\n"));
        }
        ip_in(pid, &batch).await?;
        // The API server calls webhooks and proxies to Pods.
        let (pods, link) = (self.pods(i), &self.link);
        ip(&format!("route replace {pods} via {address} dev {link}\n")).await
    }

    /// Pulls the cable of node `i`.
    pub(crate) async fn cut(&self, i: usize) -> Result<()> {
        self.on_bridge(&format!("link set node{i} down\n")).await
    }

    /// Plugs the cable of node `i` in again. The node's addresses and routes have stayed.
    pub(crate) async fn heal(&self, i: usize) -> Result<()> {
        self.on_bridge(&format!("link set node{i} up\n")).await
    }

    async fn on_bridge(&self, batch: &str) -> Result<()> {
        ip_in(self.hub.pid(), batch).await
    }
}

/// Runs these commands of `ip` in the machine's own network.
async fn ip(batch: &str) -> Result<()> {
    run("ip", &["-batch", "-"], batch).await.map(|_| ())
}

/// The same in the network namespace of a process.
async fn ip_in(pid: u32, batch: &str) -> Result<()> {
    let net = format!("--net=/proc/{pid}/ns/net");
    run("nsenter", &[&net, "ip", "-batch", "-"], batch)
        .await
        .map(|_| ())
}
