//! Instances by way of the executor: ports, environment, readiness, stopping, results.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use diego_operator::rep::outcome::{End, Outcome, task_outcome};
use diego_operator::rep::process::Event;
use diego_operator::rep::workdir::WorkDir;
use serde_json::json;
use tokio::net::TcpListener;

use super::instance::{Wanted, launch, port, script};
use super::{marked, until};

#[tokio::test]
async fn an_instance_gets_its_ports_and_nothing_of_the_rep() {
    let ports = vec![port(8080, "web"), port(9090, "admin")];
    let mut instance = launch(Wanted {
        script: "env > env.txt",
        more: json!({"env": [
            {"name": "GREETING", "value": "port $(PORT)"},
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ]}),
        ports,
        ..Wanted::default()
    });
    assert_eq!(instance.end().await, End::Exited(0));
    let text = fs::read_to_string(instance.dir.cwd().join("env.txt")).expect("written");
    let env: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let (first, second) = (
        instance.ports.host_port(8080).to_string(),
        instance.ports.host_port(9090).to_string(),
    );
    for (name, value) in [
        ("PORT", first.as_str()),
        ("PORT_8080", &first),
        ("PORT_9090", &second),
        ("PORT_ADMIN", &second),
        ("CF_INSTANCE_PORT", &first),
        ("CF_INSTANCE_IP", "127.0.0.1"),
        ("CF_INSTANCE_INDEX", "3"),
        ("CF_INSTANCE_ADDR", &format!("127.0.0.1:{first}")),
        (
            "CF_INSTANCE_PORTS",
            &format!(
                r#"[{{"external":{first},"internal":8080}},{{"external":{second},"internal":9090}}]"#
            ),
        ),
        ("DIEGO_NAMESPACE", "default"),
        ("NAME", "web-3"),
        ("DIEGO_PROCESS", "web"),
        ("DIEGO_CELL_ID", "cell-1"),
        ("DIEGO_INSTANCE_GUID", &instance.guid),
        ("GREETING", &format!("port {first}")),
        ("HOME", instance.dir.cwd().to_str().expect("text")),
    ] {
        assert_eq!(env.get(name), Some(&value), "{name} in {text}");
    }
    // Cargo sets these for the test, as a secret may be set for a rep.
    assert!(std::env::vars().any(|(name, _)| name.starts_with("CARGO")));
    assert!(!env.keys().any(|name| name.starts_with("CARGO")), "{text}");
}

#[tokio::test]
async fn output_goes_to_files_and_input_is_empty() {
    let mut instance = launch(script("cat; echo out; echo err >&2"));
    assert_eq!(instance.end().await, End::Exited(0));
    assert_eq!(instance.log("stdout.log"), b"out\n");
    assert_eq!(instance.log("stderr.log"), b"err\n");
}

#[tokio::test]
async fn it_is_ready_once_its_port_accepts() {
    let ports = vec![port(8080, "web")];
    let mut instance = launch(Wanted {
        script: "echo > up; exec sleep 600",
        ports,
        ..Wanted::default()
    });
    instance.written("up").await;
    // Nobody listens yet, so nothing is told for a while.
    tokio::time::timeout(Duration::from_millis(300), instance.events.recv())
        .await
        .expect_err("not ready yet");
    let listener = TcpListener::bind(("127.0.0.1", instance.ports.host_port(8080)))
        .await
        .expect("its port is free");
    assert_eq!(instance.event().await, Event::Ready);
    drop(listener);
    instance.handle.stop();
    assert_eq!(instance.end().await, End::Signaled(15));
}

#[tokio::test]
async fn without_ports_it_is_ready_when_started() {
    let mut instance = launch(script("exec sleep 600"));
    assert_eq!(instance.event().await, Event::Ready);
    instance.handle.kill();
    assert_eq!(instance.end().await, End::Signaled(9));
}

#[tokio::test]
async fn not_ready_in_time_is_an_end() {
    let mut instance = launch(Wanted {
        script: "exec sleep 600",
        ports: vec![port(8080, "web")],
        start_timeout: Some(Duration::from_secs(1)),
        ..Wanted::default()
    });
    let end = instance.end().await;
    assert_eq!(end.reason(), "not ready within 1 s");
    until("nothing is left", || marked(&instance.guid).is_empty());
}

#[tokio::test]
async fn stop_is_sigterm_and_after_the_grace_period_sigkill() {
    let grace = Duration::from_millis(700);
    let stubborn = "trap '' TERM; echo > up; while :; do sleep 0.1; done";
    let mut instance = launch(Wanted {
        script: stubborn,
        grace,
        ..Wanted::default()
    });
    instance.written("up").await;
    let told = Instant::now();
    instance.handle.stop();
    assert_eq!(instance.end().await, End::Signaled(9));
    assert!(told.elapsed() >= grace, "killed after {:?}", told.elapsed());

    let polite = "trap 'exit 5' TERM; echo > up; while :; do sleep 0.1; done";
    let mut instance = launch(script(polite));
    instance.written("up").await;
    instance.handle.stop();
    assert_eq!(instance.end().await, End::Exited(5));
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told() {
    let mut instance = launch(script("exec /no/such/program"));
    assert_eq!(instance.end().await, End::Exited(127));
    let mut instance = launch(Wanted {
        more: json!({"command": ["/no/such/program"]}),
        probe: false,
        ..Wanted::default()
    });
    let End::StartFailed(reason) = instance.end().await else {
        panic!("must not start")
    };
    assert!(
        reason.contains("/no/such/program") && reason.contains("No such file"),
        "{reason}"
    );
    let mut instance = launch(Wanted {
        more: json!({"workingDir": "/no/such/directory"}),
        probe: false,
        ..Wanted::default()
    });
    assert_eq!(
        instance.end().await,
        End::StartFailed("the working directory /no/such/directory does not exist".into())
    );
}

#[tokio::test]
async fn a_supervisor_that_is_killed_takes_nothing_with_it_unseen() {
    let mut instance = launch(script("setsid sleep 600 & sleep 600"));
    assert_eq!(instance.event().await, Event::Ready);
    until("all run", || marked(&instance.guid).len() >= 4);
    let record = instance.dir.process().expect("written down");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(record.supervisor.0),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("killed");
    assert_eq!(instance.end().await, End::SupervisorLost);
    assert_eq!(marked(&instance.guid), Vec::<i32>::new());
}

#[tokio::test]
async fn a_new_life_of_the_rep_clears_what_the_old_one_left() {
    // A stopped supervisor can't do its duty when the rep dies.
    let mut instance = launch(script("echo > up; sleep 600"));
    instance.written("up").await;
    assert_eq!(instance.event().await, Event::Ready);
    let record = instance.dir.process().expect("written down");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(record.supervisor.0),
        nix::sys::signal::Signal::SIGSTOP,
    )
    .expect("stopped");
    let root = instance.root.path().to_owned();
    tokio::task::spawn_blocking(move || WorkDir::open(&root))
        .await
        .expect("no panic")
        .expect("cleared");
    assert_eq!(marked(&instance.guid), Vec::<i32>::new());
    assert_eq!(instance.end().await, End::SupervisorLost);
}

#[tokio::test]
async fn the_result_of_a_task_is_its_file_up_to_ten_kilobytes() {
    let outcome = |end: &End, cwd: &Path| task_outcome(end, None, Some("out/result"), cwd);
    // Kubernetes reads $$ as $, so a shell that is to see $$ is given four.
    for (task, expected) in [
        (
            "mkdir out; printf 42 > out/result",
            Outcome::Succeeded(Some("42".into())),
        ),
        (
            "mkdir out; printf 42 > out/result; exit 3",
            Outcome::Failed("exited with status 3".into()),
        ),
        (
            "kill -KILL $$$$",
            Outcome::Failed("killed by signal 9 (SIGKILL)".into()),
        ),
    ] {
        let mut instance = launch(Wanted {
            script: task,
            probe: false,
            ..Wanted::default()
        });
        let end = instance.end().await;
        assert_eq!(outcome(&end, &instance.dir.cwd()), expected, "{task}");
    }
    let mut instance = launch(script("mkdir out; head -c 10241 /dev/zero > out/result"));
    let end = instance.end().await;
    let Outcome::Failed(reason) = outcome(&end, &instance.dir.cwd()) else {
        panic!("too long")
    };
    assert!(
        reason.starts_with("result file ") && reason.ends_with("is 10241 bytes, more than 10240"),
        "{reason}"
    );
    let mut instance = launch(script("true"));
    let end = instance.end().await;
    let Outcome::Failed(reason) = outcome(&end, &instance.dir.cwd()) else {
        panic!("no file")
    };
    assert!(reason.starts_with("failed to fetch result: "), "{reason}");
}
