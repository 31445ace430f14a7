//! How an instance ends: by itself, which is a crash, or by its node's doing, which is none.

use diego_operator::api::ActualLRPState;
use k8s_openapi::api::core::v1::Event;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{awaited, guid, kubelet, lrp_is, ours, pod_of, pods, runs, start, web};
use crate::support::{Failure, site::Site};

#[tokio::test(flavor = "multi_thread")]
async fn crashes_have_reasons_and_are_restarted_by_policy() -> Result<(), Failure> {
    let (site, kubelets) = start(&["a"], &[]).await?;
    site.desire(&web("web", 1)).await?;
    let mut last = runs(&site, "web-0", "").await?;
    let ends = [
        (
            kubelet::ended("Failed", json!({ "exitCode": 3, "reason": "Error" })),
            "exited with status 3",
        ),
        (
            kubelet::ended("Failed", json!({ "exitCode": 137, "reason": "OOMKilled" })),
            "OOMKilled: exited with status 137, killed by signal 9 (SIGKILL)",
        ),
    ];
    for (count, (status, reason)) in (1..).zip(ends) {
        let pod = pod_of(&site, &guid(&last)).await?;
        kubelets.set(&pod, status).await?;
        let now = runs(&site, "web-0", &guid(&last)).await?;
        assert_eq!(
            (now.crash_count, now.crash_reason.as_deref()),
            (Some(count), Some(reason))
        );
        event(&site, "web-0", "ActualLRPCrashed", reason).await?;
        last = now;
    }
    // The last one that crashed is kept for its logs, and only that.
    awaited(
        &site,
        "one crashed Pod beside the one that runs",
        || async {
            let mut phases: Vec<String> = ours(&site)
                .await?
                .into_iter()
                .filter_map(|pod| pod.status?.phase)
                .collect();
            phases.sort();
            (phases == ["Failed", "Running"]).then_some(())
        },
    )
    .await?;

    // An image that can't be had, for the third crash: it waits before it is started again.
    kubelets.leave_alone("web-0");
    let pod = pod_of(&site, &guid(&last)).await?;
    kubelets
        .set(
            &pod,
            kubelet::ended("Failed", json!({ "exitCode": 1, "reason": "Error" })),
        )
        .await?;
    lrp_is(&site, "web-0", "it has crashed", |status| {
        status.state == ActualLRPState::Crashed && status.next_restart_time.is_some()
    })
    .await?;
    assert_eq!(site.metric("diego_actuallrp_crashes_total").await?, 3.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_pulled_and_a_start_that_takes_too_long_are_crashes()
-> Result<(), Failure> {
    let (site, kubelets) = start(&["a"], &[]).await?;
    kubelets.leave_alone("image");
    kubelets.leave_alone("slow");
    let mut slow = web("slow", 1);
    slow.spec.start_timeout_seconds = 2;
    site.desire(&slow).await?;
    site.desire(&web("image", 1)).await?;
    let claimed = lrp_is(&site, "image-0", "it is claimed", |status| {
        status.state == ActualLRPState::Claimed
    })
    .await?;
    let pod = pod_of(&site, &guid(&claimed)).await?;
    kubelets
        .set(&pod, kubelet::waiting("ErrImagePull", "no such host"))
        .await?;
    kubelets
        .set(
            &pod,
            kubelet::waiting("ImagePullBackOff", "Back-off pulling image \"web\""),
        )
        .await?;
    let crashed = lrp_is(&site, "image-0", "it has crashed", |status| {
        status.crash_count == Some(1)
    })
    .await?;
    assert_eq!(
        crashed.crash_reason.as_deref(),
        Some("ImagePullBackOff: Back-off pulling image \"web\"")
    );
    let crashed = lrp_is(&site, "slow-0", "it has crashed", |status| {
        status.crash_count == Some(1)
    })
    .await?;
    assert_eq!(
        crashed.crash_reason.as_deref(),
        Some("not ready within 2 s")
    );
    awaited(&site, "their Pods are gone", || async {
        let all = ours(&site).await?;
        let gone = |guid: &str| {
            all.iter()
                .all(|pod| pod.labels().get(super::GUID).is_none_or(|it| it != guid))
        };
        gone(&guid(&claimed)).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_instance_is_placed_again_without_a_crash() -> Result<(), Failure> {
    let (site, kubelets) = start(&["a"], &[]).await?;
    site.desire(&web("web", 1)).await?;
    let before = runs(&site, "web-0", "").await?;
    let pod = pod_of(&site, &guid(&before)).await?;
    let evicted = json!({ "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory." });
    kubelets.set(&pod, evicted).await?;
    lrp_is(&site, "web-0", "it waits with the reason", |status| {
        status.placement_error.as_deref() == Some("Evicted: The node was low on resource: memory.")
            && status.rejection_count == Some(1)
    })
    .await?;
    let after = runs(&site, "web-0", &guid(&before)).await?;
    assert_eq!(
        (after.crash_count.unwrap_or(0), after.placement_error),
        (0, None)
    );
    assert_eq!(
        site.metric("diego_pod_rejections_total{reason=\"evicted\"}")
            .await?,
        1.0
    );
    event(&site, "web-0", "ActualLRPRejected", "low on resource").await
}

pub async fn event(site: &Site, about: &str, reason: &str, words: &str) -> Result<(), Failure> {
    let events = Api::<Event>::namespaced(site.client.clone(), "default");
    awaited(
        site,
        &format!("an Event {reason} with {words:?}"),
        || async {
            let all = events.list(&Default::default()).await.ok()?.items;
            let told = all.iter().any(|event| {
                event.involved_object.name.as_deref() == Some(about)
                    && event.reason.as_deref() == Some(reason)
                    && event
                        .message
                        .as_ref()
                        .is_some_and(|text| text.contains(words))
            });
            told.then_some(())
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_and_a_pod_without_its_label_are_replaced() -> Result<(), Failure> {
    let (site, _kubelets) = start(&["a"], &[]).await?;
    site.desire(&web("web", 1)).await?;
    let first = runs(&site, "web-0", "").await?;
    // As after a deletion with `--cascade=orphan`, adopted by the next DesiredLRP of the name.
    let orphan = Patch::Merge(json!({ "metadata": { "ownerReferences": null } }));
    let params = PatchParams::default();
    site.actual().patch("web-0", &params, &orphan).await?;
    let pod = pod_of(&site, &guid(&first)).await?;
    pods(&site)
        .delete(&pod.name_any(), &Default::default())
        .await?;
    let second = runs(&site, "web-0", &guid(&first)).await?;

    let pod = pod_of(&site, &guid(&second)).await?;
    let bare = Patch::Merge(json!({ "metadata": { "labels": { super::GUID: null } } }));
    pods(&site).patch(&pod.name_any(), &params, &bare).await?;
    runs(&site, "web-0", &guid(&second)).await?;
    awaited(&site, "the Pod that nobody follows is gone", || async {
        let there = pods(&site).get_opt(&pod.name_any()).await.ok()?;
        there.is_none().then_some(())
    })
    .await
}
