//! A Cell on a node is evacuated while its rep is replaced: the Pods run on, and nothing is treated as lost.

use diego_operator::api::{ActualLRPState, TaskState};

use super::*;
use crate::pods::kubelet::{Kubelets, ended};

const GUID: &str = "diego.cloudfoundry.org/instance-guid";

async fn evacuate(site: &Site, name: &str, wanted: bool) -> Result<(), Failure> {
    let patch = Patch::Merge(json!({ "spec": { "evacuate": wanted } }));
    let params = PatchParams::default();
    site.cells().patch(name, &params, &patch).await?;
    Ok(())
}

/// The guid and the Cell of an instance that runs.
async fn runs(site: &Site, name: &str, on: &str) -> Result<String, Failure> {
    let found = eventually(&format!("{name} runs on {on}"), START, || async {
        let status = site.actual().get_opt(name).await.ok()??.status?;
        let there = status.cell_name.as_deref() == Some(on);
        (status.state == ActualLRPState::Running && there).then_some(status.instance_guid?)
    })
    .await;
    match found {
        Ok(guid) => Ok(guid),
        Err(failure) => Err(format!("{failure}\n{}", site.picture().await).into()),
    }
}

/// The instance serves on where it was, until there is another place.
async fn serves(site: &Site, name: &str, guid: &str) -> Result<(), Failure> {
    eventually(&format!("{guid} is kept"), START, || async {
        let status = site.actual().get_opt(name).await.ok()??.status?;
        (status.evacuating?.instance_guid == guid).then_some(())
    })
    .await?;
    let pods = pods_of(site, guid).await?;
    let kept = |pod: &Pod| pod.metadata.deletion_timestamp.is_none();
    match pods.iter().any(kept) {
        true => Ok(()),
        false => Err(format!("the Pod of {guid} is ended: {pods:?}").into()),
    }
}

async fn pods_of(site: &Site, guid: &str) -> Result<Vec<Pod>, Failure> {
    let own = kube::api::ListParams::default().labels(&format!("{GUID}={guid}"));
    let all = Api::<Pod>::all(site.client.clone());
    Ok(all.list(&own).await?.items)
}

async fn task_is(site: &Site, name: &str, state: TaskState) -> Result<String, Failure> {
    let found = eventually(&format!("{name} is {state:?}"), START, || async {
        let status = site.tasks().get_opt(name).await.ok()??.status?;
        (status.state == state).then_some(status)
    })
    .await;
    match found {
        Ok(status) if status.failed == Some(true) => {
            Err(format!("{name} failed: {:?}", status.failure_reason).into())
        }
        Ok(status) => Ok(status.instance_guid.unwrap_or_default()),
        Err(failure) => Err(format!("{failure}\n{}", site.picture().await).into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rep_that_begins_anew_goes_on_with_the_evacuation() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    for name in ["n1", "n2"] {
        make_node(&site, name, json!({})).await?;
    }
    site.start_controller(&[]).await?;
    let pods = |node| ["--executor", "pods", "--node-name", node];
    site.start_rep("n1", "z1", &pods("n1")).await?;
    ready_is(&site, "n1", "True", "PresenceHeld").await?;
    let kubelets = Kubelets::start(site.client.clone());
    let container = json!({ "name": "main", "image": "web", "ports": [{ "name": "http", "containerPort": 8080 }] });
    site.desire(&objects::lrp(
        "web",
        1,
        json!({ "containers": [container] }),
    ))
    .await?;
    let before = runs(&site, "web-0", "n1").await?;
    let mut task = objects::task("job", "");
    task.spec.template.spec = json!({ "containers": [{ "name": "main", "image": "job" }] });
    site.run_task(&task).await?;
    let run = task_is(&site, "job", TaskState::Running).await?;

    // There is nowhere to go.
    evacuate(&site, "n1", true).await?;
    site.cell_state("n1", CellState::Evacuating).await?;
    for _ in 0..2 {
        site.restart_rep("n1").await?;
        site.cell_state("n1", CellState::Evacuating).await?;
        serves(&site, "web-0", &before).await?;
        assert_eq!(task_is(&site, "job", TaskState::Running).await?, run);
    }

    site.start_rep("n2", "z1", &pods("n2")).await?;
    assert_ne!(runs(&site, "web-0", "n2").await?, before);
    // The Task is waited for.
    assert_eq!(task_is(&site, "job", TaskState::Running).await?, run);
    let pod = pods_of(&site, &run).await?.pop().ok_or("no Pod")?;
    let done = ended("Succeeded", json!({ "exitCode": 0, "reason": "Completed" }));
    kubelets.set(&pod, done).await?;
    task_is(&site, "job", TaskState::Completed).await?;
    site.cell_state("n1", CellState::Evacuated).await?;
    // That is its end: the rep does not come back before it is asked to.
    eventually("the rep waits", START, || async {
        let log = std::fs::read_to_string(site.rep("n1").process.log()).ok()?;
        log.contains("not registering").then_some(())
    })
    .await?;
    site.cell_state("n1", CellState::Evacuated).await?;
    evacuate(&site, "n1", false).await?;
    site.cell_state("n1", CellState::Present).await?;
    for source in ["watch", "resync", "timer"] {
        let series = format!("diego_cell_presence_expired_total{{source=\"{source}\"}}");
        assert_eq!(site.metric(&series).await.unwrap_or(0.0), 0.0, "{series}");
    }
    Ok(())
}
