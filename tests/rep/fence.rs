//! The deadline of what must not run twice: kept by the supervisor, whatever becomes of the rep.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use diego_operator::boottime;
use diego_operator::converge::fence::{BootTime, reach};
use diego_operator::presence::keeper::{Keeping, Sent};
use diego_operator::rep::fence::Deadlines;
use diego_operator::rep::outcome::End;
use diego_operator::rep::process::Event;
use diego_operator::rep::supervise::Line;
use tokio::sync::watch;

use super::instance::{Wanted, launch, script};
use super::supervisor::{Supervised, supervise_with};
use super::{marked, until};

/// Runs a script in two sessions, so that its group is not all there is to kill.
fn supervise(script: &str, deadline: Option<BootTime>) -> Supervised {
    let flag = deadline.map(|deadline| format!("--deadline={deadline}"));
    let flags: Vec<&str> = flag.iter().map(String::as_str).collect();
    supervise_with(&flags, &["sh", "-c", script])
}

impl Supervised {
    fn say(&mut self, deadline: BootTime) {
        let line = format!("deadline {deadline}\n");
        let written = self.socket.get_mut().write_all(line.as_bytes());
        written.expect("the supervisor reads");
    }
}

fn in_millis(millis: u64) -> BootTime {
    boottime::now().after(Duration::from_millis(millis))
}

/// A daemon in a session of its own, and the command itself.
const TREE: &str = "setsid sleep 600 & sleep 600";

#[test]
fn all_is_killed_at_the_deadline_and_the_rep_is_told_why() {
    let deadline = in_millis(800);
    let mut supervised = supervise(TREE, Some(deadline));
    assert!(matches!(supervised.line(), Line::Started(_)));
    until("both run", || marked(&supervised.guid).len() >= 4);
    assert!(matches!(supervised.line(), Line::Fenced(_)));
    assert!(boottime::now() >= deadline, "not before");
    assert_eq!(supervised.line(), Line::Signaled(9));
    let own = i32::try_from(supervised.child.id()).expect("a process number");
    let left = marked(&supervised.guid);
    assert!(left.iter().all(|pid| *pid == own), "left: {left:?}");
    assert_eq!(supervised.child.wait().expect("ended").code(), Some(137));
}

#[test]
fn renewals_move_the_deadline_on_and_never_back() {
    let began = boottime::now();
    let mut supervised = supervise(TREE, Some(in_millis(600)));
    assert!(matches!(supervised.line(), Line::Started(_)));
    let last = in_millis(1500);
    supervised.say(last);
    // One that comes late, or that nobody can read, changes nothing.
    supervised.say(in_millis(700));
    let socket = supervised.socket.get_mut();
    socket.write_all(b"deadline soon\n").expect("written");
    assert!(matches!(supervised.line(), Line::Fenced(_)));
    assert!(
        boottime::now() >= last,
        "{:?}",
        boottime::now().since(began)
    );
}

#[test]
fn what_was_given_a_deadline_later_has_one() {
    let mut supervised = supervise(TREE, None);
    assert!(matches!(supervised.line(), Line::Started(_)));
    supervised.say(in_millis(200));
    assert!(matches!(supervised.line(), Line::Fenced(_)));
    assert_eq!(supervised.line(), Line::Signaled(9));
}

#[test]
fn nothing_is_started_after_the_deadline() {
    let dir = tempfile::tempdir().expect("a directory");
    let ran = dir.path().join("ran");
    let mut supervised = supervise(&format!("echo > {}", ran.display()), Some(in_millis(0)));
    assert!(matches!(supervised.line(), Line::Fenced(_)));
    assert_eq!(supervised.line(), Line::Signaled(9));
    assert_eq!(supervised.child.wait().expect("ended").code(), Some(137));
    assert!(!ran.exists());
}

/// The other end of the socket is a rep that hangs: it reads nothing, and says nothing.
#[test]
fn a_rep_that_is_stopped_keeps_nothing_alive() {
    let (ttl, sent) = (Duration::from_secs(2), boottime::now());
    let deadline = sent.after(reach(ttl).expect("long enough"));
    let supervised = supervise(TREE, Some(deadline));
    until("both run", || marked(&supervised.guid).len() >= 4);
    let own = i32::try_from(supervised.child.id()).expect("a process number");
    until("all is dead", || {
        marked(&supervised.guid).iter().all(|pid| *pid == own)
    });
    let took = boottime::now().since(sent);
    assert!(took < ttl, "dead {took:?} after the renewal, TTL {ttl:?}");
}

/// A supervisor that was stopped itself finds the newer deadlines in its socket, and does not kill for the old one.
#[test]
fn a_supervisor_that_goes_on_reads_first() {
    let first = in_millis(3000);
    let mut supervised = supervise(TREE, Some(first));
    assert!(matches!(supervised.line(), Line::Started(_)));
    let signal = |name: &str| {
        let pid = supervised.child.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status();
        assert!(sent.expect("kill").success());
    };
    signal("-STOP");
    let passed = first.after(Duration::from_millis(200));
    let line = format!("deadline {}\n", in_millis(60_000));
    let mut socket = supervised.socket.get_ref();
    socket.write_all(line.as_bytes()).expect("written");
    until("the first deadline is over", || boottime::now() >= passed);
    signal("-CONT");
    (&mut socket).write_all(b"stop\n").expect("written");
    assert_eq!(
        supervised.line(),
        Line::Signaled(15),
        "it was asked to stop, not fenced"
    );
}

/// What a keeper publishes.
fn renewed(ttl: Duration) -> Keeping {
    Keeping {
        held: true,
        epoch: Some(1),
        last_renewal_sent: Some(Sent {
            at: Instant::now(),
            boot: boottime::now(),
        }),
        ttl,
        least: ttl,
        ..Keeping::default()
    }
}

#[tokio::test]
async fn an_instance_lives_as_long_as_the_presence_is_renewed() {
    let ttl = Duration::from_secs(2);
    let (renew, keeping) = watch::channel(renewed(ttl));
    let mut instance = launch(Wanted {
        fence: Some(Deadlines::new(keeping)),
        ..script("sleep 600")
    });
    assert_eq!(instance.event().await, Event::Ready);
    // Longer than one deadline.
    let began = Instant::now();
    while began.elapsed() < ttl * 2 {
        renew.send_replace(renewed(ttl));
        let early = tokio::time::timeout(ttl / 6, instance.event()).await;
        assert!(early.is_err(), "{early:?} while renewed");
    }
    let last = Instant::now();
    renew.send_replace(renewed(ttl));
    let end = instance.end().await;
    assert_eq!(end, End::Fenced);
    assert_eq!(end.reason(), "fenced: the presence could not be renewed");
    let took = last.elapsed();
    assert!(
        reach(ttl).expect("long enough") <= took && took < ttl,
        "{took:?}"
    );
    instance.processes(|running| running == 0).await;
}

#[tokio::test]
async fn an_instance_without_a_renewal_is_not_started() {
    let (_renew, keeping) = watch::channel(Keeping::default());
    let mut instance = launch(Wanted {
        fence: Some(Deadlines::new(keeping)),
        ..script("sleep 600")
    });
    let End::StartFailed(reason) = instance.end().await else {
        panic!("it must not start")
    };
    assert!(reason.contains("Strict"), "{reason}");
}
