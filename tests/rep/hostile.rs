//! Instances that do their worst: they must end when told, leave nothing behind and fill no disk.

use std::time::{Duration, Instant};

use diego_operator::rep::outcome::End;
use diego_operator::rep::process::Event;

use super::instance::{Wanted, launch, script};
use super::marked;

#[tokio::test]
async fn who_ignores_sigterm_is_killed_after_the_grace_period() {
    let grace = Duration::from_secs(1);
    let mut instance = launch(Wanted {
        // So does every child of it.
        script: "trap '' TERM; for i in 1 2 3; do sleep 600 & done; echo > up; wait; sleep 600",
        grace,
        ..Wanted::default()
    });
    instance.written("up").await;
    let told = Instant::now();
    instance.handle.stop();
    assert_eq!(instance.end().await, End::Signaled(9));
    assert!(told.elapsed() >= grace, "after {:?}", told.elapsed());
    assert_eq!(marked(&instance.guid), Vec::<i32>::new());
}

#[tokio::test]
async fn a_daemon_is_killed_with_who_started_it() {
    // Forks twice, in a session of its own, with nothing open; the one in between is gone.
    let daemon = "(setsid sh -c 'exec <&- >&- 2>&-; sleep 600 & sleep 600 &' &); sleep 600";
    let mut instance = launch(script(daemon));
    instance.processes(|count| count >= 5).await;
    instance.handle.stop();
    assert_eq!(instance.end().await, End::Signaled(15));
    assert_eq!(marked(&instance.guid), Vec::<i32>::new());
}

#[tokio::test]
async fn fifty_children_that_come_again_are_killed() {
    // Each of ten sessions starts again whatever dies in it; they leave their parent, and it leaves them.
    let respawn = "for i in 1 2 3 4 5; do (trap '' TERM; while :; do sleep 600; done) & done; wait";
    let bomb = format!(
        "for s in 1 2 3 4 5 6 7 8 9 10; do (setsid sh -c \"{respawn}\" &); done; sleep 600"
    );
    let mut instance = launch(script(&bomb));
    instance.processes(|count| count >= 100).await;
    instance.handle.kill();
    assert_eq!(instance.end().await, End::Signaled(9));
    assert_eq!(marked(&instance.guid), Vec::<i32>::new());
}

#[tokio::test]
async fn who_forks_faster_than_it_can_be_seen_is_killed_too() {
    // Forty chains in a session of their own: each link lives as long as it takes to start the next.
    let link = "n=$1; [ $n -lt 3000 ] || exit; sh -c \"$2\" sh $((n+1)) \"$2\" &";
    let chains = "for c in $(seq 40); do sh -c \"$1\" sh 0 \"$1\"; done; echo > up";
    let mut instance = launch(Wanted {
        script: &format!("setsid sh -c '{chains}' sh '{link}' & sleep 600"),
        ..Wanted::default()
    });
    instance.written("up").await;
    instance.handle.kill();
    assert_eq!(instance.end().await, End::Signaled(9));
    assert_eq!(marked(&instance.guid), Vec::<i32>::new());
}

#[tokio::test]
async fn a_gigabyte_of_output_ends_in_bounded_files() {
    let limit = 1 << 20;
    let mut instance = launch(Wanted {
        script: "yes 0123456789012345678901234567890123456789012345678901234567890 | head -c 1000000000; echo; echo last",
        log_limit: limit,
        ..Wanted::default()
    });
    let began = Instant::now();
    assert_eq!(instance.end().await, End::Exited(0));
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "1 GB of output in {seconds:.1} s: {:.0} MB/s",
        1000.0 / seconds
    );
    let (old, new) = (instance.log("stdout.log.1"), instance.log("stdout.log"));
    for (name, log) in [("old", &old), ("new", &new)] {
        assert!(log.len() as u64 <= limit, "{name}: {}", log.len());
    }
    assert!(old.len() as u64 > limit - 100);
    assert!(old.starts_with(b"0123456789") && old.ends_with(b"567890\n"));
    assert!(new.ends_with(b"\nlast\n"));
    assert_eq!(instance.log("stderr.log.1"), b"");
}

#[tokio::test]
async fn a_stop_reaches_who_writes_without_end() {
    let mut instance = launch(script("yes; echo never"));
    assert_eq!(instance.event().await, Event::Ready);
    instance.handle.stop();
    assert_eq!(instance.end().await, End::Signaled(15));
}

#[tokio::test]
async fn bytes_that_are_no_text_arrive_unchanged() {
    let all = (0..=255u8).map(|byte| format!("\\{byte:o}"));
    let mut instance = launch(script(&format!("printf '{}'", all.collect::<String>())));
    assert_eq!(instance.end().await, End::Exited(0));
    assert_eq!(instance.log("stdout.log"), Vec::from_iter(0..=255u8));
}

#[tokio::test]
async fn a_line_of_ten_megabytes_is_kept_up_to_the_limit() {
    let limit = 4 << 20;
    let mut instance = launch(Wanted {
        script: "head -c 10485760 /dev/zero",
        log_limit: limit,
        ..Wanted::default()
    });
    assert_eq!(instance.end().await, End::Exited(0));
    assert_eq!(instance.log("stdout.log.1").len() as u64, limit);
    assert_eq!(instance.log("stdout.log").len(), 2 << 20);
}

#[tokio::test]
async fn closed_output_ends_nothing() {
    let mut instance = launch(script(
        "exec >&-; sleep 0.2; echo still here >&2; exec 2>&-; sleep 0.2; exit 6",
    ));
    assert_eq!(instance.end().await, End::Exited(6));
    assert_eq!(instance.log("stderr.log"), b"still here\n");
}

#[tokio::test]
async fn a_child_that_keeps_the_output_open_delays_no_end() {
    let began = Instant::now();
    let mut instance = launch(script("setsid sleep 600 & echo done; exit 4"));
    assert_eq!(instance.end().await, End::Exited(4));
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(instance.log("stdout.log"), b"done\n");
    assert_eq!(marked(&instance.guid), Vec::<i32>::new());
}

#[tokio::test]
async fn a_log_that_can_not_be_written_blocks_nobody() {
    let mut instance = launch(script(
        "while ! test -e go; do sleep 0.02; done; seq 1 200000; exit 8",
    ));
    // The kernel's own full disk.
    let log = instance.dir.logs().dir.join("stdout.log");
    std::os::unix::fs::symlink("/dev/full", log).expect("linked");
    std::fs::write(instance.dir.cwd().join("go"), "").expect("written");
    assert_eq!(instance.end().await, End::Exited(8));
}

#[tokio::test]
async fn a_disk_that_hangs_keeps_nobody_from_being_stopped() {
    let mut instance = launch(script(
        "while ! test -e go; do sleep 0.02; done; echo > up; exec yes",
    ));
    // A pipe that nobody reads: a write into it hangs once it is full.
    let log = instance.dir.logs().dir.join("stdout.log");
    nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).expect("made");
    std::fs::write(instance.dir.cwd().join("go"), "").expect("written");
    instance.written("up").await;
    instance.handle.stop();
    assert_eq!(instance.end().await, End::Signaled(15));
    assert_eq!(marked(&instance.guid), Vec::<i32>::new());
}
