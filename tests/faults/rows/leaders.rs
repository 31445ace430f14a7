//! Two controllers, one of which leads: cut off, frozen, dead in the middle.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use diego_operator::api::ActualLRP;

use crate::between::{Act, Between};
use crate::network::{Network, Way};
use crate::row::{Figures, Protection, Row, Tried};
use crate::stage::{RECOVERY, Setup, Stage, THREE};
use crate::support::{Failure, eventually, site::Controller, site::START};

/// Whether this controller leads.
const LEADS: &str = "leader_election_master_status{name=\"diego-controller\"}";

/// Long enough for a busy machine not to change the leader by itself, short enough to wait for.
const FLAGS: [&str; 5] = [
    "--leader-elect",
    "--leader-elect-lease-duration-seconds",
    "5",
    "--leader-elect-renew-deadline-seconds",
    "4",
];

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            number: 14,
            fault: "the leading controller is cut off from the API server",
            promise: "the other one leads and recovers what dies; from then on the first one writes no record, and no instance is moved twice",
            tried: Tried::Here {
                injected: "a Lease of 5 s; a proxy before the API server that loses both directions, a Cell killed meanwhile; mended, a second one counts what the former leader writes",
                protection: Protection::Seen {
                    without: "a leader whose Lease has run out writes nothing",
                    said: "the former leader did not stand by",
                },
                short: false,
                run: |stage| Box::pin(leader_without_api(stage)),
            },
        },
        Row {
            number: 30,
            fault: "a leader that was frozen goes on while another leads",
            promise: "the former one writes no record any more: each instance is moved once, each Task failed once",
            tried: Tried::Here {
                injected: "a Lease of 5 s; SIGSTOP of the leader, a Cell killed, SIGCONT as soon as another leads; a proxy counts what the former leader writes",
                protection: Protection::Seen {
                    without: "a leader whose Lease has run out writes nothing",
                    said: "no Task of the lost Cell was told as failed within 60 s",
                },
                short: false,
                run: |stage| Box::pin(frozen_leader(stage)),
            },
        },
        Row {
            number: 31,
            fault: "the leader dies in the middle of a recovery",
            promise: "the other one does the rest",
            tried: Tried::Here {
                injected: "30 instances and 15 Tasks on the dead Cell; the leader is killed after 20 of its writes; a Lease of 5 s, all of which passes then",
                protection: Protection::Seen {
                    without: "a new leader looks at everything once",
                    said: "what the dead leader had left did not run elsewhere within 60 s",
                },
                short: false,
                run: |stage| Box::pin(half_done(stage)),
            },
        },
    ]
}

async fn leads(controller: &Controller) -> Result<(), Failure> {
    let what = format!("{} leads", controller.process.name());
    eventually(&what, START, || async {
        (controller.metric(LEADS).await.ok()? == 1.0).then_some(())
    })
    .await
}

/// A leader with more flags, another behind it, and what they make of three Cells.
async fn pair(
    stage: &mut Stage,
    more: &[&str],
    (instances, tasks): (i32, usize),
) -> Result<(Controller, Controller, Vec<ActualLRP>), Failure> {
    let flags = [&FLAGS[..], more].concat();
    let (one, two) = (stage.cell("one"), stage.cell("two"));
    let leader = stage.site.another_controller(&one, &flags).await?;
    leads(&leader).await?;
    let standby = stage.site.another_controller(&two, &FLAGS).await?;
    let setup = Setup {
        without_controller: true,
        cells: &THREE,
        instances,
        tasks,
        once: 3,
        ..Setup::default()
    };
    let before = stage.set(setup).await?;
    Ok((leader, standby, before))
}

async fn leader_without_api(stage: &mut Stage) -> Result<Figures, Failure> {
    let between = Between::start(stage.site.client.clone()).await?;
    let network = Network::to(&between.url()).await?;
    let file = stage.site.dir().join(format!("{}.yaml", stage.cell("api")));
    let file = Between::kubeconfig_to(&network.url("http"), file)?;
    let (leader, standby, before) = pair(stage, &["--kubeconfig", &file], (9, 3)).await?;
    let since = stage.fault();
    network.set(Way::Lost);
    stage.site.kill_cell(&stage.cell("b")).await;
    // A Lease of 5 s and its retry come on top.
    let within = RECOVERY.later(6);
    let away = stage.recovered(&before, &["b"], since, within).await?;
    stage.tasks_failed(1, 2).await?;
    leads(&standby).await?;
    let late = between.count_writes();
    stage.fault();
    network.set(Way::Open);
    stands_by(&leader).await?;
    stage.moved(&before, &["b"], since).await?;
    none_of(&late)?;
    stage.keep((leader, standby, network, between));
    Ok(Figures::away(away))
}

/// The former leader has written nothing.
fn none_of(late: &AtomicUsize) -> Result<(), Failure> {
    match late.load(Ordering::SeqCst) {
        0 => Ok(()),
        late => Err(format!("{late} writes of the former leader, while another led").into()),
    }
}

/// Waits until a former leader has heard of the other one, and of everything that happened.
async fn stands_by(controller: &Controller) -> Result<(), Failure> {
    eventually("the former leader stands by and is warm", START, || async {
        let text = controller.metrics().await.ok()?;
        let well = [
            format!("{LEADS} 0"),
            "diego_cells{state=\"Missing\"} 1".into(),
        ];
        well.iter().all(|line| text.contains(line)).then_some(())
    })
    .await
}

async fn frozen_leader(stage: &mut Stage) -> Result<Figures, Failure> {
    let between = Between::start(stage.site.client.clone()).await?;
    let file = stage.site.dir().join(format!("{}.yaml", stage.cell("api")));
    let file = between.kubeconfig(file)?;
    let (leader, standby, before) = pair(stage, &["--kubeconfig", &file], (9, 3)).await?;
    let since = stage.fault();
    leader.process.pause();
    stage.site.kill_cell(&stage.cell("b")).await;
    leads(&standby).await?;
    // Both have the loss before them now.
    let late = between.count_writes();
    leader.process.resume();
    let within = RECOVERY.later(6);
    let away = stage.recovered(&before, &["b"], since, within).await?;
    stage.tasks_failed(1, 2).await?;
    stands_by(&leader).await?;
    stage.moved(&before, &["b"], since).await?;
    none_of(&late)?;
    stage.keep((leader, standby, between));
    Ok(Figures::away(away))
}

async fn half_done(stage: &mut Stage) -> Result<Figures, Failure> {
    let between = Between::start(stage.site.client.clone()).await?;
    let file = stage
        .site
        .dir()
        .join(format!("{}.yaml", stage.cell("between")));
    let file = between.kubeconfig(file)?;
    let (leader, standby, before) = pair(stage, &["--kubeconfig", &file], (90, 45)).await?;
    let pid = leader.process.pid();
    let writes = Arc::new(AtomicUsize::new(0));
    between.rule(move |asked| {
        if !asked.is_write() {
            return Act::Pass;
        }
        match writes.fetch_add(1, Ordering::SeqCst) + 1 {
            n if n < 20 => Act::Pass,
            20 => Act::Kill(pid),
            _ => Act::Lose,
        }
    });
    let since = stage.fault();
    stage.site.kill_cell(&stage.cell("b")).await;
    let dead = leader.process.wait();
    tokio::time::timeout(START, dead).await?;
    leads(&standby).await?;
    // The Lease, its retry, and a second look at all.
    let within = RECOVERY.later(10);
    let away = stage.recovered(&before, &["b"], since, within).await?;
    stage.tasks_failed(15, 30).await?;
    stage.keep((standby, between));
    Ok(Figures::away(away))
}
