//! The rep's side of its witness (`diego witness`): a small process that outlives the rep and learns from the kernel when
//! it is dead.
//!
//! The witness reads a pipe. Its other end is held by the rep, and by every supervisor, which ends only when all that it
//! ran is killed; by nobody else. So the end of that pipe says that the rep *and* its supervisors are gone, and nothing
//! else can: not a silence, a process that is stopped, a network that is cut, or anything that answers in the rep's place.
//!
//! It is told what it must know beforehand ([`Line`]); what it does then is in [`crate::witness`].

use std::ffi::OsString;
use std::fmt;
use std::io::{self, PipeWriter, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::{Child, Command};

/// A hold on the witness' pipe. As long as anybody has one, the rep is not proven to be dead.
pub type Hold = Arc<PipeWriter>;

/// A running witness. It is not started anew when it ends: supervisors that run hold the pipe of this one.
#[derive(Debug)]
pub struct Witness {
    pipe: Hold,
}

/// What a rep tells its witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Whatever is registered with this token, for so long at most without a renewal, is the rep's.
    Holds {
        /// The keeper's token.
        holder: String,
        /// The TTL.
        ttl: Duration,
    },
    /// It was given back: there is nothing to tell of.
    Left,
}

impl Line {
    /// Reads a line. `None` is a line that no rep writes.
    pub fn parse(line: &str) -> Option<Line> {
        let mut words = line.split_whitespace();
        let line = match words.next()? {
            "holds" => Line::Holds {
                holder: words.next()?.to_owned(),
                ttl: Duration::from_millis(words.next()?.parse().ok()?),
            },
            "left" => Line::Left,
            _ => return None,
        };
        words.next().is_none().then_some(line)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Holds { holder, ttl } => write!(f, "holds {holder} {}", ttl.as_millis()),
            Line::Left => write!(f, "left"),
        }
    }
}

impl Witness {
    /// Starts it: `program` is the one with the subcommand `witness`, `args` what follows that.
    ///
    /// # Errors
    /// What the system said.
    pub fn start(program: &Path, args: &[OsString]) -> io::Result<Self> {
        let (read, write) = io::pipe()?;
        let child = Command::new(program)
            .arg0("diego")
            .arg("witness")
            .args(args)
            .stdin(Stdio::from(read))
            .stdout(Stdio::null())
            .spawn()?;
        tokio::spawn(look_after(child));
        Ok(Self {
            pipe: Arc::new(write),
        })
    }

    /// A hold, for a supervisor to have.
    pub fn hold(&self) -> Hold {
        self.pipe.clone()
    }

    /// Tells it. A line a life always fits into the pipe; a witness that is gone needs no more.
    pub fn tell(&self, line: &Line) {
        let _ = (&*self.pipe).write_all(format!("{line}\n").as_bytes());
    }
}

/// A rep does not need its witness.
async fn look_after(mut child: Child) {
    if let Ok(status) = child.wait().await {
        tracing::warn!(%status, "the death witness has ended; should this rep die, that will be known by the TTL. Start the rep anew to have one again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written() {
        let holds = Line::Holds {
            holder: "h".into(),
            ttl: Duration::from_millis(5000),
        };
        for line in [holds, Line::Left] {
            assert_eq!(Line::parse(&line.to_string()), Some(line));
        }
        for other in [
            "",
            "holds",
            "holds h",
            "holds h x",
            "holds h 5 6",
            "left x",
            "x",
        ] {
            assert_eq!(Line::parse(other), None, "{other}");
        }
    }
}
