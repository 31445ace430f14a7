//! A real API server takes every variant, and kubeconform finds each one well-formed by that server's own schemas.

use std::path::Path;
use std::process::Command;

use local_cluster::{LocalCluster, Options};

use crate::helm::{Failure, NAMESPACE, parse, render, root, run, said, variants};
use crate::schemas;

/// kubectl as the administrator, which must succeed.
pub async fn kubectl(cluster: &LocalCluster, args: &[&str]) -> Result<String, Failure> {
    let output = cluster.kubectl(args).await?;
    if output.status.success() {
        Ok(said(&output))
    } else {
        Err(format!("kubectl {}: {}", args.join(" "), said(&output)).into())
    }
}

/// Applies YAML for real.
pub async fn apply(cluster: &LocalCluster, yaml: &str) -> Result<String, Failure> {
    let file = cluster.dir().join("applied.yaml");
    std::fs::write(&file, yaml)?;
    kubectl(
        cluster,
        &["apply", "--server-side", "-f", &file.display().to_string()],
    )
    .await
}

/// A cluster with our CRDs and those of prometheus-operator, and the release's namespace, which warns of what is not restricted.
async fn cluster() -> Result<LocalCluster, Failure> {
    let cluster = LocalCluster::start(Options::default()).await?;
    let monitoring = local_cluster::binary("kubeconform")?.with_file_name("monitoring-crds");
    for crds in [root().join("crds"), monitoring] {
        kubectl(
            &cluster,
            &["apply", "--server-side", "-f", &crds.display().to_string()],
        )
        .await?;
    }
    kubectl(
        &cluster,
        &[
            "wait",
            "--for=condition=Established",
            "crd",
            "--all",
            "--timeout=60s",
        ],
    )
    .await?;
    kubectl(&cluster, &["create", "namespace", NAMESPACE]).await?;
    let label = "pod-security.kubernetes.io/warn=restricted";
    kubectl(&cluster, &["label", "namespace", NAMESPACE, label]).await?;
    Ok(cluster)
}

/// A cluster to which this rendered chart is applied.
pub async fn with_chart(chart: &str) -> Result<LocalCluster, Failure> {
    let cluster = LocalCluster::start(Options::default()).await?;
    kubectl(&cluster, &["create", "namespace", NAMESPACE]).await?;
    let (crds, rest): (Vec<&str>, Vec<&str>) = chart
        .split("\n---\n")
        .partition(|document| document.contains("\nkind: CustomResourceDefinition\n"));
    apply(&cluster, &crds.join("\n---\n")).await?;
    let established = [
        "wait",
        "--for=condition=Established",
        "crd",
        "--all",
        "--timeout=60s",
    ];
    kubectl(&cluster, &established).await?;
    apply(&cluster, &rest.join("\n---\n")).await?;
    Ok(cluster)
}

/// A token of one of the chart's accounts.
pub async fn token(
    cluster: &LocalCluster,
    account: &str,
    more: &[&str],
) -> Result<String, Failure> {
    let mut args = vec!["create", "token", account, "-n", NAMESPACE];
    args.extend(more);
    Ok(kubectl(cluster, &args).await?.trim().to_owned())
}

/// Only these ask for what is not restricted.
fn asks_for_more(values: &Path) -> bool {
    ["minimal", "everything", "fencing"]
        .iter()
        .any(|name| values.ends_with(format!("{name}-values.yaml")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_api_server_takes_every_variant() -> Result<(), Failure> {
    let cluster = cluster().await?;
    for values in variants() {
        let yaml = render(&values)?;
        // A Pod is admitted only where its ServiceAccount is, and a dry run makes none.
        let accounts = parse(&yaml)?
            .into_iter()
            .filter(|it| it["kind"] == "ServiceAccount");
        for account in accounts {
            apply(&cluster, &account.to_string()).await?;
        }
        let file = cluster.dir().join("variant.yaml");
        std::fs::write(&file, &yaml)?;
        let file = file.display().to_string();
        // The CRDs are this test's own by now, and other fields of theirs than the chart's.
        let dry_run = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            &file,
        ];
        let said = kubectl(&cluster, &dry_run).await?;
        assert!(
            asks_for_more(&values) || !said.contains("Warning"),
            "{}: {said}",
            values.display()
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kubeconform_finds_every_variant_well_formed() -> Result<(), Failure> {
    let cluster = cluster().await?;
    let scratch = tempfile::tempdir()?;
    schemas::write(&cluster, scratch.path()).await?;
    let location = scratch.path().join(schemas::LOCATION);
    let kubeconform = |file: &Path| -> Result<String, Failure> {
        let mut command = Command::new(local_cluster::binary("kubeconform")?);
        command.args(["-strict", "-summary", "-schema-location"]);
        run(command.arg(&location).arg(file))
    };
    let file = scratch.path().join("variant.yaml");
    for values in variants() {
        let yaml = render(&values)?;
        std::fs::write(&file, &yaml)?;
        let said = kubeconform(&file)?;
        let count = parse(&yaml)?.len();
        let all = format!("Valid: {count}, Invalid: 0, Errors: 0, Skipped: 0");
        assert!(said.contains(&all), "{}: {said}", values.display());
    }
    // It would have seen what is wrong, deep in the objects too.
    let good = render(&variants()[0])?;
    for (right, wrong) in [
        ("enableServiceLinks:", "enableServiceLink:"),
        ("failurePolicy: Fail", "failurePolicies: Fail"),
        ("runAsUser: 65532", "runAsUser: nobody"),
    ] {
        assert!(good.contains(right), "{right}");
        std::fs::write(&file, good.replace(right, wrong))?;
        let error = kubeconform(&file).expect_err(wrong).to_string();
        let key = wrong.split(':').next().unwrap_or_default();
        assert!(error.contains(key), "{error}");
    }
    Ok(())
}
