//! The process executor: one instance from its start to its end, by way of its supervisor.

mod supervised;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::environ::{self, Who};
use super::fence::Deadlines;
use super::outcome::End;
use super::ports::Ports;
use super::probe::{self, Finding, Unhealthy};
use super::procfs;
use super::supervise::Line;
use super::witness::Hold;
use super::workdir::{InstanceDir, ProcessRecord, kill_leftovers};
use crate::converge::fence::BootTime;
use crate::converge::process_spec::ProcessSpec;

pub(super) use supervised::{KILL_TIMEOUT, Program, Supervised};

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
    /// Whether being ready means anything; a Task is as soon as it is started, and its readiness probe is not asked.
    pub probe: bool,
    /// The deadlines it lives by, where it must not run twice.
    pub fence: Option<Deadlines>,
    /// For its supervisors, where the rep has a witness.
    pub hold: Option<Hold>,
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
        let end = match Instance::start(supervisor, &launch) {
            Ok(instance) => instance.drive(&launch, stop, kill, &tell).await,
            Err(error) => End::StartFailed(error.to_string()),
        };
        tell(Event::Ended(end));
    });
    handle
}

/// A running instance: its supervisor, and the probes that are asked beside it.
struct Instance {
    supervised: Supervised,
    program: Program,
    probing: CancellationToken,
    prober: Option<JoinHandle<()>>,
}

impl Instance {
    fn start(supervisor: PathBuf, launch: &Launch) -> io::Result<Instance> {
        let program = program(supervisor, launch)?;
        let deadline = match &launch.fence {
            Some(deadlines) => Some(deadlines.current().ok_or_else(fenced_off)?),
            None => None,
        };
        Ok(Instance {
            supervised: Supervised::with_logs(&program, &launch.dir.logs(), deadline)?,
            program,
            probing: CancellationToken::new(),
            prober: None,
        })
    }

    async fn drive(
        mut self,
        launch: &Launch,
        stop: CancellationToken,
        kill: CancellationToken,
        tell: &(impl Fn(Event) + Send + Sync),
    ) -> End {
        let (found, mut findings) = mpsc::unbounded_channel();
        let (mut is_ready, mut stopping) = (false, false);
        // Why the rep itself ends it, where nobody asked for that.
        let mut cause = None;
        let mut deadlines = launch.fence.clone();
        // An idle timer is parked far away.
        let never = || Instant::now() + Duration::from_secs(365 * 86_400);
        let start_by = launch
            .start_timeout
            .map_or_else(never, |limit| Instant::now() + limit);
        let (mut kill_at, mut give_up_at) = (never(), never());
        let end = loop {
            let killed = self.supervised.is_killed();
            tokio::select! {
                biased;
                line = self.supervised.next() => match line {
                    Some(Line::Started(pid)) => {
                        self.write_down(pid, &launch.dir);
                        self.probe(launch, found.clone());
                    }
                    Some(Line::Failed(reason)) => break End::StartFailed(reason),
                    Some(Line::Exited(code)) => break End::Exited(code),
                    Some(Line::Signaled(number)) => break End::Signaled(number),
                    Some(Line::Lost(reason)) => {
                        tracing::warn!(instance = launch.who.guid, reason, "output of an instance is dropped");
                    }
                    Some(Line::Fenced(late)) => {
                        tracing::warn!(instance = launch.who.guid, late_ms = late, "{}", End::Fenced.reason());
                        (stopping, cause) = (true, Some(End::Fenced));
                        self.supervised.kill();
                        give_up_at = Instant::now() + KILL_TIMEOUT;
                    }
                    None => break End::SupervisorLost,
                },
                deadline = next_deadline(&mut deadlines) => self.supervised.run_until(deadline),
                () = kill.cancelled(), if !killed => {
                    stopping = true;
                    self.supervised.kill();
                    give_up_at = Instant::now() + KILL_TIMEOUT;
                }
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    kill_at = self.ask_to_stop(launch.spec.grace).await;
                }
                () = tokio::time::sleep_until(kill_at), if !killed => {
                    self.supervised.kill();
                    give_up_at = Instant::now() + KILL_TIMEOUT;
                }
                () = tokio::time::sleep_until(give_up_at), if killed => {
                    tracing::error!(instance = launch.who.guid, "a process does not die of SIGKILL; given up on it");
                    break End::Signaled(nix::sys::signal::Signal::SIGKILL as i32);
                }
                Some(finding) = findings.recv(), if !stopping => match finding {
                    Finding::Ready => {
                        is_ready = true;
                        tell(Event::Ready);
                    }
                    Finding::Unhealthy(Unhealthy { reason, grace }) => {
                        stopping = true;
                        cause = Some(End::Unhealthy(reason));
                        kill_at = self.ask_to_stop(grace.unwrap_or(launch.spec.grace)).await;
                    }
                },
                () = tokio::time::sleep_until(start_by), if !is_ready && !stopping => {
                    stopping = true;
                    cause = launch.start_timeout.map(|limit| End::NotReady(limit.as_secs()));
                    kill_at = self.ask_to_stop(launch.spec.grace).await;
                }
            }
            if stopping {
                self.probing.cancel();
            }
        };
        self.finish(&end, launch).await;
        cause.unwrap_or(end)
    }

    /// Starts to ask the probes.
    fn probe(&mut self, launch: &Launch, found: mpsc::UnboundedSender<Finding>) {
        let subject = probe::Subject {
            spec: launch.spec.clone(),
            ports: launch.ports.clone(),
            host: launch.who.address.clone(),
            program: self.program.clone(),
            readiness: launch.probe,
        };
        let stop = self.probing.clone();
        self.prober = Some(tokio::spawn(probe::run(subject, found, stop)));
    }

    /// Sees to it that nothing is left of what ended so.
    async fn finish(&mut self, end: &End, launch: &Launch) {
        self.probing.cancel();
        if let Some(prober) = self.prober.take() {
            // A try that is under way ends its own processes first.
            let _ = tokio::time::timeout(KILL_TIMEOUT, prober).await;
        }
        self.supervised.finish().await;
        // A supervisor that was killed leaves what it ran: the instance's own, or one of a probe's tries.
        if *end == End::SupervisorLost || launch.spec.has_command_probe() {
            let (guid, record) = (launch.who.guid.clone(), launch.dir.process());
            let swept = tokio::task::spawn_blocking(move || kill_leftovers(&guid, record)).await;
            if let Ok(Err(error)) = swept {
                tracing::error!(instance = launch.who.guid, %error, "what its supervisor left can't be killed");
            }
        }
    }

    /// Returns when to kill.
    async fn ask_to_stop(&mut self, grace: Duration) -> Instant {
        self.supervised.stop().await;
        Instant::now() + grace
    }

    fn write_down(&self, command: i32, dir: &InstanceDir) {
        let known = |pid: i32| (pid, procfs::start_ticks(pid));
        let recorded = procfs::boot_id().and_then(|boot_id| {
            dir.record(&ProcessRecord {
                boot_id,
                supervisor: known(self.supervised.pid()),
                command: known(command),
            })
        });
        if let Err(error) = recorded {
            tracing::warn!(%error, "the numbers of an instance's processes can't be written down");
        }
    }
}

/// The next deadline; without any, for ever.
async fn next_deadline(deadlines: &mut Option<Deadlines>) -> BootTime {
    match deadlines {
        Some(deadlines) => deadlines.next().await,
        None => std::future::pending().await,
    }
}

/// It can't be told until when it may run.
fn fenced_off() -> io::Error {
    io::Error::other("missingCellPolicy Strict needs a presence that was renewed")
}

/// Where an instance runs: where its template says, else in a directory of its own.
pub fn working_directory(spec: &ProcessSpec, dir: &InstanceDir) -> PathBuf {
    match &spec.working_dir {
        Some(path) => dir.cwd().join(path),
        None => dir.cwd(),
    }
}

/// What the instance's supervisor runs, and where.
fn program(supervisor: PathBuf, launch: &Launch) -> io::Result<Program> {
    let Launch {
        who,
        spec,
        ports,
        dir,
        start_timeout: _,
        probe: _,
        fence: _,
        hold,
    } = launch;
    let cwd = working_directory(spec, dir);
    if !Path::is_dir(&cwd) {
        return Err(io::Error::other(format!(
            "the working directory {} does not exist",
            cwd.display()
        )));
    }
    let (path, lang) = (std::env::var("PATH").ok(), std::env::var("LANG").ok());
    let (argv, env) = environ::command_line(spec, who, ports, &dir.cwd(), path, lang);
    Ok(Program {
        supervisor,
        argv,
        env,
        cwd,
        hold: hold.clone(),
    })
}
