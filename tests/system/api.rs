//! What the API server refuses, and in which words; and what only the controller can judge.

use diego_operator::api::{ActualLRP, ActualLRPState, Cell, DesiredLRP, Task};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::{Failure, eventually, objects, site::START, site::Site};

/// The API server's words when it refuses.
fn refusal<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> String {
    match result {
        Err(kube::Error::Api(status)) => status.message,
        other => panic!("not refused: {other:?}"),
    }
}

/// Creates `base` after `change`.
async fn create<K>(
    api: &Api<K>,
    change: impl FnOnce(&mut Value),
    base: &K,
) -> Result<K, kube::Error>
where
    K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let mut value = serde_json::to_value(base).expect("an object is JSON");
    change(&mut value);
    api.create(
        &PostParams::default(),
        &serde_json::from_value(value).expect("still the kind"),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_schema_can_judge_is_refused_with_the_remedy() -> Result<(), Failure> {
    let site = Site::start().await?;
    let (desired, actual, tasks, cells) =
        (site.desired(), site.actual(), site.tasks(), site.cells());
    let base = objects::sleepers("web", 1);

    let long = "x".repeat(53);
    let said = refusal(create(&desired, |v| v["metadata"]["name"] = json!(long), &base).await);
    assert!(said.contains("at most 52 characters"), "{said}");
    let said = refusal(create(&desired, |v| v["metadata"]["name"] = json!("a.b"), &base).await);
    assert!(said.contains("DNS label"), "{said}");
    let said = refusal(create(&desired, |v| v["spec"]["instances"] = json!(-1), &base).await);
    assert!(
        said.contains("spec.instances") && said.contains("greater than or equal to 0"),
        "{said}"
    );
    let said = refusal(create(&desired, |v| v["spec"]["instances"] = json!(10_001), &base).await);
    assert!(said.contains("less than or equal to 10000"), "{said}");
    let said = refusal(
        create(
            &desired,
            |v| v["spec"]["placementTags"] = json!(["a", "a"]),
            &base,
        )
        .await,
    );
    assert!(said.contains("Duplicate value"), "{said}");
    let said = refusal(
        create(
            &desired,
            |v| v["spec"]["annotation"] = json!("x".repeat(10_241)),
            &base,
        )
        .await,
    );
    assert!(said.contains("spec.annotation"), "{said}");

    desired.create(&PostParams::default(), &base).await?;
    let patch = |value: Value| Patch::Merge(value);
    let params = PatchParams::default();
    for change in [
        json!({ "spec": { "template": { "spec": { "containers": [{ "name": "other", "command": ["true"] }] } } } }),
        json!({ "spec": { "template": { "metadata": { "labels": { "a": "b" } } } } }),
    ] {
        let said = refusal(desired.patch("web", &params, &patch(change)).await);
        assert!(said.contains("template must not change"), "{said}");
    }
    let said = refusal(
        desired
            .patch(
                "web",
                &params,
                &patch(json!({ "spec": { "domain": "other" } })),
            )
            .await,
    );
    assert!(said.contains("domain must not change"), "{said}");
    let strict = patch(json!({ "spec": { "missingCellPolicy": "Strict" } }));
    let said = refusal(desired.patch("web", &params, &strict).await);
    assert!(said.contains("missingCellPolicy must not change"), "{said}");
    desired
        .patch(
            "web",
            &params,
            &patch(json!({ "spec": { "instances": 3, "annotation": "x" } })),
        )
        .await?;

    let task = objects::task("once", "true");
    tasks.create(&PostParams::default(), &task).await?;
    for change in [
        json!({ "resultFile": "a" }),
        json!({ "completionCallbackURL": "https://x/" }),
        json!({ "annotation": "a" }),
    ] {
        let said = refusal(
            tasks
                .patch("once", &params, &patch(json!({ "spec": change })))
                .await,
        );
        assert!(said.contains("a Task is fixed once created"), "{said}");
    }
    tasks
        .patch(
            "once",
            &params,
            &patch(json!({ "spec": { "cancelled": true } })),
        )
        .await?;
    let said = refusal(
        tasks
            .patch(
                "once",
                &params,
                &patch(json!({ "spec": { "cancelled": false } })),
            )
            .await,
    );
    assert!(said.contains("cancelled must not be taken back"), "{said}");
    let said = refusal(
        create(
            &tasks,
            |v| v["spec"]["completionCallbackURL"] = json!("ftp://x"),
            &task,
        )
        .await,
    );
    assert!(said.contains("completionCallbackURL"), "{said}");
    let done = json!({ "status": { "state": "Completed", "failed": true } });
    tasks.patch_status("once", &params, &patch(done)).await?;
    let said = refusal(
        tasks
            .patch_status(
                "once",
                &params,
                &patch(json!({ "status": { "state": "Pending" } })),
            )
            .await,
    );
    assert!(said.contains("a Task runs at most once"), "{said}");
    let said = refusal(
        tasks
            .patch_status(
                "once",
                &params,
                &patch(json!({ "status": { "failed": false } })),
            )
            .await,
    );
    assert!(
        said.contains("outcome of a completed Task must not change"),
        "{said}"
    );

    let instance: ActualLRP = serde_json::from_value(json!({
        "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "ActualLRP",
        "metadata": { "name": "web-0", "namespace": "default" },
        "spec": { "desiredLRPName": "web", "index": 0 },
    }))?;
    let said = refusal(
        create(
            &actual,
            |v| v["metadata"]["name"] = json!("web-1"),
            &instance,
        )
        .await,
    );
    assert!(said.contains("'<desiredLRPName>-<index>'"), "{said}");
    actual.create(&PostParams::default(), &instance).await?;
    let said = refusal(
        actual
            .patch("web-0", &params, &patch(json!({ "spec": { "index": 1 } })))
            .await,
    );
    assert!(said.contains("must not change"), "{said}");
    let status = |value: Value| json!({ "status": value });
    for (change, words) in [
        (json!({ "state": "Lost" }), "Unsupported value: \"Lost\""),
        (
            json!({ "state": "Running" }),
            "must have `cellName` and `instanceGuid`",
        ),
        (
            json!({ "state": "Crashed", "cellName": "a" }),
            "must not have a `cellName`",
        ),
        (
            json!({ "state": "Unclaimed", "address": "10.0.0.1" }),
            "only a Running instance may have an `address`",
        ),
        (
            json!({ "state": "Unclaimed", "crashCount": -1 }),
            "crashCount",
        ),
        (
            json!({ "state": "Unclaimed", "ports": [
                { "containerPort": 80, "hostPort": 1 }, { "containerPort": 80, "hostPort": 2 }
            ] }),
            "Duplicate value",
        ),
        (
            json!({ "state": "Unclaimed", "ports": [{ "containerPort": 80, "hostPort": 65_536 }] }),
            "65535",
        ),
    ] {
        let dynamic = kube::Api::<kube::api::DynamicObject>::namespaced_with(
            site.client.clone(),
            "default",
            &kube::api::ApiResource::erase::<ActualLRP>(&()),
        );
        let said = refusal(
            dynamic
                .patch_status("web-0", &params, &patch(status(change)))
                .await,
        );
        assert!(said.contains(words), "{said}");
    }

    let cell: Cell = serde_json::from_value(json!({
        "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "Cell", "metadata": { "name": "a" },
        "spec": { "zone": "z1", "executor": "Process", "capacity": { "memory": "1Gi", "disk": "1Gi", "containers": 1 } },
    }))?;
    let said = refusal(
        create(
            &cells,
            |v| v["spec"]["capacity"]["memory"] = json!("lots"),
            &cell,
        )
        .await,
    );
    assert!(said.contains("spec.capacity.memory"), "{said}");
    cells.create(&PostParams::default(), &cell).await?;
    cells
        .patch_status("a", &params, &patch(json!({ "status": { "epoch": 7 } })))
        .await?;
    let said = refusal(
        cells
            .patch_status("a", &params, &patch(json!({ "status": { "epoch": 6 } })))
            .await,
    );
    assert!(said.contains("epoch must never go back"), "{said}");
    let said = refusal(
        cells
            .patch(
                "a",
                &params,
                &patch(json!({ "spec": { "executor": "Pods" } })),
            )
            .await,
    );
    assert!(said.contains("executor must not change"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_does_not_parse_gets_a_condition_and_stops_nobody() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &[]).await?;
    for (name, spec) in [
        ("text", json!("sleep")),
        ("empty", json!({ "containers": [] })),
        ("types", json!({ "containers": [{ "name": 3 }] })),
        (
            "ports",
            json!({ "containers": [{ "name": "a", "ports": [{ "containerPort": 80 }, { "containerPort": 80 }] }] }),
        ),
    ] {
        site.desire(&objects::lrp(name, 1, spec)).await?;
    }
    let mut task = objects::task("broken", "true");
    task.spec.template.spec = json!({ "containers": "none" });
    site.run_task(&task).await?;
    site.desire(&objects::sleepers("web", 2)).await?;
    site.running("web", 2, |_| true).await?;
    for (name, words) in [
        ("text", "spec.template.spec: must be an object"),
        (
            "empty",
            "spec.template.spec.containers: must have at least one container",
        ),
        ("types", "is no PodTemplateSpec"),
        (
            "ports",
            "spec.template.spec.containers[0].ports[1].containerPort: 80 is declared twice",
        ),
    ] {
        let message = eventually(&format!("{name} has its condition"), START, || async {
            let desired: DesiredLRP = site.desired().get(name).await.ok()?;
            let ready = desired
                .status?
                .conditions
                .into_iter()
                .find(|condition| condition.type_ == "Ready")?;
            (ready.status == "False" && ready.reason == "InvalidTemplate").then_some(ready.message)
        })
        .await?;
        assert!(message.contains(words), "{message}");
    }
    let task: Task = eventually("the Task has failed", START, || async {
        let task = site.tasks().get("broken").await.ok()?;
        task.status
            .as_ref()?
            .failed
            .filter(|failed| *failed)
            .map(|_| task)
    })
    .await?;
    assert_eq!(
        task.status.unwrap_or_default().conditions[0].reason,
        "InvalidTemplate"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_processes_cannot_give_is_a_placement_error_that_names_it() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &[]).await?;
    let command = json!(["sleep", "1000"]);
    for (name, spec) in [
        (
            "volumes",
            json!({ "volumes": [{ "name": "v", "emptyDir": {} }], "containers": [{ "name": "a", "command": command }] }),
        ),
        (
            "several",
            json!({ "containers": [{ "name": "a", "command": command }, { "name": "b", "command": command }] }),
        ),
        (
            "image",
            json!({ "containers": [{ "name": "a", "image": "nginx" }] }),
        ),
    ] {
        site.desire(&objects::lrp(name, 1, spec)).await?;
    }
    for (name, words) in [
        ("volumes", "spec.volumes"),
        ("several", "spec.containers"),
        ("image", "command"),
    ] {
        let error = eventually(
            &format!("{name} has its placement error"),
            START,
            || async {
                let instance = site.instances(name).await.ok()?.pop()?.status?;
                (instance.state == ActualLRPState::Unclaimed).then_some(())?;
                instance.placement_error
            },
        )
        .await?;
        assert!(
            error.contains("executor Process") && error.contains(words),
            "{error}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_than_the_owner_keeps_an_instance_alive() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &[]).await?;
    site.desire(&objects::sleepers("web", 2)).await?;
    for lrp in site.running("web", 2, |_| true).await? {
        let owner = &lrp.metadata.owner_references.clone().unwrap_or_default()[0];
        assert_eq!(
            (&*owner.kind, &*owner.name, owner.controller),
            ("DesiredLRP", "web", Some(true))
        );
    }
    site.desired()
        .delete("web", &DeleteParams::default())
        .await?;
    eventually("the instances are gone", START, || async {
        site.instances("web").await.ok()?.is_empty().then_some(())
    })
    .await?;
    Ok(())
}
