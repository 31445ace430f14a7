//! Cells that join while convergence runs all the time are never judged lost.

use diego_operator::api::CellState;

use crate::support::{Failure, objects, site::Site};

#[tokio::test(flavor = "multi_thread")]
async fn a_joining_cell_is_never_judged_lost() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&["--convergence-interval-seconds", "1"])
        .await?;
    // Work is waiting, so that every Cell is given some the moment it joins.
    site.desire(&objects::sleepers("web", 12)).await?;
    for n in 0..6 {
        let zone = if n % 2 == 0 { "z1" } else { "z2" };
        site.spawn_rep(&format!("cell-{n}"), zone, &["--max-containers", "2"])
            .await?;
    }
    let instances = site.running("web", 12, |_| true).await?;
    for n in 0..6 {
        site.cell_state(&format!("cell-{n}"), CellState::Present)
            .await?;
        let cell = site
            .cells()
            .get(&format!("cell-{n}"))
            .await?
            .status
            .unwrap_or_default();
        assert_eq!(cell.last_recovery, None);
        assert_eq!(cell.incarnation_epoch, cell.epoch);
    }
    for lrp in instances {
        let status = lrp.status.unwrap_or_default();
        assert_eq!(status.suspect, None);
        assert_eq!(status.start_reason.as_deref(), Some("missing-instance"));
    }
    let text = site.metrics().await?;
    for source in ["watch", "resync"] {
        assert!(text.contains(&format!(
            "diego_cell_presence_expired_total{{source=\"{source}\"}} 0"
        )));
    }
    Ok(())
}
