//! Probes of real processes: readiness, liveness and startup, by command, connection and GET.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use diego_operator::rep::outcome::End;
use diego_operator::rep::process::Event;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::instance::{Instance, Wanted, launch, port};
use super::{marked, until};

const SLEEP: &str = "echo > up; exec sleep 600";

fn unhealthy(reason: &str) -> End {
    End::Unhealthy(reason.into())
}

/// Answers with a status that the test may change, at the port that was given to the instance.
async fn serve(instance: &Instance, status: Arc<AtomicU16>) {
    let listener = TcpListener::bind(("127.0.0.1", instance.ports.host_port(8080)))
        .await
        .expect("its port is free");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 512]).await;
            let answer = format!("HTTP/1.1 {} x\r\n\r\n", status.load(Ordering::SeqCst));
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
}

#[tokio::test]
async fn a_get_decides_on_readiness_and_later_on_its_life() {
    let mut instance = launch(Wanted {
        script: SLEEP,
        ports: vec![port(8080, "web")],
        more: json!({
            "readinessProbe": {"httpGet": {"port": "web", "path": "/up"}, "periodSeconds": 1},
            "livenessProbe": {"httpGet": {"port": "web"}, "periodSeconds": 1, "failureThreshold": 2},
        }),
        ..Wanted::default()
    });
    instance.written("up").await;
    let status = Arc::new(AtomicU16::new(503));
    serve(&instance, status.clone()).await;
    tokio::time::timeout(Duration::from_millis(300), instance.events.recv())
        .await
        .expect_err("not ready yet");
    status.store(200, Ordering::SeqCst);
    assert_eq!(instance.event().await, Event::Ready);
    // Healthy for longer than two failures take.
    tokio::time::timeout(Duration::from_millis(2500), instance.events.recv())
        .await
        .expect_err("goes on");
    let broken = Instant::now();
    status.store(500, Ordering::SeqCst);
    assert_eq!(
        instance.end().await,
        unhealthy("liveness probe failed: HTTP status 500")
    );
    let took = broken.elapsed();
    assert!(
        took >= Duration::from_millis(900),
        "one failure was enough: {took:?}"
    );
    assert_eq!(marked(&instance.guid), Vec::<i32>::new());
}

#[tokio::test]
async fn a_connection_that_is_refused_ends_a_running_instance() {
    let mut instance = launch(Wanted {
        script: SLEEP,
        ports: vec![port(8080, "web")],
        more: json!({"livenessProbe": {
            "tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 1, "initialDelaySeconds": 1,
        }}),
        ..Wanted::default()
    });
    // Without a readiness probe it is ready once its port accepts, and alive only as long.
    let host_port = instance.ports.host_port(8080);
    let listener = TcpListener::bind(("127.0.0.1", host_port))
        .await
        .expect("its port is free");
    assert_eq!(instance.event().await, Event::Ready);
    drop(listener);
    let End::Unhealthy(reason) = instance.end().await else {
        panic!("must be stopped")
    };
    let begin = format!("liveness probe failed: port {host_port}: Connection refused");
    assert!(reason.starts_with(&begin), "{reason}");
}

#[tokio::test]
async fn a_command_is_run_where_and_as_the_instance_runs() {
    let mut instance = launch(Wanted {
        script: "echo $INSTANCE_GUID > mine; exec sleep 600",
        more: json!({
            "readinessProbe": {
                "exec": {"command": ["grep", "-q", "$(INSTANCE_GUID)", "mine"]}, "timeoutSeconds": 10,
            },
            "livenessProbe": {
                "exec": {"command": ["sh", "-c", "test ! -e broken || { echo no luck; exit 7; }"]},
                "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 10,
            },
        }),
        ..Wanted::default()
    });
    assert_eq!(instance.event().await, Event::Ready);
    std::fs::write(instance.dir.cwd().join("broken"), "").expect("written");
    assert_eq!(
        instance.end().await,
        unhealthy("liveness probe failed: exit status 7: no luck")
    );
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed_with_all_it_started() {
    let mut instance = launch(Wanted {
        script: SLEEP,
        more: json!({"livenessProbe": {
            "exec": {"command": ["sh", "-c", "setsid sleep 601 & echo stuck; trap '' TERM; sleep 602"]},
            "periodSeconds": 1, "failureThreshold": 2, "timeoutSeconds": 1,
        }}),
        ..Wanted::default()
    });
    assert_eq!(instance.event().await, Event::Ready);
    let guid = instance.guid.clone();
    // The instance and its supervisor; and the probe's supervisor, shell and two sleeps.
    instance.processes(|count| count >= 6).await;
    // The first try is killed, and only that.
    instance.processes(|count| count <= 3).await;
    assert_eq!(
        instance.end().await,
        unhealthy("liveness probe failed: timed out after 1 s: stuck")
    );
    assert_eq!(marked(&guid), Vec::<i32>::new());
}

#[tokio::test]
async fn a_stop_ends_the_try_that_is_under_way() {
    let mut instance = launch(Wanted {
        script: SLEEP,
        more: json!({"readinessProbe": {"exec": {"command": ["sleep", "600"]}, "timeoutSeconds": 600}}),
        ..Wanted::default()
    });
    instance.processes(|count| count >= 4).await;
    instance.handle.stop();
    assert_eq!(instance.end().await, End::Signaled(15));
    assert_eq!(marked(&instance.guid), Vec::<i32>::new());
}

#[tokio::test]
async fn a_startup_probe_comes_first_and_gives_up() {
    let more = |command: &str| {
        json!({
            "startupProbe": {
                "exec": {"command": ["sh", "-c", command]},
                "periodSeconds": 1, "failureThreshold": 2, "timeoutSeconds": 10,
            },
            // Would end it at once.
            "livenessProbe": {
                "exec": {"command": ["false"]}, "failureThreshold": 1, "timeoutSeconds": 10,
            },
        })
    };
    let mut instance = launch(Wanted {
        script: SLEEP,
        more: more("exit 3"),
        ..Wanted::default()
    });
    let began = Instant::now();
    assert_eq!(
        instance.event().await,
        Event::Ended(unhealthy("startup probe failed: exit status 3"))
    );
    assert!(began.elapsed() >= Duration::from_secs(1));
    let mut instance = launch(Wanted {
        script: SLEEP,
        more: more("test -e up"),
        ..Wanted::default()
    });
    assert_eq!(instance.event().await, Event::Ready);
    assert_eq!(
        instance.event().await,
        Event::Ended(unhealthy("liveness probe failed: exit status 1"))
    );
}

#[tokio::test]
async fn a_probe_may_have_a_grace_period_of_its_own() {
    let mut instance = launch(Wanted {
        script: "trap '' TERM; echo > up; while :; do sleep 0.1; done",
        grace: Duration::from_secs(600),
        more: json!({"livenessProbe": {
            "exec": {"command": ["sh", "-c", "! test -e up"]}, "periodSeconds": 1, "failureThreshold": 1,
            "timeoutSeconds": 10, "terminationGracePeriodSeconds": 1,
        }}),
        ..Wanted::default()
    });
    assert_eq!(
        instance.end().await,
        unhealthy("liveness probe failed: exit status 1")
    );
}

#[tokio::test]
async fn a_task_is_probed_for_its_life_and_not_for_readiness() {
    let mut instance = launch(Wanted {
        script: SLEEP,
        probe: false,
        more: json!({
            "readinessProbe": {"exec": {"command": ["false"]}},
            "livenessProbe": {
                "exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 2, "timeoutSeconds": 10,
            },
        }),
        ..Wanted::default()
    });
    assert_eq!(
        instance.event().await,
        Event::Ended(unhealthy("liveness probe failed: exit status 1"))
    );
}

#[test]
fn a_probe_dies_with_the_rep() {
    let rep = tokio::runtime::Runtime::new().expect("a runtime");
    let instance = rep.block_on(async {
        let instance = launch(Wanted {
            script: SLEEP,
            more: json!({"readinessProbe": {
                "exec": {"command": ["sh", "-c", "trap '' TERM; setsid sleep 601 & sleep 602"]},
                "timeoutSeconds": 600,
            }}),
            ..Wanted::default()
        });
        instance.processes(|count| count >= 6).await;
        instance
    });
    // Every socket of it is closed, as the kernel does for a rep that dies.
    rep.shutdown_background();
    until("nothing is left", || marked(&instance.guid).is_empty());
}

#[tokio::test]
async fn a_probe_whose_supervisor_is_killed_leaves_nothing() {
    let mut instance = launch(Wanted {
        script: SLEEP,
        more: json!({"livenessProbe": {
            "exec": {"command": ["sh", "-c", "echo $PPID > supervisor; sleep 603"]}, "timeoutSeconds": 600,
            "failureThreshold": 1,
        }}),
        ..Wanted::default()
    });
    let supervisor = instance.written("supervisor").await;
    let killed = std::process::Command::new("kill")
        .args(["-KILL", supervisor.trim()])
        .status();
    assert!(killed.expect("kill").success());
    assert_eq!(
        instance.end().await,
        unhealthy("liveness probe failed: its supervisor was killed")
    );
    assert_eq!(marked(&instance.guid), Vec::<i32>::new());
}

#[tokio::test]
async fn readiness_is_not_asked_again_once_it_is_ready() {
    let mut instance = launch(Wanted {
        script: SLEEP,
        more: json!({"readinessProbe": {
            "exec": {"command": ["sh", "-c", "echo >> asked; test ! -e broken"]},
            "periodSeconds": 1, "failureThreshold": 1, "successThreshold": 3, "timeoutSeconds": 10,
        }}),
        ..Wanted::default()
    });
    assert_eq!(instance.event().await, Event::Ready);
    std::fs::write(instance.dir.cwd().join("broken"), "").expect("written");
    tokio::time::timeout(Duration::from_millis(1500), instance.events.recv())
        .await
        .expect_err("goes on");
    assert_eq!(instance.written("asked").await, "\n\n\n");
    instance.handle.kill();
    assert_eq!(instance.end().await, End::Signaled(9));
}
