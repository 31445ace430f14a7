//! One try of a probe by command, below a supervisor of its own: it dies with the rep, and whatever it starts with it.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

use super::super::process::{Program, Supervised};
use super::super::supervise::Line;
use crate::converge::process_spec::expand;

/// So much of what a command writes is told as its reason.
const TOLD: usize = 256;

/// Runs the command where and as the instance runs, and returns when nothing of it is left: because it ended, because
/// its time was over, or because of `stop`.
pub(super) async fn run(
    instance: &Program,
    command: &[String],
    limit: Duration,
    stop: &CancellationToken,
) -> Result<(), String> {
    let argv = command.iter().map(|text| expand(text, &instance.env));
    let program = Program {
        argv: argv.collect(),
        ..instance.clone()
    };
    let begin = || -> io::Result<(Supervised, Output)> {
        let (supervised, pipe) = Supervised::with_pipe(&program)?;
        Ok((supervised, Output::new(pipe)?))
    };
    let (mut supervised, mut output) = begin().map_err(|error| error.to_string())?;
    let late = tokio::time::sleep(limit);
    tokio::pin!(late);
    let mut reading = true;
    let verdict = loop {
        tokio::select! {
            verdict = end(&mut supervised) => break verdict,
            () = output.read(), if reading => reading = false,
            () = &mut late => break Err(format!("timed out after {} s", limit.as_secs())),
            () = stop.cancelled() => break Err("stopped".into()),
        }
    };
    supervised.finish().await;
    verdict.map_err(|why| match output.first_line() {
        Some(line) => format!("{why}: {line}"),
        None => why,
    })
}

async fn end(supervised: &mut Supervised) -> Result<(), String> {
    loop {
        return match supervised.next().await {
            Some(Line::Started(_) | Line::Lost(_) | Line::Fenced(_)) => continue,
            Some(Line::Exited(0)) => Ok(()),
            Some(Line::Exited(code)) => Err(format!("exit status {code}")),
            Some(Line::Signaled(number)) => Err(format!("killed by signal {number}")),
            Some(Line::Failed(reason)) => Err(format!("could not be started: {reason}")),
            None => Err("its supervisor was killed".into()),
        };
    }
}

/// What a command writes: the beginning is kept, the rest is read and dropped.
struct Output {
    pipe: pipe::Receiver,
    kept: Vec<u8>,
}

impl Output {
    fn new(pipe: io::PipeReader) -> io::Result<Output> {
        Ok(Output {
            pipe: pipe::Receiver::from_owned_fd(pipe.into())?,
            kept: Vec::new(),
        })
    }

    /// Reads to the end.
    async fn read(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(read) = self.pipe.read(&mut buffer).await {
            if read == 0 {
                return;
            }
            self.keep(&buffer[..read]);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = TOLD - self.kept.len();
        self.kept.extend(&bytes[..bytes.len().min(room)]);
    }

    /// The first line that is not empty, as plain text. Nobody writes any more, so what is left is read at once.
    fn first_line(mut self) -> Option<String> {
        let mut buffer = [0; TOLD];
        while self.kept.len() < TOLD {
            match self.pipe.try_read(&mut buffer) {
                Ok(read) if read > 0 => self.keep(&buffer[..read]),
                Ok(_) | Err(_) => break,
            }
        }
        let text = String::from_utf8_lossy(&self.kept);
        let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
        Some(line.replace(|c: char| c.is_control(), " "))
    }
}
