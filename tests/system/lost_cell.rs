//! A Cell dies: its work runs elsewhere, its Tasks fail, nothing else is touched.

use std::time::{Duration, Instant};

use diego_operator::api::{ActualLRPState, CellState, TaskState};
use kube::ResourceExt;

use crate::support::{Failure, eventually, http, objects, site::START, site::Site};

#[tokio::test(flavor = "multi_thread")]
async fn its_instances_run_elsewhere_and_its_tasks_fail() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    for (cell, zone) in [("a", "z1"), ("b", "z2"), ("c", "z1")] {
        site.start_rep(cell, zone, &[]).await?;
    }
    site.desire(&objects::sleepers("web", 6)).await?;
    let before = site.running("web", 6, |_| true).await?;
    let on = |cell: &str| {
        let here = before
            .iter()
            .filter(|lrp| lrp.status.as_ref().unwrap().cell_name.as_deref() == Some(cell));
        here.map(|lrp| lrp.name_any()).collect::<Vec<_>>()
    };
    assert_eq!(
        on("b").len(),
        3,
        "the zones share the instances evenly: {}",
        site.picture().await
    );
    assert_eq!(
        (
            on("a").len() + on("c").len(),
            on("a").is_empty() || on("c").is_empty()
        ),
        (3, false)
    );

    for n in 0..3 {
        site.run_task(&objects::task(&format!("long-{n}"), "sleep 100000"))
            .await?;
    }
    let tasks = eventually("every Task runs", START, || async {
        let tasks = site.tasks().list(&Default::default()).await.ok()?.items;
        tasks
            .iter()
            .all(|task| {
                task.status
                    .as_ref()
                    .is_some_and(|s| s.state == TaskState::Running)
            })
            .then_some(tasks)
    })
    .await?;
    let doomed: Vec<String> = tasks
        .iter()
        .filter(|task| task.status.as_ref().unwrap().cell_name.as_deref() == Some("b"))
        .map(ResourceExt::name_any)
        .collect();
    assert_eq!(doomed.len(), 1, "Tasks are spread over the Cells");

    let killed = Instant::now();
    site.kill_cell("b").await;
    let after = site.running("web", 6, |cell| cell != "b").await?;
    let took = killed.elapsed();
    // The bound of the safety net: no statement about speed, which the benchmark measures.
    assert!(took < Duration::from_secs(37), "{took:?}");
    site.cell_state("b", CellState::Missing).await?;

    for (lrp, old) in after.iter().zip(&before) {
        let (status, before) = (lrp.status.as_ref().unwrap(), old.status.as_ref().unwrap());
        assert_eq!(
            status.crash_count.unwrap_or(0),
            0,
            "the loss of a Cell is no crash"
        );
        if before.cell_name.as_deref() == Some("b") {
            assert_ne!(status.instance_guid, before.instance_guid);
            assert_eq!(status.start_reason.as_deref(), Some("missing-cell"));
            assert_eq!(
                status.suspect, None,
                "the suspect goes with the write that reports the replacement Running"
            );
        } else {
            assert_eq!(
                status.instance_guid,
                before.instance_guid,
                "{} was not on the lost Cell",
                lrp.name_any()
            );
            assert_eq!(lrp.metadata.resource_version, old.metadata.resource_version);
        }
    }
    let task = eventually("the Task on the lost Cell has failed", START, || async {
        let task = site.tasks().get(&doomed[0]).await.ok()?;
        (task.status.as_ref()?.state == TaskState::Completed).then_some(task)
    })
    .await?;
    let status = task.status.unwrap_or_default();
    assert_eq!(
        (status.failed, status.failure_reason.as_deref()),
        (Some(true), Some("cell disappeared before completion"))
    );
    let succeeded = &status.conditions[0];
    assert_eq!(
        (&*succeeded.type_, &*succeeded.status, &*succeeded.reason),
        ("Succeeded", "False", "CellMissing")
    );
    for task in site.tasks().list(&Default::default()).await?.items {
        if task.name_any() != doomed[0] {
            assert_eq!(
                task.status.as_ref().unwrap().state,
                TaskState::Running,
                "{}",
                task.name_any()
            );
        }
    }

    let text = eventually("the metrics tell of it", START, || async {
        let text = site.metrics().await.ok()?;
        (http::metric(&text, "diego_actuallrp_downtime_seconds_count") == Some(3.0)).then_some(text)
    })
    .await?;
    let value = |series: &str| http::metric(&text, series).unwrap_or(-1.0);
    assert_eq!(
        value("diego_cell_presence_expired_total{source=\"watch\"}"),
        1.0
    );
    assert_eq!(
        value("diego_cell_presence_expired_total{source=\"resync\"}"),
        0.0
    );
    assert_eq!(
        value("diego_actuallrps_recovered_total{outcome=\"placed\"}"),
        3.0
    );
    assert_eq!(
        value("diego_tasks_failed_total{reason=\"CellMissing\"}"),
        1.0
    );
    assert_eq!(
        value("diego_cell_recovery_start_delay_seconds_count{source=\"watch\"}"),
        1.0
    );

    let cell = eventually("the Cell tells what its loss cost", START, || async {
        let cell = site.cells().get("b").await.ok()?;
        cell.status
            .as_ref()?
            .last_recovery
            .as_ref()?
            .recovered_time
            .as_ref()?;
        Some(cell)
    })
    .await?;
    let recovery = cell.status.unwrap_or_default().last_recovery.unwrap();
    assert_eq!(
        (
            recovery.actual_lrps,
            recovery.waiting_actual_lrps,
            recovery.tasks
        ),
        (3, 0, 1)
    );
    assert_eq!(recovery.source.as_deref(), Some("watch"));
    let events = site
        .cluster
        .kubectl(&["events", "--for", "cell.diego.cloudfoundry.org/b"])
        .await?;
    let events = String::from_utf8_lossy(&events.stdout).into_owned();
    assert!(
        events.contains("CellPresenceExpired") && events.contains("3 ActualLRPs were placed"),
        "{events}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_elsewhere_they_wait_with_the_reason_until_a_cell_comes() -> Result<(), Failure>
{
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &["--max-containers", "2"])
        .await?;
    site.start_rep("b", "z2", &["--max-containers", "2"])
        .await?;
    site.desire(&objects::sleepers("web", 4)).await?;
    site.running("web", 4, |_| true).await?;
    site.kill_cell("b").await;
    let waiting = eventually("two instances wait", START, || async {
        let mut instances = site.instances("web").await.ok()?;
        instances.retain(|lrp| {
            lrp.status
                .as_ref()
                .is_some_and(|status| status.placement_error.is_some())
        });
        (instances.len() == 2).then_some(instances)
    })
    .await?;
    for lrp in waiting {
        let status = lrp.status.unwrap_or_default();
        assert_eq!(status.state, ActualLRPState::Unclaimed);
        assert_eq!(
            status.placement_error.as_deref(),
            Some("insufficient resources: containers")
        );
        assert_eq!(
            status.suspect.map(|suspect| suspect.cell_name).as_deref(),
            Some("b"),
            "kept until a replacement runs"
        );
    }
    let reason = eventually("the DesiredLRP says so", START, || async {
        let desired = site.desired().get("web").await.ok()?;
        let ready = desired
            .status?
            .conditions
            .into_iter()
            .find(|condition| condition.type_ == "Ready")?;
        (ready.reason == "InstancesUnplaced").then_some(ready.message)
    })
    .await?;
    assert!(
        reason.contains("2 of 4") && reason.contains("insufficient resources: containers"),
        "{reason}"
    );
    site.start_rep("c", "z2", &[]).await?;
    site.running("web", 4, |cell| cell != "b").await?;
    Ok(())
}
