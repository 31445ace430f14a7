//! Deliveries that meet a stop of the controller, or an API server that does not take what came of them.

use std::sync::atomic::Ordering;

use diego_operator::api::TaskState;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use super::failures::events;
use super::receiver::{HOLD, Receiver};
use super::{PATIENT, QUICK, deleted, settled, site_with_one_cell, status, task};
use crate::support::{Failure, eventually, site::START, site::Site};

/// How often the controller's log has said so.
fn logged(site: &Site, words: &str) -> usize {
    let log = std::fs::read_to_string(site.dir().join("controller.log"));
    log.unwrap_or_default().matches(words).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_the_answer_and_begins_nothing_new() -> Result<(), Failure> {
    let mut site = site_with_one_cell(&PATIENT).await?;
    let receiver = Receiver::start(HOLD).await?;
    site.run_task(&task("slow", "exit 0", &receiver, Some(600)))
        .await?;
    receiver.told("slow", 1).await?;
    let process = &site.controller().process;
    process.terminate();
    eventually("the controller waits", START, || async {
        (logged(&site, "waiting for completion callbacks") == 1).then_some(())
    })
    .await?;
    site.run_task(&task("late", "exit 0", &receiver, None))
        .await?;
    eventually("it has ended", START, || async {
        let state = status(&site, "late").await?.state;
        (state == TaskState::Completed).then_some(())
    })
    .await?;
    receiver.status.store(200, Ordering::Relaxed);
    let ended = tokio::time::timeout(START, process.wait()).await?;
    assert!(ended.success(), "{ended}");
    let (_, truth, reason) = settled(&site, "slow").await?;
    assert_eq!((&*truth, &*reason), ("True", "Delivered"));
    assert!(receiver.about("late").is_empty(), "left to the next one");

    site.kill_controller().await;
    site.start_controller(&QUICK).await?;
    deleted(&site, "late").await?;
    for name in ["slow", "late"] {
        assert_eq!(receiver.about(name).len(), 1, "{name}");
    }
    Ok(())
}

/// From now on the API server refuses to note what came of a callback.
async fn refuse_settling(site: &Site) -> Result<(), Failure> {
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
        "metadata": { "name": "no-settling" },
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": { "resourceRules": [{
                "apiGroups": ["diego.cloudfoundry.org"], "apiVersions": ["*"],
                "operations": ["UPDATE"], "resources": ["tasks/status"],
            }] },
            "validations": [{
                "expression": "!has(object.status) || !has(object.status.conditions) || !object.status.conditions.exists(c, c.type == 'CallbackDelivered')",
                "message": "nobody may know",
            }],
        },
    }))?;
    let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(json!({
        "metadata": { "name": "no-settling" },
        "spec": { "policyName": "no-settling", "validationActions": ["Deny"] },
    }))?;
    let post = PostParams::default();
    Api::all(site.client.clone()).create(&post, &policy).await?;
    Api::all(site.client.clone())
        .create(&post, &binding)
        .await?;
    // It takes some seconds to be in force: tried on a Task that no rep takes, without ever writing it.
    let mut probe = diego_operator::api::Task::new("probe", task_that_waits().spec);
    probe.metadata.name = Some("probe".into());
    site.run_task(&probe).await?;
    let condition = json!({
        "type": "CallbackDelivered", "status": "True", "reason": "Probe", "message": "",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    });
    let patch = Patch::Merge(json!({ "status": { "conditions": [condition] } }));
    let dry = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    eventually("the policy is in force", START, || async {
        let tried = site.tasks().patch_status("probe", &dry, &patch).await;
        matches!(tried, Err(kube::Error::Api(status)) if status.message.contains("nobody may"))
            .then_some(())
    })
    .await
}

fn task_that_waits() -> diego_operator::api::Task {
    let mut task = crate::support::objects::task("probe", "exit 0");
    task.spec.placement_tags = vec!["nowhere".into()];
    task
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_may_not_be_noted_is_told_once_and_given_up_at_the_tasks_age()
-> Result<(), Failure> {
    let site = site_with_one_cell(&QUICK).await?;
    refuse_settling(&site).await?;
    let receiver = Receiver::start(200).await?;
    site.run_task(&task("secret", "exit 0", &receiver, Some(15)))
        .await?;
    let told = events(&site, "secret", "TaskCallbackNotRecorded").await?;
    assert!(told.contains("nobody may know"), "{told}");
    // Past the kick it is still this controller's: it knows that the receiver was told.
    deleted(&site, "secret").await?;
    assert_eq!(receiver.about("secret").len(), 1);
    assert_eq!(logged(&site, "can't be written"), 1, "a warning, once");
    let expired = "diego_tasks_deleted_total{reason=\"Expired\"}";
    assert_eq!(
        site.metric(expired).await?,
        1.0,
        "not as one that was never told"
    );
    Ok(())
}
