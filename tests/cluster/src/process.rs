//! A server as a child process that never outlives the program that started it.

use crate::{Error, Result, child};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::{sync::watch, time};

/// How much of a log's end is read for an error message, in bytes, and how many lines of that are shown.
const TAIL_BYTES: u64 = 16 * 1024;
const TAIL_LINES: usize = 20;

/// How long [`ServerProcess::ready`] rests between two probes.
const PROBE_PAUSE: Duration = Duration::from_millis(25);

/// A running server, killed and reaped when this is dropped.
///
/// The kernel kills it too when the program that started it ends in any other way: by a panic, a signal, even SIGKILL. It has a
/// process group of its own, so that Ctrl-C in a terminal reaches the program alone, which then stops its servers in order.
/// Its standard output and error are appended to its log file.
#[derive(Debug)]
pub struct ServerProcess {
    launch: Launch,
    /// Where this run's part of the log file begins, in bytes.
    log_start: u64,
    pid: Pid,
    /// Whether the pid was given back to the system: from then on it may be somebody else's.
    reaped: Arc<Mutex<bool>>,
    paused: AtomicBool,
    exit: watch::Receiver<Option<ExitStatus>>,
    waiter: Option<JoinHandle<()>>,
}

/// All that is needed to start the same server once more.
#[derive(Clone, Debug)]
struct Launch {
    name: String,
    program: PathBuf,
    args: Vec<String>,
    envs: Vec<(String, String)>,
    log: PathBuf,
}

impl ServerProcess {
    /// Starts `program` with `args`, and with `envs` on top of this process's environment. `name` is what errors call it; `log`
    /// is the file that gets its output, made if missing and appended to otherwise. Returns once the process exists, which says
    /// nothing about whether it works: see [`ServerProcess::ready`].
    ///
    /// # Errors
    /// [`Error::Io`] when the log cannot be opened, the program does not exist, or `setpriv` (of util-linux) is missing.
    pub fn start(
        name: &str,
        program: &Path,
        args: &[String],
        envs: &[(String, String)],
        log: &Path,
    ) -> Result<Self> {
        Self::launch(Launch {
            name: name.to_owned(),
            program: program.to_owned(),
            args: args.to_vec(),
            envs: envs.to_vec(),
            log: log.to_owned(),
        })
    }

    /// Starts the same program with the same arguments once more, as a new process; this one should have ended.
    ///
    /// # Errors
    /// As [`ServerProcess::start`].
    pub fn restart(&self) -> Result<Self> {
        Self::launch(self.launch.clone())
    }

    fn launch(launch: Launch) -> Result<Self> {
        let Launch {
            name,
            program,
            args,
            envs,
            log,
        } = &launch;
        // Found here and not by the shell, whose complaint would only be in the log.
        program
            .metadata()
            .map_err(Error::io(format!("start {name}: {}", program.display())))?;
        let open_log = || OpenOptions::new().create(true).append(true).open(log);
        let out = open_log().map_err(Error::io(format!("open the log {}", log.display())))?;
        let log_start = out.metadata().map_or(0, |meta| meta.len());
        let err = out
            .try_clone()
            .map_err(Error::io(format!("open the log {}", log.display())))?;

        let mut command = child::bound_to_us(program);
        command.args(args);
        command.envs(envs.iter().map(|(key, value)| (key, value)));
        command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0);
        let child = child::spawn(command).map_err(Error::io(format!(
            "start {name} through setpriv (of util-linux)"
        )))?;

        let pid = Pid::from_raw(child.id().cast_signed());
        let reaped = Arc::new(Mutex::new(false));
        let (send_exit, exit) = watch::channel(None);
        let wait = {
            let reaped = Arc::clone(&reaped);
            move || child::reap(child, pid, &reaped, &send_exit)
        };
        let waiter = thread::Builder::new()
            .name(format!("wait {name}"))
            .spawn(wait)
            .map_err(|error| {
                let _ = kill(pid, Signal::SIGKILL);
                Error::io(format!("watch over {name}"))(error)
            })?;
        Ok(Self {
            launch,
            log_start,
            pid,
            reaped,
            paused: AtomicBool::new(false),
            exit,
            waiter: Some(waiter),
        })
    }

    /// The process id. After the process has ended the number may belong to somebody else.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().cast_unsigned()
    }

    /// The name that [`ServerProcess::start`] was given.
    pub fn name(&self) -> &str {
        &self.launch.name
    }

    /// The file with its output, that of former runs included.
    pub fn log(&self) -> &Path {
        &self.launch.log
    }

    /// Ends it at once and without notice (SIGKILL), also while it is paused. [`ServerProcess::wait`] tells when it is gone.
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// Asks it to end (SIGTERM). A paused process hears of it when it is resumed.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Freezes it (SIGSTOP): it answers nothing, and its connections stay open.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::Relaxed);
        self.signal(Signal::SIGSTOP);
    }

    /// Lets a paused process go on (SIGCONT).
    pub fn resume(&self) {
        self.paused.store(false, Ordering::Relaxed);
        self.signal(Signal::SIGCONT);
    }

    /// Whether it has not ended; a paused process is running in this sense.
    pub fn is_running(&self) -> bool {
        self.exit.borrow().is_none()
    }

    /// Whether it runs and was not paused by [`ServerProcess::pause`].
    pub(crate) fn is_active(&self) -> bool {
        self.is_running() && !self.paused.load(Ordering::Relaxed)
    }

    /// Waits until it has ended, and says how. Any number of callers may wait.
    pub async fn wait(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(status) => status.unwrap_or_default(),
            // The waiter ended without a word: it could not wait, so there is nothing left to wait for.
            Err(_) => ExitStatus::default(),
        }
    }

    /// Waits until `probe` says true, asking again and again for at most `within`.
    ///
    /// # Errors
    /// [`Error::Exited`] as soon as the process has ended, [`Error::NotReady`] when the time is over; both hold the last lines
    /// of its log.
    pub async fn ready<P, F>(&self, within: Duration, mut probe: P) -> Result<()>
    where
        P: FnMut() -> F,
        F: Future<Output = bool>,
    {
        let started = Instant::now();
        loop {
            let left = within.saturating_sub(started.elapsed());
            if time::timeout(left, probe()).await == Ok(true) {
                return Ok(());
            }
            let (name, log) = (self.launch.name.clone(), self.launch.log.clone());
            if let Some(status) = *self.exit.borrow() {
                return Err(Error::Exited {
                    name,
                    status,
                    log,
                    tail: self.log_tail(),
                });
            }
            if left.is_zero() {
                return Err(Error::NotReady {
                    name,
                    waited: within,
                    log,
                    tail: self.log_tail(),
                });
            }
            time::sleep(PROBE_PAUSE.min(left)).await;
        }
    }

    /// The last lines that this run has logged; empty if the log cannot be read.
    pub fn log_tail(&self) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&self.launch.log)?;
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(
                self.log_start.max(end.saturating_sub(TAIL_BYTES)),
            ))?;
            let mut bytes = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    fn signal(&self, signal: Signal) {
        let reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if !*reaped {
            // It is our child and not reaped, so the pid is its own; a failure can only mean that it is ending.
            let _ = kill(self.pid, signal);
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
        if let Some(waiter) = self.waiter.take() {
            let _ = waiter.join();
        }
    }
}
