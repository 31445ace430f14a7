//! Children of one lasting thread, which the kernel kills when this process dies.

use nix::{
    errno::Errno,
    sys::wait::{Id, WaitPidFlag, waitid},
    unistd::Pid,
};
use std::{
    io,
    path::Path,
    process::{self, Child, Command, ExitStatus},
    sync::{Mutex, OnceLock, PoisonError, mpsc},
    thread,
};
use tokio::sync::watch;

/// Runs the program only while the parent is the one that asked for it ($0): the parent may have died before its death could
/// be noticed.
const UNLESS_ORPHANED: &str = r#"[ "$PPID" = "$0" ] || exit 1; exec "$@""#;

/// The command that runs `program` until this process dies; for [`spawn`], and to be given the program's arguments.
pub(crate) fn bound_to_us(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        "--",
        "/bin/sh",
        "-c",
        UNLESS_ORPHANED,
    ]);
    command.arg(process::id().to_string()).arg(program);
    command
}

/// Starts the command from the one thread that never ends.
///
/// The kernel sends the parent-death signal when the *thread* ends that started the child, and the threads of test runtimes do.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static ORDERS: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (send, orders) = mpsc::channel::<Order>();
        // If the system refuses the thread, the channel is closed, and that is reported below.
        let _ = thread::Builder::new()
            .name("parent of servers".to_owned())
            .spawn(move || {
                // The sender is in a static: this loop ends with the process.
                for (mut command, answer) in orders {
                    let _ = answer.send(command.spawn());
                }
            });
        send
    });
    let gone = || io::Error::other("the thread that starts servers is gone");
    let (answer, result) = mpsc::channel();
    orders.send((command, answer)).map_err(|_| gone())?;
    result.recv().map_err(|_| gone())?
}

/// Waits for the child's end, gives its pid back and announces how it ended.
pub(crate) fn reap(
    mut child: Child,
    pid: Pid,
    reaped: &Mutex<bool>,
    exit: &watch::Sender<Option<ExitStatus>>,
) {
    // WNOWAIT leaves the pid taken, so that nobody's signal can hit another process before `reaped` is set.
    while let Err(Errno::EINTR) = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
    {
    }
    let mut reaped = reaped.lock().unwrap_or_else(PoisonError::into_inner);
    let status = child.wait();
    *reaped = true;
    drop(reaped);
    exit.send_replace(Some(status.unwrap_or_default()));
}
