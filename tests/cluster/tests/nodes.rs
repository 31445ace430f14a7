//! Real nodes of a program that is killed: the kernel ends them, and the next start removes what they leave. Needs root.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Starts `local-cluster --nodes 1` and returns it, with the cluster's directory, once the node is Ready.
fn one_node() -> (Child, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_local-cluster"))
        .args(["--nodes", "1"])
        .env_remove("DIEGO_KEEP_LOGS")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(program.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let dir = line
        .trim()
        .strip_prefix("export KUBECONFIG=")
        .and_then(|file| file.strip_suffix("/kubeconfig"));
    let dir = dir.unwrap_or_else(|| panic!("{line:?}"));
    (program, dir.to_owned())
}

/// The first entry of the directory that begins so.
fn entry(dir: &str, prefix: &str) -> Option<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .find(|name| name.starts_with(prefix))
}

/// Whether any process has this in its command line.
fn any_process(needle: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).contains(needle))
}

fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn no_node_outlives_a_program_that_was_killed_and_the_next_start_sweeps() {
    let cgroups = if Path::new("/sys/fs/cgroup/memory").exists() {
        "/sys/fs/cgroup/memory"
    } else {
        "/sys/fs/cgroup"
    };
    let (mut program, dir) = one_node();
    let link = format!("lc{}-", program.id());
    let group = format!("local-cluster-{}-", program.id());
    assert!(entry("/sys/class/net", &link).is_some());
    assert!(entry(cgroups, &group).is_some());
    program.kill().unwrap();
    program.wait().unwrap();
    eventually("processes are left", || !any_process(&dir));
    eventually("the interface is left", || {
        entry("/sys/class/net", &link).is_none()
    });

    let (mut next, next_dir) = one_node();
    assert_eq!(entry(cgroups, &group), None, "not swept");
    assert!(!Path::new(&dir).exists(), "not swept");
    let asked = Command::new("kill").arg(next.id().to_string()).status();
    assert!(asked.unwrap().success());
    assert!(next.wait().unwrap().success());
    assert!(!Path::new(&next_dir).exists(), "files are left");
    let group = format!("local-cluster-{}-", next.id());
    assert_eq!(entry(cgroups, &group), None, "cgroups are left");
}
