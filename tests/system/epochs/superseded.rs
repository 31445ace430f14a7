//! What a rep decided before its Cell was lost, or was registered anew, and sends after the record has gone on: every kind
//! of write that a rep makes, as its own code makes it.

use diego_operator::api::{ActualLRP, Task};
use diego_operator::converge::lrp::transition::{self, Instance, Verb};
use diego_operator::converge::task::transition as task;
use diego_operator::patch;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{made, said};
use crate::support::{Failure, objects, site::Site};

/// The instance that the rep speaks of.
fn own() -> Instance {
    Instance {
        cell: "a".into(),
        epoch: 7,
        guid: "g".into(),
    }
}

fn on(state: &str, cell: &str, epoch: i64, guid: &str) -> Value {
    json!({ "state": state, "cellName": cell, "cellEpoch": epoch, "instanceGuid": guid })
}

/// Sends a patch of a status.
async fn sends<K>(api: &Api<K>, name: &str, body: &Value) -> Result<(), kube::Error>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let params = PatchParams::default();
    let answer = api.patch_status(name, &params, &Patch::Merge(body)).await;
    answer.map(drop)
}

/// The API server refuses it, since what it was decided on is not there any more. Bound to no version it would be
/// refused as well where it speaks of a place under an epoch that is over.
async fn is_refused<K>(
    api: &Api<K>,
    name: &str,
    mut body: Value,
    older_place: bool,
) -> Result<(), Failure>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    match sends(api, name, &body).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        other => return Err(format!("{body}: {other:?}").into()),
    }
    if older_place {
        body["metadata"] = json!({});
        match sends(api, name, &body).await {
            Err(kube::Error::Api(status)) if status.message.contains("must not go back") => {}
            other => return Err(format!("unbound {body}: {other:?}").into()),
        }
    }
    Ok(())
}

fn bound<K: Resource>(object: &K, status: Value) -> Value {
    let metadata = object.meta();
    let (uid, version) = (&metadata.uid, &metadata.resource_version);
    patch::bound(uid.as_deref(), version.as_deref(), status)
}

/// What a rep says of an ActualLRP, and what it has read before.
fn lrp_writes() -> Vec<(Value, Verb)> {
    let start = || Verb::Start {
        instance: own(),
        address: "10.0.0.1".into(),
        ports: Vec::new(),
    };
    let give_back = |refused: Option<&str>| Verb::GiveBack {
        instance: own(),
        refused: refused.map(str::to_owned),
    };
    let crash = || Verb::Crash {
        instance: own(),
        reason: "exited with status 1".into(),
    };
    let kept = json!({ "cellName": "a", "cellEpoch": 7, "instanceGuid": "g" });
    let mut suspect = on("Claimed", "b", 3, "h");
    suspect["suspect"] = kept.clone();
    suspect["suspect"]["state"] = "Running".into();
    let mut evacuating = on("Claimed", "b", 3, "h");
    evacuating["evacuating"] = kept;
    vec![
        (on("Unclaimed", "a", 7, "g"), Verb::Claim(own())),
        (on("Unclaimed", "a", 7, "g"), give_back(Some("no room"))),
        (on("Claimed", "a", 7, "g"), start()),
        (on("Claimed", "a", 7, "g"), crash()),
        (on("Claimed", "a", 7, "g"), give_back(None)),
        (on("Running", "a", 7, "g"), Verb::Claim(own())),
        (on("Running", "a", 7, "g"), start()),
        (on("Running", "a", 7, "g"), crash()),
        (on("Running", "a", 7, "g"), give_back(None)),
        (
            on("Running", "a", 7, "g"),
            Verb::Stall {
                instance: own(),
                error: "it does not end".into(),
            },
        ),
        (
            json!({ "state": "Unclaimed" }),
            Verb::Evacuate {
                instance: own(),
                address: "10.0.0.1".into(),
                ports: Vec::new(),
            },
        ),
        // Another Cell has not started its own yet.
        (on("Unclaimed", "b", 3, "h"), start()),
        (suspect, give_back(None)),
        (evacuating, give_back(None)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_superseded_rep_says_is_taken() -> Result<(), Failure> {
    let site = Site::start().await?;
    let (lrps, tasks, _) = made(&site).await?;
    let gone = json!({ "state": "Unclaimed", "cellName": null, "cellEpoch": null, "instanceGuid": null, "placementError": "no room" });
    let anew = [
        on("Unclaimed", "a", 9, "i"),
        on("Running", "c", 4, "i"),
        gone,
    ];
    for (number, (read, verb)) in lrp_writes().into_iter().enumerate() {
        for (way, placed) in anew.iter().enumerate() {
            let index = 1 + number * anew.len() + way;
            let name = format!("web-{index}");
            let lrp: ActualLRP = serde_json::from_value(json!({
                "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "ActualLRP",
                "metadata": { "name": name },
                "spec": { "desiredLRPName": "web", "index": index },
            }))?;
            lrps.create(&PostParams::default(), &lrp).await?;
            said(&lrps, &name, read.clone()).await?;
            let lrp = lrps.get(&name).await?;
            let status = lrp.status.clone().unwrap_or_default();
            let next = transition::apply(&status, &verb, Timestamp::now())
                .map_err(|refusal| format!("{verb:?} of {status:?}: {refusal}"))?;
            let body = bound(&lrp, patch::between(&status, &next));
            said(&lrps, &name, placed.clone()).await?;
            let names = next.cell_name.as_deref() == Some("a");
            is_refused(&lrps, &name, body, names && way == 0).await?;
            // The record that it takes for lost, and makes again.
            let again = lrps.create(&PostParams::default(), &lrp_named(&lrp)).await;
            assert!(again.is_err(), "{name} was made again");
        }
    }

    let failed = json!({ "state": "Completed", "failed": true, "failureReason": "cell disappeared before completion" });
    let anew = [
        on("Pending", "a", 9, "i"),
        on("Pending", "c", 4, "i"),
        failed,
    ];
    let instance = own;
    let writes = [
        (
            "Pending",
            task::Verb::Start {
                instance: instance(),
            },
        ),
        (
            "Pending",
            task::Verb::Reject {
                instance: instance(),
                reason: "no room".into(),
            },
        ),
        (
            "Running",
            task::Verb::Complete {
                instance: instance(),
                outcome: task::Outcome::Succeeded(None),
            },
        ),
    ];
    for (number, (state, verb)) in writes.into_iter().enumerate() {
        for (way, placed) in anew.iter().enumerate() {
            if state == "Running" && placed["state"] == "Pending" {
                // No such write is allowed to anybody.
                continue;
            }
            let name = format!("job-{number}-{way}");
            let job = objects::task(&name, "true");
            tasks.create(&PostParams::default(), &job).await?;
            said(&tasks, &name, on(state, "a", 7, "g")).await?;
            let job: Task = tasks.get(&name).await?;
            let status = job.status.clone().unwrap_or_default();
            let next = task::apply(&status, &verb, 1, Timestamp::now())?;
            let body = bound(&job, patch::between(&status, &next));
            said(&tasks, &name, placed.clone()).await?;
            let names = next.cell_name.as_deref() == Some("a");
            is_refused(&tasks, &name, body, names && way == 0).await?;
        }
    }
    Ok(())
}

/// The same record, as it is made.
fn lrp_named(lrp: &ActualLRP) -> ActualLRP {
    ActualLRP::new(&lrp.name_any(), lrp.spec.clone())
}
