//! A tenant with the chart's part of the role `edit` writes what is his to write, and nothing that controller and reps write.

use local_cluster::LocalCluster;

use crate::api_server::{kubectl, with_chart};
use crate::helm::{Failure, said, template};

/// Somebody who has the role `edit` in the namespace `default`, and nothing else.
const TENANT: &str = "--as=tenant";

const WEB: &str = r#"{"apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "DesiredLRP", "metadata": {"name": "web", "namespace": "default"},
  "spec": {"instances": 1, "template": {"spec": {"containers": [{"name": "web", "image": "example.com/web"}]}}}}"#;

const JOB: &str = r#"{"apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "Task", "metadata": {"name": "job", "namespace": "default"},
  "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "job", "image": "example.com/job"}]}}}}"#;

const INSTANCE: &str = r#"{"apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "ActualLRP", "metadata": {"name": "web-0", "namespace": "default"},
  "spec": {"desiredLRPName": "web", "index": 0}}"#;

const CELL: &str = r#"{"apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "Cell", "metadata": {"name": "cell"},
  "spec": {"zone": "z1", "executor": "Process", "capacity": {"memory": "1Gi", "disk": "1Gi", "containers": 1}}}"#;

fn file(cluster: &LocalCluster, name: &str, text: &str) -> Result<String, Failure> {
    let file = cluster.dir().join(name);
    std::fs::write(&file, text)?;
    Ok(file.display().to_string())
}

/// The API server refuses this for want of a right, and for no other reason.
async fn is_forbidden(cluster: &LocalCluster, args: &[&str]) -> Result<(), Failure> {
    let output = cluster.kubectl(args).await?;
    let text = said(&output);
    assert!(
        !output.status.success() && text.contains("(Forbidden)"),
        "kubectl {}: {text}",
        args.join(" ")
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_writes_his_own_records_and_no_others() -> Result<(), Failure> {
    let cluster = with_chart(&template(&[])?).await?;
    let bind = [
        "create",
        "rolebinding",
        "tenant",
        "-n",
        "default",
        "--clusterrole=edit",
        "--user=tenant",
    ];
    kubectl(&cluster, &bind).await?;
    // The controller manager fills `edit` a moment after the chart's part of it is there.
    let rights = "jsonpath={.rules[*].resources}";
    let began = std::time::Instant::now();
    while !kubectl(&cluster, &["get", "clusterrole", "edit", "-o", rights])
        .await?
        .contains("desiredlrps")
    {
        assert!(began.elapsed().as_secs() < 60, "`edit` was not filled");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }

    // His own: desired, changed, scaled.
    for (name, text) in [("web.json", WEB), ("job.json", JOB)] {
        let file = file(&cluster, name, text)?;
        kubectl(&cluster, &["create", TENANT, "-f", &file]).await?;
    }
    let scale = ["scale", TENANT, "desiredlrp/web", "--replicas=2"];
    kubectl(&cluster, &scale).await?;

    // What controller and reps write, made here by the administrator.
    for (name, text) in [("instance.json", INSTANCE), ("cell.json", CELL)] {
        let file = file(&cluster, name, text)?;
        is_forbidden(&cluster, &["create", TENANT, "-f", &file]).await?;
        kubectl(&cluster, &["create", "-f", &file]).await?;
    }
    let label = r#"{"metadata": {"labels": {"a": "b"}}}"#;
    let status = r#"{"status": {}}"#;
    for object in ["desiredlrp/web", "task/job", "actuallrp/web-0", "cell/cell"] {
        let status = ["--subresource=status", "--type=merge", "-p", status];
        let args = [&["patch", TENANT, object], &status[..]].concat();
        is_forbidden(&cluster, &args).await?;
    }
    for object in ["actuallrp/web-0", "cell/cell"] {
        is_forbidden(
            &cluster,
            &["patch", TENANT, object, "--type=merge", "-p", label],
        )
        .await?;
    }
    is_forbidden(&cluster, &["delete", TENANT, "cell/cell"]).await?;
    // In another namespace he has no rights at all.
    let elsewhere = ["delete", TENANT, "tasks", "--all", "-n", "kube-system"];
    is_forbidden(&cluster, &elsewhere).await?;
    // He may retire an instance, and take back what he desired.
    for object in ["actuallrp/web-0", "desiredlrp/web", "task/job"] {
        kubectl(&cluster, &["delete", TENANT, object, "--wait=false"]).await?;
    }
    Ok(())
}
