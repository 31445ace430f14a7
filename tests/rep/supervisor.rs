//! `diego supervise` as the rep uses it: over a socket at its standard input.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use diego_operator::rep::supervise::Line;
use diego_operator::rep::workdir::GUID_VARIABLE;

use super::{DEADLINE, diego, guid, marked, until};

/// A supervisor and the rep's end of its socket.
pub struct Supervised {
    pub child: Child,
    pub socket: BufReader<UnixStream>,
    pub guid: String,
}

fn supervise(command: &[&str]) -> Supervised {
    supervise_with(&[], command)
}

pub fn supervise_with(flags: &[&str], command: &[&str]) -> Supervised {
    supervise_by(Command::new(diego()), flags, command)
}

/// `program` runs what its further arguments say, with the binary as the first of them, or is that.
fn supervise_by(mut program: Command, flags: &[&str], command: &[&str]) -> Supervised {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    ours.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    let guid = guid();
    let child = program
        .arg("supervise")
        .args(flags)
        .arg("--")
        .args(command)
        .env(GUID_VARIABLE, &guid)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .expect("the supervisor");
    Supervised {
        child,
        socket: BufReader::new(ours),
        guid,
    }
}

impl Supervised {
    pub fn line(&mut self) -> Line {
        let mut line = String::new();
        self.socket.read_line(&mut line).expect("a line in time");
        Line::parse(&line).unwrap_or_else(|| panic!("no line of a supervisor: {line:?}"))
    }

    fn started(&mut self) -> i32 {
        match self.line() {
            Line::Started(pid) => pid,
            other => panic!("not started: {other}"),
        }
    }

    fn exit_code(mut self) -> Option<i32> {
        self.child.wait().expect("ended").code()
    }
}

fn shell(script: &str) -> Supervised {
    supervise(&["sh", "-c", script])
}

#[test]
fn exit_codes_and_signals_are_passed_through() {
    for (script, line, code) in [
        ("exit 0", Line::Exited(0), 0),
        ("exit 3", Line::Exited(3), 3),
        ("kill -KILL $$", Line::Signaled(9), 137),
        ("kill -TERM $$", Line::Signaled(15), 143),
    ] {
        let mut supervised = shell(script);
        supervised.started();
        assert_eq!(supervised.line(), line, "{script}");
        assert_eq!(supervised.exit_code(), Some(code), "{script}");
    }
}

#[test]
fn a_command_that_can_not_be_started_says_why() {
    for (command, code, reason) in [
        ("/no/such/program", 127, "No such file"),
        ("/etc/passwd", 126, "Permission denied"),
    ] {
        let mut supervised = supervise(&[command]);
        let Line::Failed(text) = supervised.line() else {
            panic!("{command} must not start")
        };
        assert!(text.contains(command) && text.contains(reason), "{text}");
        assert_eq!(supervised.exit_code(), Some(code));
    }
}

#[test]
fn everything_dies_with_the_rep_even_what_left_the_group() {
    // A child, a grandchild in a session of its own whose parent is gone, and one that ignores SIGTERM.
    let mut supervised = shell(
        "sleep 600 & (setsid sh -c 'sleep 600 & sleep 600' &) ; sh -c 'trap \"\" TERM HUP; while :; do sleep 600; done' & wait",
    );
    supervised.started();
    let guid = supervised.guid.clone();
    // The supervisor, the shell, and the six processes it made.
    until("all processes run", || marked(&guid).len() >= 8);
    let Supervised {
        mut child,
        socket,
        guid,
    } = supervised;
    drop(socket);
    until("all processes are gone", || marked(&guid).is_empty());
    assert_eq!(child.wait().expect("ended").code(), Some(137));
}

#[test]
fn what_the_command_leaves_behind_is_killed_before_its_end_is_told() {
    let mut supervised = shell("setsid sleep 600 & exit 4");
    supervised.started();
    assert_eq!(supervised.line(), Line::Exited(4));
    // Only the supervisor itself may still be on its way out.
    let own = i32::try_from(supervised.child.id()).expect("a process number");
    assert!(marked(&supervised.guid).iter().all(|pid| *pid == own));
}

#[test]
fn stop_is_a_sigterm_and_the_supervisor_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    let up = dir.path().join("up");
    let script = format!(
        "trap 'exit 7' TERM; echo > {}; while :; do sleep 0.05; done",
        up.display()
    );
    let mut supervised = shell(&script);
    supervised.started();
    until("the trap is set", || up.exists());
    supervised
        .socket
        .get_mut()
        .write_all(b"stop\n")
        .expect("written");
    assert_eq!(supervised.line(), Line::Exited(7));
}

#[test]
fn a_sigterm_to_the_supervisors_group_reaches_the_command() {
    let mut supervised = shell("exec sleep 600");
    supervised.started();
    let pid = supervised.child.id();
    let sent = Command::new("kill")
        .args(["-TERM", &pid.to_string()])
        .status()
        .expect("kill");
    assert!(sent.success());
    assert_eq!(supervised.line(), Line::Signaled(15));
    assert_eq!(supervised.exit_code(), Some(143));
}

#[test]
fn a_command_that_kills_its_own_group_does_not_hit_the_supervisor() {
    let mut supervised = shell("kill -KILL 0");
    supervised.started();
    assert_eq!(supervised.line(), Line::Signaled(9));
    assert_eq!(supervised.exit_code(), Some(137));
}

#[test]
fn signals_are_not_ignored_in_the_command() {
    // As of what a shell without job control starts in the background, or nohup.
    let mut shell = Command::new("sh");
    let ignore = "trap '' HUP INT QUIT TERM; exec \"$@\"";
    shell.args(["-c", ignore, "sh"]).arg(diego());
    // The C library may ignore its own two signals, 32 and 33; the other bits must be 0.
    let ignored = ["grep", "-q", "^SigIgn:.*[08]0000000$", "/proc/self/status"];
    let mut supervised = supervise_by(shell, &[], &ignored);
    supervised.started();
    assert_eq!(supervised.line(), Line::Exited(0));
}

#[test]
fn all_that_was_written_is_in_the_file_when_the_end_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_str().expect("text");
    let flags = ["--log-dir", path, "--log-size", "10000000"];
    // The last one of it is written by a child in a session of its own, just before it is killed.
    let script = "seq 1 100000; setsid sh -c 'echo last; sleep 600' & \
                  while ! test -e x; do echo tick; sleep 0.01; done; exit 3";
    let mut supervised = supervise_with(&flags, &["sh", "-c", &format!("cd {path}; {script}")]);
    supervised.started();
    let log = dir.path().join("stdout.log");
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    until("it is written at once", || read().contains("last\n"));
    std::fs::write(dir.path().join("x"), "").expect("written");
    assert_eq!(supervised.line(), Line::Exited(3));
    let numbers: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    assert!(read().starts_with(&numbers));
}

#[test]
fn output_that_is_lost_is_told_once() {
    let dir = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink("/dev/full", dir.path().join("stdout.log")).expect("linked");
    let path = dir.path().to_str().expect("text");
    let flags = ["--log-dir", path, "--log-size", "10000000"];
    let mut supervised = supervise_with(&flags, &["sh", "-c", "seq 1 100000; exit 3"]);
    supervised.started();
    let Line::Lost(why) = supervised.line() else {
        panic!("must be told")
    };
    assert!(
        why.contains("/stdout.log: No space left on device"),
        "{why}"
    );
    assert_eq!(supervised.line(), Line::Exited(3));
}
