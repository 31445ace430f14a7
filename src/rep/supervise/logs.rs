//! The output of an instance: from its pipe into a file that is rotated by size, so that it never fills the disk.
//!
//! A file that would exceed its limit becomes `<name>.1`, in place of the one before, and a new one begins. Lines
//! stay whole unless they are longer than [`LONGEST_LINE`] or the limit. A slow disk slows the instance down; a disk
//! that can't be written does not stop it: what can't be written is dropped, told once, and marked in the file once
//! that can be written again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How much is read at once; as much again is needed while a file is rotated.
const BUFFER: usize = 32 * 1024;

/// A line up to this length is never split by a rotation.
const LONGEST_LINE: u64 = 32 * 1024;

/// Copies a pipe to its end. `tell` is called when the file can't be written for the first time.
pub(super) fn pump(mut pipe: impl Read, mut log: LogFile, mut tell: impl FnMut(String)) {
    let mut buffer = vec![0; BUFFER];
    let mut told = false;
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                if let Err(error) = log.write(&buffer[..read])
                    && !std::mem::replace(&mut told, true)
                {
                    tell(format!("{}: {error}", log.path.display()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    // The last chance to mark what was dropped.
    let _ = log.write(&[]);
}

/// A log file that rotates itself.
pub(super) struct LogFile {
    path: PathBuf,
    rotated: PathBuf,
    limit: u64,
    open: Option<Open>,
    /// What was dropped since the last byte that could be written, and why.
    lost: Option<(u64, String)>,
}

struct Open {
    file: File,
    length: u64,
    /// Where the line begins that is being written.
    line: u64,
}

impl LogFile {
    pub(super) fn new(dir: &Path, name: &str, limit: u64) -> LogFile {
        LogFile {
            path: dir.join(name),
            rotated: dir.join(format!("{name}.1")),
            limit: limit.max(1),
            open: None,
            lost: None,
        }
    }

    /// Writes all, or drops the rest.
    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        let mut rest = data;
        let written = self.mark_loss().and_then(|()| {
            while !rest.is_empty() {
                let written = self.write_some(rest)?;
                rest = &rest[written..];
            }
            Ok(())
        });
        if let Err(error) = &written {
            let bytes = rest.len() as u64;
            self.lost = Some(match self.lost.take() {
                Some((before, why)) => (before + bytes, why),
                None => (bytes, error.to_string()),
            });
        }
        written
    }

    /// Says in the file itself that something is missing here.
    fn mark_loss(&mut self) -> io::Result<()> {
        let Some((bytes, why)) = &self.lost else {
            return Ok(());
        };
        let fresh = self
            .open
            .as_ref()
            .is_none_or(|open| open.line == open.length);
        let begin = if fresh { "" } else { "\n" };
        let mark = format!("{begin}diego: {bytes} bytes of output were dropped here: {why}\n");
        let mut rest = mark.as_bytes();
        while !rest.is_empty() {
            let written = self.write_some(rest)?;
            rest = &rest[written..];
        }
        self.lost = None;
        Ok(())
    }

    /// Writes as much as belongs into the file as it is, and rotates it first if nothing does.
    fn write_some(&mut self, data: &[u8]) -> io::Result<usize> {
        let (limit, path, rotated) = (self.limit, &self.path, &self.rotated);
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(Open::append(path)?),
        };
        let room = usize::try_from(limit.saturating_sub(open.length)).unwrap_or(usize::MAX);
        if data.len() <= room {
            return open.write(data);
        }
        if let Some(newline) = data[..room].iter().rposition(|byte| *byte == b'\n') {
            return open.write(&data[..=newline]);
        }
        let line = open.length - open.line;
        // A line that is too long to be kept whole fills the file to its end.
        if room > 0 && (open.line == 0 || line > LONGEST_LINE) {
            return open.write(&data[..room]);
        }
        open.rotate(path, rotated)?;
        Ok(0)
    }
}

impl Open {
    fn append(path: &Path) -> io::Result<Open> {
        let file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .mode(0o600)
            .open(path)?;
        let length = file.metadata()?.len();
        Ok(Open {
            file,
            length,
            line: length,
        })
    }

    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = match self.file.write(data) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        if let Some(newline) = data[..written].iter().rposition(|byte| *byte == b'\n') {
            self.line = self.length + newline as u64 + 1;
        }
        self.length += written as u64;
        Ok(written)
    }

    /// The file becomes the old one; the line that has just begun moves on to the new one.
    fn rotate(&mut self, path: &Path, rotated: &Path) -> io::Result<()> {
        let line = self.length - self.line;
        let mut begun = Vec::new();
        if self.line > 0 && line <= LONGEST_LINE {
            begun.resize(usize::try_from(line).unwrap_or(0), 0);
            // Somebody has cut the file: then there is nothing to move.
            if self.file.read_exact_at(&mut begun, self.line).is_err() {
                begun.clear();
            }
        }
        match fs::rename(path, rotated) {
            // Somebody has removed it.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut next = Open::append(path)?;
        if !begun.is_empty() {
            match next.file.write_all(&begun) {
                Ok(()) => {
                    next.length += begun.len() as u64;
                    // It is in the new file; that it is in the old one too would be the lesser evil.
                    let _ = self.file.set_len(self.line);
                }
                Err(_) => next.file.set_len(0)?,
            }
            next.line = 0;
        }
        *self = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
