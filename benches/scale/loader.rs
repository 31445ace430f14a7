//! Fills the API server: DesiredLRPs, and their ActualLRPs as they are once all of them run.

use std::collections::BTreeMap;
use std::time::Instant;

use diego_operator::api::{
    ActualLRP, ActualLRPSpec, ActualLRPState, ActualLRPStatus, DesiredLRP, LABEL_DESIRED_LRP,
    LABEL_INDEX,
};
use etcd_client::{GetOptions, Txn, TxnOp};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use serde_json::{Value, json};

use super::executor::{ADDRESS, ports};
use super::fleet::Fleet;
use super::plan::Plan;
use crate::support::{Failure, eventually, objects, site::Site};

/// Requests in flight.
const IN_FLIGHT: usize = 64;

/// Where the API server keeps them in etcd.
const STORED: &str = "/registry/diego.cloudfoundry.org/actuallrps/default/";

/// Objects in one transaction; etcd takes 128.
const SEEDS: usize = 100;

/// Transactions in flight.
const SEEDERS: usize = 4;

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

/// Creates all DesiredLRPs. Returns how long that took, in seconds.
pub async fn desire(client: &Client, plan: &Plan) -> Result<(f64, Vec<DesiredLRP>), Failure> {
    let began = Instant::now();
    let desireds = Api::<DesiredLRP>::namespaced(client.clone(), "default");
    let all = plan.instances();
    let processes = stream::iter((0..all).step_by(plan.per_process)).map(|first| {
        let desireds = desireds.clone();
        let wanted = desired(&process(plan, first), plan.per_process.min(all - first));
        async move { desireds.create(&PostParams::default(), &wanted).await }
    });
    let processes = processes.buffered(IN_FLIGHT).try_collect().await?;
    Ok((began.elapsed().as_secs_f64(), processes))
}

/// Fills the API server's etcd with instances that run, one on each Cell in turn. The first is made by the API server,
/// all others are copies of what it stored: a quarter of a million would take it ten minutes. Returns how long that took.
pub async fn seed(
    (client, site): (&Client, &Site),
    plan: &Plan,
    processes: &[DesiredLRP],
    fleet: &Fleet,
) -> Result<f64, Failure> {
    let began = Instant::now();
    let api = Api::<ActualLRP>::namespaced(client.clone(), "default");
    let first = record(processes.first().ok_or("there is nothing to run")?, 0);
    api.create(&PostParams::default(), &first).await?;
    let patch = Patch::Merge(json!({ "status": status(plan, fleet, 0) }));
    let name = first.metadata.name.clone().unwrap_or_default();
    let params = PatchParams::default();
    api.patch_status(&name, &params, &patch).await?;
    let etcd = etcd_client::Client::connect(site.cluster.etcd().endpoints(), None).await?;
    let answer = etcd
        .kv_client()
        .get(STORED, Some(GetOptions::new().with_prefix()))
        .await?;
    let stored = answer
        .kvs()
        .first()
        .ok_or("the API server stored nothing where it should")?;
    let (key, stored) = (stored.key_str()?.to_owned(), stored.value().to_vec());
    let stored: Value = serde_json::from_slice(&stored)?;
    let directory = key
        .strip_suffix(&name)
        .ok_or("a key does not end in the object's name")?;
    let all: Vec<usize> = (0..plan.instances()).collect();
    stream::iter(all.chunks(SEEDS))
        .map(|some| {
            let puts: Result<Vec<TxnOp>, Failure> = some
                .iter()
                .map(|n| {
                    let process = &processes[n / plan.per_process];
                    let record = record(process, n % plan.per_process);
                    let status = status(plan, fleet, *n);
                    let name = record.metadata.name.clone().unwrap_or_default();
                    fleet.adopt(
                        n % plan.cells,
                        status.instance_guid.clone().unwrap_or_default(),
                        name.clone(),
                    );
                    let copy = copy(&stored, &record, &status)?;
                    Ok(TxnOp::put(format!("{directory}{name}"), copy, None))
                })
                .collect();
            let mut kv = etcd.kv_client();
            async move {
                kv.txn(Txn::new().and_then(puts?)).await?;
                Ok::<_, Failure>(())
            }
        })
        .buffer_unordered(SEEDERS)
        .try_collect::<()>()
        .await?;
    // Seen by the server once its cache has caught up.
    let last = record(
        &processes[(plan.instances() - 1) / plan.per_process],
        (plan.instances() - 1) % plan.per_process,
    );
    let last = last.metadata.name.unwrap_or_default();
    eventually(
        "the API server serves the last instance",
        plan.patience(),
        || async { api.get_opt(&last).await.ok()? },
    )
    .await?;
    Ok(began.elapsed().as_secs_f64())
}

/// The stored object with the members that differ.
fn copy(stored: &Value, record: &ActualLRP, status: &ActualLRPStatus) -> Result<Vec<u8>, Failure> {
    let mut copy = stored.clone();
    let other = serde_json::to_value(record)?;
    for member in ["name", "labels", "ownerReferences"] {
        copy["metadata"][member] = other["metadata"][member].clone();
    }
    copy["metadata"]["uid"] = json!(uuid::Uuid::new_v4().to_string());
    copy["spec"] = other["spec"].clone();
    copy["status"] = serde_json::to_value(status)?;
    Ok(serde_json::to_vec(&copy)?)
}

/// An instance that runs on the Cell whose turn it is.
fn status(plan: &Plan, fleet: &Fleet, n: usize) -> ActualLRPStatus {
    let cell = n % plan.cells;
    ActualLRPStatus {
        state: ActualLRPState::Running,
        cell_name: Some(Plan::cell(cell)),
        cell_epoch: Some(fleet.epoch(cell)),
        instance_guid: Some(uuid::Uuid::new_v4().to_string()),
        state_transition_time: Some(MicroTime(Timestamp::now())),
        address: Some(ADDRESS.into()),
        ports: ports(),
        start_reason: Some("missing-instance".into()),
        ..ActualLRPStatus::default()
    }
}

/// The name of the instance of that number, counted over all.
pub fn name(plan: &Plan, n: usize) -> String {
    format!("{}-{}", process(plan, n), n % plan.per_process)
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
