//! The end of a Task's life: its completion callback, who delivers it, and when the Task is deleted.

use std::sync::atomic::Ordering;

use diego_operator::api::{Task, TaskState, TaskStatus, conditions};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::support::{Failure, eventually, objects, site::START, site::Site};

mod failures;
mod pair;
mod receiver;
mod shares;
mod stop;
mod tls;

use receiver::{HANG, Receiver};

/// Three tries of a second each, their pauses and a write end before it.
const QUICK: [&str; 6] = [
    "--kick-task-seconds",
    "10",
    "--callback-timeout-seconds",
    "1",
    "--callback-allowed-hosts",
    "127.0.0.1",
];

/// A receiver that takes its time is waited for, longer than any test does.
const PATIENT: [&str; 6] = [
    "--kick-task-seconds",
    "200",
    "--callback-timeout-seconds",
    "60",
    "--callback-allowed-hosts",
    "127.0.0.1",
];

/// A Task that tells the receiver how it ended.
fn task(name: &str, script: &str, receiver: &Receiver, ttl: Option<i32>) -> Task {
    let mut task = objects::task(name, script);
    task.spec.completion_callback_url = Some(receiver.url());
    task.spec.ttl_seconds_after_finished = ttl;
    task
}

async fn status(site: &Site, name: &str) -> Option<TaskStatus> {
    site.tasks().get_opt(name).await.ok()??.status
}

async fn deleted(site: &Site, name: &str) -> Result<(), Failure> {
    eventually(&format!("Task {name} is deleted"), START, || async {
        let found = site.tasks().get_opt(name).await.ok()?;
        found.is_none().then_some(())
    })
    .await
}

/// Waits until the callback is settled; gives the status, and the condition's status and reason.
async fn settled(site: &Site, name: &str) -> Result<(TaskStatus, String, String), Failure> {
    let what = format!("the callback of {name} is settled");
    let found = eventually(&what, START, || async {
        let status = status(site, name).await?;
        let condition = conditions::get(&status.conditions, conditions::CALLBACK_DELIVERED)?;
        let (truth, reason) = (condition.status.clone(), condition.reason.clone());
        Some((status, truth, reason))
    })
    .await;
    match found {
        Ok(found) => Ok(found),
        Err(failure) => Err(format!("{failure}\n{}", site.picture().await).into()),
    }
}

async fn site_with_one_cell(flags: &[&str]) -> Result<Site, Failure> {
    let mut site = Site::start().await?;
    site.start_controller(flags).await?;
    site.start_rep("a", "z1", &[]).await?;
    Ok(site)
}

/// The time of a status, for comparing.
fn time(time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime>) -> Timestamp {
    time.as_ref().expect("a time").0
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outcome_is_told_at_once_and_the_task_is_deleted() -> Result<(), Failure> {
    let site = site_with_one_cell(&QUICK).await?;
    let receiver = Receiver::start(200).await?;
    let mut good = task("good", "printf forty-two > answer", &receiver, None);
    good.spec.result_file = Some("answer".into());
    good.spec.annotation = Some("app=7".into());
    let bad = task("bad", "exit 3", &receiver, None);
    let kept = task("kept", "exit 0", &receiver, Some(600));
    for task in [&good, &bad, &kept] {
        site.run_task(task).await?;
    }
    let arrival = receiver.told("good", 1).await?.remove(0);
    let head = arrival.head.to_ascii_lowercase();
    assert!(head.starts_with("post /done http/1.1"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(head.contains("authorization: basic y2m6cznjcmv0"), "{head}");
    let mut body = arrival.body.clone();
    let uid = body["uid"].take();
    assert!(uid.as_str().is_some_and(|uid| uid.len() == 36), "{uid}");
    assert!(body["created_at"].take().as_i64() > Some(1_700_000_000_000_000_000));
    let expected = json!({
        "task_guid": "good", "namespace": "default", "uid": null, "failed": false,
        "failure_reason": "", "result": "forty-two", "annotation": "app=7", "created_at": null,
    });
    assert_eq!(body, expected);
    let arrival = receiver.told("bad", 1).await?.remove(0);
    assert_eq!(arrival.body["failed"], true);
    assert_eq!(arrival.body["failure_reason"], "exited with status 3");
    deleted(&site, "good").await?;
    deleted(&site, "bad").await?;

    // With a ttl it stays and tells what happened; nothing makes it be told again.
    let (status, truth, reason) = settled(&site, "kept").await?;
    assert_eq!((&*truth, &*reason), ("True", "Delivered"));
    assert_eq!(status.state, TaskState::Completed);
    let took = receiver.about("kept")[0]
        .at
        .duration_since(time(&status.first_completed_time));
    assert!(took < SignedDuration::from_secs(8), "no kick: {took:?}");
    let touch = Patch::Merge(json!({ "metadata": { "labels": { "touched": "yes" } } }));
    site.tasks()
        .patch("kept", &PatchParams::default(), &touch)
        .await?;
    site.run_task(&task("last", "exit 0", &receiver, None))
        .await?;
    deleted(&site, "last").await?;
    for name in ["good", "bad", "kept", "last"] {
        assert_eq!(receiver.about(name).len(), 1, "{name}");
    }
    let delivered = "diego_task_callbacks_total{result=\"delivered\"}";
    assert_eq!(site.metric(delivered).await?, 4.0);
    let deleted = "diego_tasks_deleted_total{reason=\"CallbackAnswered\"}";
    assert_eq!(site.metric(deleted).await?, 3.0);
    Ok(())
}

/// So many Tasks, as they were while they ran, on a Cell that has died since.
async fn on_a_lost_cell(count: usize) -> Result<(Site, Receiver, Vec<Task>), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&QUICK).await?;
    site.start_rep("a", "z1", &[]).await?;
    let receiver = Receiver::start(200).await?;
    for n in 0..count {
        let task = task(&format!("t{n}"), "sleep 100000", &receiver, Some(600));
        site.run_task(&task).await?;
    }
    let running = eventually("every Task runs", START, || async {
        let tasks = site.tasks().list(&Default::default()).await.ok()?.items;
        let runs = |task: &Task| {
            task.status
                .as_ref()
                .is_some_and(|s| s.state == TaskState::Running)
        };
        tasks.iter().all(runs).then_some(tasks)
    })
    .await?;
    assert_eq!(running.len(), count);
    site.kill_cell("a").await;
    Ok((site, receiver, running))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_cell_is_told_at_once() -> Result<(), Failure> {
    let (site, receiver, running) = on_a_lost_cell(20).await?;
    for task in &running {
        let arrival = receiver.told(&task.name_any(), 1).await?.remove(0);
        assert_eq!(
            arrival.body["failure_reason"],
            "cell disappeared before completion"
        );
        assert_eq!(arrival.body["failed"], true);
    }
    let cell = site.cells().get("a").await?.status.unwrap_or_default();
    let verdict = time(&cell.last_recovery.ok_or("the loss is told")?.detected_time);
    for task in &running {
        let took = receiver.about(&task.name_any())[0]
            .at
            .duration_since(verdict);
        assert!(
            took < SignedDuration::from_secs(8),
            "{}: {took:?}",
            task.name_any()
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_completion_from_a_lost_cell_is_refused() -> Result<(), Failure> {
    let (site, _receiver, running) = on_a_lost_cell(1).await?;
    // The lost Cell was only cut off, and now its word comes through.
    let (_, _, reason) = settled(&site, "t0").await?;
    assert_eq!(reason, "Delivered");
    for late in [
        json!({ "state": "Completed", "failed": false, "failureReason": null, "result": "late" }),
        json!({ "state": "Running", "failed": null, "failureReason": null }),
        json!({ "state": "Pending", "failed": null, "failureReason": null }),
    ] {
        let patch = Patch::Merge(json!({ "status": late }));
        let tasks = site.tasks();
        let refused = tasks
            .patch_status("t0", &PatchParams::default(), &patch)
            .await;
        let Err(kube::Error::Api(refusal)) = refused else {
            return Err(format!("{late} was not refused: {refused:?}").into());
        };
        assert_eq!(refusal.code, 422, "{refusal:?}");
        assert!(
            refusal.message.contains("a completed Task must not"),
            "{}",
            refusal.message
        );
    }
    // Written as the rep writes, on the version it read last, it does not even come so far.
    let old = running
        .iter()
        .find(|task| task.name_any() == "t0")
        .ok_or("t0")?;
    let version = old.metadata.resource_version.clone();
    let late = json!({ "state": "Completed", "failed": false });
    let patch = json!({ "metadata": { "resourceVersion": version }, "status": late });
    let tasks = site.tasks();
    let refused = tasks
        .patch_status("t0", &PatchParams::default(), &Patch::Merge(patch))
        .await;
    assert!(
        matches!(&refused, Err(kube::Error::Api(status)) if status.code == 409),
        "{refused:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_survives_the_death_of_its_controller_and_holds_up_nobody() -> Result<(), Failure>
{
    let mut site = site_with_one_cell(&QUICK).await?;
    let (hangs, well) = (Receiver::start(HANG).await?, Receiver::start(200).await?);
    site.run_task(&task("stuck", "exit 0", &hangs, Some(600)))
        .await?;
    hangs.told("stuck", 1).await?;
    // Others are told meanwhile.
    site.run_task(&task("quick", "exit 0", &well, None)).await?;
    well.told("quick", 1).await?;
    deleted(&site, "quick").await?;

    site.run_task(&task("cut", "exit 0", &hangs, Some(600)))
        .await?;
    hangs.told("cut", 1).await?;
    site.kill_controller().await;
    let before = status(&site, "cut").await.ok_or("the Task is there")?;
    assert_eq!(before.state, TaskState::Resolving, "somebody owns it");
    let tries = hangs.about("cut").len();
    assert!((1..=2).contains(&tries), "in the middle: {tries}");
    hangs.status.store(200, Ordering::Relaxed);
    site.start_controller(&QUICK).await?;
    for name in ["cut", "stuck"] {
        let (_, truth, reason) = settled(&site, name).await?;
        assert_eq!((&*truth, &*reason), ("True", "Delivered"), "{name}");
    }
    let arrivals = hangs.about("cut");
    assert_eq!(arrivals.len(), tries + 1, "once more");
    let waited = arrivals[tries]
        .at
        .duration_since(time(&before.state_transition_time));
    assert!(
        waited >= SignedDuration::from_secs(10),
        "its owner had its time: {waited:?}"
    );
    let uids: Vec<_> = arrivals
        .iter()
        .map(|arrival| &arrival.body["uid"])
        .collect();
    assert!(
        uids.windows(2).all(|pair| pair[0] == pair[1]),
        "a repeat is known: {uids:?}"
    );
    assert!(site.metric("diego_tasks_kicked_total").await? >= 1.0);
    Ok(())
}
