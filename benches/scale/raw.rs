//! The raw rate of status writes of this API server: bursts of the same kind and size as the writes of a recovery, by the
//! same client, with nothing behind them.

use std::time::Instant;

use diego_operator::api::ActualLRP;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde::Serialize;
use serde_json::{Value, json};

use super::numbers::median;
use super::plan::Plan;
use crate::support::Failure;

/// Requests in flight: as many as are of any use.
const IN_FLIGHT: usize = 64;

/// Bursts that open connections and warm the server; not counted.
const WARM: usize = 3;

/// A measurement.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Raw {
    /// While what else went on.
    pub when: &'static str,
    /// Requests in flight.
    pub in_flight: usize,
    /// Writes of one burst.
    pub burst: usize,
    /// Writes per second, the median of the bursts.
    pub per_second: f64,
}

/// Measures it. No controller may run: it would take the objects for orphans.
pub async fn measure(client: &Client, plan: &Plan, when: &'static str) -> Result<Raw, Failure> {
    let (burst, bursts) = plan.raw;
    let namespaces = Api::<Namespace>::all(client.clone());
    if namespaces.get_opt("raw").await?.is_none() {
        let raw = serde_json::from_value(json!({ "metadata": { "name": "raw" } }))?;
        namespaces.create(&PostParams::default(), &raw).await?;
    }
    let api = Api::<ActualLRP>::namespaced(client.clone(), "raw");
    let names: Vec<String> = (0..burst).map(|index| format!("raw-{index}")).collect();
    for (index, name) in names.iter().enumerate() {
        let object = json!({
            "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "ActualLRP",
            "metadata": { "name": name }, "spec": { "desiredLRPName": "raw", "index": index },
        });
        let object = serde_json::from_value(object)?;
        api.create(&PostParams::default(), &object).await?;
    }
    let mut rates = Vec::new();
    for turn in 0..WARM + bursts {
        let began = Instant::now();
        stream::iter(&names)
            .map(|name| {
                let (api, patch) = (api.clone(), Patch::Merge(status(turn)));
                async move {
                    api.patch_status(name, &PatchParams::default(), &patch)
                        .await
                }
            })
            .buffer_unordered(IN_FLIGHT)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await?;
        if turn >= WARM {
            rates.push(burst as f64 / began.elapsed().as_secs_f64());
        }
    }
    for name in &names {
        api.delete(name, &DeleteParams::default()).await?;
    }
    Ok(Raw {
        when,
        in_flight: IN_FLIGHT,
        burst,
        per_second: median(&rates).ok_or("no burst was measured")?,
    })
}

/// As a placement writes it: the new place, and the suspect. No Cell of the fleet has these names.
fn status(turn: usize) -> Value {
    json!({ "status": {
        "state": "Unclaimed", "cellName": "raw-b", "cellEpoch": turn, "startReason": "missing-cell",
        "instanceGuid": "5c962a24-0bf6-4028-a7d7-6ce6a3d13b81", "stateTransitionTime": "2015-01-13T00:00:00.000000Z",
        "suspect": {
            "cellName": "raw-a", "cellEpoch": turn, "instanceGuid": "c87bfa34-b0ef-4995-b7da-9c1c922a494e",
            "state": "Running", "since": "2015-01-13T00:00:00.000000Z", "address": "10.0.0.1",
            "ports": [{ "containerPort": 8080, "hostPort": 61001, "name": "http" }],
        },
    }})
}
