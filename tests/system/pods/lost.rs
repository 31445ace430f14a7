//! The Pods of a lost Cell: kept until their replacements run, and then gone at once.

use diego_operator::api::{ActualLRPState, CellState, TaskState};
use kube::ResourceExt;

use super::{awaited, guid, job, kubelet, lrp_is, ours, pod_of, pods, runs, start, web};
use crate::support::Failure;

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_cells_pod_goes_without_grace_when_its_replacement_runs() -> Result<(), Failure> {
    let (mut site, kubelets) = start(&["a", "b"], &[]).await?;
    site.desire(&web("web", 1)).await?;
    let before = runs(&site, "web-0", "").await?;
    let cell = before.cell_name.clone().unwrap_or_default();
    let old = pod_of(&site, &guid(&before)).await?;
    // One Task on each Cell.
    for name in ["one", "two"] {
        site.run_task(&job(name)).await?;
    }
    let tasks = awaited(&site, "the Tasks run", || async {
        let tasks = site.tasks().list(&Default::default()).await.ok()?.items;
        let cells: Option<Vec<_>> = tasks
            .iter()
            .map(|task| {
                let status = task.status.as_ref()?;
                (status.state == TaskState::Running).then(|| (task.name_any(), status.clone()))
            })
            .collect();
        cells.filter(|cells| cells.len() == 2)
    })
    .await?;

    kubelets.leave_alone("web-0");
    kubelets.die(&cell);
    site.kill_cell(&cell).await;
    site.cell_state(&cell, CellState::Missing).await?;
    let moving = lrp_is(&site, "web-0", "its replacement starts", |status| {
        status.state == ActualLRPState::Claimed && status.suspect.is_some()
    })
    .await?;
    let replacement = pod_of(&site, &guid(&moving)).await?;
    let kept = pods(&site).get(&old.name_any()).await?;
    assert_eq!(
        kept.metadata.deletion_timestamp, None,
        "a suspect's Pod is left alone"
    );
    kubelets.set(&replacement, kubelet::ready()).await?;
    let after = runs(&site, "web-0", &guid(&before)).await?;
    assert_ne!(after.cell_name.as_deref(), Some(&*cell));
    assert_eq!((after.suspect, after.crash_count.unwrap_or(0)), (None, 0));
    // The kubelet is dead: only a deletion without grace takes the Pod away.
    awaited(&site, "no Pod is left on the lost Cell", || async {
        let all = ours(&site).await?;
        let there = |pod: &k8s_openapi::api::core::v1::Pod| {
            pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(&*cell)
        };
        (!all.iter().any(there)).then_some(())
    })
    .await?;
    for (name, status) in tasks {
        let on_it = status.cell_name.as_deref() == Some(&*cell);
        let now = site
            .tasks()
            .get_opt(&name)
            .await?
            .and_then(|task| task.status);
        let now = now.ok_or("the Task is gone")?;
        match on_it {
            true => assert_eq!(
                now.failure_reason.as_deref(),
                Some("cell disappeared before completion")
            ),
            false => assert_eq!(now.state, TaskState::Running, "{name}"),
        }
    }
    let lost = site
        .metric("diego_pod_deletions_total{reason=\"lost_cell\"}")
        .await?;
    assert!(lost >= 1.0, "{lost}");
    Ok(())
}
