//! The supervisor: one tiny process per instance that outlives neither the rep nor the instance.
//!
//! Its standard input is a socket whose other end only the rep holds. The rep's death, however it comes, is the end
//! of that socket, and then the supervisor kills everything below it: it is a child subreaper, so a process that
//! left its group, or whose parent ended, is still its descendant. The same is done when the command itself ends.
//!
//! Lines from the rep: `stop` (SIGTERM to the command's group), and `deadline NANOSECONDS` on CLOCK_BOOTTIME, each later
//! than the one before. Closing its half of the socket kills. So does a deadline that passes, whatever has become of the
//! rep: that is how a Cell stops what must not run twice before its presence can end (`missingCellPolicy: Strict`). A
//! command that was given none runs without.
//! Lines to the rep, all read by [`Line::parse`]: `started PID`, then `exited CODE` or `signaled NUMBER` once nothing
//! is left; or `failed REASON` when the command can't be started. `lost REASON` and `fenced MILLISECONDS` may come
//! between.
//!
//! Its standard output is a hold on the pipe of the rep's witness ([`crate::rep::witness`]), where there is one: it lasts until
//! nothing is left. No command is given that stream: it writes into files, or to the supervisor's standard error.
//!
//! With `--log-dir` it also writes the command's output into files there (`logs`), each stream by a thread of its
//! own: a disk that hangs must not keep the supervisor from killing.

mod fence;
mod line;
mod logs;
mod tree;

use std::ffi::OsString;
use std::io::{self, PipeReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::sync::mpsc;

use crate::converge::fence::BootTime;
use fence::Fence;
pub use line::{Line, Request};
use logs::LogFile;
use tree::{Ended, kill_everything, pass_on, reap};

/// The exit code of a shell for a command that can't be found.
const NOT_FOUND: u8 = 127;

/// The exit code of a shell for a command that can't be executed.
const NOT_EXECUTABLE: u8 = 126;

/// That of a command killed by SIGKILL.
const FENCED: u8 = 137;

/// A shell adds this to the number of the signal that killed a command.
const SIGNALED: i32 = 128;

/// How long what the command wrote may take to reach its files once nothing of it is left.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A thread that copies a pipe needs no more.
const PUMP_STACK: usize = 128 * 1024;

/// Where the output of a command goes.
#[derive(Debug, Clone)]
pub struct Logs {
    /// The directory of `stdout.log` and `stderr.log`.
    pub dir: PathBuf,
    /// The most bytes that each file may have; one older file per stream is kept.
    pub limit: u64,
}

/// Where a command's standard output and standard error go.
#[derive(Debug, Clone)]
pub enum Output {
    /// Into files.
    Files(Logs),
    /// Both to the supervisor's standard error.
    Stderr,
    /// Where the supervisor's own go.
    Own,
}

/// The whole of `diego supervise -- COMMAND ARGS...`: runs the command to its end and passes its exit code on
/// (128 + the signal's number where a signal killed it). After `deadline`, and whatever later one the rep gives, nothing of it
/// runs.
pub fn supervise_main(
    command: impl IntoIterator<Item = impl Into<OsString>>,
    output: Output,
    deadline: Option<BootTime>,
) -> ExitCode {
    let command = command.into_iter().map(Into::into).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime.and_then(|runtime| runtime.block_on(supervise(command, output, deadline))) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!(
                "diego supervise: {error}. It is started by `diego rep`, with a socket as its standard input."
            );
            ExitCode::from(NOT_EXECUTABLE)
        }
    }
}

async fn supervise(
    command: Vec<OsString>,
    output: Output,
    deadline: Option<BootTime>,
) -> io::Result<u8> {
    nix::sys::prctl::set_child_subreaper(true)?;
    let stdin = StdUnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut rep = Rep::new(stdin)?;
    let mut handlers = Handlers::new()?;
    let Some((program, args)) = command.split_first() else {
        rep.tell(&Line::Failed("no command was given".into()));
        return Ok(NOT_FOUND);
    };
    // A group of its own, so that a command that signals its whole group does not hit the supervisor.
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).process_group(0);
    let mut pumps = match Pumps::start(&mut command, output) {
        Ok(pumps) => pumps,
        Err(error) => {
            rep.tell(&Line::Failed(format!("its output can't be read: {error}")));
            return Ok(NOT_EXECUTABLE);
        }
    };
    let mut fence = Fence::new(deadline)?;
    // It may have passed while this process waited for a processor.
    if let Some(late) = fence.passed() {
        rep.tell(&Line::Fenced(late));
        rep.tell(&Line::Signaled(Signal::SIGKILL as i32));
        return Ok(FENCED);
    }
    let spawned = command.spawn();
    // The ends of the pipes that the command writes to: from here on they are the command's alone.
    drop(command);
    let leader = match spawned {
        Ok(child) => Pid::from_raw(child.id().cast_signed()),
        Err(error) => {
            rep.tell(&Line::Failed(format!(
                "{}: {error}",
                program.to_string_lossy()
            )));
            return Ok(if error.kind() == io::ErrorKind::NotFound {
                NOT_FOUND
            } else {
                NOT_EXECUTABLE
            });
        }
    };
    rep.tell(&Line::Started(leader.as_raw()));
    let mut ended = None;
    while ended.is_none() {
        tokio::select! {
            // What the rep said before counts first: a supervisor that was stopped itself, and goes on, has a newer
            // deadline waiting in its socket.
            biased;
            request = rep.next() => match request {
                Some(Request::Stop) => pass_on(leader, Signal::SIGTERM),
                // A deadline that can't be kept: rather too early than never.
                Some(Request::Deadline(deadline)) => if fence.move_to(deadline).is_err() {
                    break;
                },
                None => break,
            },
            late = fence.passes() => {
                rep.tell(&Line::Fenced(late));
                break;
            }
            // Whatever ended is collected; only the end of the command itself ends the loop.
            _ = handlers.child.recv() => ended = reap(leader).ended,
            Some(lost) = pumps.lost.recv() => rep.tell(&Line::Lost(lost)),
            // A handler, not SIG_IGN: an ignored signal would stay ignored in the command.
            _ = handlers.terminate.recv() => pass_on(leader, Signal::SIGTERM),
            _ = handlers.interrupt.recv() => pass_on(leader, Signal::SIGINT),
            _ = handlers.hangup.recv() => pass_on(leader, Signal::SIGHUP),
            _ = handlers.quit.recv() => pass_on(leader, Signal::SIGQUIT),
        }
    }
    let ended = kill_everything(leader, ended).await;
    // Nobody holds the pipes any more, so they end as soon as the files have what was written.
    let drained = async {
        while let Some(lost) = pumps.lost.recv().await {
            rep.tell(&Line::Lost(lost));
        }
    };
    if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
        rep.tell(&Line::Lost(format!(
            "the log files are not complete after {DRAIN_TIMEOUT:?}"
        )));
    }
    let line = match ended {
        Some(Ended::Exited(code)) => Line::Exited(code),
        Some(Ended::Signaled(number)) => Line::Signaled(number),
        // Nobody else collects our children, so this is never reached; SIGKILL is what was sent.
        None => Line::Signaled(Signal::SIGKILL as i32),
    };
    rep.tell(&line);
    Ok(match line {
        Line::Signaled(number) => u8::try_from(SIGNALED + number).unwrap_or(u8::MAX),
        Line::Exited(code) => u8::try_from(code).unwrap_or(u8::MAX),
        Line::Started(_) | Line::Failed(_) | Line::Lost(_) | Line::Fenced(_) => u8::MAX,
    })
}

/// The threads that write the command's output into files.
struct Pumps {
    /// What they could not write. Closed once both have come to an end.
    lost: mpsc::UnboundedReceiver<String>,
}

impl Pumps {
    /// Directs the command's output to them.
    fn start(command: &mut Command, output: Output) -> io::Result<Pumps> {
        let (tell, lost) = mpsc::unbounded_channel();
        match output {
            Output::Own => {}
            Output::Stderr => {
                command.stdout(io::stderr().as_fd().try_clone_to_owned()?);
            }
            Output::Files(Logs { dir, limit }) => {
                let pump = |name: &'static str, pipe: PipeReader| {
                    let (tell, log) = (tell.clone(), LogFile::new(&dir, name, limit));
                    std::thread::Builder::new()
                        .name(name.into())
                        .stack_size(PUMP_STACK)
                        .spawn(move || logs::pump(pipe, log, |why| drop(tell.send(why))))
                };
                let (stdout, stderr) = (io::pipe()?, io::pipe()?);
                pump("stdout.log", stdout.0)?;
                pump("stderr.log", stderr.0)?;
                command.stdout(stdout.1).stderr(stderr.1);
            }
        }
        Ok(Pumps { lost })
    }
}

/// The signals a supervisor listens to.
struct Handlers {
    child: Signals,
    terminate: Signals,
    interrupt: Signals,
    hangup: Signals,
    quit: Signals,
}

impl Handlers {
    fn new() -> io::Result<Self> {
        Ok(Self {
            child: signal(SignalKind::child())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
        })
    }
}

/// The line to the rep.
struct Rep {
    lines: Lines<BufReader<UnixStream>>,
    out: StdUnixStream,
}

impl Rep {
    fn new(stream: StdUnixStream) -> io::Result<Self> {
        let out = stream.try_clone()?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            lines: BufReader::new(UnixStream::from_std(stream)?).lines(),
            out,
        })
    }

    /// What it asks for next; `None` when there is no rep any more.
    async fn next(&mut self) -> Option<Request> {
        loop {
            let line = self.lines.next_line().await.ok().flatten()?;
            if let Some(request) = Request::parse(&line) {
                return Some(request);
            }
        }
    }

    /// A rep that is gone can't be told anything, and a few short lines always fit into the socket's buffer.
    fn tell(&mut self, line: &Line) {
        let _ = self.out.write_all(format!("{line}\n").as_bytes());
    }
}
