//! Placement that is left to a scheduler, which the test plays.

use diego_operator::api::{ActualLRPState, TaskState};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;

use super::{awaited, job, lrp_is, ours, pods, runs, start, tasks::task_is, web};
use crate::support::{Failure, site::Site};

async fn unbound(site: &Site) -> Result<Pod, Failure> {
    awaited(site, "a Pod without a node", || async {
        let mut all = ours(site).await?;
        all.retain(|pod| {
            let bound = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
            bound.is_none() && pod.metadata.deletion_timestamp.is_none()
        });
        (all.len() == 1).then(|| all.pop())?
    })
    .await
}

async fn bind(site: &Site, pod: &Pod, node: &str) -> Result<(), Failure> {
    let name = pod.name_any();
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name },
        "target": { "apiVersion": "v1", "kind": "Node", "name": node },
    });
    let request = http::Request::post(format!("/api/v1/namespaces/default/pods/{name}/binding"))
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&binding)?)?;
    site.client.request_text(request).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_follows_where_the_scheduler_puts_its_pod() -> Result<(), Failure> {
    let (site, kubelets) = start(&["a", "b"], &[]).await?;
    kubelets.die("elsewhere");
    let mut web = web("web", 1);
    web.spec.template.spec["schedulerName"] = json!("volcano");
    site.desire(&web).await?;
    let pod = unbound(&site).await?;
    let spec = pod.spec.clone().unwrap_or_default();
    assert_eq!(spec.scheduler_name.as_deref(), Some("volcano"));
    let conditions = json!({ "phase": "Pending", "conditions": [
        { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes" },
    ]});
    kubelets.set(&pod, conditions).await?;
    lrp_is(&site, "web-0", "it tells what it waits for", |status| {
        let expected = "waiting for scheduler \"volcano\": Unschedulable: 0/2 nodes";
        status.state == ActualLRPState::Unclaimed
            && status.placement_error.as_deref() == Some(expected)
    })
    .await?;
    assert_eq!(ours(&site).await.map(|pods| pods.len()), Some(1));
    bind(&site, &pod, "b").await?;
    let status = runs(&site, "web-0", "").await?;
    assert_eq!(status.cell_name.as_deref(), Some("b"));
    let guid = pod.labels().get(super::GUID).cloned();
    assert_eq!((status.instance_guid, status.placement_error), (guid, None));

    // Deleted, there is another; and a node that is no Cell is refused.
    pods(&site)
        .delete(&pod.name_any(), &Default::default())
        .await?;
    let next = unbound(&site).await?;
    bind(&site, &next, "elsewhere").await?;
    lrp_is(&site, "web-0", "it tells why not there", |status| {
        let error = status.placement_error.as_deref().unwrap_or_default();
        error.contains("chose node elsewhere, which is no Cell")
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_bound_once_and_never_made_again() -> Result<(), Failure> {
    let keep = super::tasks::KEEP;
    let (mut site, kubelets) = start(&["a"], &keep).await?;
    kubelets.die("elsewhere");
    let left = |name: &str| {
        let mut task = job(name);
        task.spec.template.spec["schedulerName"] = json!("volcano");
        task
    };
    site.run_task(&left("good")).await?;
    bind(&site, &unbound(&site).await?, "a").await?;
    let status = task_is(&site, "good", TaskState::Running).await?;
    assert_eq!(status.cell_name.as_deref(), Some("a"));

    site.run_task(&left("astray")).await?;
    bind(&site, &unbound(&site).await?, "elsewhere").await?;
    let status = task_is(&site, "astray", TaskState::Completed).await?;
    let reason = status.failure_reason.unwrap_or_default();
    let expected = "scheduler \"volcano\" chose node elsewhere, which is no Cell";
    assert!(reason.starts_with(expected), "{reason}");

    // Bound and gone while nobody looks.
    site.run_task(&left("gone")).await?;
    let pod = unbound(&site).await?;
    site.kill_controller().await;
    bind(&site, &pod, "a").await?;
    let now = kube::api::DeleteParams::default().grace_period(0);
    pods(&site).delete(&pod.name_any(), &now).await?;
    site.start_controller(&keep).await?;
    let status = task_is(&site, "gone", TaskState::Completed).await?;
    assert_eq!(
        (status.failed, status.failure_reason.as_deref()),
        (Some(true), Some("its Pod is gone, and may have run"))
    );
    let all = ours(&site).await.ok_or("no Pods are listed")?;
    let again = all.iter().any(|pod| pod.name_any().starts_with("gone-"));
    assert!(!again, "it was made again");
    Ok(())
}
