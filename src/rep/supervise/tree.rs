//! The processes below a supervisor: collecting those that ended, killing all of them.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgid, getsid};

use super::super::procfs;

/// The longest pause between two rounds of killing. Rounds are needed because a process may fork while it is killed.
const LONGEST_ROUND: Duration = Duration::from_millis(100);

/// So many rounds come without a pause: whoever forks must not gain time by it.
const FAST_ROUNDS: u32 = 20;

/// How the command ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ended {
    Exited(i32),
    Signaled(i32),
}

/// What collecting the ended children showed.
pub(super) struct Reaped {
    /// How the command ended, if it was among them.
    pub(super) ended: Option<Ended>,
    /// Whether there is no child left, ended or not. Orphans below the supervisor are its children.
    pub(super) none_left: bool,
}

/// Collects every child that has ended.
pub(super) fn reap(leader: Pid) -> Reaped {
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
pub(super) async fn kill_everything(leader: Pid, mut ended: Option<Ended>) -> Option<Ended> {
    let me = Pid::this();
    let own_session = getsid(None).ok();
    let mut pause = Duration::from_millis(2);
    let mut rounds = 0;
    loop {
        // Once the command is collected its number may belong to another process's group.
        if ended.is_none() {
            pass_on(leader, Signal::SIGKILL);
        }
        for pid in procfs::descendants(me.as_raw())
            .into_iter()
            .map(Pid::from_raw)
        {
            // A session that is not ours was begun below us, so its groups hold nobody else's processes. A whole
            // group is killed at one stroke, however fast its members fork.
            if getsid(Some(pid)).ok() != own_session
                && let Ok(group) = getpgid(Some(pid))
            {
                pass_on(group, Signal::SIGKILL);
            }
            let _ = kill(pid, Signal::SIGKILL);
        }
        let reaped = reap(leader);
        ended = ended.or(reaped.ended);
        if reaped.none_left {
            return ended;
        }
        rounds += 1;
        if rounds > FAST_ROUNDS {
            pause = (pause * 2).min(LONGEST_ROUND);
        }
        tokio::time::sleep(pause).await;
    }
}

/// Sends a signal to a group. A group that is gone needs none.
pub(super) fn pass_on(leader: Pid, signal: Signal) {
    let _ = killpg(leader, signal);
}
