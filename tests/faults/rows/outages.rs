//! A presence store that is away, and one that comes back with less than it had.

use std::time::Duration;

use diego_operator::presence::etcd::PREFIX;
use etcd_client::{Client, GetOptions};

use super::looks::{epoch, no_loss};
use super::store::setup;
use crate::row::Figures;
use crate::stage::{RECOVERY, Setup, Stage};
use crate::support::{Failure, eventually, site::START};

/// Row 18.
pub async fn down(stage: &mut Stage) -> Result<Figures, Failure> {
    let setup = Setup {
        controller: &["--convergence-interval-seconds", "1"],
        ..setup()
    };
    let before = stage.set(setup).await?;
    stage.fault();
    stage.site.etcd.member(0).kill();
    tokio::time::sleep(Duration::from_secs(30)).await;
    stage.site.etcd.restart_member(0).await?;
    heard(stage).await?;
    // What is left of any TTL, and passes of the safety net.
    tokio::time::sleep(Duration::from_secs(8)).await;
    no_loss(stage).await?;
    stage.unmoved(&before).await?;
    Ok(Figures::default())
}

/// Waits until the controller hears the store.
async fn heard(stage: &Stage) -> Result<(), Failure> {
    eventually("the controller hears the store", START, || async {
        let reachable = stage.site.metric("diego_presence_store_reachable").await;
        (reachable.ok()? == 1.0).then_some(())
    })
    .await
}

/// Waits until so many presences are registered.
async fn registered(stage: &Stage, count: i64) -> Result<(), Failure> {
    let client = Client::connect(stage.site.etcd.endpoints(), None).await?;
    eventually("every rep has registered", START, || {
        let mut client = client.clone();
        async move {
            let options = GetOptions::new().with_prefix().with_count_only();
            let answer = client.get(PREFIX, Some(options)).await.ok()?;
            (answer.count() == count).then_some(())
        }
    })
    .await
}

/// Row 19.
pub async fn lost_data(stage: &mut Stage) -> Result<Figures, Failure> {
    let figures = emptied(stage).await?;
    stage.conclude().await?;
    stage.fresh().await?;
    let note = restored(stage).await?;
    Ok(figures.and(note))
}

async fn emptied(stage: &mut Stage) -> Result<Figures, Failure> {
    // A store with a past, so that the revisions of the emptied one are smaller.
    let mut client = Client::connect(stage.site.etcd.endpoints(), None).await?;
    for n in 0..50 {
        client.put("past", n.to_string(), None).await?;
    }
    let setup = Setup {
        controller: &["--convergence-interval-seconds", "2"],
        ..setup()
    };
    let before = stage.set(setup).await?;
    stage.fault();
    stage.site.etcd.wipe().await?;
    registered(stage, 3).await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    no_loss(stage).await?;
    stage.unmoved(&before).await?;
    let since = stage.fault();
    stage.site.kill_cell(&stage.cell("b")).await;
    let away = stage.recovered(&before, &["b"], since, RECOVERY).await?;
    stage.tasks_failed(1, 2).await?;
    Ok(Figures::away(away))
}

/// The backup has one Cell as it is, one as it was before its rep was restarted, and does not have the third.
async fn restored(stage: &mut Stage) -> Result<String, Failure> {
    let flags = ["--convergence-interval-seconds", "2"];
    stage.site.start_controller(&flags).await?;
    for (cell, zone) in [("a", "z1"), ("b", "z2")] {
        stage.start_rep(cell, zone, &[]).await?;
    }
    stage.site.etcd.back_up().await?;
    heard(stage).await?;
    let mut client = Client::connect(stage.site.etcd.endpoints(), None).await?;
    for n in 0..200 {
        client.put("past", n.to_string(), None).await?;
    }
    let revision = revision(&mut client).await?;
    let restarted = stage.cell("b");
    let old = epoch(stage, &restarted).await?;
    stage.site.restart_rep(&restarted).await?;
    eventually("it has a new epoch", START, || async {
        (epoch(stage, &restarted).await.ok()? > old).then_some(())
    })
    .await?;
    let setup = Setup {
        without_controller: true,
        cells: &[("c", "z3")],
        ..setup()
    };
    let before = stage.set(setup).await?;
    let mut epochs = Vec::new();
    for cell in ["a", "b", "c"] {
        epochs.push(epoch(stage, &stage.cell(cell)).await?);
    }
    stage.fault();
    stage.site.etcd.restore().await?;
    let mut client = Client::connect(stage.site.etcd.endpoints(), None).await?;
    let now = self::revision(&mut client).await?;
    if now >= revision {
        return Err(format!("the revision went from {revision} to {now}, not back").into());
    }
    registered(stage, 3).await?;
    heard(stage).await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    no_loss(stage).await?;
    stage.unmoved(&before).await?;
    for (cell, old) in ["a", "b", "c"].iter().zip(epochs) {
        let new = epoch(stage, &stage.cell(cell)).await?;
        if new < old {
            return Err(format!("the epoch of {cell} went back from {old} to {new}").into());
        }
    }
    // One that the backup did not have, or did not have so.
    let since = stage.fault();
    stage.site.kill_cell(&restarted).await;
    let away = stage.recovered(&before, &["b"], since, RECOVERY).await?;
    stage.tasks_failed(1, 2).await?;
    let longest = away.iter().copied().fold(0.0, f64::max);
    Ok(format!(
        "restored from a backup: the revision went from {revision} back to {now}; the Cell killed then was recovered in {longest:.2} s"
    ))
}

async fn revision(client: &mut Client) -> Result<i64, Failure> {
    let answer = client.get(PREFIX, None).await?;
    let header = answer.header().ok_or("an answer without a header")?;
    Ok(header.revision())
}
