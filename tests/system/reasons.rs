//! Why an instance was started, and why it crashed, is told where a user looks: record, Events, metrics.

use diego_operator::api::CellState;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::support::{Failure, eventually, objects, site::START, site::Site, tree};

/// The notes of the Events about an ActualLRP that have this reason.
async fn notes(site: &Site, lrp: &str, reason: &str) -> Option<Vec<String>> {
    let events = Api::<Event>::namespaced(site.client.clone(), "default");
    let all = events.list(&Default::default()).await.ok()?.items;
    let about = all.into_iter().filter(|event| {
        event.involved_object.name.as_deref() == Some(lrp)
            && event.reason.as_deref() == Some(reason)
    });
    Some(about.filter_map(|event| event.message).collect())
}

async fn told(site: &Site, lrp: &str, reason: &str, words: &str) -> Result<(), Failure> {
    let what = format!("an Event {reason} about {lrp} with {words:?}");
    let found = eventually(&what, START, || async {
        let notes = notes(site, lrp, reason).await?;
        notes.iter().any(|note| note.contains(words)).then_some(())
    });
    match found.await {
        Ok(()) => Ok(()),
        Err(failure) => {
            let notes = notes(site, lrp, reason).await;
            Err(format!("{failure}: {notes:?}\n{}", site.picture().await).into())
        }
    }
}

async fn starts(site: &Site, reason: &str) -> Result<f64, Failure> {
    let series = format!("diego_actuallrp_starts_total{{reason=\"{reason}\"}}");
    site.metric(&series).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_start_carries_its_reason() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &[]).await?;
    let mut lrp = objects::sleepers("web", 1);
    lrp.spec.instances = 1;
    site.desire(&lrp).await?;
    site.running("web", 1, |_| true).await?;
    told(
        &site,
        "web-0",
        "ActualLRPPlaced",
        "Placed on Cell a (missing-instance)",
    )
    .await?;
    assert_eq!(starts(&site, "missing-instance").await?, 1.0);

    let guid = site.instances("web").await?[0]
        .status
        .clone()
        .unwrap_or_default()
        .instance_guid;
    let pid = tree::descendants(site.rep("a").process.pid())
        .into_iter()
        .next_back();
    tree::kill_tree(pid.ok_or("the instance has no process")?);
    told(&site, "web-0", "ActualLRPCrashed", "Crash 1: ").await?;
    told(&site, "web-0", "ActualLRPPlaced", "(crashed-instance)").await?;
    assert_eq!(starts(&site, "crashed-instance").await?, 1.0);
    assert_eq!(site.metric("diego_actuallrp_crashes_total").await?, 1.0);
    eventually("it runs again", START, || async {
        let status = site.instances("web").await.ok()?[0].status.clone()?;
        (status.instance_guid != guid && status.address.is_some()).then_some(())
    })
    .await?;

    // It runs for more than five minutes, says its record, and crashes: the first crash again, and told again.
    let long_ago = Timestamp::now().checked_sub(SignedDuration::from_secs(400))?;
    let since = Patch::Merge(json!({ "status": { "stateTransitionTime": MicroTime(long_ago) } }));
    let (api, params) = (site.actual(), PatchParams::default());
    api.patch_status("web-0", &params, &since).await?;
    let pid = tree::descendants(site.rep("a").process.pid())
        .into_iter()
        .next_back();
    tree::kill_tree(pid.ok_or("the instance has no process")?);
    eventually("the second crash is counted", START, || async {
        let crashes = site.metric("diego_actuallrp_crashes_total").await.ok()?;
        (crashes == 2.0).then_some(())
    })
    .await?;
    let status = site.actual().get("web-0").await?.status.unwrap_or_default();
    assert_eq!(status.crash_count, Some(1));
    site.running("web", 1, |_| true).await?;

    site.start_rep("b", "z2", &[]).await?;
    site.kill_cell("a").await;
    site.cell_state("a", CellState::Missing).await?;
    site.running("web", 1, |cell| cell == "b").await?;
    told(
        &site,
        "web-0",
        "ActualLRPPlaced",
        "Placed on Cell b (missing-cell)",
    )
    .await?;
    assert_eq!(starts(&site, "missing-cell").await?, 1.0);
    assert_eq!(
        site.metric("diego_actuallrp_crashes_total").await?,
        2.0,
        "the loss of a Cell is no crash"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_two_hundred_crashes_it_is_never_started_again() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &[]).await?;
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.05; done; exit 3",
        site.dir().join("gate").display()
    );
    let container = serde_json::json!({ "name": "main", "command": ["sh", "-c", script] });
    site.desire(&objects::lrp(
        "web",
        1,
        serde_json::json!({ "containers": [container] }),
    ))
    .await?;
    site.running("web", 1, |_| true).await?;
    // 199 crashes take days; the policy counts on from what is recorded.
    let crashes = kube::api::Patch::Merge(serde_json::json!({ "status": { "crashCount": 199 } }));
    site.actual()
        .patch_status("web-0", &Default::default(), &crashes)
        .await?;
    std::fs::write(site.dir().join("gate"), "")?;
    told(
        &site,
        "web-0",
        "ActualLRPCrashed",
        "Crash 200: exited with status 3; it is not started again",
    )
    .await?;
    let status = site.actual().get("web-0").await?.status.unwrap_or_default();
    assert_eq!(
        (status.crash_count, &status.next_restart_time),
        (Some(200), &None)
    );
    eventually("the DesiredLRP says so", START, || async {
        let desired = site.desired().get("web").await.ok()?.status?;
        let ready = desired
            .conditions
            .into_iter()
            .find(|condition| condition.type_ == "Ready")?;
        (ready.status == "False" && ready.reason == "InstancesCrashed").then_some(())
    })
    .await?;

    // The remedy: a fresh instance, which begins to count anew.
    std::fs::remove_file(site.dir().join("gate"))?;
    site.actual().delete("web-0", &Default::default()).await?;
    let fresh = site.running("web", 1, |_| true).await?;
    assert_eq!(
        fresh[0]
            .status
            .as_ref()
            .and_then(|status| status.crash_count),
        None
    );
    Ok(())
}
