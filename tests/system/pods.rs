//! Cells that are nodes: every instance and every Task is a Pod that the controller makes, follows and deletes.
//!
//! The API server is real; the kubelets are played by [`kubelet`], which writes what a kubelet writes. Real kubelets run
//! the same in `tests/e2e`.

mod ends;
mod fence;
pub mod kubelet;
mod lost;
mod neighbours;
mod refused;
mod scheduled;
mod tasks;

use diego_operator::api::{
    ActualLRP, ActualLRPState, ActualLRPStatus, DesiredLRP, PortMapping, Task,
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::support::{Failure, eventually, objects, site::START, site::Site};
use kubelet::Kubelets;

/// The guid of a Pod of ours.
const GUID: &str = "diego.cloudfoundry.org/instance-guid";

/// Cells with executor Pods of these names, on nodes of the same names, with kubelets.
async fn start(cells: &[&str], controller: &[&str]) -> Result<(Site, Kubelets), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(controller).await?;
    for cell in cells {
        make_node(&site.client, cell).await?;
        site.start_rep(cell, "z1", &["--executor", "pods", "--node-name", cell])
            .await?;
    }
    let kubelets = Kubelets::start(site.client.clone());
    Ok((site, kubelets))
}

async fn make_node(client: &Client, name: &str) -> Result<(), Failure> {
    let nodes = Api::<Node>::all(client.clone());
    let node = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
    nodes.create(&PostParams::default(), &node).await?;
    let room = json!({ "cpu": "8", "memory": "8Gi", "ephemeral-storage": "50Gi", "pods": "110" });
    let ready = json!([{ "type": "Ready", "status": "True", "reason": "KubeletReady" }]);
    let status =
        json!({ "status": { "capacity": room, "allocatable": room, "conditions": ready } });
    let status = Patch::Merge(&status);
    nodes
        .patch_status(name, &PatchParams::default(), &status)
        .await?;
    // Pods are admitted when this namespace has its service account, and nodes are new with this taint.
    let untaint = json!({ "spec": { "taints": null } });
    nodes
        .patch(name, &PatchParams::default(), &Patch::Merge(&untaint))
        .await?;
    Ok(())
}

/// A DesiredLRP of Pods.
fn web(name: &str, instances: i32) -> DesiredLRP {
    let container = json!({ "name": "main", "image": "web", "ports": [{ "name": "http", "containerPort": 8080 }] });
    objects::lrp(name, instances, json!({ "containers": [container] }))
}

/// A Task that is a Pod.
fn job(name: &str) -> Task {
    let mut task = objects::task(name, "");
    task.spec.template.spec = json!({ "containers": [{ "name": "main", "image": "job" }] });
    task
}

fn pods(site: &Site) -> Api<Pod> {
    Api::namespaced(site.client.clone(), "default")
}

/// The Pods of our making, by name.
async fn ours(site: &Site) -> Option<Vec<Pod>> {
    let all = pods(site).list(&ListParams::default().labels(GUID)).await;
    let mut all = all.ok()?.items;
    all.retain(|pod| {
        let owners = pod.metadata.owner_references.iter().flatten();
        let mut ours = owners.filter(|owner| owner.api_version.starts_with("diego."));
        ours.any(|owner| owner.controller == Some(true))
    });
    Some(all)
}

/// The one Pod of ours that belongs to this guid.
async fn pod_of(site: &Site, guid: &str) -> Result<Pod, Failure> {
    awaited(site, &format!("a Pod of {guid}"), || async {
        let all = ours(site).await?;
        all.into_iter()
            .find(|pod| pod.labels().get(GUID).map(String::as_str) == Some(guid))
    })
    .await
}

/// Waits for a status of an ActualLRP.
async fn lrp_is(
    site: &Site,
    name: &str,
    what: &str,
    is: impl Fn(&ActualLRPStatus) -> bool,
) -> Result<ActualLRPStatus, Failure> {
    awaited(site, &format!("{name}: {what}"), || async {
        let lrp = site.actual().get_opt(name).await.ok()??;
        lrp.status.filter(|status| is(status))
    })
    .await
}

/// Waits for something; when it does not come, tells everything that can be shown.
async fn awaited<T, F>(site: &Site, what: &str, look: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Option<T>>,
{
    explained(site, eventually(what, START, look).await).await
}

/// The failure with everything that can be shown.
async fn explained<T>(site: &Site, result: Result<T, Failure>) -> Result<T, Failure> {
    match result {
        Ok(found) => Ok(found),
        Err(failure) => {
            let shown = site
                .cluster
                .kubectl(&["get", "pods", "-A", "-o", "wide"])
                .await;
            let shown = shown.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            let shown = shown.unwrap_or_default();
            Err(format!("{failure}\n{shown}\n{}", site.picture().await).into())
        }
    }
}

/// Waits until the instance runs, as another run than `not`.
async fn runs(site: &Site, name: &str, not: &str) -> Result<ActualLRPStatus, Failure> {
    lrp_is(site, name, "it runs", |status| {
        status.state == ActualLRPState::Running && status.instance_guid.as_deref() != Some(not)
    })
    .await
}

fn guid(status: &ActualLRPStatus) -> String {
    status.instance_guid.clone().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_a_pod_on_the_chosen_node() -> Result<(), Failure> {
    let (site, _kubelets) = start(&["a", "b"], &[]).await?;
    let foreign = make_foreign_pod(&site).await?;
    site.desire(&web("web", 3)).await?;
    let running = explained(&site, site.running("web", 3, |_| true).await).await?;
    for lrp in &running {
        assert_is_its_pod(&site, lrp).await?;
    }
    let cells: std::collections::BTreeSet<String> = running
        .iter()
        .filter_map(|lrp| lrp.status.as_ref()?.cell_name.clone())
        .collect();
    assert_eq!(cells.len(), 2, "spread over the Cells");

    // A user deletes a Pod: another instance, and no crash.
    let before = running[0].status.clone().unwrap_or_default();
    let pod = pod_of(&site, &guid(&before)).await?;
    pods(&site)
        .delete(&pod.name_any(), &DeleteParams::default())
        .await?;
    let after = runs(&site, "web-0", &guid(&before)).await?;
    assert_eq!(after.crash_count.unwrap_or(0), 0);
    assert_is_its_pod(&site, &site.actual().get("web-0").await?).await?;

    // One fewer, then none at all.
    let fewer = Patch::Merge(json!({ "spec": { "instances": 2 } }));
    site.desired()
        .patch("web", &PatchParams::default(), &fewer)
        .await?;
    count_of_pods(&site, 2).await?;
    site.desired()
        .delete("web", &DeleteParams::default())
        .await?;
    count_of_pods(&site, 0).await?;
    let kept = pods(&site).get("nobodys").await?;
    assert_eq!(
        (kept.uid(), kept.metadata.deletion_timestamp),
        (Some(foreign), None)
    );
    let metrics = site.metrics().await?;
    for series in [
        "diego_pod_creations_total{outcome=\"created\"} 4",
        "diego_pod_rejections_total{reason=\"evicted\"} 0",
    ] {
        assert!(metrics.contains(series), "{series} in\n{metrics}");
    }
    Ok(())
}

async fn count_of_pods(site: &Site, count: usize) -> Result<(), Failure> {
    awaited(site, &format!("{count} Pods"), || async {
        (ours(site).await?.len() == count).then_some(())
    })
    .await
}

async fn assert_is_its_pod(site: &Site, lrp: &ActualLRP) -> Result<(), Failure> {
    let status = lrp.status.clone().unwrap_or_default();
    let pod = pod_of(site, &guid(&status)).await?;
    let spec = pod.spec.clone().unwrap_or_default();
    assert_eq!(
        pod.name_any(),
        format!("{}-{}", lrp.name_any(), &guid(&status)[..8])
    );
    assert_eq!(spec.node_name, status.cell_name);
    assert_eq!(spec.restart_policy.as_deref(), Some("Never"));
    let labels = pod.labels();
    let label = |name: &str| {
        labels
            .get(&format!("diego.cloudfoundry.org/{name}"))
            .cloned()
    };
    assert_eq!(label("desired-lrp").as_deref(), Some("web"));
    assert_eq!(label("index"), Some(lrp.spec.index.to_string()));
    assert_eq!(label("cell"), status.cell_name);
    let owner = &pod.metadata.owner_references.clone().unwrap_or_default()[0];
    assert_eq!(
        (&*owner.kind, Some(&owner.uid)),
        ("ActualLRP", lrp.metadata.uid.as_ref())
    );
    let address = pod.status.clone().unwrap_or_default().pod_ip;
    assert_eq!((address.is_some(), &status.address), (true, &address));
    let port = PortMapping {
        container_port: 8080,
        host_port: 8080,
        name: Some("http".into()),
    };
    assert_eq!(status.ports, [port]);
    Ok(())
}

/// A Pod that is not ours, although it has our label: it has no owner. Returns its uid.
async fn make_foreign_pod(site: &Site) -> Result<String, Failure> {
    let labels = json!({ GUID: "00000000", "diego.cloudfoundry.org/cell": "a" });
    let pod = serde_json::from_value(json!({
        "metadata": { "name": "nobodys", "labels": labels },
        "spec": { "nodeName": "elsewhere", "containers": [{ "name": "main", "image": "x" }] },
    }))?;
    let made = pods(site).create(&PostParams::default(), &pod).await?;
    Ok(made.uid().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_is_drained_start_before_stop() -> Result<(), Failure> {
    let (site, kubelets) = start(&["a", "b"], &[]).await?;
    site.desire(&web("web", 1)).await?;
    let before = runs(&site, "web-0", "").await?;
    let cell = before.cell_name.clone().unwrap_or_default();
    kubelets.leave_alone("web-0");
    let evacuate = Patch::Merge(json!({ "spec": { "evacuate": true } }));
    site.cells()
        .patch(&cell, &PatchParams::default(), &evacuate)
        .await?;
    let moving = lrp_is(&site, "web-0", "its replacement starts", |status| {
        status.state == ActualLRPState::Claimed && status.evacuating.is_some()
    })
    .await?;
    let replacement = pod_of(&site, &guid(&moving)).await?;
    let old = pod_of(&site, &guid(&before)).await?;
    assert_eq!(
        old.metadata.deletion_timestamp, None,
        "it serves until then"
    );
    kubelets.set(&replacement, kubelet::ready()).await?;
    let after = runs(&site, "web-0", &guid(&before)).await?;
    assert_ne!(after.cell_name, before.cell_name);
    assert_eq!(
        (after.evacuating, after.crash_count.unwrap_or(0)),
        (None, 0)
    );
    count_of_pods(&site, 1).await
}
