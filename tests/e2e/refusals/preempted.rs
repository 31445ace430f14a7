//! A Pod that a kubelet preempts: a critical one needs its room.

use super::{PROMPTLY, Told, event};
use crate::{
    installed::{Installed, SOON},
    support::Failure,
};
use serde_json::json;

pub async fn an_instance_makes_room(site: &Installed, told: &Told) -> Result<(), Failure> {
    let cpu = site
        .kubectl("get node node-1 -o jsonpath={.status.allocatable.cpu}")
        .await?;
    let cpu: u64 = match cpu.strip_suffix('m') {
        Some(milli) => milli.parse()?,
        None => cpu.parse::<u64>()? * 1000,
    };
    let container = |percent: u64| {
        let cpu = format!("{}m", cpu * percent / 100);
        json!({ "name": "main", "image": "test-app:dev", "resources": { "requests": { "cpu": cpu }}})
    };
    let lrp = json!({
        "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "DesiredLRP", "metadata": { "name": "large" },
        "spec": { "instances": 1, "template": { "spec": {
            "terminationGracePeriodSeconds": 1, "containers": [container(60)],
        }}},
    });
    site.apply(&lrp.to_string()).await?;
    let before = site.running("large", 1, |_| true).await?;
    let old = before.first().ok_or("no slot")?;
    // No scheduler is asked: the kubelet itself has to make room.
    let critical = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "critical" },
        "spec": {
            "nodeName": old.cell, "priorityClassName": "system-cluster-critical",
            "terminationGracePeriodSeconds": 1, "containers": [container(75)],
        },
    });
    site.apply(&critical.to_string()).await?;
    let took = told.replaced(&old.name).await?;
    assert!(took < PROMPTLY, "{took:?}");
    site.running("large", 1, |slot| slot.cell != old.cell)
        .await?;
    site.until(
        "get pod critical -o jsonpath={.status.phase}",
        SOON,
        |phase| phase == "Running",
    )
    .await?;
    assert_eq!(told.made(&old.name).len(), 2);
    let (reason, message) = told.reason_of(&old.name)?;
    assert_eq!(reason, "Preempting");
    let words = format!("{reason}: {}", message.trim());
    told.given_back(&old.name, &old.cell, &words)?;
    let note = format!("On Cell {}: {words}", old.cell);
    event(site, "ActualLRP", &old.name, "ActualLRPRejected", &note).await?;
    site.kubectl("delete pod critical").await.map(drop)
}
