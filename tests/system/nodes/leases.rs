//! A loss with the presence kept in Leases of the API server, from the last renewal to the last trace of the Cell.

use k8s_openapi::api::coordination::v1::Lease;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_is_lost_by_the_clock_and_its_lease_goes_with_it() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    let presence = ["--presence", "kubernetes", "--namespace", "default"];
    let mut told_controller = vec![
        "--convergence-interval-seconds",
        "1",
        "--missing-cell-retention-seconds",
        "3",
    ];
    told_controller.extend(presence);
    site.start_controller(&told_controller).await?;
    let mut told_rep = vec!["--presence-ttl-seconds", "2"];
    told_rep.extend(presence);
    for (cell, zone) in [("a", "z1"), ("b", "z2")] {
        site.start_rep(cell, zone, &told_rep).await?;
    }
    let leases = Api::<Lease>::namespaced(site.client.clone(), "default");
    for name in ["cell-a", "cell-b"] {
        leases.get(name).await?;
    }
    site.desire(&objects::sleepers("web", 4)).await?;
    let before = site.running("web", 4, |_| true).await?;
    let on_b = before.iter().filter(|lrp| {
        let status = lrp.status.as_ref();
        status.and_then(|status| status.cell_name.as_deref()) == Some("b")
    });
    assert_eq!(on_b.count(), 2);

    site.kill_cell("b").await;
    site.running("web", 4, |cell| cell == "a").await?;
    let series = "diego_cell_presence_expired_total{source=\"timer\"}";
    assert_eq!(site.metric(series).await?, 1.0);
    let note = eventually("the Event is there", START, || {
        told(&site, "b", "CellPresenceExpired")
    })
    .await?;
    assert!(!note.is_empty());

    let gone = eventually("Cell b and its Lease are deleted", START, || async {
        let cell = site.cells().get_opt("b").await.ok()?;
        let lease = leases.get_opt("cell-b").await.ok()?;
        (cell.is_none() && lease.is_none()).then_some(())
    })
    .await;
    if let Err(failure) = gone {
        return Err(format!("{failure}\n{}", site.picture().await).into());
    }
    leases.get("cell-a").await?;
    // It comes back as if it had never been away.
    site.start_rep("b", "z2", &told_rep).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_wakes_no_reconciler() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    let presence = ["--presence", "kubernetes", "--namespace", "default"];
    // So that the interval is no reason to look.
    let never = ["--convergence-interval-seconds", "3600"];
    site.start_controller(&[&never[..], &presence].concat())
        .await?;
    let often = ["--presence-ttl-seconds", "2"];
    site.start_rep("a", "z1", &[&often[..], &presence].concat())
        .await?;
    site.desire(&objects::sleepers("web", 1)).await?;
    site.running("web", 1, |_| true).await?;

    let leases = Api::<Lease>::namespaced(site.client.clone(), "default");
    let renewed = async || Some(leases.get("cell-a").await.ok()?.spec?.renew_time?.0);
    let reconciles = async || {
        let mut sum = 0.0;
        for controller in ["cell", "desiredlrp", "task"] {
            for result in ["requeue_after", "error"] {
                let series = format!(
                    "controller_runtime_reconcile_total{{controller=\"{controller}\",result=\"{result}\"}}"
                );
                sum += site.metric(&series).await.ok()?;
            }
        }
        Some(sum)
    };
    // What was begun before may still be under way at first.
    eventually("five renewals without a reconcile", START, || async {
        let before = reconciles().await?;
        let mut last = renewed().await?;
        for _ in 0..5 {
            last = eventually("it is renewed", START, || async {
                renewed().await.filter(|now| *now > last)
            })
            .await
            .ok()?;
        }
        (reconciles().await? == before).then_some(())
    })
    .await
}
