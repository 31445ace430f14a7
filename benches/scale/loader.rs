//! Fills the API server: DesiredLRPs, and their ActualLRPs as they are once all of them run.

use std::collections::BTreeMap;
use std::time::Instant;

use diego_operator::api::{
    ActualLRP, ActualLRPSpec, ActualLRPState, ActualLRPStatus, DesiredLRP, LABEL_DESIRED_LRP,
    LABEL_INDEX,
};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use serde_json::json;

use super::executor::{ADDRESS, ports};
use super::fleet::Fleet;
use super::plan::Plan;
use crate::support::{Failure, objects};

/// Requests in flight.
const IN_FLIGHT: usize = 64;

/// Memory of one instance, in MiB.
pub const MEMORY: usize = 16;

/// A DesiredLRP like all others.
pub fn desired(name: &str, instances: usize) -> DesiredLRP {
    let container = json!({
        "name": "main", "command": ["sleep", "100000"],
        "ports": [{ "name": "http", "containerPort": 8080 }],
        "resources": { "requests": { "memory": format!("{MEMORY}Mi") } },
    });
    let instances = i32::try_from(instances).unwrap_or(i32::MAX);
    objects::lrp(name, instances, json!({ "containers": [container] }))
}

/// Creates all objects, without any status. Returns how long that took, in seconds.
pub async fn create(client: &Client, plan: &Plan) -> Result<f64, Failure> {
    let began = Instant::now();
    let desireds = Api::<DesiredLRP>::namespaced(client.clone(), "default");
    let actuals = Api::<ActualLRP>::namespaced(client.clone(), "default");
    let all = plan.instances();
    let processes = stream::iter((0..all).step_by(plan.per_process)).map(|first| {
        let desireds = desireds.clone();
        let wanted = desired(&process(plan, first), plan.per_process.min(all - first));
        async move { desireds.create(&PostParams::default(), &wanted).await }
    });
    let processes: Vec<DesiredLRP> = processes.buffered(IN_FLIGHT).try_collect().await?;
    let records = (0..all).map(|n| record(&processes[n / plan.per_process], n % plan.per_process));
    let params = PostParams::default();
    stream::iter(records)
        .map(|record| {
            let (actuals, params) = (actuals.clone(), &params);
            async move { actuals.create(params, &record).await.map(drop) }
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<()>()
        .await?;
    Ok(began.elapsed().as_secs_f64())
}

/// Writes the status of each: Running, one on each Cell in turn. Returns how long that took, in seconds.
pub async fn place(client: &Client, plan: &Plan, fleet: &Fleet) -> Result<f64, Failure> {
    let began = Instant::now();
    let actuals = Api::<ActualLRP>::namespaced(client.clone(), "default");
    let now = MicroTime(Timestamp::now());
    stream::iter(0..plan.instances())
        .map(|n| {
            let cell = n % plan.cells;
            let name = format!("{}-{}", process(plan, n), n % plan.per_process);
            let guid = uuid::Uuid::new_v4().to_string();
            let status = ActualLRPStatus {
                state: ActualLRPState::Running,
                cell_name: Some(Plan::cell(cell)),
                cell_epoch: Some(fleet.epoch(cell)),
                instance_guid: Some(guid.clone()),
                state_transition_time: Some(now.clone()),
                address: Some(ADDRESS.into()),
                ports: ports(),
                start_reason: Some("missing-instance".into()),
                ..ActualLRPStatus::default()
            };
            let actuals = actuals.clone();
            async move {
                let patch = Patch::Merge(json!({ "status": status }));
                let params = PatchParams::default();
                actuals.patch_status(&name, &params, &patch).await?;
                fleet.adopt(cell, guid, name);
                Ok::<_, kube::Error>(())
            }
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<()>()
        .await?;
    Ok(began.elapsed().as_secs_f64())
}

/// The name of the process that the instance of that number, counted over all, belongs to.
fn process(plan: &Plan, n: usize) -> String {
    format!("p{}", n / plan.per_process)
}

/// As the controller would make it.
fn record(desired: &DesiredLRP, index: usize) -> ActualLRP {
    let name = desired.metadata.name.clone().unwrap_or_default();
    let labels = [
        (LABEL_DESIRED_LRP.to_owned(), name.clone()),
        (LABEL_INDEX.to_owned(), index.to_string()),
    ];
    ActualLRP {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{index}")),
            namespace: desired.metadata.namespace.clone(),
            labels: Some(BTreeMap::from(labels)),
            owner_references: desired.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: ActualLRPSpec {
            desired_lrp_name: name,
            index: i32::try_from(index).unwrap_or(i32::MAX),
            domain: desired.spec.domain.clone(),
        },
        status: None,
    }
}
