//! Follows the log that the instances write, and looks again and again whether their processes are still there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Log;
use super::facts::{Fact, Nanos, Run, now};
use crate::support::tree;

/// How often it looks: a killed process is seen to be gone so much later at most.
const LOOK: Duration = Duration::from_millis(10);

/// A thread of its own, so that a busy runtime does not make it look late. Ends when dropped.
pub struct Processes {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Processes {
    /// Begins to follow `path`.
    pub fn follow(path: &Path, log: Log) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (path, stopped) = (path.to_owned(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut follower = Follower {
                path,
                log,
                read: 0,
                living: BTreeMap::new(),
            };
            while !stopped.load(Ordering::Relaxed) {
                follower.look();
                std::thread::sleep(LOOK);
            }
        });
        Processes {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It only ends early by a panic, which was printed.
            let _ = thread.join();
        }
    }
}

struct Follower {
    path: PathBuf,
    log: Log,
    read: usize,
    /// Guid and, of each process, when it was last seen.
    living: BTreeMap<u32, (String, Nanos)>,
}

impl Follower {
    fn look(&mut self) {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        // A line that is being written has no end yet.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for line in text.get(self.read..whole).unwrap_or_default().lines() {
            match read_line(line) {
                Some(Said::Start(at, run)) => {
                    self.living.insert(run.pid, (run.guid.clone(), at));
                    self.log.add_at(at, Fact::Started(run));
                }
                // That it stops is its word; that it is gone is seen below.
                Some(Said::Stop) => {}
                None => eprintln!("a line of the instances' log can't be read: {line:?}"),
            }
        }
        self.read = self.read.max(whole);
        let mut ended = Vec::new();
        for (pid, (guid, alive)) in &mut self.living {
            let asked = now();
            if tree::is_alive(*pid) {
                *alive = asked;
            } else {
                ended.push((*pid, guid.clone(), *alive));
            }
        }
        for (pid, guid, alive) in ended {
            self.living.remove(&pid);
            self.log.add(Fact::Ended { guid, pid, alive });
        }
    }
}

enum Said {
    Start(Nanos, Run),
    Stop,
}

fn read_line(line: &str) -> Option<Said> {
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["start", at, process, index, guid, pid, cell] => {
            let run = Run {
                process: process.to_owned(),
                index: index.parse().ok(),
                guid: guid.to_owned(),
                pid: pid.parse().ok()?,
                cell: cell.to_owned(),
            };
            Some(Said::Start(at.parse().ok()?, run))
        }
        ["stop", _, _, _] => Some(Said::Stop),
        _ => None,
    }
}
