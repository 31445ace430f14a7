//! `diego witness`: waits beside a rep until that is dead with all that it ran, and then says so in the presence store, so
//! that nobody has to wait for the TTL (see `docs/decisions/0014-proof-of-death.md`).
//!
//! Until then it is one thread in one read, with no connection to anybody. [`crate::rep::witness`] is the rep's side.

use std::io::{self, BufRead};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};

use crate::backoff::{Backoff, chance};
use crate::presence::proof::{self, Published};
use crate::presence::store::StoreConfig;
use crate::rep::witness::Line;
use crate::rep::workdir::Leftovers;

/// The pauses between tries to reach the store.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How often it is looked whether what is left has ended.
const LOOK: Duration = Duration::from_millis(20);

/// What the rep held when it died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The token of what it registered.
    pub holder: String,
    /// After that it is over by itself.
    pub ttl: Duration,
}

/// Leaves the rep's session, and is deaf to whatever asks a service's processes to end: it ends by itself right after the
/// rep. To be called before there is any other thread.
///
/// # Errors
/// What the system said.
pub fn outlive_the_rep() -> io::Result<()> {
    match nix::unistd::setsid() {
        // It leads a session, or a group, already.
        Ok(_) | Err(Errno::EPERM) => {}
        Err(error) => return Err(error.into()),
    }
    let mut deaf = SigSet::empty();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ] {
        deaf.add(signal);
    }
    Ok(deaf.thread_block()?)
}

/// Reads what the rep tells until nobody holds the other end any more. Gives what the rep held then; `None` when it had
/// given that back, or the pipe broke otherwise, which proves nothing.
pub fn wait(pipe: impl BufRead) -> Option<Held> {
    let mut held = None;
    for line in pipe.lines() {
        match Line::parse(&line.ok()?) {
            Some(Line::Holds { holder, ttl }) => held = Some(Held { holder, ttl }),
            Some(Line::Left) => held = None,
            // Of another version; or the rep died in the middle of it.
            None => {}
        }
    }
    held
}

/// Says that the rep of `cell` is dead, once nothing of what it ran is left: a supervisor may have been killed before it
/// could kill. Tries for one TTL; after that the presence is over anyway.
pub async fn testify(store: &StoreConfig, cell: &str, work_dir: &Path, held: &Held) {
    let until = Instant::now() + held.ttl;
    let left = match Leftovers::of(work_dir) {
        Ok(left) => left,
        Err(error) => {
            tracing::warn!(cell, %error, "the rep is dead, but whether anything of its work is left can't be read; that is for the TTL");
            return;
        }
    };
    let mut told = false;
    while left.any() {
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(
                cell,
                "the rep is dead, but not all of its work: waiting for its end"
            );
        }
        if Instant::now() >= until {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    let mut turn = (chance() * 64.0) as usize;
    let mut warned = false;
    loop {
        match proof::publish(store, turn, cell, &held.holder).await {
            Ok(Published::Told) => {
                tracing::warn!(
                    cell,
                    "the rep and all that it ran are dead; the presence store is told"
                );
                return;
            }
            Ok(Published::NothingHeld) => {
                tracing::info!(cell, "the rep is dead, and holds no presence any more");
                return;
            }
            Err(error) if Instant::now() >= until => {
                tracing::warn!(cell, %error, "the rep is dead, and its TTL over before the presence store could be told");
                return;
            }
            Err(error) => {
                if !std::mem::replace(&mut warned, true) {
                    tracing::warn!(cell, %error, "the rep is dead, but the presence store can't be told yet; trying on");
                }
                turn = turn.wrapping_add(1);
                tokio::time::sleep(backoff.pause(chance())).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(text: &str) -> Option<String> {
        wait(text.as_bytes()).map(|held| held.holder)
    }

    #[test]
    fn what_was_told_last_counts_and_what_was_given_back_is_nothing() {
        assert_eq!(held(""), None);
        assert_eq!(held("holds a 5000\n").as_deref(), Some("a"));
        assert_eq!(held("holds a 5000\nholds b 5000\n").as_deref(), Some("b"));
        assert_eq!(held("holds a 5000\nleft\n"), None);
        assert_eq!(held("left\nholds b 1000\nho").as_deref(), Some("b"));
        assert_eq!(held("news of another version\n"), None);
    }

    #[test]
    fn a_pipe_that_breaks_proves_nothing() {
        struct Broken(bool);
        impl io::Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let line = b"holds a 5000\n";
                match std::mem::replace(&mut self.0, true) {
                    true => Err(io::Error::other("broken")),
                    false => {
                        buffer[..line.len()].copy_from_slice(line);
                        Ok(line.len())
                    }
                }
            }
        }
        assert_eq!(wait(io::BufReader::new(Broken(false))), None);
    }
}
