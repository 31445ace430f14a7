//! Pods that a kubelet does not admit.

use super::{ALLOWING, SYSCTL, Told, event, field, task_is};
use crate::{
    installed::{Installed, SOON},
    look::DESIRED,
    support::Failure,
};
use serde_json::json;
use std::time::{Duration, Instant};

/// A node whose kubelet refuses the sysctl.
const REFUSING: &str = "node-1";
/// What a kubelet says that does.
const REFUSAL: &str =
    r#"SysctlForbidden: Pod was rejected: forbidden sysctl: "net.core.somaxconn" not allowlisted"#;

/// Two instances that the auction may place anywhere, one that may run only where it is refused, and two Tasks.
pub async fn apply(site: &Installed) -> Result<(), Failure> {
    let anywhere = json!({});
    let only = |node: &str| json!({ "kubernetes.io/hostname": node });
    for (name, instances, nodes) in [("tuned", 2, &anywhere), ("stubborn", 1, &only(REFUSING))] {
        let template = template(
            nodes,
            &json!({ "readinessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 }}),
        );
        let lrp = json!({
            "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "DesiredLRP", "metadata": { "name": name },
            "spec": { "instances": instances, "template": template },
        });
        site.apply(&lrp.to_string()).await?;
    }
    let command = json!([
        "sh",
        "-c",
        "cat /proc/sys/net/core/somaxconn >/dev/termination-log"
    ]);
    for (name, node) in [("refused", REFUSING), ("taken", ALLOWING)] {
        let template = template(&only(node), &json!({ "command": command }));
        let task = json!({
            "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "Task", "metadata": { "name": name },
            "spec": { "ttlSecondsAfterFinished": 3600, "template": template },
        });
        site.apply(&task.to_string()).await?;
    }
    Ok(())
}

fn template(nodes: &serde_json::Value, container: &serde_json::Value) -> serde_json::Value {
    let mut container = container.clone();
    container["name"] = json!("main");
    container["image"] = json!("test-app:dev");
    json!({ "spec": {
        "terminationGracePeriodSeconds": 1,
        "nodeSelector": nodes,
        "securityContext": { "sysctls": [{ "name": SYSCTL, "value": "512" }] },
        "containers": [container],
    }})
}

pub async fn instances_end_on_the_node_that_takes_them(
    site: &Installed,
    told: &Told,
) -> Result<(), Failure> {
    let slots = site
        .running("tuned", 2, |slot| slot.cell == ALLOWING)
        .await?;
    for slot in &slots {
        let record = site.json(&format!("get actuallrp {}", slot.name)).await?;
        for empty in [
            "/status/rejectedBy",
            "/status/placementError",
            "/status/crashReason",
        ] {
            assert!(field(&record, empty).is_null(), "{empty} of {record:#}");
        }
        // Refused once by each of the others at most.
        let made = told.made(&slot.name);
        assert!(made.len() <= 3, "{made:?}");
    }
    // The two are placed in two zones, of which two refuse.
    let refused = slots.iter().find(|slot| told.made(&slot.name).len() > 1);
    let refused = refused.ok_or("none was refused")?;
    let first = told.of(&refused.name);
    let first = first.first().ok_or("no Pod")?;
    let cell = first.whole.split('|').nth(1).unwrap_or_default();
    told.given_back(&refused.name, cell, REFUSAL)?;
    let note = format!("On Cell {cell}: {REFUSAL}");
    event(site, "ActualLRP", &refused.name, "ActualLRPRejected", &note).await?;
    let pods = site.pods(&format!("{DESIRED}=tuned")).await?;
    let pod = &pods.first().ok_or("no Pod")?.name;
    let ask = format!("exec {pod} -- cat /proc/sys/net/core/somaxconn");
    assert_eq!(site.kubectl(&ask).await?, "512");
    Ok(())
}

/// docs/decisions/0012-refused-tasks.md.
pub async fn a_task_has_failed_and_ran_nowhere(
    site: &Installed,
    told: &Told,
) -> Result<(), Failure> {
    task_is(site, "taken", &format!("Completed|{ALLOWING}|")).await?;
    task_is(site, "refused", &format!("Completed|{REFUSING}|{REFUSAL}")).await?;
    let task = site.json("get task refused").await?;
    assert_eq!(*field(&task, "/status/failed"), json!(true));
    assert!(field(&task, "/status/rejectionCount").is_null(), "{task:#}");
    assert_eq!(told.made("refused").len(), 1);
    let note = format!("On Cell {REFUSING}: {REFUSAL}");
    event(site, "Task", "refused", "TaskRejected", &note).await?;
    let result = site
        .kubectl("get task taken -o jsonpath={.status.result}")
        .await?;
    assert_eq!(result, "512");
    Ok(())
}

pub async fn what_nobody_takes_is_tried_ever_more_rarely(
    site: &Installed,
    told: &Told,
    since: Instant,
) -> Result<(), Failure> {
    let waiting = r"get actuallrp stubborn-0 -o jsonpath={.status.state}|{.status.rejectedBy}|{.status.placementError}";
    let wanted = format!(r#"Unclaimed|["{REFUSING}"]|{REFUSAL}"#);
    site.until(waiting, SOON, |now| now == wanted).await?;
    let tries = told.made("stubborn-0").len();
    let most = most_tries(since.elapsed());
    assert!((4..=most).contains(&tries), "{tries} tries, at most {most}");
    told.given_back("stubborn-0", REFUSING, REFUSAL)?;
    // The one that was refused is gone before the next one comes.
    site.kubectl("delete desiredlrp stubborn").await?;
    let left = format!("get pods -l {DESIRED}=stubborn -o name");
    site.until(&left, SOON, str::is_empty).await.map(drop)
}

/// With pauses of 1 s, 2 s, 4 s and so on up to 30 s.
fn most_tries(within: Duration) -> usize {
    let mut at = Duration::ZERO;
    let mut tries = 0;
    while at <= within {
        at += Duration::from_secs(1 << tries.min(5)).min(Duration::from_secs(30));
        tries += 1;
    }
    tries
}
