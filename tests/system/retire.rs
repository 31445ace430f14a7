//! Deleting records by hand: an instance is retired, a Task makes room for another of its name.

use std::path::Path;

use diego_operator::api::{ActualLRPState, TaskState};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::support::{Failure, eventually, objects, site::START, site::Site, tree};

/// The processes that were started with this line as their last argument of `sh -c`.
fn pids(site: &Site, cell: &str, marker: &str) -> Vec<u32> {
    let all = tree::descendants(site.rep(cell).process.pid());
    let has = |pid: &u32| {
        let line = std::fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline"));
        String::from_utf8_lossy(&line.unwrap_or_default()).contains(marker)
    };
    all.into_iter().filter(has).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_actual_lrp_stops_and_a_fresh_one_is_started() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &[]).await?;
    site.desire(&objects::sleepers("web", 2)).await?;
    let before = site.running("web", 2, |_| true).await?;
    let processes = pids(&site, "a", "100000");

    site.actual()
        .delete("web-0", &DeleteParams::default())
        .await?;
    let fresh = eventually("web-0 runs as a fresh instance", START, || async {
        let lrp = site.actual().get_opt("web-0").await.ok()??;
        let running = lrp.status.as_ref()?.state == ActualLRPState::Running;
        (running && lrp.uid() != before[0].uid()).then_some(lrp)
    })
    .await?;
    let guid = |lrp: &diego_operator::api::ActualLRP| {
        let status = lrp.status.clone().unwrap_or_default();
        status.instance_guid
    };
    assert_ne!(guid(&fresh), guid(&before[0]), "{}", site.picture().await);
    assert_eq!(
        fresh.status.as_ref().and_then(|status| status.crash_count),
        None,
        "that is no crash"
    );
    eventually("its old process has ended", START, || async {
        let living = processes.iter().filter(|pid| tree::is_alive(**pid)).count();
        // Two instances, each below its supervisor: web-0's pair is gone, web-1's stays.
        (living == processes.len() / 2).then_some(())
    })
    .await?;
    let after = site.running("web", 2, |_| true).await?;
    assert_eq!(
        after[1].metadata.resource_version, before[1].metadata.resource_version,
        "web-1 was not touched"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_cancelled_and_created_again_before_its_process_is_gone() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &[]).await?;
    let gate = site.dir().join("gate");
    // It ignores SIGTERM, so it is there until its grace period is over, or until the gate opens.
    let started = site.dir().join("started");
    let stubborn = format!(
        "trap '' TERM; echo old > out; touch {}; while [ ! -e {} ]; do sleep 0.05; done",
        started.display(),
        gate.display()
    );
    let mut old = objects::task("job", &stubborn);
    old.spec.template = template(&stubborn);
    site.run_task(&old).await?;
    eventually("the first job runs and ignores SIGTERM", START, || async {
        started.exists().then_some(())
    })
    .await?;
    let processes = pids(&site, "a", "trap");
    assert!(!processes.is_empty());

    let cancel = Patch::Merge(json!({ "spec": { "cancelled": true } }));
    site.tasks()
        .patch("job", &PatchParams::default(), &cancel)
        .await?;
    site.tasks().delete("job", &DeleteParams::default()).await?;
    let runs = site.dir().join("runs");
    let mut new = objects::task("job", "");
    new.spec.template = template(&format!("echo run >> {}; echo new > out", runs.display()));
    new.spec.result_file = Some("out".into());
    site.run_task(&new).await?;
    let done = eventually("the second job has completed", START, || async {
        let task = site.tasks().get("job").await.ok()?;
        (task.status.as_ref()?.state == TaskState::Completed).then_some(task)
    })
    .await?;
    let status = done.status.unwrap_or_default();
    assert_eq!(
        (status.failed, status.result.as_deref()),
        (Some(false), Some("new\n"))
    );
    assert!(
        processes.iter().any(|pid| tree::is_alive(*pid)),
        "the first job's process was to be there all the while"
    );
    std::fs::write(&gate, "")?;
    eventually("the first job's processes have ended", START, || async {
        (!processes.iter().any(|pid| tree::is_alive(*pid))).then_some(())
    })
    .await?;
    assert_eq!(
        std::fs::read_to_string(&runs)?,
        "run\n",
        "the second job ran once"
    );
    let again = site.tasks().get("job").await?.status.unwrap_or_default();
    assert_eq!(
        (again.failed, again.result.as_deref()),
        (Some(false), Some("new\n"))
    );
    Ok(())
}

/// A grace period longer than the test.
fn template(script: &str) -> diego_operator::api::RawTemplate {
    let spec = json!({
        "terminationGracePeriodSeconds": 300,
        "containers": [{ "name": "main", "command": ["sh", "-c", script] }],
    });
    serde_json::from_value(json!({ "spec": spec })).expect("a template")
}
