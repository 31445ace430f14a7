//! Names that can't be looked up.

use std::time::Duration;

use diego_operator::api::CellState;

use super::looks::no_loss;
use crate::names::Names;
use crate::row::{Figures, Protection, Row, Tried};
use crate::stage::{RECOVERY, Setup, Stage, THREE};
use crate::support::{Failure, eventually, http, site::START};

pub fn rows() -> Vec<Row> {
    vec![Row {
        number: 49,
        fault: "names can't be looked up",
        promise: "connections that are there go on: no presence is lost, nothing is moved, and a Cell that dies is recovered as ever",
        tried: Tried::Here {
            injected: "reps and controller in a mount namespace of their own, told the names of etcd and the API server; the names are taken out of its hosts file for 20 s, its name server does not answer, a Cell is killed meanwhile; then another Cell is started by name",
            protection: Protection::Seen {
                without: "the controller keeps the connection open by which it writes of lost Cells",
                said: "the first write needed a name, and nothing ran elsewhere within 60 s",
            },
            short: false,
            run: |stage| Box::pin(without_names(stage)),
        },
    }]
}

async fn without_names(stage: &mut Stage) -> Result<Figures, Failure> {
    let names = Names::new(stage.site.dir()).await?;
    let server = stage.site.cluster.server_url();
    let file = names.kubeconfig(stage.site.cluster.kubeconfig(), &server)?;
    let store = names.endpoint(&stage.site.etcd.endpoints()[0]);
    stage.site.through = names.through();
    let kubeconfig = ["--kubeconfig", &file];
    stage.site.start_controller_at(&store, &kubeconfig).await?;
    let setup = Setup {
        without_controller: true,
        rep: &kubeconfig,
        cells: &THREE,
        instances: 9,
        tasks: 3,
        once: 3,
        store: Some(&store),
        ..Setup::default()
    };
    let before = stage.set(setup).await?;
    // A presence is renewed by a connection that the first renewal opens.
    for cell in ["a", "b", "c"] {
        renewed(stage, &stage.cell(cell)).await?;
    }
    stage.fault();
    names.take().await?;
    // More than two TTLs, and one pass of the safety net with what follows.
    tokio::time::sleep(Duration::from_secs(20)).await;
    no_loss(stage).await?;
    stage.unmoved(&before).await?;
    let since = stage.fault();
    stage.site.kill_cell(&stage.cell("b")).await;
    let away = stage.recovered(&before, &["b"], since, RECOVERY).await?;
    stage.tasks_failed(1, 2).await?;
    names.look_up(false).await?;
    stage.fault();
    names.give().await?;
    let fourth = stage.cell("d");
    let site = &mut stage.site;
    site.spawn_rep_at(&store, &fourth, "z2", &kubeconfig)
        .await?;
    site.cell_state(&fourth, CellState::Present).await?;
    stage.keep(names);
    Ok(Figures::away(away))
}

/// Waits until a rep has renewed its presence twice.
async fn renewed(stage: &Stage, cell: &str) -> Result<(), Failure> {
    let address = format!("127.0.0.1:{}", stage.site.rep(cell).metrics_port);
    let series = "diego_rep_presence_renewals_total{result=\"success\"}";
    eventually(&format!("{cell} has renewed twice"), START, || async {
        let page = http::get(&address, "/metrics", Duration::from_secs(5)).await;
        let count = http::metric(&page?.1, series)?;
        (count >= 2.0).then_some(())
    })
    .await
}
