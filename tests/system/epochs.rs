//! Whoever speaks for an earlier registration of a Cell is refused by the API server, whatever it read before.

mod superseded;

use diego_operator::api::{ActualLRP, Cell, Task};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::{Failure, objects, site::Site};

/// Whether the API server takes a status, and its words if not.
async fn said<K>(api: &Api<K>, name: &str, status: Value) -> Result<(), String>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let patch = Patch::Merge(json!({ "status": status }));
    let params = PatchParams::default();
    let answer = api.patch_status(name, &params, &patch).await;
    answer.map(drop).map_err(|error| error.to_string())
}

async fn made(site: &Site) -> Result<(Api<ActualLRP>, Api<Task>, Api<Cell>), Failure> {
    let (lrps, tasks, cells) = (site.actual(), site.tasks(), site.cells());
    let lrp: ActualLRP = serde_json::from_value(json!({
        "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "ActualLRP",
        "metadata": { "name": "web-0", "namespace": "default" },
        "spec": { "desiredLRPName": "web", "index": 0 },
    }))?;
    lrps.create(&PostParams::default(), &lrp).await?;
    let task = objects::task("once", "true");
    tasks.create(&PostParams::default(), &task).await?;
    let cell: Cell = serde_json::from_value(json!({
        "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "Cell",
        "metadata": { "name": "a" },
        "spec": { "zone": "z1", "executor": "Process",
            "capacity": { "memory": "1Gi", "disk": "1Gi", "containers": 1 } },
    }))?;
    cells.create(&PostParams::default(), &cell).await?;
    Ok((lrps, tasks, cells))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_write_lowers_the_epoch_of_the_same_cell() -> Result<(), Failure> {
    let site = Site::start().await?;
    let (lrps, tasks, cells) = made(&site).await?;
    let on = |cell: &str, epoch: i64| json!({ "state": "Claimed", "cellName": cell, "cellEpoch": epoch, "instanceGuid": "g" });
    let old = |cell: &str, epoch: i64| json!({ "cellName": cell, "cellEpoch": epoch, "instanceGuid": "old", "state": "Running" });
    let drained = |cell: &str, epoch: i64| json!({ "cellName": cell, "cellEpoch": epoch, "instanceGuid": "old" });
    let nowhere =
        json!({ "state": "Unclaimed", "cellName": null, "cellEpoch": null, "instanceGuid": null });
    // Each is written after the one before, if that is allowed.
    let steps = [
        (on("a", 7), true),
        (on("a", 6), false),
        (json!({ "cellEpoch": null }), false),
        (on("a", 7), true),
        (on("a", 9), true),
        // Another Cell counts from elsewhere.
        (on("b", 2), true),
        (json!({ "suspect": old("c", 5) }), true),
        (json!({ "suspect": old("c", 4) }), false),
        (json!({ "suspect": old("c", 6) }), true),
        (json!({ "evacuating": drained("d", 5) }), true),
        (json!({ "evacuating": drained("d", 4) }), false),
        (nowhere.clone(), true),
        // Taken back by the suspect's own Cell, under an epoch that is over.
        (on("c", 5), false),
        (on("c", 6), true),
        (nowhere, true),
        // What is nowhere may be placed under any epoch.
        (json!({ "suspect": null, "evacuating": null }), true),
        (on("a", 1), true),
    ];
    for (step, (status, allowed)) in steps.into_iter().enumerate() {
        let said = said(&lrps, "web-0", status.clone()).await;
        assert_eq!(said.is_ok(), allowed, "{step}: {status}: {said:?}");
        if let Err(words) = said {
            assert!(words.contains("must not"), "{step}: {words}");
        }
    }

    let on = |epoch: i64| json!({ "state": "Pending", "cellName": "a", "cellEpoch": epoch, "instanceGuid": "g" });
    for (status, allowed) in [
        (on(7), true),
        (on(6), false),
        (json!({ "state": "Running", "cellEpoch": 6 }), false),
        (json!({ "state": "Running", "cellEpoch": 8 }), true),
        (
            json!({ "state": "Completed", "failed": false, "cellEpoch": 7 }),
            false,
        ),
        (json!({ "state": "Completed", "failed": false }), true),
        // A terminal state stays, under any epoch.
        (json!({ "state": "Running", "cellEpoch": 99 }), false),
        (json!({ "failed": true, "cellEpoch": 99 }), false),
    ] {
        let said = said(&tasks, "once", status.clone()).await;
        assert_eq!(said.is_ok(), allowed, "{status}: {said:?}");
    }

    for (epoch, allowed) in [(7, true), (6, false), (7, true), (8, true)] {
        let said = said(&cells, "a", json!({ "epoch": epoch })).await;
        assert_eq!(said.is_ok(), allowed, "{epoch}: {said:?}");
    }
    Ok(())
}
