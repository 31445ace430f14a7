//! Pods that must be near each other, or must not.

use diego_operator::api::DesiredLRP;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{lrp_is, make_node, pods, runs, start, web};
use crate::support::{Failure, site::Site};

const HOST: &str = "kubernetes.io/hostname";

/// A DesiredLRP whose Pods have this label `app`, and the required term of this affinity: Pods of `with` on the same host.
fn beside(name: &str, instances: i32, affinity: &str, with: &str) -> DesiredLRP {
    let term = json!({ "topologyKey": HOST, "labelSelector": { "matchLabels": { "app": with } } });
    let required = json!({ "requiredDuringSchedulingIgnoredDuringExecution": [term] });
    let mut desired = web(name, instances);
    let template = &mut desired.spec.template;
    template.metadata = Some(json!({ "labels": { "app": name } }));
    template.spec["affinity"] = json!({ affinity: required });
    desired
}

async fn host(site: &Site, name: &str) -> Result<(), Failure> {
    let labels = json!({ "metadata": { "labels": { HOST: name } } });
    let nodes = Api::<Node>::all(site.client.clone());
    let (params, patch) = (PatchParams::default(), Patch::Merge(&labels));
    nodes.patch(name, &params, &patch).await?;
    Ok(())
}

async fn foreign(site: &Site, name: &str, node: &str, affinity: Value) -> Result<(), Failure> {
    let spec = json!({ "nodeName": node, "affinity": affinity, "containers": [{ "name": "main", "image": "x" }] });
    let meta = json!({ "name": name, "labels": { "app": name } });
    let pod = serde_json::from_value(json!({ "metadata": meta, "spec": spec }))?;
    pods(site).create(&PostParams::default(), &pod).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn anti_affinity_spreads_and_affinity_follows() -> Result<(), Failure> {
    // A long interval: what is seen here was told by the watches.
    let interval = ["--convergence-interval-seconds", "3600"];
    let (mut site, _kubelets) = start(&["a", "b"], &interval).await?;
    for node in ["a", "b"] {
        host(&site, node).await?;
    }
    let mut cells = Vec::new();
    site.desire(&beside("web", 3, "podAntiAffinity", "web"))
        .await?;
    let waits = lrp_is(&site, "web-2", "it waits", |status| {
        let told = status.placement_error.as_deref().unwrap_or_default();
        told.contains("2 node(s) didn't match pod anti-affinity rules")
    })
    .await?;
    assert_eq!(
        waits.placement_error.as_deref(),
        Some(
            "no cell satisfies the pod affinity and anti-affinity rules; 0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules"
        )
    );
    for name in ["web-0", "web-1"] {
        cells.extend(runs(&site, name, "").await?.cell_name);
    }

    // A third node is what it waits for.
    make_node(&site.client, "c").await?;
    host(&site, "c").await?;
    let rep = site.start_rep("c", "z1", &["--executor", "pods", "--node-name", "c"]);
    rep.await?;
    cells.extend(runs(&site, "web-2", "").await?.cell_name);
    cells.sort();
    assert_eq!(cells, ["a", "b", "c"]);

    // Two Pods of somebody else keep a Task away, and a later one draws an instance near.
    let term = json!({ "topologyKey": HOST, "labelSelector": { "matchLabels": { "app": "job" } } });
    let alone =
        json!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term] } });
    for node in ["a", "c"] {
        foreign(&site, &format!("alone-{node}"), node, alone.clone()).await?;
    }
    site.desire(&beside("api", 1, "podAffinity", "cache"))
        .await?;
    lrp_is(&site, "api-0", "it waits", |status| {
        let told = status.placement_error.as_deref().unwrap_or_default();
        told.ends_with("0/3 nodes are available: 3 node(s) didn't match pod affinity rules")
    })
    .await?;
    foreign(&site, "cache", "b", Value::Null).await?;
    let api = runs(&site, "api-0", "").await?;
    assert_eq!(api.cell_name.as_deref(), Some("b"));

    let mut job = super::job("job");
    job.spec.template.metadata = Some(json!({ "labels": { "app": "job" } }));
    // Their Pods came before the one that was just seen to be known.
    site.run_task(&job).await?;
    let placed = super::awaited(&site, "the Task is placed", || async {
        site.tasks().get("job").await.ok()?.status?.cell_name
    })
    .await?;
    assert_eq!(placed, "b");
    Ok(())
}
