//! Cells that are nodes: what the controller and the rep make of Node objects and of the Pods of others.
//!
//! The API server is real; the Nodes and Pods are objects that the tests make, with no kubelet behind them.

mod evacuated;
mod gone;
mod leases;
mod rights;
mod taint;

use std::time::{Duration, Instant};

use diego_operator::api::conditions::{self, READY};
use diego_operator::api::{Cell, CellState, DesiredLRP};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::{Failure, eventually, objects, site::START, site::Site};

fn nodes(site: &Site) -> Api<Node> {
    Api::all(site.client.clone())
}

/// A Node with 4 CPUs and 4 GiB that is ready.
async fn make_node(site: &Site, name: &str, labels: Value) -> Result<Node, Failure> {
    let api = nodes(site);
    let node = json!({ "metadata": { "name": name, "labels": labels } });
    api.create(&PostParams::default(), &serde_json::from_value(node)?)
        .await?;
    let room = json!({ "cpu": "4", "memory": "4Gi", "ephemeral-storage": "20Gi", "pods": "110" });
    let params = PatchParams::default();
    let status = json!({ "status": { "allocatable": room } });
    api.patch_status(name, &params, &Patch::Merge(&status))
        .await?;
    is_ready(site, name, true).await?;
    // Nodes are new with the taint node.kubernetes.io/not-ready.
    let untaint = json!({ "spec": { "taints": null } });
    Ok(api.patch(name, &params, &Patch::Merge(&untaint)).await?)
}

async fn is_ready(site: &Site, name: &str, ready: bool) -> Result<(), Failure> {
    let status = if ready { "True" } else { "False" };
    let conditions = json!([{ "type": "Ready", "status": status, "reason": "Test" }]);
    let patch = json!({ "status": { "conditions": conditions } });
    let params = PatchParams::default();
    nodes(site)
        .patch_status(name, &params, &Patch::Merge(&patch))
        .await?;
    Ok(())
}

async fn change_node(site: &Site, name: &str, spec: Value) -> Result<(), Failure> {
    let patch = json!({ "spec": spec });
    let params = PatchParams::default();
    nodes(site)
        .patch(name, &params, &Patch::Merge(&patch))
        .await?;
    Ok(())
}

/// A Pod of somebody else on a node.
async fn other_pod(site: &Site, name: &str, node: &str, cpu: &str) -> Result<(), Failure> {
    let container =
        json!({ "name": "a", "image": "x", "resources": { "requests": { "cpu": cpu } } });
    let spec = json!({ "nodeName": node, "automountServiceAccountToken": false, "containers": [container] });
    let pod = json!({ "metadata": { "name": name, "namespace": "default" }, "spec": spec });
    let pods = Api::<Pod>::namespaced(site.client.clone(), "default");
    let pod = serde_json::from_value(pod)?;
    eventually("a Pod is admitted", START, || async {
        pods.create(&PostParams::default(), &pod).await.ok()
    })
    .await?;
    Ok(())
}

async fn delete_pod(site: &Site, name: &str) -> Result<(), Failure> {
    let pods = Api::<Pod>::namespaced(site.client.clone(), "default");
    // No kubelet would end it.
    let now = DeleteParams::default().grace_period(0);
    pods.delete(name, &now).await?;
    Ok(())
}

/// A DesiredLRP of Pods that ask for so much CPU.
fn asks(name: &str, instances: i32, cpu: &str, more: Value) -> DesiredLRP {
    let container =
        json!({ "name": "a", "image": "x", "resources": { "requests": { "cpu": cpu } } });
    let mut spec = json!({ "containers": [container] });
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    objects::lrp(name, instances, spec)
}

async fn cell(site: &Site, name: &str) -> Result<Cell, Failure> {
    Ok(site.cells().get(name).await?)
}

/// Waits until the Ready condition of a Cell has this status and reason.
async fn ready_is(site: &Site, name: &str, status: &str, reason: &str) -> Result<(), Failure> {
    eventually(
        &format!("{name} is Ready={status}, {reason}"),
        START,
        || async {
            let cell = site.cells().get_opt(name).await.ok()??;
            let status_now = cell.status?;
            let ready = conditions::get(&status_now.conditions, READY)?;
            (ready.status == status && ready.reason == reason).then_some(())
        },
    )
    .await
}

/// Waits until an instance is placed, and tells where.
async fn placed(site: &Site, name: &str) -> Result<String, Failure> {
    let found = eventually(&format!("{name} is placed"), START, || async {
        site.actual().get_opt(name).await.ok()??.status?.cell_name
    })
    .await;
    match found {
        Ok(found) => Ok(found),
        Err(failure) => Err(format!("{failure}\n{}", site.picture().await).into()),
    }
}

/// Waits until an instance waits for a reason that `fits`.
async fn waits(site: &Site, name: &str, fits: impl Fn(&str) -> bool) -> Result<String, Failure> {
    let found = eventually(&format!("{name} waits"), START, || async {
        let status = site.actual().get_opt(name).await.ok()??.status?;
        status.placement_error.filter(|error| fits(error))
    })
    .await;
    match found {
        Ok(found) => Ok(found),
        Err(failure) => Err(format!("{failure}\n{}", site.picture().await).into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_becomes_a_cell_by_its_name_alone() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    // A name as clouds give them.
    let name = "ip-10-0-0-1.ec2.internal";
    make_node(
        &site,
        name,
        json!({ "topology.kubernetes.io/zone": "zone-a" }),
    )
    .await?;
    let rep = site.node_rep(name, &[]).await?;
    site.cell_state(name, CellState::Present).await?;
    let cell = cell(&site, name).await?;
    assert_eq!(cell.spec.zone, "zone-a");
    assert_eq!(cell.spec.node_name.as_deref(), Some(name));
    let offers = (
        &*cell.spec.capacity.memory,
        &*cell.spec.capacity.disk,
        cell.spec.capacity.containers,
    );
    assert_eq!(offers, ("4Gi", "20Gi", 110));
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let status = cell.status.unwrap_or_default();
    assert_eq!(status.incarnation.as_deref(), Some(boot.trim()));
    // The state comes before the Nodes may be read.
    ready_is(&site, name, "True", "PresenceHeld").await?;

    // Nothing is evacuated by a stop, and the successor goes on with the same presence.
    let epoch = status.epoch;
    rep.terminate();
    assert!(rep.wait().await.success(), "{}", site.picture().await);
    let _rep = site.node_rep(name, &[]).await?;
    let status = super::nodes::cell(&site, name)
        .await?
        .status
        .unwrap_or_default();
    assert_eq!(
        (status.state, status.epoch),
        (Some(CellState::Present), epoch)
    );
    for source in ["watch", "resync"] {
        let series = format!("diego_cell_presence_expired_total{{source=\"{source}\"}}");
        assert_eq!(site.metric(&series).await?, 0.0, "{series}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pods_of_others_take_room_until_they_are_gone() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    make_node(&site, "n1", json!({ "disk": "ssd" })).await?;
    make_node(&site, "n2", json!({ "disk": "hdd" })).await?;
    other_pod(&site, "big", "n1", "3500m").await?;
    other_pod(&site, "small", "n1", "100m").await?;
    // A long interval: what is seen here was told by the watches.
    site.start_controller(&["--convergence-interval-seconds", "3600"])
        .await?;
    let mut reps = Vec::new();
    for name in ["n1", "n2"] {
        reps.push(site.node_rep(name, &[]).await?);
        ready_is(&site, name, "True", "PresenceHeld").await?;
    }

    site.desire(&asks("web", 1, "1", json!({}))).await?;
    assert_eq!(placed(&site, "web-0").await?, "n2");
    site.desire(&asks(
        "ssd",
        1,
        "1",
        json!({ "nodeSelector": { "disk": "ssd" } }),
    ))
    .await?;
    let expected = "insufficient resources: cpu; 0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match Pod's node affinity/selector";
    waits(&site, "ssd-0", |error| error == expected).await?;
    delete_pod(&site, "big").await?;
    assert_eq!(placed(&site, "ssd-0").await?, "n1");

    // One that carries our label and belongs to nobody takes room, too.
    let guid =
        json!({ "metadata": { "labels": { "diego.cloudfoundry.org/instance-guid": "stray" } } });
    other_pod(&site, "stray", "n1", "2500m").await?;
    Api::<Pod>::namespaced(site.client.clone(), "default")
        .patch("stray", &PatchParams::default(), &Patch::Merge(&guid))
        .await?;
    site.desire(&asks(
        "less",
        1,
        "2800m",
        json!({ "nodeSelector": { "disk": "ssd" } }),
    ))
    .await?;
    waits(&site, "less-0", |error| {
        error.starts_with("insufficient resources: cpu")
    })
    .await?;
    site.desired()
        .delete("less", &DeleteParams::default())
        .await?;
    delete_pod(&site, "stray").await?;

    // The Pods of the controller itself, whether made yet or not, are charged by their records.
    site.desire(&asks(
        "more",
        1,
        "2800m",
        json!({ "nodeSelector": { "disk": "ssd" } }),
    ))
    .await?;
    assert_eq!(placed(&site, "more-0").await?, "n1");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_takes_no_pods_shows_in_its_cell_and_is_left_alone() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    make_node(&site, "n1", json!({})).await?;
    site.start_controller(&["--convergence-interval-seconds", "3600"])
        .await?;
    let _rep = site.node_rep("n1", &[]).await?;
    ready_is(&site, "n1", "True", "PresenceHeld").await?;

    change_node(&site, "n1", json!({ "unschedulable": true })).await?;
    ready_is(&site, "n1", "True", "NodeUnschedulable").await?;
    site.desire(&asks("web", 1, "1", json!({}))).await?;
    let words =
        |error: &str| error.ends_with("0/1 nodes are available: 1 node(s) were unschedulable");
    waits(&site, "web-0", words).await?;

    is_ready(&site, "n1", false).await?;
    ready_is(&site, "n1", "False", "NodeNotReady").await?;
    change_node(&site, "n1", json!({ "unschedulable": null })).await?;
    is_ready(&site, "n1", true).await?;
    ready_is(&site, "n1", "True", "PresenceHeld").await?;
    assert_eq!(placed(&site, "web-0").await?, "n1");

    let taint = json!([{ "key": "team", "value": "db", "effect": "NoSchedule" }]);
    change_node(&site, "n1", json!({ "taints": taint })).await?;
    site.desire(&asks("api", 1, "1", json!({}))).await?;
    let words = |error: &str| error.ends_with("1 node(s) had untolerated taint {team: db}");
    waits(&site, "api-0", words).await?;
    let bears = json!({ "tolerations": [{ "key": "team", "operator": "Exists" }] });
    site.desire(&asks("db", 1, "1", bears)).await?;
    assert_eq!(placed(&site, "db-0").await?, "n1");
    change_node(&site, "n1", json!({ "taints": null })).await?;
    assert_eq!(placed(&site, "api-0").await?, "n1");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reboot_within_the_ttl_restarts_its_instances_at_once() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    make_node(&site, "n1", json!({})).await?;
    site.start_controller(&[]).await?;
    let file = site.dir().join("boot-id");
    std::fs::write(&file, "boot-1\n")?;
    // Nobody waits for this.
    let told = [
        "--presence-ttl-seconds",
        "120",
        "--boot-id-file",
        &file.display().to_string(),
    ];
    let rep = site.node_rep("n1", &told).await?;
    ready_is(&site, "n1", "True", "PresenceHeld").await?;
    site.desire(&asks("web", 1, "1", json!({}))).await?;
    placed(&site, "web-0").await?;
    let guid = |lrp: Option<diego_operator::api::ActualLRP>| lrp?.status?.instance_guid;
    let before = guid(site.actual().get_opt("web-0").await?);

    rep.kill();
    rep.wait().await;
    std::fs::write(&file, "boot-2\n")?;
    let began = Instant::now();
    let _rep = site.node_rep("n1", &told).await?;
    eventually("web-0 is started anew", START, || async {
        let lrp = site.actual().get_opt("web-0").await.ok()?;
        let now = guid(lrp)?;
        (Some(&now) != before.as_ref()).then_some(())
    })
    .await?;
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
    let status = cell(&site, "n1").await?.status.unwrap_or_default();
    assert_eq!(status.incarnation.as_deref(), Some("boot-2"));
    assert_eq!(status.state, Some(CellState::Present));
    Ok(())
}

/// What the Events of a Cell say, by reason.
async fn told(site: &Site, cell: &str, reason: &str) -> Option<String> {
    let events = Api::<k8s_openapi::api::events::v1::Event>::all(site.client.clone());
    let all = events.list(&Default::default()).await.ok()?;
    let found = all.items.into_iter().find(|event| {
        let about = event
            .regarding
            .as_ref()
            .and_then(|about| about.name.as_deref());
        about == Some(cell) && event.reason.as_deref() == Some(reason)
    });
    found.map(|event| event.note.clone().unwrap_or_else(|| event.name_any()))
}
