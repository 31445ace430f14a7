//! The life of a Cell as its Events tell it: in order, each change once, on the object that it is about.

use diego_operator::api::CellState;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams, Patch};
use serde_json::json;

use crate::support::{Failure, eventually, objects, site::START, site::Site};

/// The Events about an object, by the time they were told.
async fn events(site: &Site, kind: &str, name: &str) -> Result<Vec<Event>, Failure> {
    let api = Api::<Event>::namespaced(site.client.clone(), "default");
    let mut all = api.list(&ListParams::default()).await?.items;
    all.retain(|event| {
        let about = event.regarding.clone().unwrap_or_default();
        about.kind.as_deref() == Some(kind) && about.name.as_deref() == Some(name)
    });
    all.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
    Ok(all)
}

/// Their type and reason; a series counts as told again.
fn story(events: &[Event]) -> Vec<String> {
    let told = |event: &Event| {
        let (kind, reason) = (event.type_.as_deref(), event.reason.as_deref());
        let again = event.series.as_ref().map_or(1, |series| series.count);
        let again = if again > 1 {
            format!(" x{again}")
        } else {
            String::new()
        };
        format!("{} {}{again}", kind.unwrap_or("-"), reason.unwrap_or("-"))
    };
    events.iter().map(told).collect()
}

/// Waits until the Events about an object are these.
async fn told(
    site: &Site,
    kind: &str,
    name: &str,
    expected: &[&str],
) -> Result<Vec<Event>, Failure> {
    let wait = eventually("the Events are told", START, || async {
        let events = events(site, kind, name).await.ok()?;
        (story(&events) == expected).then_some(events)
    });
    match wait.await {
        Ok(events) => Ok(events),
        Err(failure) => {
            let found = story(&events(site, kind, name).await?);
            Err(format!("{failure}\n{kind} {name}: {found:?}, expected {expected:?}").into())
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_is_lost_returns_and_is_emptied() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    for (cell, zone) in [("a", "z1"), ("b", "z2")] {
        site.start_rep(cell, zone, &[]).await?;
    }
    site.desire(&objects::sleepers("web", 4)).await?;
    site.running("web", 4, |_| true).await?;
    let before = site.instances("web").await?;
    for n in 0..2 {
        let task = objects::task(&format!("long-{n}"), "sleep 100000");
        site.run_task(&task).await?;
    }
    let doomed = eventually("a Task runs on b", START, || async {
        let tasks = site.tasks().list(&ListParams::default()).await.ok()?.items;
        let running = |task: &diego_operator::api::Task| {
            let status = task.status.clone().unwrap_or_default();
            let on_b = status.cell_name.as_deref() == Some("b");
            on_b && status.state == diego_operator::api::TaskState::Running
        };
        tasks.into_iter().find(running)?.metadata.name
    })
    .await?;

    site.kill_cell("b").await;
    site.running("web", 4, |cell| cell == "a").await?;
    let mut expected = vec![
        "Normal CellPresenceAcquired",
        "Warning CellPresenceExpired",
        "Normal CellRecoveryCompleted",
    ];
    let events = told(&site, "Cell", "b", &expected).await?;
    let note = |n: usize| events[n].note.clone().unwrap_or_default();
    assert!(note(1).contains("as the watch noticed"), "{}", note(1));
    assert!(
        note(2).starts_with(
            "2 ActualLRPs were placed on other Cells, 0 wait for room, 1 Tasks were failed"
        ),
        "{}",
        note(2)
    );
    told(&site, "Task", &doomed, &["Warning TaskCellMissing"]).await?;
    for lrp in &before {
        let status = lrp.status.clone().unwrap_or_default();
        let name = lrp.metadata.name.clone().unwrap_or_default();
        let placed = "Normal ActualLRPPlaced";
        // Its first place, and its second one where that was lost: two changes with different words.
        match status.cell_name.as_deref() {
            Some("b") => told(&site, "ActualLRP", &name, &[placed, placed]).await?,
            _ => told(&site, "ActualLRP", &name, &[placed]).await?,
        };
    }

    // It comes back empty, and is emptied on purpose.
    site.start_rep("b", "z2", &[]).await?;
    expected.push("Normal CellPresenceReturned");
    told(&site, "Cell", "b", &expected).await?;
    // With work, so that emptying it takes its time.
    let more = Patch::Merge(json!({ "spec": { "instances": 8 } }));
    site.desired()
        .patch("web", &Default::default(), &more)
        .await?;
    site.running("web", 8, |_| true).await?;
    let evacuate = Patch::Merge(json!({ "spec": { "evacuate": true } }));
    site.cells()
        .patch("b", &Default::default(), &evacuate)
        .await?;
    site.cell_state("b", CellState::Evacuated).await?;
    expected.extend(["Normal CellEvacuationStarted", "Normal CellEvacuated"]);
    told(&site, "Cell", "b", &expected).await?;
    told(&site, "Cell", "a", &["Normal CellPresenceAcquired"]).await?;

    let describe = site.cluster.kubectl(&["describe", "cell", "b"]).await?;
    let text = String::from_utf8_lossy(&describe.stdout).into_owned();
    for line in &expected {
        let reason = line.rsplit(' ').next().unwrap_or_default();
        assert_eq!(text.matches(reason).count(), 1, "{reason} in: {text}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_without_room_is_told_as_such() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    for (cell, zone) in [("a", "z1"), ("b", "z2")] {
        site.start_rep(cell, zone, &["--max-containers", "2"])
            .await?;
    }
    site.desire(&objects::sleepers("web", 4)).await?;
    site.running("web", 4, |_| true).await?;
    site.kill_cell("b").await;
    let expected = [
        "Normal CellPresenceAcquired",
        "Warning CellPresenceExpired",
        "Warning CellRecoveryPartlyFailed",
    ];
    let events = told(&site, "Cell", "b", &expected).await?;
    let note = events[2].note.clone().unwrap_or_default();
    assert!(note.contains("2 wait for room"), "{note}");
    Ok(())
}
