//! Server processes: their log, their end, and that they end with the program that started them.

use local_cluster::{Error, Etcd, EtcdOptions, ServerProcess};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

fn shell(script: &str, dir: &Path) -> ServerProcess {
    let args = ["-c".to_owned(), script.to_owned()];
    let envs = [("GREETING".to_owned(), "hello".to_owned())];
    ServerProcess::start(
        "shell",
        Path::new("/bin/sh"),
        &args,
        &envs,
        &dir.join("shell.log"),
    )
    .unwrap()
}

/// Waits for the condition, for at most 20 s.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{what} does not come"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// The state letter and the parent of a process, from /proc; nothing once it is gone.
fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Whether it runs: an unreaped corpse does not.
fn runs(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

fn children_of(parent: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| stat(pid).is_some_and(|(_, ppid)| ppid == parent))
        .collect()
}

#[tokio::test]
async fn a_failed_start_shows_the_end_of_this_runs_log() {
    let dir = tempfile::tempdir().unwrap();
    let first = shell("echo former run", dir.path());
    assert!(first.wait().await.success());
    let process = shell(
        "seq 100; echo $GREETING; echo no such flag >&2; exit 3",
        dir.path(),
    );
    let error = process
        .ready(Duration::from_secs(20), || async { false })
        .await
        .unwrap_err();
    let Error::Exited { status, tail, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(status.code(), Some(3));
    assert!(tail.ends_with("100\nhello\nno such flag"), "{tail}");
    assert!(!tail.contains("former run"), "{tail}");
    assert_eq!(tail.lines().count(), 20);
}

#[tokio::test]
async fn a_server_that_never_gets_ready_is_reported_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let process = shell("sleep 60", dir.path());
    let error = process
        .ready(Duration::from_millis(100), std::future::pending)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NotReady { .. }), "{error}");
    assert!(process.is_running());
}

#[tokio::test]
async fn a_missing_program_is_reported_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let error = ServerProcess::start(
        "ghost",
        Path::new("/no/ghost"),
        &[],
        &[],
        &dir.path().join("log"),
    )
    .unwrap_err();
    assert!(error.to_string().contains("/no/ghost"), "{error}");
}

#[tokio::test]
async fn pause_resume_terminate_and_restart() {
    let dir = tempfile::tempdir().unwrap();
    let process = shell(
        "trap 'exit 7' TERM; while :; do sleep 0.01; done",
        dir.path(),
    );
    process.pause();
    eventually("the pause", || {
        stat(process.pid()).is_some_and(|(state, _)| state == 'T')
    });
    assert!(process.is_running());
    process.resume();
    eventually("the resumption", || {
        stat(process.pid()).is_some_and(|(state, _)| state != 'T')
    });
    let again = process.restart().unwrap();
    assert_ne!(again.pid(), process.pid());
    // The shell must have come as far as its trap.
    tokio::time::sleep(Duration::from_millis(200)).await;
    again.terminate();
    assert_eq!(again.wait().await.code(), Some(7));
    // No signal reaches a process that is gone, or whoever has its pid by now.
    again.kill();
}

#[test]
fn a_server_outlives_the_thread_that_started_it_and_not_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let process = thread::spawn(move || shell("sleep 60", &path))
        .join()
        .unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(process.is_running());
    let pid = process.pid();
    drop(process);
    assert!(stat(pid).is_none(), "dropped and still there");
}

/// Starts the `local-cluster` program, and returns it with its kubeconfig's path once it says that the cluster works.
fn local_cluster() -> (Child, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_local-cluster"))
        .env_remove("DIEGO_KEEP_LOGS")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(program.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let kubeconfig = line
        .trim()
        .strip_prefix("export KUBECONFIG=")
        .unwrap_or_else(|| panic!("{line:?}"));
    assert!(Path::new(kubeconfig).exists());
    (program, kubeconfig.to_owned())
}

#[test]
fn nothing_is_left_of_a_program_that_was_terminated() {
    let (mut program, kubeconfig) = local_cluster();
    let servers = children_of(program.id());
    assert!(servers.len() >= 3, "{servers:?}");
    let asked = Command::new("kill")
        .arg(program.id().to_string())
        .status()
        .unwrap();
    assert!(asked.success());
    assert!(program.wait().unwrap().success());
    assert!(!servers.iter().any(|&pid| runs(pid)), "servers are left");
    assert!(
        !Path::new(&kubeconfig).parent().unwrap().exists(),
        "files are left"
    );
}

#[tokio::test]
async fn no_server_outlives_a_program_that_was_killed_and_the_next_start_sweeps() {
    let (mut program, kubeconfig) = local_cluster();
    let servers = children_of(program.id());
    assert!(servers.len() >= 3, "{servers:?}");
    program.kill().unwrap();
    program.wait().unwrap();
    eventually("the servers' end", || !servers.iter().any(|&pid| runs(pid)));
    let dir = Path::new(&kubeconfig).parent().unwrap();
    drop(Etcd::start(EtcdOptions::default()).await.unwrap());
    assert!(!dir.exists(), "{} is left", dir.display());
}
