//! The controller knows less than was done: answers are lost, lists are old, or it has died in the middle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use diego_operator::api::ActualLRP;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::api::{by_way_of, file};
use crate::between::{Act, Between};
use crate::observer::facts::{Fact, Nanos, now};
use crate::row::Figures;
use crate::stage::{RECOVERY, Setup, Stage, WEB};
use crate::support::Failure;

/// Answers to its writes are lost.
pub async fn unanswered(stage: &mut Stage) -> Result<Figures, Failure> {
    let (between, before) = by_way_of(stage, &[]).await?;
    let lost = Arc::new(AtomicUsize::new(0));
    let writes = AtomicUsize::new(0);
    let counted = Arc::clone(&lost);
    between.rule(move |asked| {
        // The watches come back too late to tell what became of it.
        if asked.is_watch() {
            return Act::Delay(Duration::from_secs(1));
        }
        if !asked.is_write() || writes.fetch_add(1, Ordering::Relaxed) % 2 == 1 {
            return Act::Pass;
        }
        counted.fetch_add(1, Ordering::Relaxed);
        Act::LoseAnswer
    });
    let since = stage.fault();
    stage.site.kill_cell(&stage.cell("b")).await;
    let away = stage.recovered(&before, &["b"], since, RECOVERY).await?;
    stage.tasks_failed(1, 2).await?;
    done_once(stage, since)?;
    let lost = lost.load(Ordering::Relaxed);
    if lost == 0 {
        return Err("no answer was lost: the row shows nothing".into());
    }
    between.rule(|_| Act::Pass);
    stage.keep(between);
    Ok(Figures::away(away).and(format!("{lost} answers were lost")))
}

/// Looks that since then no instance was given more than one new run, not even one that never began.
fn done_once(stage: &Stage, since: Nanos) -> Result<(), Failure> {
    let mut given: BTreeMap<(String, i32), (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
    for entry in stage.observer().log.entries() {
        let Fact::Lrp(lrp) = entry.fact else { continue };
        let (before, after) = given.entry((lrp.process, lrp.index)).or_default();
        let seen = if entry.at < since { before } else { after };
        seen.extend(lrp.guid);
    }
    for (slot, (before, after)) in given {
        let fresh: Vec<&String> = after.difference(&before).collect();
        if fresh.len() > 1 {
            return Err(format!("{slot:?} was placed more than once: {fresh:?}").into());
        }
    }
    Ok(())
}

/// What the lists of our kinds end with.
const LISTS: [&str; 4] = ["/cells", "/desiredlrps", "/actuallrps", "/tasks"];

/// It is shown the lists of before.
pub async fn old_lists(stage: &mut Stage) -> Result<Figures, Failure> {
    let (between, before) = by_way_of(stage, &[]).await?;
    // The world as it will be shown again: all well, nothing lost.
    between.remember(&LISTS).await?;
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
        // A single object is read from the store itself, never from a cache of the API server.
        match LISTS.iter().any(|kind| asked.resource().ends_with(kind)) {
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
    tokio::time::sleep(Duration::from_secs(5)).await;
    unchanged(stage, &moved).await?;
    // One that knew better does not believe them. One that begins with them knows nothing else, and after a TTL it finds
    // once more that the Cell is lost.
    stage.fault();
    stage.site.kill_controller().await;
    let known = tried.load(Ordering::Relaxed);
    let flags = ["--kubeconfig", &file(stage)];
    stage.site.start_controller(&flags).await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let tried = tried.load(Ordering::Relaxed);
    if tried == known {
        return Err("nothing was decided on the old lists: the row shows nothing".into());
    }
    unchanged(stage, &moved).await?;
    let since = stage.fault();
    between.relist();
    tokio::time::sleep(Duration::from_secs(1)).await;
    between.rule(|_| Act::Pass);
    stage.running(|cell| cell != lost).await?;
    let took = (now() - since) as f64 / 1e9;
    stage.keep(between);
    Ok(Figures::away(away).and(format!(
        "{tried} writes were decided on the old lists; all was as desired {took:.1} s after the lists were new again"
    )))
}

/// Looks that no instance is another than before, or elsewhere, or in another state.
async fn unchanged(stage: &Stage, before: &[ActualLRP]) -> Result<(), Failure> {
    for (now, before) in stage.site.instances(WEB).await?.iter().zip(before) {
        let (now, before) = (now.status.clone(), before.status.clone());
        if now != before {
            return Err(format!("{before:?} became {now:?}").into());
        }
    }
    Ok(())
}

/// It dies after each of its writes.
pub async fn each_write(stage: &mut Stage) -> Result<Figures, Failure> {
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
        let file = between.kubeconfig(file(stage).into())?;
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
        let lost = stage.cell("b");
        let verdict = format!("/cells/{lost}/status");
        let (is_judged, is_early) = (AtomicBool::new(false), Arc::new(AtomicBool::new(false)));
        let early = Arc::clone(&is_early);
        between.rule(move |asked| {
            if !asked.is_write() {
                return Act::Pass;
            }
            let path = asked.resource();
            if path.ends_with(&verdict) {
                is_judged.store(true, Ordering::SeqCst);
            } else if (path.contains("/actuallrps/") || path.contains("/tasks/"))
                && !is_judged.load(Ordering::SeqCst)
            {
                early.store(true, Ordering::SeqCst);
            }
            match counted.fetch_add(1, Ordering::SeqCst) + 1 {
                n if n < k => Act::Pass,
                n if n == k => Act::Kill(pid),
                // Whatever was on its way dies with the program.
                _ => Act::Lose,
            }
        });
        let since = stage.fault();
        stage.site.kill_cell(&lost).await;
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
        done_once(stage, since)?;
        // Whoever leads next knows by the verdict alone that the rest is to be moved, too.
        if is_early.load(Ordering::SeqCst) {
            return Err("the work of the Cell was touched before the verdict on it".into());
        }
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
