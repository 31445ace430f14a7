//! Receivers that hang leave room for the others.

use super::receiver::{HANG, Receiver};
use super::{PATIENT, deleted, site_with_one_cell, task};
use crate::support::{Failure, eventually, site::START};

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_takes_no_more_than_its_share() -> Result<(), Failure> {
    let flags = [&PATIENT[..], &["--callback-concurrency", "4"]].concat();
    let site = site_with_one_cell(&flags).await?;
    let (hangs, well) = (Receiver::start(HANG).await?, Receiver::start(200).await?);
    for n in 0..8 {
        site.run_task(&task(&format!("stuck{n}"), "exit 0", &hangs, Some(600)))
            .await?;
    }
    let deliveries = async |state: &str| {
        let series = format!("diego_task_callback_deliveries{{state=\"{state}\"}}");
        site.metric(&series).await.ok()
    };
    eventually("all the others of that receiver wait", START, || async {
        (deliveries("Waiting").await? == 7.0).then_some(())
    })
    .await?;
    assert_eq!(deliveries("UnderWay").await, Some(1.0), "a quarter of four");
    site.run_task(&task("quick", "exit 0", &well, None)).await?;
    well.told("quick", 1).await?;
    deleted(&site, "quick").await?;
    let unanswered = "diego_task_callbacks_total{result=\"unanswered\"}";
    assert_eq!(
        site.metric(unanswered).await?,
        0.0,
        "no slot became free meanwhile"
    );
    Ok(())
}
