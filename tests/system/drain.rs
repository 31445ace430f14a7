//! A graceful stop of a rep is no loss: its work moves start-before-stop.

use diego_operator::api::{ActualLRPState, CellState, TaskState};
use kube::ResourceExt;

use crate::support::{Failure, eventually, objects, site::START, site::Site};

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_moves_the_work_and_is_no_loss() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &[]).await?;
    site.start_rep("b", "z2", &[]).await?;
    site.desire(&objects::sleepers("web", 4)).await?;
    site.running("web", 4, |_| true).await?;
    // Start before stop: whatever is not Running yet has an instance that still is.
    let watching = {
        let api = site.actual();
        tokio::spawn(async move {
            let mut gaps = Vec::new();
            loop {
                for lrp in api
                    .list(&Default::default())
                    .await
                    .map(|list| list.items)
                    .unwrap_or_default()
                {
                    let status = lrp.status.clone().unwrap_or_default();
                    if status.state != ActualLRPState::Running && status.evacuating.is_none() {
                        gaps.push(format!("{}: {status:?}", lrp.name_any()));
                    }
                    let moved = status.cell_name.as_deref() == Some("a");
                    if !gaps.is_empty()
                        || (moved
                            && status.evacuating.is_some()
                            && status.state == ActualLRPState::Running)
                    {
                        return gaps;
                    }
                }
                tokio::task::yield_now().await;
            }
        })
    };
    let status = site.stop_rep("b").await?;
    watching.abort();
    if let Ok(gaps) = watching.await {
        assert!(gaps.is_empty(), "{gaps:?}");
    }
    assert!(status.success(), "{status}: {}", site.picture().await);
    site.running("web", 4, |cell| cell == "a").await?;
    site.cell_state("b", CellState::Evacuated).await?;
    let text = site.metrics().await?;
    assert!(
        text.contains("diego_cell_presence_expired_total{source=\"watch\"} 0"),
        "no loss"
    );
    assert!(
        text.contains("diego_cell_presence_expired_total{source=\"resync\"} 0"),
        "no loss"
    );
    assert!(
        text.contains("diego_actuallrp_starts_total{reason=\"missing-cell\"} 0"),
        "no loss"
    );
    for lrp in site.instances("web").await? {
        assert_eq!(
            lrp.status.as_ref().unwrap().crash_count.unwrap_or(0),
            0,
            "no crash"
        );
    }
    // And it can come back.
    site.start_rep("b", "z2", &[]).await?;
    site.desire(&objects::sleepers("api", 2)).await?;
    site.running("api", 2, |_| true).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_on_a_draining_cell_runs_to_its_end() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &[]).await?;
    site.run_task(&objects::task("short", "sleep 3; echo done"))
        .await?;
    eventually("the Task runs", START, || async {
        let task = site.tasks().get("short").await.ok()?;
        (task.status?.state == TaskState::Running).then_some(())
    })
    .await?;
    let status = site.stop_rep("a").await?;
    assert!(status.success(), "{status}");
    let status = site.tasks().get("short").await?.status.unwrap_or_default();
    assert_eq!(status.state, TaskState::Completed);
    assert_eq!(
        (status.failed.unwrap_or(false), status.failure_reason),
        (false, None)
    );
    Ok(())
}
