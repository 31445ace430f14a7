//! A convergence pass that finds one instance of a hundred wrong: its record has lost its place while nobody looked.

use std::collections::BTreeMap;
use std::time::Instant;

use diego_operator::api::{ActualLRP, ActualLRPState};
use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde::Serialize;
use serde_json::json;

use super::idle;
use super::loader;
use super::meter::{self, Usage};
use super::plan::Plan;
use super::sights::{Observer, Sight};
use super::traffic::Traffic;
use crate::support::{Failure, site::Site};

/// One of so many is wrong.
const ONE_OF: usize = 100;

/// Requests in flight.
const IN_FLIGHT: usize = 64;

/// What it took to put it right.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Wrong {
    /// Instances that were wrong.
    pub instances: usize,
    /// From when the controller could look again until all have a place, in seconds.
    pub placed: f64,
    /// And until all run.
    pub running: f64,
    /// What each process used until nothing was left to write.
    pub usage: Vec<Usage>,
    /// Requests until then, without those that did the harm.
    pub traffic: Traffic,
}

/// Takes their places from these instances while the controller stands still, and times how it puts that right.
pub async fn measure(
    site: &Site,
    client: &Client,
    plan: &Plan,
    observer: &mut Observer,
) -> Result<Wrong, Failure> {
    let before = (meter::all(site, plan)?, Traffic::read(site).await?);
    let names: Vec<String> = (0..plan.instances())
        .step_by(ONE_OF)
        .map(|n| loader::name(plan, n))
        .collect();
    let controller = &site.controller().process;
    controller.pause();
    let harmed = harm(client, &names).await;
    observer.skip();
    let began = Instant::now();
    controller.resume();
    harmed?;
    let mut left: BTreeMap<&str, bool> = names.iter().map(|name| (name.as_str(), false)).collect();
    let (mut placed, mut running) = (began, began);
    let deadline = tokio::time::Instant::now() + plan.patience();
    while !left.is_empty() {
        let next = tokio::time::timeout_at(deadline, observer.next()).await;
        let Ok(next) = next else {
            let (count, patience) = (left.len(), plan.patience());
            return Err(format!(
                "not within {patience:?}: {count} instances that were wrong are put right"
            )
            .into());
        };
        let (
            at,
            Sight::Instance {
                record,
                state,
                cell: Some(_),
                ..
            },
        ) = next?
        else {
            continue;
        };
        if let Some(seen) = left.get_mut(record.as_str()) {
            if !std::mem::replace(seen, true) {
                placed = placed.max(at);
            }
            if state == ActualLRPState::Running {
                running = running.max(at);
                left.remove(record.as_str());
            }
        }
    }
    idle::settled(site, plan).await?;
    let mut traffic = Traffic::read(site).await?.since(&before.1);
    if let Some(count) = traffic.requests.get_mut("PATCH actuallrps/status") {
        *count -= names.len() as f64;
    }
    Ok(Wrong {
        instances: names.len(),
        placed: (placed - began).as_secs_f64(),
        running: (running - began).as_secs_f64(),
        usage: meter::since(&before.0, &meter::all(site, plan)?),
        traffic,
    })
}

/// As a record looks that was never placed.
async fn harm(client: &Client, names: &[String]) -> Result<(), kube::Error> {
    let api = Api::<ActualLRP>::namespaced(client.clone(), "default");
    let wrong = Patch::Merge(json!({ "status": {
        "state": "Unclaimed", "cellName": null, "cellEpoch": null, "instanceGuid": null, "address": null, "ports": null,
        "startReason": null,
    }}));
    let params = PatchParams::default();
    stream::iter(names)
        .map(|name| api.patch_status(name, &params, &wrong))
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await
}
