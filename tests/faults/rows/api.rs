//! The API server: away, slow, refusing, forgetful of its answers; and controllers that die in the middle.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diego_operator::api::CellState;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::reps::no_loss;
use crate::between::{Act, Between};
use crate::observer::facts::Within;
use crate::row::{Figures, Protection, Row, Tried};
use crate::stage::{RECOVERY, Setup, Stage, THREE, WEB};
use crate::support::{Failure, eventually, site::START};

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            number: 25,
            fault: "the API server restarts",
            promise: "nothing is moved; a Cell that died meanwhile is recovered when it is back",
            tried: Tried::Here {
                injected: "SIGKILL of kube-apiserver, started again 8 s later; then the same, with a Cell killed meanwhile",
                protection: Protection::StillPassed {
                    without: "a verdict that could not be written is tried again",
                    said: "the first list after the outage found the loss all the same; row 26 fails then",
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
            promise: "it is done once",
            tried: Tried::Here {
                injected: "a proxy that ends the connection after every second write of the controller",
                protection: Protection::StillPassed {
                    without: "every write names the version it is about",
                    said: "nothing was done twice either, but it took 26 s instead of 5",
                },
                short: false,
                run: |stage| Box::pin(unanswered(stage)),
            },
        },
        Row {
            number: 28,
            fault: "the API server answers with old lists",
            promise: "nothing that was decided on them takes effect; when they are new again, all is as desired",
            tried: Tried::Here {
                injected: "a proxy that gives the controller, for 10 s, the lists from before a Cell was lost, and silent watches; instances are added meanwhile",
                protection: Protection::StillPassed {
                    without: "every write names the version it is about",
                    said: "a verdict needs the presence store as well, and a transition the epoch",
                },
                short: false,
                run: |stage| Box::pin(old_lists(stage)),
            },
        },
        Row {
            number: 29,
            fault: "the controller dies after its k-th write of a recovery, for each k",
            promise: "the next one finishes; nothing is done twice",
            tried: Tried::Here {
                injected: "a proxy that lets k writes of the controller take effect, and then kills it (SIGKILL) before the answer; started again at once, which is in the time (two instances and a Task on the dead Cell, TTL 2 s)",
                protection: Protection::StillPassed {
                    without: "every write names the version it is about",
                    said: "that a verdict is written before the work is touched was not taken out yet",
                },
                short: false,
                run: |stage| Box::pin(each_write(stage)),
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
    no_loss(stage).await?;
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

/// A site whose controller reaches the API server by way of the proxy.
async fn by_way_of(
    stage: &mut Stage,
    flags: &[&str],
) -> Result<(Between, Vec<diego_operator::api::ActualLRP>), Failure> {
    let between = Between::start(stage.site.client.clone()).await?;
    let file = stage
        .site
        .dir()
        .join(format!("{}.yaml", stage.cell("between")));
    let file = between.kubeconfig(file)?;
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

async fn unanswered(stage: &mut Stage) -> Result<Figures, Failure> {
    let (between, before) = by_way_of(stage, &[]).await?;
    let lost = Arc::new(AtomicUsize::new(0));
    let writes = AtomicUsize::new(0);
    let counted = Arc::clone(&lost);
    between.rule(move |asked| {
        if !asked.is_write() || writes.fetch_add(1, Ordering::Relaxed) % 2 == 1 {
            return Act::Pass;
        }
        counted.fetch_add(1, Ordering::Relaxed);
        Act::LoseAnswer
    });
    let since = stage.fault();
    stage.site.kill_cell(&stage.cell("b")).await;
    let away = stage.moved(&before, &["b"], since).await?;
    stage.tasks_failed(1, 2).await?;
    let lost = lost.load(Ordering::Relaxed);
    if lost == 0 {
        return Err("no answer was lost: the row shows nothing".into());
    }
    between.rule(|_| Act::Pass);
    stage.keep(between);
    Ok(Figures::away(away).and(format!("{lost} answers were lost")))
}

async fn old_lists(stage: &mut Stage) -> Result<Figures, Failure> {
    let (between, before) = by_way_of(stage, &[]).await?;
    // The world as it will be shown again: all well, nothing lost.
    between
        .remember(&["/cells", "/desiredlrps", "/actuallrps", "/tasks"])
        .await?;
    let since = stage.fault();
    let lost = stage.cell("b");
    stage.site.kill_cell(&lost).await;
    let away = stage.recovered(&before, &["b"], since, RECOVERY).await?;
    stage.tasks_failed(1, 2).await?;
    let moved = stage.running(|cell| cell != lost).await?;

    let tried = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tried);
    between.rule(move |asked| {
        if asked.is_write() {
            counted.fetch_add(1, Ordering::Relaxed);
            return Act::Pass;
        }
        match asked.path.contains("/apis/diego.cloudfoundry.org/") {
            true => Act::Old,
            false => Act::Pass,
        }
    });
    stage.fault();
    between.cut();
    let more = Patch::Merge(json!({ "spec": { "instances": 12 } }));
    let desired = stage.site.desired();
    desired.patch(WEB, &PatchParams::default(), &more).await?;
    stage.want(WEB, Some(12));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let tried = tried.load(Ordering::Relaxed);
    if tried == 0 {
        return Err("nothing was decided on the old lists: the row shows nothing".into());
    }
    for (now, before) in stage.site.instances(WEB).await?.iter().zip(&moved) {
        let (now, before) = (now.status.clone(), before.status.clone());
        if now != before {
            return Err(format!("{before:?} became {now:?}").into());
        }
    }
    let since = stage.fault();
    between.relist();
    tokio::time::sleep(Duration::from_secs(1)).await;
    between.rule(|_| Act::Pass);
    stage.running(|cell| cell != lost).await?;
    let took = (crate::observer::facts::now() - since) as f64 / 1e9;
    stage.keep(between);
    Ok(Figures::away(away).and(format!(
        "{tried} writes were decided on the old lists; all was as desired {took:.1} s after the lists were new again"
    )))
}

async fn each_write(stage: &mut Stage) -> Result<Figures, Failure> {
    // More than any recovery of this size makes.
    const MOST: usize = 40;
    const LEAST: usize = 4;
    let mut away = Vec::new();
    for k in 1..MOST {
        if k > 1 {
            stage.conclude().await?;
            stage.fresh().await?;
        }
        let between = Between::start(stage.site.client.clone()).await?;
        let file = stage
            .site
            .dir()
            .join(format!("{}.yaml", stage.cell("between")));
        let file = between.kubeconfig(file)?;
        let flags = ["--kubeconfig", &file];
        let setup = Setup {
            controller: &flags,
            rep: &["--presence-ttl-seconds", "2"],
            cells: &[("a", "z1"), ("b", "z2")],
            instances: 4,
            tasks: 2,
            ..Setup::default()
        };
        let before = stage.set(setup).await?;
        let pid = stage.site.controller().process.pid();
        let writes = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&writes);
        between.rule(move |asked| {
            if !asked.is_write() {
                return Act::Pass;
            }
            match counted.fetch_add(1, Ordering::SeqCst) + 1 {
                n if n < k => Act::Pass,
                n if n == k => Act::Kill(pid),
                // Whatever was on its way dies with the program.
                _ => Act::Lose,
            }
        });
        let since = stage.fault();
        stage.site.kill_cell(&stage.cell("b")).await;
        let dead = stage.site.controller().process.wait();
        // A recovery writes within a second or two of the loss; later writes are of other things.
        let died = tokio::time::timeout(Duration::from_secs(6), dead)
            .await
            .is_ok();
        between.rule(|_| Act::Pass);
        if died {
            stage
                .site
                .start_controller(&["--kubeconfig", &file])
                .await?;
        }
        away.extend(stage.moved(&before, &["b"], since).await?);
        stage.tasks_failed(1, 1).await?;
        stage.keep(between);
        if !died {
            let killed = k - 1;
            // A verdict, two instances and a Task.
            if killed < LEAST {
                let text = format!("only {killed} writes were seen: the row shows little");
                return Err(text.into());
            }
            return Ok(Figures::away(away).and(format!("killed after each of {killed} writes")));
        }
    }
    Err(format!("the controller still writes after {MOST} writes").into())
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
    let within = RECOVERY.later(3);
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
