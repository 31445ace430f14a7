//! Networks that are cut, in both directions or in one.

use std::time::Duration;

use diego_operator::api::{ActualLRPState, CellState};

use super::dropped::one_way;
use super::looks::{none_ended, versions};
use crate::cable::Lost;
use crate::network::{Network, Way};
use crate::row::{Figures, Protection, Row, Tried};
use crate::stage::{ONCE, RECOVERY, Setup, Stage};
use crate::support::{Failure, eventually, site::START, tree};

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            number: 9,
            fault: "a rep is cut off from the presence store alone",
            promise: "its instances go on as suspects until their replacements run elsewhere; it learns of that from the API server and stops them",
            tried: Tried::Here {
                injected: "a proxy before etcd that loses both directions",
                protection: Protection::Seen {
                    without: "a rep stops what is recorded elsewhere",
                    said: "the rep had not stopped what runs elsewhere within 60 s",
                },
                short: true,
                run: |stage| Box::pin(rep_without_store(stage)),
            },
        },
        Row {
            number: 10,
            fault: "a rep is cut off from the API server alone",
            promise: "nothing is moved and nothing restarted; new work waits for it, and runs once when it is back",
            tried: Tried::Here {
                injected: "a proxy before the API server that loses both directions for 12 s",
                protection: Protection::Seen {
                    without: "the presence does not go by way of the API server (instead: `--presence kubernetes`, of which this is not promised)",
                    said: "records were written: the Cell was taken for lost",
                },
                short: false,
                run: |stage| Box::pin(rep_without_api(stage)),
            },
        },
        Row {
            number: 11,
            fault: "a rep hears nothing from the presence store, which hears it",
            promise: "the presence lasts for as long as the store hears it, and nothing is moved; but the rep can't know that, and stops what must not run twice. Where no new connection comes about, the store soon hears nothing: as when it is cut off in both directions",
            tried: Tried::Here {
                injected: "a proxy before etcd that loses the answers, and 12 s later the requests as well; then the rep in a network namespace of its own, in which etcd's packets to it are dropped",
                protection: Protection::Seen {
                    without: "an unanswered renewal is none, and no end either (taken out one by one: it counts as answered; it is taken for a lost lease)",
                    said: "a Strict instance ran beside its replacement; a presence ended that the store could have kept",
                },
                short: false,
                run: |stage| Box::pin(rep_unanswered(stage)),
            },
        },
        Row {
            number: 12,
            fault: "a rep hears the presence store, which hears nothing from it",
            promise: "as when it is cut off in both directions",
            tried: Tried::Here {
                injected: "a proxy before etcd that loses the requests; then the rep in a network namespace of its own, in which its packets to etcd are dropped",
                protection: Protection::Seen {
                    without: "a rep stops what is recorded elsewhere",
                    said: "the rep had not stopped what runs elsewhere within 60 s",
                },
                short: false,
                run: |stage| Box::pin(rep_unheard(stage)),
            },
        },
        Row {
            number: 13,
            fault: "the controller is cut off from the presence store",
            promise: "no news is no death: nothing is moved; a Cell that died meanwhile is recovered once the store is heard again",
            tried: Tried::Here {
                injected: "a proxy before etcd that loses both directions for 12 s, a Cell killed meanwhile",
                protection: Protection::Seen {
                    without: "an error of the presence store is no answer",
                    said: "the controller moved work while it could not hear the store",
                },
                short: false,
                run: |stage| Box::pin(controller_without_store(stage)),
            },
        },
    ]
}

/// Two Cells; the first one reaches the store, or the API server, by way of the network.
async fn two(
    stage: &mut Stage,
    store: Option<&Network>,
    kubeconfig: Option<&str>,
) -> Result<Vec<diego_operator::api::ActualLRP>, Failure> {
    stage.site.start_controller(&[]).await?;
    let cell = stage.cell("a");
    let endpoint = match store {
        Some(network) => network.url("http"),
        None => stage.site.etcd.endpoints().remove(0),
    };
    let extra: Vec<&str> = kubeconfig
        .iter()
        .flat_map(|file| ["--kubeconfig", *file])
        .collect();
    stage
        .site
        .spawn_rep_at(&endpoint, &cell, "z1", &extra)
        .await?;
    stage.site.cell_state(&cell, CellState::Present).await?;
    let setup = Setup {
        without_controller: true,
        cells: &[("b", "z2"), ("c", "z3")],
        instances: 9,
        tasks: 3,
        once: 3,
        ..Setup::default()
    };
    stage.set(setup).await
}

async fn rep_without_store(stage: &mut Stage) -> Result<Figures, Failure> {
    cut_off(stage, Way::Lost, Way::Lost).await
}

async fn rep_unheard(stage: &mut Stage) -> Result<Figures, Failure> {
    let figures = cut_off(stage, Way::Lost, Way::Open).await?;
    stage.conclude().await?;
    let note = one_way(stage, Lost::Requests).await?;
    Ok(figures.and(note))
}

async fn cut_off(stage: &mut Stage, there: Way, back: Way) -> Result<Figures, Failure> {
    let network = Network::to(&stage.site.etcd.endpoints()[0]).await?;
    let before = two(stage, Some(&network), None).await?;
    let cell = stage.cell("a");
    let since = stage.fault();
    network.set_each(there, back);
    let away = stage.recovered(&before, &["a"], since, RECOVERY).await?;
    stage.tasks_failed(1, 2).await?;
    let pid = stage.site.rep(&cell).process.pid();
    eventually("the rep has stopped what runs elsewhere", START, || async {
        tree::descendants(pid).is_empty().then_some(())
    })
    .await?;
    stage.fault();
    network.set(Way::Open);
    stage.site.cell_state(&cell, CellState::Present).await?;
    stage.moved(&before, &["a"], since).await?;
    stage.keep(network);
    Ok(Figures::away(away))
}

async fn rep_unanswered(stage: &mut Stage) -> Result<Figures, Failure> {
    let network = Network::to(&stage.site.etcd.endpoints()[0]).await?;
    let before = two(stage, Some(&network), None).await?;
    let cell = stage.cell("a");
    stage.fault();
    network.set_each(Way::Open, Way::Lost);
    tokio::time::sleep(Duration::from_secs(12)).await;
    none_ended(stage).await?;
    stage.unmoved(&before).await?;
    // From here on the store hears nothing either: what it did not answer before is not to be counted on.
    let since = stage.fault();
    network.set(Way::Lost);
    let away = stage.recovered(&before, &["a"], since, RECOVERY).await?;
    stage.tasks_failed(1, 2).await?;
    stage.site.running(ONCE, 3, |other| other != cell).await?;
    stage.fault();
    network.set(Way::Open);
    stage.site.cell_state(&cell, CellState::Present).await?;
    stage.moved(&before, &["a"], since).await?;
    stage.keep(network);
    stage.conclude().await?;
    let note = one_way(stage, Lost::Answers).await?;
    Ok(Figures::away(away).and(format!(
        "the presence lasted for as long as the store heard it; {note}"
    )))
}

async fn rep_without_api(stage: &mut Stage) -> Result<Figures, Failure> {
    let server = stage.site.cluster.server_url();
    let network = Network::to(&server).await?;
    let file = stage.site.dir().join(format!("{}.yaml", stage.cell("api")));
    let file = network.kubeconfig(stage.site.cluster.kubeconfig(), &server, file)?;
    let before = two(stage, None, Some(&file.display().to_string())).await?;
    let versions_before = versions(stage).await?;
    stage.fault();
    network.set(Way::Lost);
    tokio::time::sleep(Duration::from_secs(8)).await;
    if versions(stage).await? != versions_before {
        return Err("something was written of what runs".into());
    }
    // Work for the Cell that can't hear of it, among others.
    stage.desire("more", 6, false).await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let cell = stage.cell("a");
    let more = stage.site.instances("more").await?;
    let given = more.iter().filter_map(|lrp| lrp.status.as_ref());
    let given = given.filter(|status| status.cell_name.as_deref() == Some(&cell));
    let given: Vec<ActualLRPState> = given.map(|status| status.state).collect();
    if given.is_empty()
        || given
            .iter()
            .any(|state| *state != ActualLRPState::Unclaimed)
    {
        let text = format!("of the new work {given:?} is on the Cell that can't hear of it");
        return Err(text.into());
    }
    stage.fault();
    network.set(Way::Open);
    stage.site.running("more", 6, |_| true).await?;
    stage.unmoved(&before).await?;
    none_ended(stage).await?;
    stage.keep(network);
    Ok(Figures::default())
}

async fn controller_without_store(stage: &mut Stage) -> Result<Figures, Failure> {
    let reach = stage.before_store().await?;
    let flags = [&["--convergence-interval-seconds", "1"], &reach.flags()[..]].concat();
    let site = &mut stage.site;
    site.start_controller_at(reach.endpoint(), &flags).await?;
    let setup = Setup {
        without_controller: true,
        cells: &crate::stage::THREE,
        instances: 9,
        tasks: 3,
        once: 3,
        ..Setup::default()
    };
    let before = stage.set(setup).await?;
    let versions_before = versions(stage).await?;
    stage.fault();
    reach.network.set(Way::Lost);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let reachable = stage.site.metric("diego_presence_store_reachable").await?;
    if reachable != 0.0 {
        return Err("the controller does not say that it can't hear the store".into());
    }
    stage.site.kill_cell(&stage.cell("b")).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    if versions(stage).await? != versions_before {
        return Err("it acted without the store".into());
    }
    let since = stage.fault();
    reach.network.set(Way::Open);
    let away = stage.moved(&before, &["b"], since).await?;
    stage.tasks_failed(1, 2).await?;
    let longest = away.iter().copied().fold(0.0, f64::max);
    stage.keep(reach);
    Ok(Figures::note(format!(
        "once the store was heard again, all ran elsewhere {longest:.1} s later"
    )))
}
