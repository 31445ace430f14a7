//! Pods that the API server does not want: the slot waits and says why, until somebody changes the rules.

use k8s_openapi::api::core::v1::{Namespace, ResourceQuota};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::{awaited, ends::event, guid, job, lrp_is, ours, pod_of, runs, start, web};
use crate::support::Failure;

const LEVEL: &str = "pod-security.kubernetes.io/enforce";

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_pod_waits_with_the_servers_words() -> Result<(), Failure> {
    let (site, _kubelets) = start(&["a"], &[]).await?;
    let namespaces = Api::<Namespace>::all(site.client.clone());
    let level = |level| Patch::Merge(json!({ "metadata": { "labels": { LEVEL: level } } }));
    let params = PatchParams::default();
    namespaces
        .patch("default", &params, &level(Some("restricted")))
        .await?;
    site.desire(&web("web", 1)).await?;
    site.run_task(&job("once")).await?;
    lrp_is(&site, "web-0", "it waits with the reason", |status| {
        let error = status.placement_error.as_deref().unwrap_or_default();
        error.contains("violates PodSecurity \"restricted")
    })
    .await?;
    event(&site, "web-0", "ActualLRPRejected", "violates PodSecurity").await?;
    awaited(&site, "the DesiredLRP says so", || async {
        let desired = site.desired().get("web").await.ok()?;
        let conditions = desired.status?.conditions;
        let told = |text: &str| text.contains("violates PodSecurity");
        conditions
            .iter()
            .any(|one| told(&one.message))
            .then_some(())
    })
    .await?;
    awaited(&site, "the Task is given back, not started", || async {
        let status = site.tasks().get("once").await.ok()?.status?;
        let reason = status.rejection_reason?;
        (status.rejection_count >= Some(1) && reason.contains("violates PodSecurity")).then_some(())
    })
    .await?;
    assert!(ours(&site).await.is_some_and(|pods| pods.is_empty()));
    let crashes = site.metric("diego_actuallrp_crashes_total").await?;
    assert_eq!(crashes, 0.0, "that is no crash");
    namespaces.patch("default", &params, &level(None)).await?;
    let status = runs(&site, "web-0", "").await?;
    assert_eq!(
        (status.placement_error, status.rejection_count),
        (None, None)
    );

    // A quota, as its controller would have filled it in.
    let quotas = Api::<ResourceQuota>::namespaced(site.client.clone(), "default");
    let hard = json!({ "pods": "1" });
    let quota = json!({ "metadata": { "name": "q" }, "spec": { "hard": hard } });
    let quota = serde_json::from_value(quota)?;
    quotas.create(&PostParams::default(), &quota).await?;
    let filled = json!({ "status": { "hard": hard, "used": { "pods": "1" } } });
    quotas
        .patch_status("q", &params, &Patch::Merge(&filled))
        .await?;
    site.desire(&web("more", 1)).await?;
    lrp_is(&site, "more-0", "it waits with the reason", |status| {
        let error = status.placement_error.as_deref().unwrap_or_default();
        error.contains("exceeded quota: q")
    })
    .await?;
    quotas.delete("q", &DeleteParams::default()).await?;
    runs(&site, "more-0", "").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_took_away_goes_to_another_although_that_scores_worse() -> Result<(), Failure> {
    let (mut site, kubelets) = start(&["a"], &[]).await?;
    site.desire(&web("web", 1)).await?;
    let on_a = runs(&site, "web-0", "").await?;
    // The other node is half full with what others run there, so that a is the better one.
    super::make_node(&site.client, "b").await?;
    let wants = json!({ "requests": { "cpu": "4", "memory": "4Gi" } });
    let spec = json!({ "nodeName": "b", "containers": [{ "name": "main", "image": "x", "resources": wants }] });
    let other = json!({ "metadata": { "name": "others" }, "spec": spec });
    let other = serde_json::from_value(other)?;
    super::pods(&site)
        .create(&PostParams::default(), &other)
        .await?;
    let args = ["--executor", "pods", "--node-name", "b"];
    site.start_rep("b", "z1", &args).await?;
    site.desire(&web("better", 1)).await?;
    let better = runs(&site, "better-0", "").await?;
    assert_eq!(better.cell_name.as_deref(), Some("a"), "a scores better");

    kubelets.leave_alone("web-0");
    let refused = [
        ("Evicted", "The node was low on resource: memory.", "a", "b"),
        ("UnexpectedAdmissionError", "Allocate failed.", "b", "a"),
    ];
    let mut last = on_a;
    for (reason, message, by, next) in refused {
        let pod = pod_of(&site, &guid(&last)).await?;
        let status = json!({ "phase": "Failed", "reason": reason, "message": message });
        kubelets.set(&pod, status).await?;
        last = lrp_is(&site, "web-0", "its next Pod is made", |status| {
            status.cell_name.is_some() && status.instance_guid != last.instance_guid
        })
        .await?;
        assert_eq!(last.cell_name.as_deref(), Some(next), "{last:?}");
        let latest = last.rejected_by.last().map(String::as_str);
        assert_eq!(latest, Some(by), "{last:?}");
    }
    let pod = pod_of(&site, &guid(&last)).await?;
    kubelets.set(&pod, super::kubelet::ready()).await?;
    let runs = lrp_is(&site, "web-0", "it runs", |status| {
        status.address.is_some() && status.instance_guid == last.instance_guid
    })
    .await?;
    assert_eq!(runs.rejected_by, [""; 0], "that is forgiven");
    Ok(())
}
