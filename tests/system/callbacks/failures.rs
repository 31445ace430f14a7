//! Receivers that are away, refuse, flood or may not be told; and Tasks that are deleted at their age.

use diego_operator::api::{TaskState, conditions};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::receiver::Receiver;
use super::{QUICK, deleted, settled, site_with_one_cell, status, task};
use crate::support::{Failure, eventually, objects, site::START, site::Site};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_callback_nobody_takes_is_tried_again_and_deleted_at_its_age()
-> Result<(), Failure> {
    // Between the first kick and the second, far from both.
    let flags = [&QUICK[..], &["--expire-completed-task-seconds", "17"]].concat();
    let site = site_with_one_cell(&flags).await?;
    let receiver = Receiver::start(503).await?;
    site.run_task(&task("untold", "exit 0", &receiver, None))
        .await?;
    let arrivals = receiver.told("untold", 6).await?;
    let kick = arrivals[3].at.duration_since(arrivals[2].at);
    assert!(
        kick > SignedDuration::from_secs(5),
        "three tries, then the kick: {kick:?}"
    );
    assert_eq!(
        status(&site, "untold").await.map(|status| status.state),
        Some(TaskState::Resolving)
    );
    deleted(&site, "untold").await?;
    assert_eq!(receiver.about("untold").len(), 6);
    for (series, value) in [
        ("diego_task_callbacks_total{result=\"unanswered\"}", 2.0),
        (
            "diego_tasks_deleted_total{reason=\"CallbackUndelivered\"}",
            1.0,
        ),
        // The second time there is nothing left to promise.
        ("diego_tasks_kicked_total", 1.0),
    ] {
        assert_eq!(site.metric(series).await?, value, "{series}");
    }
    let events = events(&site, "untold", "TaskCallbackUndelivered").await?;
    assert!(
        events.contains("TaskCallbackUnanswered") && events.contains("503"),
        "{events}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_whose_clock_is_behind_costs_no_task_its_result() -> Result<(), Failure> {
    let seconds = 5;
    let site =
        site_with_one_cell(&["--expire-completed-task-seconds", &seconds.to_string()]).await?;
    // Nobody takes it: its end is written as a rep would whose clock is an hour behind.
    let mut task = objects::task("behind", "exit 0");
    task.spec.placement_tags = vec!["nowhere".into()];
    site.run_task(&task).await?;
    let hour_ago = Timestamp::now() - SignedDuration::from_hours(1);
    let ended = json!({ "status": {
        "state": "Completed", "failed": false, "result": "42",
        "stateTransitionTime": hour_ago, "firstCompletedTime": hour_ago,
    } });
    let written = Timestamp::now();
    site.tasks()
        .patch_status("behind", &PatchParams::default(), &Patch::Merge(ended))
        .await?;
    deleted(&site, "behind").await?;
    let took = Timestamp::now().duration_since(written);
    assert!(took >= SignedDuration::from_secs(seconds), "{took:?}");
    Ok(())
}

/// The Events of a Task, once one with this reason is among them.
pub async fn events(site: &Site, task: &str, reason: &str) -> Result<String, Failure> {
    let about = format!("task.diego.cloudfoundry.org/{task}");
    eventually(&format!("the Event {reason}"), START, || async {
        let output = site
            .cluster
            .kubectl(&["events", "--for", &about])
            .await
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.contains(reason).then_some(text)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_callback_a_task_is_deleted_at_its_age() -> Result<(), Failure> {
    let site = site_with_one_cell(&["--expire-completed-task-seconds", "3"]).await?;
    for (name, ttl) in [("plain", None), ("brief", Some(1)), ("long", Some(600))] {
        let mut task = objects::task(name, "exit 0");
        task.spec.ttl_seconds_after_finished = ttl;
        site.run_task(&task).await?;
    }
    let mut ended = Vec::new();
    for (name, seconds) in [("plain", 3), ("brief", 1)] {
        let completed = eventually(&format!("{name} has ended"), START, || async {
            status(&site, name).await?.first_completed_time
        })
        .await?;
        ended.push((name, completed.0, seconds));
    }
    for (name, completed, seconds) in ended {
        deleted(&site, name).await?;
        let took = Timestamp::now().duration_since(completed);
        assert!(
            took >= SignedDuration::from_secs(seconds),
            "{name}: {took:?}"
        );
    }
    let kept = status(&site, "long").await.ok_or("its own ttl keeps it")?;
    assert_eq!(kept.state, TaskState::Completed);
    assert_eq!(
        site.metric("diego_tasks_deleted_total{reason=\"Expired\"}")
            .await?,
        2.0
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_allowed_is_told_and_costs_the_task_nothing() -> Result<(), Failure> {
    let site = site_with_one_cell(&[]).await?;
    let receiver = Receiver::start(200).await?;
    let mut task = task("local", "printf fine > answer", &receiver, None);
    task.spec.result_file = Some("answer".into());
    site.run_task(&task).await?;
    let (status, truth, reason) = settled(&site, "local").await?;
    assert_eq!((&*truth, &*reason), ("False", "HostNotAllowed"));
    assert_eq!(status.state, TaskState::Completed);
    assert_eq!(
        (status.failed, status.result.as_deref()),
        (Some(false), Some("fine"))
    );
    let told = conditions::get(&status.conditions, conditions::CALLBACK_DELIVERED);
    let message = told.map(|told| told.message.clone()).unwrap_or_default();
    assert!(
        message.contains("loopback") && message.contains("--callback-allowed-hosts"),
        "{message}"
    );
    let events = events(&site, "local", "TaskCallbackHostNotAllowed").await?;
    // The password is nowhere but in the Task's own spec.
    let log = std::fs::read_to_string(site.dir().join("controller.log"))?;
    for text in [message, events, log] {
        assert!(!text.contains("s3cret"), "{text}");
    }
    assert!(receiver.about("local").is_empty());
    assert_eq!(
        site.metric("diego_task_callbacks_total{result=\"not_allowed\"}")
            .await?,
        1.0
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_answer_and_a_refusal_settle_it_too() -> Result<(), Failure> {
    let site = site_with_one_cell(&QUICK).await?;
    let flood = TcpListener::bind("127.0.0.1:0").await?;
    let port = flood.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = flood.accept().await {
            tokio::spawn(async move {
                let mut part = vec![0; 1 << 16];
                let _ = stream.read(&mut part).await;
                let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n";
                let _ = stream.write_all(head).await;
                while stream.write_all(&part).await.is_ok() {}
            });
        }
    });
    let mut task_of_flood = objects::task("flood", "exit 0");
    task_of_flood.spec.completion_callback_url = Some(format!("http://127.0.0.1:{port}/"));
    let refuses = Receiver::start(500).await?;
    site.run_task(&task_of_flood).await?;
    site.run_task(&task("refused", "exit 0", &refuses, None))
        .await?;
    site.run_task(&task("kept", "exit 0", &refuses, Some(600)))
        .await?;
    deleted(&site, "flood").await?;
    deleted(&site, "refused").await?;
    let (status, truth, reason) = settled(&site, "kept").await?;
    assert_eq!((&*truth, &*reason), ("False", "Refused"));
    assert_eq!(status.failed, Some(false), "the Task itself went well");
    for name in ["refused", "kept"] {
        assert_eq!(refuses.about(name).len(), 1, "{name}");
    }
    assert_eq!(
        site.metric("diego_task_callbacks_total{result=\"refused\"}")
            .await?,
        2.0
    );
    Ok(())
}
