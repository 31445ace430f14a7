//! What a supervisor and its rep tell each other, one line each.

use std::fmt;

use crate::converge::fence::BootTime;

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// The command was started as this process, which leads a process group.
    Started(i32),
    /// The command can't be started, and why.
    Failed(String),
    /// A log file can't be written and why; told once per stream, whatever follows is dropped until it can.
    Lost(String),
    /// The deadline passed so many milliseconds ago, and everything is killed for it; how it ended follows.
    Fenced(u64),
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
            "lost" => Some(Line::Lost(rest.into())),
            "fenced" => rest.parse().ok().map(Line::Fenced),
            "exited" => rest.parse().ok().map(Line::Exited),
            "signaled" => rest.parse().ok().map(Line::Signaled),
            _ => None,
        }
    }
}

/// What the rep asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// SIGTERM to the command's group.
    Stop,
    /// Nothing of it may run after this.
    Deadline(BootTime),
}

impl Request {
    /// Reads a line. `None` is a line that no rep writes.
    pub fn parse(line: &str) -> Option<Request> {
        match line {
            "stop" => Some(Request::Stop),
            _ => line
                .strip_prefix("deadline ")?
                .parse()
                .ok()
                .map(Request::Deadline),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Started(pid) => write!(f, "started {pid}"),
            Line::Failed(reason) => write!(f, "failed {}", reason.replace('\n', " ")),
            Line::Lost(reason) => write!(f, "lost {}", reason.replace('\n', " ")),
            Line::Fenced(late) => write!(f, "fenced {late}"),
            Line::Exited(code) => write!(f, "exited {code}"),
            Line::Signaled(number) => write!(f, "signaled {number}"),
        }
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
            Line::Lost("stdout.log: disk full".into()),
            Line::Fenced(12),
            Line::Exited(3),
            Line::Signaled(9),
        ] {
            assert_eq!(Line::parse(&format!("{line}\n")), Some(line));
        }
        let at = BootTime::from_nanos(7);
        assert_eq!(Request::parse("stop"), Some(Request::Stop));
        assert_eq!(
            Request::parse(&format!("deadline {at}")),
            Some(Request::Deadline(at))
        );
        for other in ["", "stop ", "deadline", "deadline ", "deadline x", "kill"] {
            assert_eq!(Request::parse(other), None, "{other}");
        }
        assert_eq!(Line::Failed("a\nb".into()).to_string(), "failed a b");
        for other in ["", "exited", "exited x", "hello 1"] {
            assert_eq!(Line::parse(other), None, "{other}");
        }
    }
}
