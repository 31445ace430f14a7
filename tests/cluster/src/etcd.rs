//! A real etcd of one or more members, each with its own data directory and ports.

use crate::{Error, Result, ServerProcess, binary, dir::ScratchDir, free_port, http};
use std::{
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a member may take until it is healthy.
const HEALTHY_WITHIN: Duration = Duration::from_secs(30);
/// How often a start is tried while others take the ports it chose.
const TRIES: usize = 3;

/// How an etcd is to be; the default is one member, quick and without durability.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// How many members vote. 3 or more survive the loss of one; at least 1.
    pub members: usize,
    /// Whether every write reaches the disk before it is acknowledged. Needed only to survive a crash of the whole machine: the
    /// kernel keeps what a killed member wrote. Off by default, since the data is thrown away anyhow.
    pub fsync: bool,
    /// How long a follower waits for its leader before it wants to lead; heartbeats are sent ten times as often. At least 100 ms;
    /// 1 s by default, as etcd's own. Also bounds lease TTLs from below, at one and a half times this.
    pub election_timeout: Duration,
    /// Where clients reach it besides 127.0.0.1, such as [`LocalCluster::address`](crate::LocalCluster::address) for the Pods of
    /// real nodes; [`Etcd::endpoints`] are there then. Nowhere else by default.
    pub address: Option<Ipv4Addr>,
}

impl Default for EtcdOptions {
    fn default() -> Self {
        Self {
            members: 1,
            fsync: false,
            election_timeout: Duration::from_secs(1),
            address: None,
        }
    }
}

/// A running etcd, stopped when this is dropped; its data goes with it.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    address: Ipv4Addr,
    // After the members: it must not vanish under them.
    _dir: Option<ScratchDir>,
}

#[derive(Debug)]
struct Member {
    process: ServerProcess,
    port: u16,
    data: PathBuf,
}

impl Member {
    /// Where a copy of its data is kept.
    fn backup(&self) -> PathBuf {
        self.data.with_extension("backup")
    }

    async fn healthy(&self) -> Result<()> {
        self.process
            .ready(HEALTHY_WITHIN, || http::is_ok(self.port, "/health"))
            .await
    }
}

impl Etcd {
    /// Starts all members and waits until each of them is healthy, which means that there is a leader.
    ///
    /// # Errors
    /// [`Error::MissingBinary`] without an etcd binary; [`Error::Exited`] or [`Error::NotReady`] when a member fails or takes
    /// longer than 30 s; [`Error::Option`] for no members or too short an election timeout.
    pub async fn start(options: EtcdOptions) -> Result<Self> {
        let dir = ScratchDir::new()?;
        let mut etcd = Self::start_in(options, dir.path()).await?;
        etcd._dir = Some(dir);
        Ok(etcd)
    }

    /// The same in somebody else's directory.
    pub(crate) async fn start_in(options: EtcdOptions, dir: &Path) -> Result<Self> {
        if options.members == 0 || options.election_timeout < Duration::from_millis(100) {
            return Err(Error::Option(format!(
                "etcd needs a member and 100 ms for an election: {options:?}"
            )));
        }
        let program = binary("etcd")?;
        let mut tried = 1;
        loop {
            match Self::try_start(&options, &program, dir).await {
                Err(error) if error.is_port_taken() && tried < TRIES => tried += 1,
                result => return result,
            }
        }
    }

    async fn try_start(options: &EtcdOptions, program: &Path, dir: &Path) -> Result<Self> {
        let ports = (0..options.members)
            .map(|i| Ok((format!("etcd-{i}"), free_port()?, free_port()?)))
            .collect::<Result<Vec<(String, u16, u16)>>>()?;
        let all: Vec<String> = ports
            .iter()
            .map(|(name, _, peer)| format!("{name}=http://127.0.0.1:{peer}"))
            .collect();
        let mut members = Vec::with_capacity(ports.len());
        for (name, port, peer_port) in ports {
            let data = dir.join(&name);
            // Of a former try, with other ports.
            if data.exists() {
                fs::remove_dir_all(&data)
                    .map_err(Error::io(format!("remove {}", data.display())))?;
            }
            let args = arguments(options, &name, &data, port, peer_port, &all.join(","));
            let process =
                ServerProcess::start(&name, program, &args, &[], &dir.join(format!("{name}.log")))?;
            members.push(Member {
                process,
                port,
                data,
            });
        }
        for member in &members {
            member.healthy().await?;
        }
        Ok(Self {
            members,
            address: options.address.unwrap_or(Ipv4Addr::LOCALHOST),
            _dir: None,
        })
    }

    /// The members' client addresses, in order, each as `http://127.0.0.1:port`, or at [`EtcdOptions::address`]. They stay the
    /// same for the life of this etcd.
    pub fn endpoints(&self) -> Vec<String> {
        self.members
            .iter()
            .map(|member| format!("http://{}:{}", self.address, member.port))
            .collect()
    }

    /// The process of member `i`, counted from 0, to kill, pause or resume it.
    ///
    /// # Panics
    /// When there is no such member.
    pub fn member(&self, i: usize) -> &ServerProcess {
        &self.members[i].process
    }

    /// Kills all members and starts them again on the same ports, without their data.
    ///
    /// # Errors
    /// [`Error::Io`] when the data can't be removed; [`Error::Exited`] or [`Error::NotReady`] when a member fails.
    pub async fn wipe(&mut self) -> Result<()> {
        for member in &self.members {
            member.process.kill();
            member.process.wait().await;
        }
        for member in &mut self.members {
            let data = &member.data;
            fs::remove_dir_all(data).map_err(Error::io(format!("remove {}", data.display())))?;
            member.process = member.process.restart()?;
        }
        for member in &self.members {
            member.healthy().await?;
        }
        Ok(())
    }

    /// Kills all members, keeps a copy of their data as it then is, in place of an earlier copy, and starts them again.
    ///
    /// # Errors
    /// [`Error::Io`] when the data can't be copied; [`Error::Exited`] or [`Error::NotReady`] when a member fails.
    pub async fn back_up(&mut self) -> Result<()> {
        self.start_with_data(|member| (member.data.clone(), member.backup()))
            .await
    }

    /// Kills all members and starts them again on the same ports with the data that [`Etcd::back_up`] has kept: the revision
    /// goes back to what it was then.
    ///
    /// # Errors
    /// [`Error::Io`] when there is no such copy; [`Error::Exited`] or [`Error::NotReady`] when a member fails.
    pub async fn restore(&mut self) -> Result<()> {
        self.start_with_data(|member| (member.backup(), member.data.clone()))
            .await
    }

    /// Kills all members, copies a directory of each in place of another, and starts them again.
    async fn start_with_data(&mut self, copy: fn(&Member) -> (PathBuf, PathBuf)) -> Result<()> {
        for member in &self.members {
            member.process.kill();
            member.process.wait().await;
        }
        for member in &mut self.members {
            let (from, to) = copy(member);
            if to.exists() {
                fs::remove_dir_all(&to).map_err(Error::io(format!("remove {}", to.display())))?;
            }
            copy_dir(&from, &to).map_err(Error::io(format!("copy {}", from.display())))?;
            member.process = member.process.restart()?;
        }
        for member in &self.members {
            member.healthy().await?;
        }
        Ok(())
    }

    /// Kills member `i` if it still runs, and starts it again on the same ports and data. Waits until it is healthy, unless too
    /// few members are running for that; then it returns at once, and the member becomes healthy when the others are back.
    ///
    /// # Errors
    /// [`Error::Exited`] or [`Error::NotReady`] when it fails or takes longer than 30 s.
    ///
    /// # Panics
    /// When there is no such member.
    pub async fn restart_member(&mut self, i: usize) -> Result<()> {
        let member = &mut self.members[i];
        member.process.kill();
        member.process.wait().await;
        member.process = member.process.restart()?;
        let active = self
            .members
            .iter()
            .filter(|member| member.process.is_active())
            .count();
        if active > self.members.len() / 2 {
            self.members[i].healthy().await?;
        }
        Ok(())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // All at once; each member's own drop then waits for its end.
        for member in &self.members {
            member.process.kill();
        }
    }
}

/// Copies a directory and all that is in it; `to` must not exist.
fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// The command line of one member.
fn arguments(
    options: &EtcdOptions,
    name: &str,
    data: &Path,
    port: u16,
    peer_port: u16,
    all: &str,
) -> Vec<String> {
    let election = options.election_timeout.as_millis();
    let clients = [Some(Ipv4Addr::LOCALHOST), options.address];
    let clients: Vec<String> = clients
        .into_iter()
        .flatten()
        .map(|address| format!("http://{address}:{port}"))
        .collect();
    let clients = clients.join(",");
    let mut args = vec![
        format!("--name={name}"),
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls=http://127.0.0.1:{peer_port}"),
        format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}"),
        format!("--initial-cluster={all}"),
        format!("--election-timeout={election}"),
        format!("--heartbeat-interval={}", election / 10),
        "--log-level=warn".to_owned(),
    ];
    if !options.fsync {
        args.push("--unsafe-no-fsync".to_owned());
    }
    args
}
