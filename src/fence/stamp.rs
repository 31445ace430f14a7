//! What rep and fencer write for each other: one line, with a time of the boot's clock and the boot that it belongs to.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use crate::converge::fence::BootTime;

/// In place of a time: there is no deadline any more.
const OFF: &str = "off";

/// Until when the Cell is certainly alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// Until this time of the boot's clock (CLOCK_BOOTTIME).
    At(BootTime),
    /// Somebody else answers for the Cell now.
    Off,
}

impl Deadline {
    /// Reads a line, and the boot id in it.
    ///
    /// # Errors
    /// What it is instead.
    pub fn parse(text: &str) -> Result<(Self, &str), String> {
        let wrong = || {
            let begin: String = text.chars().take(80).collect();
            format!("it is not `<nanoseconds> <boot id>` but {begin:?}")
        };
        // Without its end a line may be a part of one.
        let line = text.strip_suffix('\n').ok_or_else(wrong)?;
        let (time, boot) = line.split_once(' ').ok_or_else(wrong)?;
        if boot.is_empty() || boot.contains(char::is_whitespace) {
            return Err(wrong());
        }
        let deadline = match time {
            OFF => Deadline::Off,
            nanoseconds => Deadline::At(nanoseconds.parse().map_err(|_| wrong())?),
        };
        Ok((deadline, boot))
    }

    /// The line of this boot.
    pub fn line(self, boot: &str) -> String {
        match self {
            Deadline::At(at) => format!("{at} {boot}\n"),
            Deadline::Off => format!("{OFF} {boot}\n"),
        }
    }
}

/// How old the line of a fencer that is at work may be: it writes one each second.
const FRESH: Duration = Duration::from_secs(3);

/// Whether the ready file says that a fencer of this boot is at work at `now`.
pub fn is_at_work(text: &str, boot: &str, now: BootTime) -> bool {
    match Deadline::parse(text) {
        // One that is ahead of the clock was not written on this machine.
        Ok((Deadline::At(at), of)) => of == boot && at <= now && now.since(at) <= FRESH,
        Ok((Deadline::Off, _)) | Err(_) => false,
    }
}

/// Writes the file as a whole or not at all: whoever reads meanwhile sees the old line. It is not made durable, since no
/// line outlives its boot.
///
/// # Errors
/// What the system said.
pub fn write(file: &Path, line: &str) -> std::io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = file.with_file_name(name);
    let mut out = std::fs::File::create(&new)?;
    out.write_all(line.as_bytes())?;
    drop(out);
    std::fs::rename(&new, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for deadline in [
            Deadline::At(BootTime::from_nanos(1)),
            Deadline::At(BootTime::from_nanos(u64::MAX)),
            Deadline::Off,
        ] {
            let line = deadline.line("b-1");
            assert_eq!(Deadline::parse(&line), Ok((deadline, "b-1")), "{line}");
        }
    }

    #[test]
    fn what_is_no_line_is_named() {
        for bad in [
            "",
            "\n",
            "5",
            "5\n",
            "5 b",
            "5 \n",
            "-5 b\n",
            "5 b c\n",
            "5 b\n6 b\n",
            "1e3 b\n",
            "99999999999999999999 b\n",
            "on b\n",
        ] {
            let problem = Deadline::parse(bad).unwrap_err();
            assert!(problem.contains(&format!("{bad:?}")), "{problem}");
        }
    }

    #[test]
    fn a_fencer_that_is_silent_is_not_at_work() {
        let s = |seconds: u64| BootTime::from_nanos(seconds * 1_000_000_000);
        let line = Deadline::At(s(10)).line("b");
        let at = |seconds| is_at_work(&line, "b", s(seconds));
        assert!(at(10) && at(13));
        assert!(!at(14), "silent");
        assert!(!at(9), "ahead of the clock");
        assert!(!is_at_work(&line, "c", s(10)), "of another boot");
        assert!(!is_at_work("", "b", s(10)), "empty");
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("deadline");
        for line in ["a long line of an earlier time\n", "5 b\n"] {
            write(&file, line)?;
            assert_eq!(std::fs::read_to_string(&file)?, line);
        }
        assert_eq!(std::fs::read_dir(dir.path())?.count(), 1);
        Ok(())
    }
}
