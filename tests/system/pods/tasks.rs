//! A Task is one Pod, once.

use diego_operator::api::{TaskState, TaskStatus};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{awaited, job, kubelet, ours, pod_of, pods, start};
use crate::support::{Failure, site::Site};
use kube::ResourceExt;

/// Waits for the state of a Task.
pub async fn task_is(site: &Site, name: &str, state: TaskState) -> Result<TaskStatus, Failure> {
    awaited(site, &format!("{name} is {state:?}"), || async {
        let status = site.tasks().get(name).await.ok()?.status?;
        (status.state == state).then_some(status)
    })
    .await
}

async fn pod_of_task(site: &Site, name: &str) -> Result<k8s_openapi::api::core::v1::Pod, Failure> {
    let status = task_is(site, name, TaskState::Running).await?;
    pod_of(site, &status.instance_guid.unwrap_or_default()).await
}

/// Finished Tasks stay for the test.
pub const KEEP: [&str; 2] = ["--expire-completed-task-seconds", "600"];

#[tokio::test(flavor = "multi_thread")]
async fn a_task_has_a_result_a_failure_or_an_end_before_its_time() -> Result<(), Failure> {
    let (site, kubelets) = start(&["a"], &KEEP).await?;
    let mut with_file = job("good");
    with_file.spec.result_file = Some("/tmp/out".into());
    site.run_task(&with_file).await?;
    site.run_task(&job("bad")).await?;
    site.run_task(&job("stopped")).await?;
    let mut relative = job("relative");
    relative.spec.result_file = Some("out".into());
    site.run_task(&relative).await?;

    let good = pod_of_task(&site, "good").await?;
    let path = |pod: &Value| pod["spec"]["containers"][0]["terminationMessagePath"].clone();
    assert_eq!(path(&json!(good)), "/tmp/out");
    let done = json!({ "exitCode": 0, "reason": "Completed", "message": "42" });
    kubelets
        .set(&good, kubelet::ended("Succeeded", done))
        .await?;
    let status = task_is(&site, "good", TaskState::Completed).await?;
    assert_eq!(
        (status.failed, status.result.as_deref()),
        (Some(false), Some("42"))
    );

    let bad = pod_of_task(&site, "bad").await?;
    let killed = json!({ "exitCode": 137, "reason": "OOMKilled" });
    kubelets.set(&bad, kubelet::ended("Failed", killed)).await?;
    let status = task_is(&site, "bad", TaskState::Completed).await?;
    let reason = status.failure_reason.unwrap_or_default();
    assert!(
        status.failed == Some(true) && reason.starts_with("OOMKilled"),
        "{reason}"
    );

    let stopped = pod_of_task(&site, "stopped").await?;
    let cancel = Patch::Merge(json!({ "spec": { "cancelled": true } }));
    site.tasks()
        .patch("stopped", &PatchParams::default(), &cancel)
        .await?;
    let status = task_is(&site, "stopped", TaskState::Completed).await?;
    assert_eq!(status.failure_reason.as_deref(), Some("task was cancelled"));
    let gone = pods(&site).get_opt(&stopped.name_any()).await?;
    assert!(gone.is_none(), "its Pod is deleted");

    awaited(&site, "the relative path is refused", || async {
        let status = site.tasks().get("relative").await.ok()?.status?;
        let reason = status.rejection_reason?;
        reason.contains("must be an absolute path").then_some(())
    })
    .await?;

    // For `kubectl logs`, as long as the Tasks are there.
    for name in ["good", "bad"] {
        let status = site.tasks().get(name).await?.status.unwrap_or_default();
        pod_of(&site, &status.instance_guid.unwrap_or_default()).await?;
        site.tasks().delete(name, &DeleteParams::default()).await?;
    }
    awaited(&site, "no Pod is left", || async {
        ours(&site).await?.is_empty().then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_at_most_once_whatever_becomes_of_the_controller() -> Result<(), Failure> {
    let (mut site, kubelets) = start(&["a"], &KEEP).await?;
    site.run_task(&job("on")).await?;
    site.run_task(&job("lost")).await?;
    let on = pod_of_task(&site, "on").await?;
    let lost = pod_of_task(&site, "lost").await?;
    site.kill_controller().await;
    // What happens to the one while nobody looks; the other goes on.
    let now = DeleteParams::default().grace_period(0);
    pods(&site).delete(&lost.name_any(), &now).await?;
    site.start_controller(&KEEP).await?;
    let status = task_is(&site, "lost", TaskState::Completed).await?;
    assert_eq!(
        (status.failed, status.failure_reason.as_deref()),
        (Some(true), Some("task container does not exist"))
    );
    let all = ours(&site).await.ok_or("no Pods are listed")?;
    let uids: Vec<_> = all.iter().map(ResourceExt::uid).collect();
    assert_eq!(uids, [on.uid()], "nothing was started again");
    let done = json!({ "exitCode": 0, "reason": "Completed", "message": "well" });
    kubelets.set(&on, kubelet::ended("Succeeded", done)).await?;
    let status = task_is(&site, "on", TaskState::Completed).await?;
    assert_eq!(status.result.as_deref(), Some("well"));
    Ok(())
}

/// The decision `docs/decisions/0012-refused-tasks.md`.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_the_kubelet_does_not_admit_fails_and_is_not_run_again() -> Result<(), Failure>
{
    let (site, kubelets) = start(&["a", "b"], &KEEP).await?;
    site.run_task(&job("full")).await?;
    let pod = pod_of_task(&site, "full").await?;
    let words = "Pod was rejected: Node didn't have enough resource: cpu";
    let refused = json!({ "phase": "Failed", "reason": "OutOfcpu", "message": words, "containerStatuses": null });
    kubelets.set(&pod, refused).await?;
    let status = task_is(&site, "full", TaskState::Completed).await?;
    let reason = status.failure_reason.unwrap_or_default();
    assert!(
        status.failed == Some(true) && reason.starts_with("OutOfcpu: "),
        "{reason}"
    );
    // It is over for good: another Task comes and goes meanwhile.
    site.run_task(&job("next")).await?;
    let next = pod_of_task(&site, "next").await?;
    let all = ours(&site).await.ok_or("no Pods are listed")?;
    let known = [pod.uid(), next.uid()];
    assert!(
        all.iter().all(|pod| known.contains(&pod.uid())),
        "a second Pod of the refused Task: {}",
        json!(all)
    );
    let after = task_is(&site, "full", TaskState::Completed).await?;
    assert_eq!(after.failure_reason, Some(reason));
    Ok(())
}
