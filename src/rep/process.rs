//! The process executor: one instance from its start to its end, by way of its supervisor.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::environ::{self, Who};
use super::outcome::End;
use super::ports::Ports;
use super::probe;
use super::procfs;
use super::supervise::Line;
use super::workdir::{InstanceDir, ProcessRecord, kill_leftovers};
use crate::converge::process_spec::ProcessSpec;

/// A supervisor that was told to kill and does not end within this is no longer waited for: the process it can't
/// kill hangs in the kernel. It goes on trying.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);

/// All that is needed to start an instance.
#[derive(Debug)]
pub struct Launch {
    /// Who it is.
    pub who: Who,
    /// What it runs.
    pub spec: ProcessSpec,
    /// Its ports.
    pub ports: std::sync::Arc<Ports>,
    /// Its directory.
    pub dir: InstanceDir,
    /// How long it may take until it is ready. `None` is for ever.
    pub start_timeout: Option<Duration>,
    /// Whether being ready means anything; a Task is as soon as it is started.
    pub probe: bool,
}

/// What an instance tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It is ready for traffic.
    Ready,
    /// It ended, and nothing of it is left.
    Ended(End),
}

/// The hold on a running instance. Dropping it stops nothing.
#[derive(Debug, Clone, Default)]
pub struct Handle {
    stop: CancellationToken,
    kill: CancellationToken,
}

impl Handle {
    /// SIGTERM, and SIGKILL after the grace period.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// SIGKILL now.
    pub fn kill(&self) {
        self.kill.cancel();
    }
}

/// Starts an instance. `supervisor` is the program that has the subcommand `supervise`: the rep's own. `tell` is
/// called at most once with each event, the last time with [`Event::Ended`].
pub fn start(
    supervisor: PathBuf,
    launch: Launch,
    tell: impl Fn(Event) + Send + Sync + 'static,
) -> Handle {
    let handle = Handle::default();
    let Handle { stop, kill } = handle.clone();
    tokio::spawn(async move {
        let end = match Supervised::spawn(&supervisor, &launch) {
            Ok(supervised) => supervised.drive(&launch, stop, kill, &tell).await,
            Err(error) => End::StartFailed(error.to_string()),
        };
        tell(Event::Ended(end));
    });
    handle
}

/// A running supervisor.
struct Supervised {
    child: Child,
    lines: Lines<BufReader<OwnedReadHalf>>,
    /// Closed to kill.
    out: Option<OwnedWriteHalf>,
}

impl Supervised {
    fn spawn(supervisor: &Path, launch: &Launch) -> io::Result<Supervised> {
        let Launch {
            who,
            spec,
            ports,
            dir,
            start_timeout: _,
            probe: _,
        } = launch;
        let cwd = working_directory(spec, dir);
        if !cwd.is_dir() {
            return Err(io::Error::other(format!(
                "the working directory {} does not exist",
                cwd.display()
            )));
        }
        let (path, lang) = (std::env::var("PATH").ok(), std::env::var("LANG").ok());
        let (argv, env) = environ::command_line(spec, who, ports, &dir.cwd(), path, lang);
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let child = command(supervisor, &argv, &env, &cwd, theirs, dir)?.spawn()?;
        let (read, out) = UnixStream::from_std(ours)?.into_split();
        Ok(Supervised {
            child,
            lines: BufReader::new(read).lines(),
            out: Some(out),
        })
    }

    async fn drive(
        mut self,
        launch: &Launch,
        stop: CancellationToken,
        kill: CancellationToken,
        tell: &(impl Fn(Event) + Send + Sync),
    ) -> End {
        let ready = probe::ready(&launch.spec, &launch.ports, &launch.who.address);
        tokio::pin!(ready);
        let (mut started, mut is_ready, mut stopping) = (false, false, false);
        let mut not_ready = None;
        // An idle timer is parked far away.
        let never = || Instant::now() + Duration::from_secs(365 * 86_400);
        let start_by = launch
            .start_timeout
            .map_or_else(never, |limit| Instant::now() + limit);
        let (mut kill_at, mut give_up_at) = (never(), never());
        let end = loop {
            tokio::select! {
                biased;
                line = self.lines.next_line() => match line.ok().flatten() {
                    Some(line) => match Line::parse(&line) {
                        Some(Line::Started(pid)) => {
                            started = true;
                            self.write_down(pid, &launch.dir);
                        }
                        Some(Line::Failed(reason)) => break End::StartFailed(reason),
                        Some(Line::Exited(code)) => break End::Exited(code),
                        Some(Line::Signaled(number)) => break End::Signaled(number),
                        None => {}
                    },
                    None => break End::SupervisorLost,
                },
                () = kill.cancelled(), if self.out.is_some() => {
                    stopping = true;
                    self.out = None;
                    give_up_at = Instant::now() + KILL_TIMEOUT;
                }
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    kill_at = self.ask_to_stop(launch.spec.grace).await;
                }
                () = tokio::time::sleep_until(kill_at), if self.out.is_some() => {
                    self.out = None;
                    give_up_at = Instant::now() + KILL_TIMEOUT;
                }
                () = tokio::time::sleep_until(give_up_at), if self.out.is_none() => {
                    tracing::error!(instance = launch.who.guid, "a process does not die of SIGKILL; given up on it");
                    break End::Signaled(nix::sys::signal::Signal::SIGKILL as i32);
                }
                () = async { if launch.probe { ready.as_mut().await } }, if started && !is_ready && !stopping => {
                    is_ready = true;
                    tell(Event::Ready);
                }
                () = tokio::time::sleep_until(start_by), if !is_ready && !stopping => {
                    stopping = true;
                    not_ready = launch.start_timeout.map(|limit| End::NotReady(limit.as_secs()));
                    kill_at = self.ask_to_stop(launch.spec.grace).await;
                }
            }
        };
        if end == End::SupervisorLost {
            let (guid, record) = (launch.who.guid.clone(), launch.dir.process());
            let swept = tokio::task::spawn_blocking(move || kill_leftovers(&guid, record)).await;
            if let Ok(Err(error)) = swept {
                tracing::error!(instance = launch.who.guid, %error, "what its supervisor left can't be killed");
            }
        }
        // It says its last line just before it exits; closing the socket hurries it.
        drop(self.out.take());
        let _ = tokio::time::timeout(KILL_TIMEOUT, self.child.wait()).await;
        not_ready.unwrap_or(end)
    }

    /// Returns when to kill.
    async fn ask_to_stop(&mut self, grace: Duration) -> Instant {
        if let Some(out) = &mut self.out {
            // A line fits into the socket's buffer; a supervisor that is gone shows as the end of its lines.
            let _ = out.write_all(b"stop\n").await;
        }
        Instant::now() + grace
    }

    fn write_down(&self, command: i32, dir: &InstanceDir) {
        let known = |pid: i32| (pid, procfs::start_ticks(pid));
        let supervisor = self.child.id().map_or(0, u32::cast_signed);
        let recorded = procfs::boot_id().and_then(|boot_id| {
            dir.record(&ProcessRecord {
                boot_id,
                supervisor: known(supervisor),
                command: known(command),
            })
        });
        if let Err(error) = recorded {
            tracing::warn!(%error, "the numbers of an instance's processes can't be written down");
        }
    }
}

/// Where an instance runs: where its template says, else in a directory of its own.
pub fn working_directory(spec: &ProcessSpec, dir: &InstanceDir) -> PathBuf {
    match &spec.working_dir {
        Some(path) => dir.cwd().join(path),
        None => dir.cwd(),
    }
}

fn command(
    supervisor: &Path,
    argv: &[String],
    env: &BTreeMap<String, String>,
    cwd: &Path,
    stdin: StdUnixStream,
    dir: &InstanceDir,
) -> io::Result<Command> {
    let (stdout, stderr) = dir.logs()?;
    let mut command = Command::new(supervisor);
    command
        .arg0("diego")
        .args(["supervise", "--"])
        .args(argv)
        .env_clear()
        .envs(env)
        .current_dir(cwd)
        .stdin(Stdio::from(OwnedFd::from(stdin)))
        .stdout(stdout)
        .stderr(stderr)
        // A signal to the rep's group, such as Ctrl-C at a terminal, is the rep's to answer.
        .process_group(0);
    Ok(command)
}
