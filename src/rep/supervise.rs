//! The supervisor: one tiny process per instance that outlives neither the rep nor the instance.
//!
//! Its standard input is a socket whose other end only the rep holds. The rep's death, however it comes, is the end
//! of that socket, and then the supervisor kills everything below it: it is a child subreaper, so a process that
//! left its group, or whose parent ended, is still its descendant. The same is done when the command itself ends.
//!
//! Lines from the rep: `stop` (SIGTERM to the command's group). Closing its half of the socket kills.
//! Lines to the rep, all read by [`Line::parse`]: `started PID`, then `exited CODE` or `signaled NUMBER` once nothing
//! is left; or `failed REASON` when the command can't be started.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

use super::procfs;

/// The exit code of a shell for a command that can't be found.
const NOT_FOUND: u8 = 127;

/// The exit code of a shell for a command that can't be executed.
const NOT_EXECUTABLE: u8 = 126;

/// A shell adds this to the number of the signal that killed a command.
const SIGNALED: i32 = 128;

/// The longest pause between two rounds of killing. Rounds are needed because a process may fork while it is killed.
const LONGEST_ROUND: Duration = Duration::from_millis(100);

/// What a supervisor tells its rep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// The command was started as this process, which leads a process group.
    Started(i32),
    /// The command can't be started, and why.
    Failed(String),
    /// The command ended with this status, and nothing of it is left.
    Exited(i32),
    /// The command was killed by this signal, and nothing of it is left.
    Signaled(i32),
}

impl Line {
    /// Reads a line. `None` is a line that no supervisor writes.
    pub fn parse(line: &str) -> Option<Line> {
        let (word, rest) = line.trim_end().split_once(' ')?;
        match word {
            "started" => rest.parse().ok().map(Line::Started),
            "failed" => Some(Line::Failed(rest.into())),
            "exited" => rest.parse().ok().map(Line::Exited),
            "signaled" => rest.parse().ok().map(Line::Signaled),
            _ => None,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Started(pid) => write!(f, "started {pid}"),
            Line::Failed(reason) => write!(f, "failed {}", reason.replace('\n', " ")),
            Line::Exited(code) => write!(f, "exited {code}"),
            Line::Signaled(number) => write!(f, "signaled {number}"),
        }
    }
}

/// The whole of `diego supervise -- COMMAND ARGS...`: runs the command to its end and passes its exit code on
/// (128 + the signal's number where a signal killed it).
pub fn supervise_main(command: impl IntoIterator<Item = impl Into<OsString>>) -> ExitCode {
    let command = command.into_iter().map(Into::into).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime.and_then(|runtime| runtime.block_on(supervise(command))) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!(
                "diego supervise: {error}. It is started by `diego rep`, with a socket as its standard input."
            );
            ExitCode::from(NOT_EXECUTABLE)
        }
    }
}

async fn supervise(command: Vec<OsString>) -> io::Result<u8> {
    nix::sys::prctl::set_child_subreaper(true)?;
    let stdin = StdUnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut rep = Rep::new(stdin)?;
    let mut handlers = Handlers::new()?;
    let Some((program, args)) = command.split_first() else {
        rep.tell(&Line::Failed("no command was given".into()));
        return Ok(NOT_FOUND);
    };
    // A group of its own, so that a command that signals its whole group does not hit the supervisor.
    let spawned = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn();
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
            // Whatever ended is collected; only the end of the command itself ends the loop.
            _ = handlers.child.recv() => ended = reap(leader).ended,
            request = rep.next() => match request {
                Request::Stop => pass_on(leader, Signal::SIGTERM),
                Request::Kill => break,
            },
            // A handler, not SIG_IGN: an ignored signal would stay ignored in the command.
            _ = handlers.terminate.recv() => pass_on(leader, Signal::SIGTERM),
            _ = handlers.interrupt.recv() => pass_on(leader, Signal::SIGINT),
            _ = handlers.hangup.recv() => pass_on(leader, Signal::SIGHUP),
        }
    }
    let ended = kill_everything(leader, ended).await;
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
        Line::Started(_) | Line::Failed(_) => u8::MAX,
    })
}

/// How the command ended.
#[derive(Debug, Clone, Copy)]
enum Ended {
    Exited(i32),
    Signaled(i32),
}

/// What collecting the ended children showed.
struct Reaped {
    /// How the command ended, if it was among them.
    ended: Option<Ended>,
    /// Whether there is no child left, ended or not. Orphans below the supervisor are its children.
    none_left: bool,
}

/// Collects every child that has ended.
fn reap(leader: Pid) -> Reaped {
    let mut ended = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == leader => ended = Some(Ended::Exited(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == leader => {
                ended = Some(Ended::Signaled(signal as i32))
            }
            Ok(WaitStatus::StillAlive) => {
                return Reaped {
                    ended,
                    none_left: false,
                };
            }
            Err(Errno::ECHILD) => {
                return Reaped {
                    ended,
                    none_left: true,
                };
            }
            // A real-time signal, which nix has no name for, killed one of them: the command, if it is gone.
            Err(Errno::EINVAL) if kill(leader, None).is_err() => {
                ended = ended.or(Some(Ended::Signaled(Signal::SIGKILL as i32)));
            }
            Ok(_) | Err(_) => {}
        }
    }
}

/// Kills the command's group and every descendant until none is left.
async fn kill_everything(leader: Pid, mut ended: Option<Ended>) -> Option<Ended> {
    let me = Pid::this();
    let mut pause = Duration::from_millis(2);
    loop {
        // Once the command is collected its number may belong to another process's group.
        if ended.is_none() {
            pass_on(leader, Signal::SIGKILL);
        }
        for pid in procfs::descendants(me.as_raw()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let reaped = reap(leader);
        ended = ended.or(reaped.ended);
        if reaped.none_left {
            return ended;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_ROUND);
    }
}

/// Sends a signal to the command's group. A group that is gone needs none.
fn pass_on(leader: Pid, signal: Signal) {
    let _ = killpg(leader, signal);
}

/// The signals a supervisor listens to.
struct Handlers {
    child: Signals,
    terminate: Signals,
    interrupt: Signals,
    hangup: Signals,
}

impl Handlers {
    fn new() -> io::Result<Self> {
        Ok(Self {
            child: signal(SignalKind::child())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// What the rep asks for.
enum Request {
    Stop,
    Kill,
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

    async fn next(&mut self) -> Request {
        loop {
            match self.lines.next_line().await {
                Ok(Some(line)) if line == "stop" => return Request::Stop,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return Request::Kill,
            }
        }
    }

    /// A rep that is gone can't be told anything, and a few short lines always fit into the socket's buffer.
    fn tell(&mut self, line: &Line) {
        let _ = self.out.write_all(format!("{line}\n").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written() {
        for line in [
            Line::Started(7),
            Line::Failed("no such file".into()),
            Line::Exited(3),
            Line::Signaled(9),
        ] {
            assert_eq!(Line::parse(&format!("{line}\n")), Some(line));
        }
        assert_eq!(Line::Failed("a\nb".into()).to_string(), "failed a b");
        for other in ["", "exited", "exited x", "hello 1"] {
            assert_eq!(Line::parse(other), None, "{other}");
        }
    }
}
