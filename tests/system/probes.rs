//! Probes and log limits by way of the real rep: what a record tells of an instance that was stopped by its probe.

use diego_operator::api::{ActualLRPState, TaskState};
use serde_json::json;

use crate::support::{Failure, eventually, objects, site::START, site::Site};

#[tokio::test(flavor = "multi_thread")]
async fn a_liveness_probe_ends_a_running_instance_as_a_crash() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &["--instance-log-size", "4Ki"])
        .await?;
    let dir = site.dir().join("health");
    std::fs::create_dir(&dir)?;
    let healthy = dir.join("healthy");
    std::fs::write(&healthy, "")?;
    let probe = json!({
        "exec": { "command": ["sh", "-c", format!("test -e {} || {{ echo sick; exit 3; }}", healthy.display())] },
        "periodSeconds": 1, "failureThreshold": 2, "timeoutSeconds": 10,
    });
    let container = json!({
        "name": "main", "command": ["sh", "-c", "seq 1 100000; exec sleep 1000"], "livenessProbe": probe,
    });
    site.desire(&objects::lrp(
        "sick",
        1,
        json!({ "containers": [container] }),
    ))
    .await?;
    let running = site.running("sick", 1, |_| true).await?.remove(0);
    let guid = running.status.and_then(|status| status.instance_guid);
    let logs = site
        .rep("a")
        .work_dir
        .join("instances")
        .join(guid.ok_or("no guid")?);
    eventually("the logs are cut at the limit", START, || async {
        let size = |name: &str| Some(std::fs::metadata(logs.join(name)).ok()?.len());
        let both = [size("stdout.log")?, size("stdout.log.1")?];
        let text = std::fs::read_to_string(logs.join("stdout.log")).ok()?;
        (both.iter().all(|size| *size <= 4096) && text.ends_with("\n100000\n")).then_some(())
    })
    .await?;
    std::fs::remove_file(&healthy)?;
    let status = eventually("it has crashed", START, || async {
        let status = site.instances("sick").await.ok()?.pop()?.status?;
        (status.crash_count? >= 3 && status.state == ActualLRPState::Crashed).then_some(status)
    })
    .await?;
    assert_eq!(
        status.crash_reason.as_deref(),
        Some("liveness probe failed: exit status 3: sick")
    );

    let mut task = objects::task("sick", "sleep 1000");
    let container = json!({ "name": "main", "command": ["sleep", "1000"], "livenessProbe": probe });
    task.spec.template = serde_json::from_value(json!({ "spec": { "containers": [container] } }))?;
    site.run_task(&task).await?;
    let status = eventually("the Task has failed", START, || async {
        let status = site.tasks().get("sick").await.ok()?.status?;
        (status.state == TaskState::Completed).then_some(status)
    })
    .await?;
    assert_eq!(
        status.failure_reason.as_deref(),
        Some("liveness probe failed: exit status 3: sick")
    );
    Ok(())
}
