//! The API server: away, slow, refusing, forgetful of its answers; and controllers that die in the middle.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diego_operator::api::{ActualLRP, CellState};

use super::answers;
use super::looks::none_ended;
use crate::between::{Act, Between};
use crate::observer::facts::Within;
use crate::row::{Figures, Protection, Row, Store, Tried};
use crate::stage::{RECOVERY, Setup, Stage, THREE};
use crate::support::{Failure, eventually, site::START};

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            number: 25,
            fault: "the API server restarts",
            promise: "nothing is moved; a Cell that died meanwhile is recovered when it is back",
            tried: Tried::Here {
                injected: "SIGKILL of kube-apiserver, started again 8 s later; then the same, with a Cell killed meanwhile",
                protection: Protection::Seen {
                    without: "a verdict that could not be written is tried again, and every Cell is looked at in each pass and after a new list (both taken out; without the first alone it sometimes took 20 s)",
                    said: "nothing ran elsewhere within 60 s",
                },
                short: false,
                run: |stage| Box::pin(restarted(stage)),
            },
        },
        Row {
            number: 26,
            fault: "the API server is slow and refuses",
            promise: "a recovery ends, and no record is written in a hot loop",
            tried: Tried::Here {
                injected: "a proxy: each record's first writes get 2 s of delay, 429 with Retry-After, 500, 503, 409 and 422",
                protection: Protection::Seen {
                    without: "a verdict that could not be written is tried again",
                    said: "nothing ran elsewhere within 60 s",
                },
                short: false,
                run: |stage| Box::pin(refusing(stage)),
            },
        },
        Row {
            number: 27,
            fault: "the API server did what it was asked, and the answer is lost",
            promise: "it is done once, and no later than ever",
            tried: Tried::Here {
                injected: "a proxy that ends the connection after every second write of the controller, and all watches for a second",
                protection: Protection::Seen {
                    without: "every write names the version it is about, and after a lost answer what is stored is read anew (both taken out: either is enough)",
                    said: "instances were placed twice",
                },
                short: false,
                run: |stage| Box::pin(answers::unanswered(stage)),
            },
        },
        Row {
            number: 28,
            fault: "the API server answers with old lists",
            promise: "nothing that was decided on them takes effect; when they are new again, all is as desired",
            tried: Tried::Here {
                injected: "a proxy that gives the controller, and then another one that is started, the lists from before a Cell was lost, and silent watches; instances are added meanwhile",
                protection: Protection::Seen {
                    without: "every write names the version it is about",
                    said: "a controller that had begun with the old lists wrote an instance that ran well as lost",
                },
                short: false,
                run: |stage| Box::pin(answers::old_lists(stage)),
            },
        },
        Row {
            number: 29,
            fault: "the controller dies after its k-th write of a recovery, for each k",
            promise: "the next one finishes; nothing is done twice",
            tried: Tried::Here {
                injected: "a proxy that lets k writes of the controller take effect, and then kills it (SIGKILL) before the answer; started again at once, which is in the time (two instances and a Task on the dead Cell, TTL 2 s)",
                protection: Protection::Seen {
                    without: "the verdict is written before the work is touched, and whoever looks next does the rest (taken out one by one)",
                    said: "an instance was placed twice; what was left did not run elsewhere within 60 s",
                },
                short: false,
                run: |stage| Box::pin(answers::each_write(stage)),
            },
        },
        Row {
            number: 38,
            fault: "one event of a watch is lost",
            promise: "the periodic pass finds the loss that the watch did not tell of, and counts it",
            tried: Tried::Here {
                injected: "--disable-presence-watch, an interval of 3 s, and a Cell killed",
                protection: Protection::Seen {
                    without: "the periodic pass reads presences",
                    said: "nothing ran elsewhere within 60 s",
                },
                short: false,
                run: |stage| Box::pin(lost_event(stage)),
            },
        },
    ]
}

fn setup<'a>() -> Setup<'a> {
    Setup {
        cells: &THREE,
        instances: 9,
        tasks: 3,
        once: 3,
        ..Setup::default()
    }
}

async fn restarted(stage: &mut Stage) -> Result<Figures, Failure> {
    let before = stage.set(setup()).await?;
    stage.fault();
    stage.site.cluster.stop_apiserver().await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    stage.site.cluster.restart_apiserver().await?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    none_ended(stage).await?;
    stage.unmoved(&before).await?;
    stage.fault();
    stage.site.cluster.stop_apiserver().await;
    stage.site.kill_cell(&stage.cell("b")).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let since = stage.fault();
    stage.site.cluster.restart_apiserver().await?;
    // The leases went on meanwhile: what is left is to reconnect, and the confirming read.
    let within = Within {
        promised: Duration::from_secs(10),
        allowance: Duration::from_secs(5),
    };
    let away = stage.recovered(&before, &["b"], since, within).await?;
    stage.tasks_failed(1, 2).await?;
    let longest = away.iter().copied().fold(0.0, f64::max);
    Ok(Figures::note(format!(
        "all ran elsewhere {longest:.1} s after the API server was started again"
    )))
}

/// The kubeconfig that leads to the proxy.
pub fn file(stage: &Stage) -> String {
    let name = format!("{}.yaml", stage.cell("between"));
    stage.site.dir().join(name).display().to_string()
}

/// A site whose controller reaches the API server by way of the proxy.
pub async fn by_way_of(
    stage: &mut Stage,
    flags: &[&str],
) -> Result<(Between, Vec<ActualLRP>), Failure> {
    let between = Between::start(stage.site.client.clone()).await?;
    let file = between.kubeconfig(file(stage).into())?;
    let flags = [&["--kubeconfig", &file], flags].concat();
    let setup = Setup {
        controller: &flags,
        ..setup()
    };
    let before = stage.set(setup).await?;
    Ok((between, before))
}

async fn refusing(stage: &mut Stage) -> Result<Figures, Failure> {
    let (between, before) = by_way_of(stage, &[]).await?;
    let tried: Mutex<HashMap<String, usize>> = Mutex::default();
    let refused = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&refused);
    between.rule(move |asked| {
        if !asked.is_write() {
            return Act::Pass;
        }
        let mut tried = tried.lock().expect("not poisoned");
        // Each record begins at another place of the list.
        let known = tried.len();
        let next = tried.entry(asked.path.clone()).or_insert(known * 2);
        let all = [
            Act::Delay(Duration::from_secs(2)),
            Act::Refuse(429, Some(1)),
            Act::Refuse(500, None),
            Act::Refuse(503, None),
            Act::Refuse(409, None),
            Act::Refuse(422, None),
        ];
        *next += 1;
        // Two kinds of trouble for each record, and then none.
        if *next > known * 2 + 2 {
            return Act::Pass;
        }
        counted.fetch_add(1, Ordering::Relaxed);
        all[*next % all.len()].clone()
    });
    let since = stage.fault();
    stage.site.kill_cell(&stage.cell("b")).await;
    // Two troubles for each record on the way, of up to 2 s each and their pauses.
    let within = RECOVERY.later(10);
    let away = stage.recovered(&before, &["b"], since, within).await?;
    stage.tasks_failed(1, 2).await?;
    between.rule(|_| Act::Pass);
    let refused = refused.load(Ordering::Relaxed);
    if refused == 0 {
        return Err("no write was delayed or refused: the row shows nothing".into());
    }
    stage.keep(between);
    Ok(Figures::away(away).and(format!("{refused} writes were delayed or refused")))
}

async fn lost_event(stage: &mut Stage) -> Result<Figures, Failure> {
    let setup = Setup {
        controller: &[
            "--disable-presence-watch",
            "--convergence-interval-seconds",
            "3",
        ],
        ..setup()
    };
    let before = stage.set(setup).await?;
    let since = stage.fault();
    let lost = stage.cell("b");
    stage.site.kill_cell(&lost).await;
    let within = RECOVERY.later(match stage.store {
        Store::Etcd => 3,
        // The pass that reads the last renewal, and the one that finds it overdue.
        Store::Leases => 6,
    });
    let away = stage.recovered(&before, &["b"], since, within).await?;
    stage.tasks_failed(1, 2).await?;
    stage.site.cell_state(&lost, CellState::Missing).await?;
    eventually("the pass has counted it", START, || async {
        let found = "diego_cell_presence_expired_total{source=\"resync\"}";
        (stage.site.metric(found).await.ok()? == 1.0).then_some(())
    })
    .await?;
    Ok(Figures::away(away))
}
