//! Machines on which something takes all there is.

use std::time::Duration;

use diego_operator::api::TaskState;
use kube::api::{Patch, PatchParams};
use local_cluster::ServerProcess;
use serde_json::json;

use super::looks::none_ended;
use crate::cgroup::{Cgroup, Limited};
use crate::row::{Figures, Protection, Row, Tried};
use crate::stage::{Setup, Stage, THREE};
use crate::support::{Failure, eventually, objects, site::START};

pub fn rows() -> Vec<Row> {
    vec![Row {
        number: 7,
        fault: "somebody takes all CPU time, memory or processes",
        promise: "no presence is lost, nothing is moved; of what runs, only the one that takes it ends",
        tried: Tried::Here {
            injected: "four busy loops per core for 15 s (the long one: `make bench-false-alarms`); all Cells in one control group, in which a Task takes memory until the kernel kills it, and in another, in which a Task starts processes for 12 s until there are no more",
            protection: Protection::NotOurs {
                by: "Linux gives a thread that wakes up its share of the CPU time soon, kills the process with the most memory, and takes nothing from processes that are there",
                said: "It passes with one renewal per 0.98 TTL as well, also when each loop has three times anybody else's share; `make bench-false-alarms` is the longer test",
            },
            short: false,
            run: |stage| Box::pin(pressed(stage)),
        },
    }]
}

fn setup<'a>() -> Setup<'a> {
    Setup {
        cells: &THREE,
        instances: 9,
        tasks: 3,
        ..Setup::default()
    }
}

async fn pressed(stage: &mut Stage) -> Result<Figures, Failure> {
    busy(stage).await?;
    stage.conclude().await?;
    stage.fresh().await?;
    let memory = full(stage, Limited::Memory).await?;
    stage.conclude().await?;
    stage.fresh().await?;
    memory.remove().await?;
    let pids = full(stage, Limited::Pids).await?;
    let refused = pids.struck()?;
    stage.conclude().await?;
    stage.fresh().await?;
    pids.remove().await?;
    Ok(Figures::note(format!(
        "the kernel killed the Task that took the memory, and refused {refused} processes to the other"
    )))
}

async fn busy(stage: &mut Stage) -> Result<(), Failure> {
    let before = stage.set(setup()).await?;
    let cores = std::thread::available_parallelism()?.get();
    stage.fault();
    let dir = stage.site.dir();
    let loops: Vec<ServerProcess> = (0..4 * cores)
        .map(|n| {
            let args = ["-c".to_owned(), "while :; do :; done".to_owned()];
            let log = dir.join("busy.log");
            ServerProcess::start(&format!("busy-{n}"), "/bin/sh".as_ref(), &args, &[], &log)
        })
        .collect::<Result<_, _>>()?;
    tokio::time::sleep(Duration::from_secs(15)).await;
    drop(loops);
    none_ended(stage).await?;
    stage.unmoved(&before).await
}

/// More than the Cells use; less than the Task takes.
const MEMORY: u64 = 128 << 20;

/// So many more processes and threads than the Cells have.
const PIDS: u64 = 40;

/// All Cells are in one group, and one Task takes what is left of it.
async fn full(stage: &mut Stage, limited: Limited) -> Result<Cgroup, Failure> {
    let group = Cgroup::new(limited)?;
    stage.site.start_controller(&[]).await?;
    stage.site.through = group.through();
    let setup = Setup {
        without_controller: true,
        ..setup()
    };
    let before = stage.set(setup).await;
    stage.site.through.clear();
    let before = before?;
    let (script, more) = match limited {
        Limited::Memory => ("x=0123456789; while :; do x=$x$x; done", MEMORY),
        // A shell ends when it can't start another: the first one goes on.
        Limited::Pids => (
            "while :; do (while :; do sleep 1000 & done); done 2> /dev/null",
            PIDS,
        ),
    };
    stage.fault();
    group.limit(group.used()? + more)?;
    stage
        .site
        .run_task(&objects::task("greedy", script))
        .await?;
    eventually("the limit is reached", START, || async {
        (group.struck().ok()? > 0).then_some(())
    })
    .await?;
    if limited == Limited::Pids {
        tokio::time::sleep(Duration::from_secs(12)).await;
        // Nothing of it would ever end by itself.
        let cancel = Patch::Merge(json!({ "spec": { "cancelled": true } }));
        let tasks = stage.site.tasks();
        tasks
            .patch("greedy", &PatchParams::default(), &cancel)
            .await?;
    }
    eventually("the Task has failed", START, || async {
        let status = stage.site.tasks().get("greedy").await.ok()?.status?;
        (status.state == TaskState::Completed && status.failed == Some(true)).then_some(())
    })
    .await?;
    none_ended(stage).await?;
    stage.unmoved(&before).await?;
    // It was the only one that ended.
    stage.tasks_failed(1, 3).await?;
    Ok(group)
}
