//! One-way loss of packets, between two network namespaces.

use diego_operator::api::CellState;
use local_cluster::EtcdOptions;

use crate::cable::{Cable, Lost};
use crate::network::Network;
use crate::stage::{RECOVERY, Setup, Stage};
use crate::support::{Failure, eventually, site::START, tree};

/// A rep in a namespace of its own, and etcd, whose packets are dropped in one direction. TCP sends them again and again,
/// to no avail, and no new connection comes about: either way the store hears nothing after the rep's next try to connect.
/// Returns when each replacement began.
pub async fn one_way(stage: &mut Stage, lost: Lost) -> Result<String, Failure> {
    let cable = Cable::new(stage.site.dir()).await?;
    let store = EtcdOptions {
        address: Some(cable.here()),
        ..EtcdOptions::default()
    };
    stage.fresh_on(store).await?;
    let server = stage.site.cluster.server_url();
    let network = Network::to_from(&server, cable.here()).await?;
    let file = stage
        .site
        .dir()
        .join(format!("{}.yaml", stage.cell("cable")));
    let file = network.kubeconfig(stage.site.cluster.kubeconfig(), &server, file)?;
    let file = file.display().to_string();
    stage.site.start_controller(&[]).await?;
    let cell = stage.cell("a");
    stage.site.through = cable.through();
    let launched = stage.site.launch_rep(&cell, "z1", &["--kubeconfig", &file]);
    stage.site.through.clear();
    launched?;
    stage.site.cell_state(&cell, CellState::Present).await?;
    let setup = Setup {
        without_controller: true,
        cells: &[("b", "z2"), ("c", "z3")],
        instances: 9,
        tasks: 3,
        once: 3,
        ..Setup::default()
    };
    let before = stage.set(setup).await?;
    let etcd = stage.site.etcd.endpoints().remove(0);
    let (_, port) = etcd.rsplit_once(':').ok_or("an endpoint has a port")?;
    let since = stage.fault();
    cable.lose(lost, port.parse()?).await?;
    // Renewals that arrive without an answer are heard until the rep gives the connection up.
    let within = match lost {
        Lost::Requests => RECOVERY,
        Lost::Answers => RECOVERY.later(3),
    };
    let away = stage.recovered(&before, &["a"], since, within).await?;
    stage.tasks_failed(1, 2).await?;
    let pid = stage.site.rep(&cell).process.pid();
    eventually("the rep has stopped what runs elsewhere", START, || async {
        tree::descendants(pid).is_empty().then_some(())
    })
    .await?;
    stage.fault();
    let dropped = cable.mend().await?;
    if dropped == 0 {
        return Err("no packet was dropped: the row shows nothing".into());
    }
    stage.site.cell_state(&cell, CellState::Present).await?;
    stage.moved(&before, &["a"], since).await?;
    let longest = away.iter().copied().fold(0.0, f64::max);
    stage.keep((cable, network));
    Ok(format!(
        "packets dropped: all ran elsewhere after {longest:.2} s (at most {:.1} s and their start), {dropped} packets",
        within.promised.as_secs_f64()
    ))
}
