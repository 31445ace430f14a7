//! Scaling by whoever knows the scale subresource: kubectl, and the autoscaler of Kubernetes itself.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::support::{Failure, eventually, objects, site::START, site::Site, tree};

#[tokio::test(flavor = "multi_thread")]
async fn to_zero_and_back_and_never_beyond_what_an_index_can_be() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &[]).await?;
    site.desire(&objects::sleepers("web", 2)).await?;
    site.running("web", 2, |_| true).await?;

    let scale = |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        let cluster = &site.cluster;
        async move {
            cluster
                .kubectl(&["scale", "desiredlrp/web", replicas.as_str()])
                .await
        }
    };
    let refused = scale("100000").await?;
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{stderr}");
    for word in ["spec.instances", "100000", "10000"] {
        assert!(stderr.contains(word), "{word:?} is missing: {stderr}");
    }
    assert_eq!(site.running("web", 2, |_| true).await?.len(), 2);

    let processes = tree::descendants(site.rep("a").process.pid());
    assert!(processes.len() >= 2, "{processes:?}");
    assert!(scale("0").await?.status.success());
    site.running("web", 0, |_| true).await?;
    eventually("its processes have ended", START, || async {
        (!processes.iter().any(|pid| tree::is_alive(*pid))).then_some(())
    })
    .await?;
    eventually("nothing runs, and that is Ready", START, || async {
        let status = site.desired().get("web").await.ok()?.status?;
        let ready = status
            .conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        (status.instances == 0 && ready).then_some(())
    })
    .await?;
    assert!(scale("3").await?.status.success());
    site.running("web", 3, |_| true).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_autoscaler_of_kubernetes_scales_it() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &[]).await?;
    site.desire(&objects::sleepers("web", 1)).await?;
    site.running("web", 1, |_| true).await?;
    // Without metrics it keeps to its bounds, by way of the scale subresource.
    let mut autoscaler: HorizontalPodAutoscaler = serde_json::from_value(json!({
        "metadata": { "name": "web" },
        "spec": {
            "scaleTargetRef": { "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "DesiredLRP", "name": "web" },
            "minReplicas": 3,
            "maxReplicas": 5,
        },
    }))?;
    let api = Api::<HorizontalPodAutoscaler>::namespaced(site.client.clone(), "default");
    autoscaler = api.create(&PostParams::default(), &autoscaler).await?;
    site.running("web", 3, |_| true).await?;
    let bounds = Patch::Merge(json!({ "spec": { "minReplicas": 1, "maxReplicas": 2 } }));
    let name = autoscaler.metadata.name.unwrap_or_default();
    api.patch(&name, &PatchParams::default(), &bounds).await?;
    site.running("web", 2, |_| true).await?;
    Ok(())
}
