//! What waits for a place gets it when there is one: not with the resync, and in the auction's order.

use diego_operator::api::{ActualLRP, ActualLRPState};
use kube::ResourceExt;

use crate::support::{Failure, eventually, objects, site::START, site::Site};

fn is_starting(lrp: &ActualLRP) -> bool {
    let status = lrp.status.clone().unwrap_or_default();
    let placed = status.cell_name.is_some();
    matches!(
        status.state,
        ActualLRPState::Unclaimed | ActualLRPState::Claimed
    ) && placed
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_start_lets_the_next_begin() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    // No resync comes to the help of this test.
    site.start_controller(&[
        "--starting-container-count-maximum",
        "1",
        "--convergence-interval-seconds",
        "3600",
    ])
    .await?;
    site.start_rep("a", "z1", &[]).await?;
    site.start_rep("b", "z2", &[]).await?;
    let watching = {
        let api = site.actual();
        tokio::spawn(async move {
            let (mut most, mut waited) = (0, false);
            loop {
                let lrps = api.list(&Default::default()).await?.items;
                most = most.max(lrps.iter().filter(|lrp| is_starting(lrp)).count());
                waited |= lrps.iter().any(|lrp| {
                    let error = lrp
                        .status
                        .as_ref()
                        .and_then(|s| s.placement_error.as_deref());
                    error == Some("waiting to start instance: reached in-flight start limit")
                });
                let running = lrps.iter().filter(|lrp| {
                    let state = lrp.status.as_ref().map(|status| status.state);
                    state == Some(ActualLRPState::Running)
                });
                if running.count() == 6 {
                    return Ok::<_, kube::Error>((most, waited));
                }
            }
        })
    };
    site.desire(&objects::sleepers("web", 4)).await?;
    site.desire(&objects::sleepers("api", 2)).await?;
    site.running("web", 4, |_| true).await?;
    site.running("api", 2, |_| true).await?;
    assert_eq!(watching.await??, (1, true), "one at a time");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn when_room_comes_every_process_gets_its_first_instance_first() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&["--convergence-interval-seconds", "3600"])
        .await?;
    for process in ["api", "web"] {
        site.desire(&objects::sleepers(process, 2)).await?;
    }
    let api = site.actual();
    let with = |error: &'static str| {
        let api = api.clone();
        async move {
            let lrps = api.list(&Default::default()).await.ok()?.items;
            let waits = |lrp: &&ActualLRP| {
                let status = lrp.status.as_ref();
                status.and_then(|status| status.placement_error.as_deref()) == Some(error)
            };
            let mut names: Vec<String> = lrps.iter().filter(waits).map(|l| l.name_any()).collect();
            names.sort();
            Some(names)
        }
    };
    let nobody = "unable to communicate to compatible cells";
    eventually("all wait", START, || async {
        (with(nobody).await?.len() == 4).then_some(())
    })
    .await?;
    site.spawn_rep("a", "z1", &["--max-containers", "2"])
        .await?;
    let left = eventually("two are placed, two wait for room", START, || async {
        let full = with("insufficient resources: containers").await?;
        (full.len() == 2).then_some(full)
    })
    .await?;
    assert_eq!(left, ["api-1", "web-1"]);
    Ok(())
}
