//! A machine of its own for a program: a network namespace with one cable to here, on which the packets of one direction
//! can be dropped.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;

use local_cluster::ServerProcess;

use crate::support::{Failure, site::START};

/// Packets that don't arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// Those that leave the namespace for this port.
    Requests,
    /// Those that come into it from this port.
    Answers,
}

/// Both ends. The kernel removes them with the namespace, when the last program in there has ended.
pub struct Cable {
    /// Holds the namespace.
    holder: ServerProcess,
    here: Ipv4Addr,
}

impl Cable {
    /// Plugged in.
    pub async fn new(dir: &Path) -> Result<Cable, Failure> {
        let dir = dir.join("cable");
        std::fs::create_dir_all(&dir)?;
        let args = ["unshare", "--net", "sleep", "100000"].map(str::to_owned);
        let log = dir.join("holder.log");
        let holder = ServerProcess::start("cable", "/usr/bin/env".as_ref(), &args, &[], &log)?;
        let ours = std::fs::read_link("/proc/self/ns/net")?;
        let theirs = format!("/proc/{}/ns/net", holder.pid());
        // Until then it is in our own namespace.
        let is_apart = || async { std::fs::read_link(&theirs).is_ok_and(|link| link != ours) };
        holder.ready(START, is_apart).await?;
        // One of the ranges of four addresses in 198.18.0.0/15, which is for measurements: nobody's own.
        let random = RandomState::new().hash_one(std::process::id());
        let range = (u32::try_from(random % (1 << 15))?) * 4;
        let [here, there] = [1, 2]
            .map(|host| Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + range + host));
        let cable = Cable { holder, here };
        let (link, pid) = (format!("cable{range}"), cable.holder.pid());
        for words in [
            format!("link add {link} type veth peer name eth0 netns {pid}"),
            format!("addr add {here}/30 dev {link}"),
            format!("link set {link} up"),
        ] {
            run(&["ip"], &words).await?;
        }
        for words in [
            "link set lo up".to_owned(),
            format!("addr add {there}/30 dev eth0"),
            "link set eth0 up".to_owned(),
        ] {
            cable.inside("ip", &words).await?;
        }
        Ok(cable)
    }

    /// What a program is started through to be at the other end.
    pub fn through(&self) -> Vec<String> {
        let namespace = format!("--net=/proc/{}/ns/net", self.holder.pid());
        ["/usr/bin/env", "nsenter", &namespace, "--"]
            .map(str::to_owned)
            .to_vec()
    }

    /// Where servers at this end are found from the other one.
    pub fn here(&self) -> Ipv4Addr {
        self.here
    }

    /// From now on these are dropped, of all that is spoken with a server at `here`.
    pub async fn lose(&self, lost: Lost, port: u16) -> Result<(), Failure> {
        let here = self.here;
        let rule = match lost {
            Lost::Requests => format!("-I OUTPUT -p tcp -d {here} --dport {port} -j DROP"),
            Lost::Answers => format!("-I INPUT -p tcp -s {here} --sport {port} -j DROP"),
        };
        self.inside("iptables", &rule).await
    }

    /// Everything arrives again. Returns how many packets were dropped.
    pub async fn mend(&self) -> Result<u64, Failure> {
        let shown = self
            .output("iptables", "--list --numeric --verbose --exact")
            .await?;
        let mut dropped = 0;
        for line in shown.lines().filter(|line| line.contains("DROP")) {
            let count = line.split_whitespace().next().unwrap_or_default();
            dropped += count.parse::<u64>()?;
        }
        self.inside("iptables", "--flush").await?;
        Ok(dropped)
    }

    async fn inside(&self, program: &str, words: &str) -> Result<(), Failure> {
        self.output(program, words).await.map(drop)
    }

    async fn output(&self, program: &str, words: &str) -> Result<String, Failure> {
        let through = self.through();
        let mut start: Vec<&str> = through.iter().map(String::as_str).collect();
        start.push(program);
        run(&start, words).await
    }
}

async fn run(start: &[&str], words: &str) -> Result<String, Failure> {
    let output = tokio::process::Command::new(start[0])
        .args(&start[1..])
        .args(words.split(' '))
        .stdin(Stdio::null())
        .output()
        .await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{} {words}: {said}", start.join(" ")).into())
}
