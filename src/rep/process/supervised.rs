//! The rep's hold on one `diego supervise`: of an instance, or of one try of a probe.

use std::collections::BTreeMap;
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};

use super::super::supervise::{Line, Logs};
use super::super::witness::Hold;
use crate::converge::fence::BootTime;

/// A supervisor that was told to kill and does not end within this is no longer waited for: the process it can't
/// kill hangs in the kernel. It goes on trying.
pub(in crate::rep) const KILL_TIMEOUT: Duration = Duration::from_secs(30);

/// What a supervisor is to run.
#[derive(Debug, Clone)]
pub(in crate::rep) struct Program {
    /// The program that has the subcommand `supervise`: the rep's own.
    pub(in crate::rep) supervisor: PathBuf,
    /// The command and its arguments.
    pub(in crate::rep) argv: Vec<String>,
    /// Its whole environment.
    pub(in crate::rep) env: BTreeMap<String, String>,
    /// Its working directory.
    pub(in crate::rep) cwd: PathBuf,
    /// The supervisor has it until it ends.
    pub(in crate::rep) hold: Option<Hold>,
}

/// A running supervisor. It kills what it runs when this is dropped, or when the rep dies.
pub(in crate::rep) struct Supervised {
    child: Child,
    lines: Lines<BufReader<OwnedReadHalf>>,
    /// Closed to kill.
    out: Option<OwnedWriteHalf>,
}

impl Supervised {
    /// Runs a program whose output the supervisor writes into files; not after `deadline`, unless that is moved on.
    pub(in crate::rep) fn with_logs(
        program: &Program,
        logs: &Logs,
        deadline: Option<BootTime>,
    ) -> io::Result<Supervised> {
        let mut command = Command::new(&program.supervisor);
        command
            .arg0("diego")
            .arg("supervise")
            .arg("--log-dir")
            .arg(&logs.dir)
            .args(["--log-size", &logs.limit.to_string()])
            .args(deadline.map(|deadline| format!("--deadline={deadline}")));
        Self::spawn(command, program)
    }

    /// Runs a program whose output the rep reads, both streams in one.
    pub(in crate::rep) fn with_pipe(program: &Program) -> io::Result<(Supervised, PipeReader)> {
        let (read, write) = io::pipe()?;
        let mut command = Command::new(&program.supervisor);
        command
            .arg0("diego")
            .arg("supervise")
            .arg("--output-to-stderr")
            .stderr(write);
        Ok((Self::spawn(command, program)?, read))
    }

    fn spawn(mut command: Command, program: &Program) -> io::Result<Supervised> {
        // Standard output is the supervisor's alone: what it runs is given other streams.
        command.stdout(match &program.hold {
            Some(hold) => Stdio::from(hold.try_clone()?),
            None => Stdio::null(),
        });
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let child = command
            .arg("--")
            .args(&program.argv)
            .env_clear()
            .envs(&program.env)
            .current_dir(&program.cwd)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            // A signal to the rep's group, such as Ctrl-C at a terminal, is the rep's to answer.
            .process_group(0)
            .spawn()?;
        let (read, out) = UnixStream::from_std(ours)?.into_split();
        Ok(Supervised {
            child,
            lines: BufReader::new(read).lines(),
            out: Some(out),
        })
    }

    /// The supervisor's own process.
    pub(in crate::rep) fn pid(&self) -> i32 {
        self.child.id().map_or(0, u32::cast_signed)
    }

    /// What it tells next. `None` is the end of a supervisor that was killed.
    pub(in crate::rep) async fn next(&mut self) -> Option<Line> {
        while let Some(line) = self.lines.next_line().await.ok().flatten() {
            if let Some(line) = Line::parse(&line) {
                return Some(line);
            }
        }
        None
    }

    /// SIGTERM to the command's group.
    pub(in crate::rep) async fn stop(&mut self) {
        if let Some(out) = &mut self.out {
            // A line fits into the socket's buffer; a supervisor that is gone shows as the end of its lines.
            let _ = out.write_all(b"stop\n").await;
        }
    }

    /// It may run on until then.
    pub(in crate::rep) fn run_until(&mut self, deadline: BootTime) {
        if let Some(out) = &mut self.out {
            // Never waits: one that does not read is stopped, and must not keep the rep from killing it. What it misses it
            // would have read too late.
            let _ = out.try_write(format!("deadline {deadline}\n").as_bytes());
        }
    }

    /// Whether it was told to kill.
    pub(in crate::rep) fn is_killed(&self) -> bool {
        self.out.is_none()
    }

    /// SIGKILL to everything below it.
    pub(in crate::rep) fn kill(&mut self) {
        self.out = None;
    }

    /// Waits until it is gone and collected. It says its last line just before it exits.
    pub(in crate::rep) async fn finish(&mut self) {
        self.kill();
        let _ = tokio::time::timeout(KILL_TIMEOUT, self.child.wait()).await;
    }
}
