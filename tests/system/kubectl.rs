//! What people see and do with kubectl.

use diego_operator::api::CellState;

use crate::support::{Failure, objects, site::Site};

async fn kubectl(site: &Site, args: &[&str]) -> Result<String, Failure> {
    let output = site.cluster.kubectl(args).await?;
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if !output.status.success() {
        return Err(format!("kubectl {}: {stderr}", args.join(" ")).into());
    }
    Ok(stdout.into_owned())
}

/// The words of the header and of the first row.
fn table(text: &str) -> (Vec<&str>, Vec<&str>) {
    let mut lines = text.lines().map(|line| line.split_whitespace().collect());
    (
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
    )
}

const TASKS: &str = "tasks.diego.cloudfoundry.org";

#[tokio::test(flavor = "multi_thread")]
async fn get_describe_explain_scale_and_wait() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("cell-a", "z1", &[]).await?;
    site.start_rep("cell-b", "z2", &[]).await?;
    site.desire(&objects::servers("web", 2)).await?;
    site.run_task(&objects::task("migrate", "sleep 100000"))
        .await?;
    kubectl(
        &site,
        &[
            "wait",
            "--for=condition=Ready",
            "desiredlrp/web",
            "--timeout=60s",
        ],
    )
    .await?;
    kubectl(
        &site,
        &[
            "wait",
            "--for=jsonpath={.status.state}=Running",
            "actuallrp/web-0",
            "--timeout=60s",
        ],
    )
    .await?;
    kubectl(
        &site,
        &[
            "wait",
            "--for=condition=Ready",
            "cell/cell-a",
            "--timeout=60s",
        ],
    )
    .await?;
    kubectl(
        &site,
        &[
            "wait",
            "--for=jsonpath={.status.state}=Running",
            &format!("{TASKS}/migrate"),
            "--timeout=60s",
        ],
    )
    .await?;

    let text = kubectl(&site, &["get", "cells"]).await?;
    let (header, row) = table(&text);
    assert_eq!(
        header,
        [
            "NAME", "ZONE", "READY", "REASON", "LRPS", "TASKS", "SINCE", "AGE"
        ]
    );
    assert_eq!(row[..4], ["cell-a", "z1", "True", "PresenceHeld"]);
    let text = kubectl(&site, &["get", "desiredlrps"]).await?;
    let (header, row) = table(&text);
    assert_eq!(
        header,
        ["NAME", "INSTANCES", "RUNNING", "READY", "REASON", "AGE"]
    );
    assert_eq!(row[..5], ["web", "2", "2", "True", "AllInstancesRunning"]);
    let text = kubectl(&site, &["get", "actuallrps"]).await?;
    let (header, row) = table(&text);
    assert_eq!(
        header,
        [
            "NAME", "PROCESS", "INDEX", "STATE", "CELL", "CRASHES", "SINCE", "AGE"
        ]
    );
    assert_eq!(row[..4], ["web-0", "web", "0", "Running"]);
    let text = kubectl(&site, &["get", TASKS]).await?;
    let (header, row) = table(&text);
    assert_eq!(
        header,
        ["NAME", "STATE", "SUCCEEDED", "REASON", "CELL", "AGE"]
    );
    assert_eq!(row[..4], ["migrate", "Running", "Unknown", "Running"]);
    for short in ["dcell", "dlrp", "alrp", "dtask"] {
        assert!(
            kubectl(&site, &["get", short]).await?.lines().count() >= 2,
            "{short}"
        );
    }
    let all = kubectl(&site, &["get", "diego"]).await?;
    for word in [
        "cell-a",
        "desiredlrp.diego.cloudfoundry.org/web",
        "web-1",
        "migrate",
    ] {
        assert!(all.contains(word), "{all}");
    }
    let wide = kubectl(&site, &["get", "actuallrps", "-o", "wide"]).await?;
    assert!(
        wide.contains("ADDRESS") && wide.contains("127.0.0.1") && wide.contains("PLACEMENT-ERROR"),
        "{wide}"
    );

    let cell = kubectl(
        &site,
        &["get", "alrp", "web-0", "-o", "jsonpath={.status.cellName}"],
    )
    .await?;
    let here = kubectl(
        &site,
        &[
            "get",
            "alrp",
            "--field-selector",
            &format!("status.cellName={cell}"),
            "-o",
            "name",
        ],
    )
    .await?;
    assert!(here.contains("web-0"), "{here}");
    let running = kubectl(
        &site,
        &[
            "get",
            "alrp",
            "--field-selector",
            "status.state=Running",
            "-o",
            "name",
        ],
    )
    .await?;
    assert_eq!(running.lines().count(), 2);

    let described = kubectl(&site, &["describe", "cell", "cell-a"]).await?;
    for word in [
        "CellPresenceAcquired",
        "The presence is held.",
        "Incarnation",
        "Zone:",
    ] {
        assert!(described.contains(word), "{described}");
    }
    for kind in ["cells", "desiredlrps", "actuallrps", TASKS] {
        for part in ["", ".spec", ".status"] {
            let text = kubectl(&site, &["explain", &format!("{kind}{part}")]).await?;
            assert!(
                !text.contains("<no description>") && !text.contains("<empty>"),
                "{kind}{part}: {text}"
            );
        }
    }

    kubectl(&site, &["scale", "desiredlrp/web", "--replicas=4"]).await?;
    site.running("web", 4, |_| true).await?;
    kubectl(&site, &["scale", "desiredlrp/web", "--replicas=1"]).await?;
    site.running("web", 1, |_| true).await?;
    let selector = kubectl(
        &site,
        &["get", "dlrp", "web", "-o", "jsonpath={.status.selector}"],
    )
    .await?;
    let selected = kubectl(&site, &["get", "alrp", "-l", &selector, "-o", "name"]).await?;
    assert_eq!(selected.trim(), "actuallrp.diego.cloudfoundry.org/web-0");

    // Cordoned: what runs there stays, new work goes elsewhere.
    kubectl(
        &site,
        &[
            "patch",
            "cell",
            "cell-a",
            "--type=merge",
            "-p",
            r#"{"spec":{"unschedulable":true}}"#,
        ],
    )
    .await?;
    let reason = "jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}";
    kubectl(
        &site,
        &[
            "wait",
            &format!("--for={reason}=Unschedulable"),
            "cell/cell-a",
            "--timeout=60s",
        ],
    )
    .await?;
    site.desire(&objects::sleepers("api", 3)).await?;
    site.running("api", 3, |cell| cell == "cell-b").await?;

    site.kill_cell("cell-b").await;
    kubectl(
        &site,
        &[
            "wait",
            "--for=condition=Ready=False",
            "cell/cell-b",
            "--timeout=60s",
        ],
    )
    .await?;
    site.cell_state("cell-b", CellState::Missing).await?;
    Ok(())
}
