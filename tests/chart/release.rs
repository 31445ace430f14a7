//! The real helm against a real API server: install, upgrade, roll back, uninstall; and a second installation is refused.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use local_cluster::{LocalCluster, Options};

use crate::api_server::{apply, kubectl};
use crate::helm::{Failure, NAMESPACE, chart, said};

const CRDS: [&str; 4] = [
    "cells.diego.cloudfoundry.org",
    "desiredlrps.diego.cloudfoundry.org",
    "actuallrps.diego.cloudfoundry.org",
    "tasks.diego.cloudfoundry.org",
];

const WEB: &str = r#"{"apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "DesiredLRP", "metadata": {"name": "web", "namespace": "default"},
  "spec": {"instances": 3, "template": {"spec": {"containers": [{"name": "web", "image": "example.com/web"}]}}}}"#;

async fn helm(cluster: &LocalCluster, args: &[&str]) -> Result<String, Failure> {
    let output = cluster.helm(args).await?;
    if output.status.success() {
        Ok(said(&output))
    } else {
        Err(format!("helm {}: {}", args.join(" "), said(&output)).into())
    }
}

/// The chart's next version, whose Cell has one more column.
fn next_version(dir: &Path) -> Result<PathBuf, Failure> {
    let next = dir.join("next");
    let mut copy = std::process::Command::new("cp");
    assert!(copy.arg("-r").arg(chart()).arg(&next).status()?.success());
    let edit = |file: &str, from: &str, to: &str| -> Result<(), Failure> {
        let path = next.join(file);
        let text = std::fs::read_to_string(&path)?;
        assert!(text.contains(from), "{file} has no {from}");
        Ok(std::fs::write(&path, text.replacen(from, to, 1))?)
    };
    edit("Chart.yaml", "version: 0.1.0", "version: 0.1.1")?;
    edit(
        "templates/crds/diego.cloudfoundry.org_cells.yaml",
        "  - additionalPrinterColumns:\n",
        "  - additionalPrinterColumns:\n    - jsonPath: .spec.nodeName\n      name: FromNextVersion\n      type: string\n",
    )?;
    Ok(next)
}

async fn has_new_column(cluster: &LocalCluster) -> Result<bool, Failure> {
    let crd = kubectl(cluster, &["get", "crd", CRDS[0], "-o", "yaml"]).await?;
    Ok(crd.contains("FromNextVersion"))
}

/// The user's object is there, the same as ever.
async fn web(cluster: &LocalCluster) -> Result<String, Failure> {
    let get = [
        "get",
        CRDS[1],
        "web",
        "-o",
        "jsonpath={.metadata.uid} {.spec.instances}",
    ];
    let shown = kubectl(cluster, &get).await?;
    assert!(shown.ends_with(" 3"), "{shown}");
    Ok(shown)
}

#[tokio::test(flavor = "multi_thread")]
async fn users_objects_outlive_upgrade_rollback_and_uninstall() -> Result<(), Failure> {
    let cluster = LocalCluster::start(Options::default()).await?;
    let scratch = tempfile::tempdir()?;
    let (chart, next) = (
        chart().display().to_string(),
        next_version(scratch.path())?.display().to_string(),
    );

    let notes = helm(
        &cluster,
        &[
            "install",
            "diego",
            &chart,
            "-n",
            NAMESPACE,
            "--create-namespace",
        ],
    )
    .await?;
    for command in [
        "kubectl get cells.diego.cloudfoundry.org",
        "helm test diego --namespace diego-system",
        "kind: DesiredLRP",
    ] {
        assert!(notes.contains(command), "{notes}");
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
    apply(&cluster, WEB).await?;
    let before = web(&cluster).await?;

    assert!(!has_new_column(&cluster).await?);
    helm(&cluster, &["upgrade", "diego", &next, "-n", NAMESPACE]).await?;
    assert!(
        has_new_column(&cluster).await?,
        "the upgrade left the CRD as it was"
    );
    assert_eq!(web(&cluster).await?, before);

    helm(&cluster, &["rollback", "diego", "1", "-n", NAMESPACE]).await?;
    assert!(
        !has_new_column(&cluster).await?,
        "the rollback left the CRD as it was"
    );
    assert_eq!(web(&cluster).await?, before);

    let said = helm(&cluster, &["uninstall", "diego", "-n", NAMESPACE]).await?;
    assert!(
        CRDS.iter().all(|crd| said.contains(crd)),
        "it does not say what is kept: {said}"
    );
    assert_eq!(web(&cluster).await?, before);
    let left = "deployments,daemonsets,serviceaccounts,roles,validatingadmissionpolicies,flowschemas,clusterroles";
    let left = kubectl(
        &cluster,
        &[
            "get",
            left,
            "-A",
            "-l",
            "app.kubernetes.io/part-of=diego",
            "-o",
            "name",
        ],
    )
    .await?;
    assert!(!left.contains('/'), "left behind: {left}");

    // What was kept is taken over again by a release of the same name, and goes with one that does not keep it.
    helm(
        &cluster,
        &[
            "install",
            "diego",
            &chart,
            "-n",
            NAMESPACE,
            "--set",
            "crds.keep=false",
        ],
    )
    .await?;
    assert_eq!(web(&cluster).await?, before);
    helm(&cluster, &["uninstall", "diego", "-n", NAMESPACE]).await?;
    let until = Instant::now() + Duration::from_secs(30);
    while kubectl(&cluster, &["get", "crd", "-o", "name"])
        .await?
        .contains("diego")
    {
        assert!(Instant::now() < until, "the CRDs are still there");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Cells are cluster-wide: two controllers that know nothing of each other would both act on them.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_installation_is_refused() -> Result<(), Failure> {
    let cluster = LocalCluster::start(Options::default()).await?;
    let chart = chart().display().to_string();
    helm(
        &cluster,
        &[
            "install",
            "one",
            &chart,
            "-n",
            "first",
            "--create-namespace",
        ],
    )
    .await?;
    for sets in [
        &[][..],
        &["--set", "crds.install=false"],
        &["--set", "crds.install=false", "-f", "MINIMAL"],
    ] {
        let minimal = crate::helm::variant("minimal").display().to_string();
        let mut args = vec![
            "install",
            "two",
            &chart,
            "-n",
            "second",
            "--create-namespace",
        ];
        args.extend(
            sets.iter()
                .map(|set| if *set == "MINIMAL" { &*minimal } else { *set }),
        );
        let error = helm(&cluster, &args)
            .await
            .expect_err("there are two installations")
            .to_string();
        for word in ["invalid ownership metadata", "\"one\"", "\"first\""] {
            assert!(error.contains(word), "{sets:?}: {error}");
        }
    }
    // Nothing of it was made.
    let made = kubectl(
        &cluster,
        &[
            "get",
            "deployments,daemonsets,clusterroles",
            "-A",
            "-l",
            "app.kubernetes.io/instance=two",
            "-o",
            "name",
        ],
    )
    .await?;
    assert!(!made.contains('/'), "{made}");
    // The first one can still be upgraded, also under other names of its objects.
    helm(
        &cluster,
        &[
            "upgrade",
            "one",
            &chart,
            "-n",
            "first",
            "--set",
            "fullnameOverride=else",
        ],
    )
    .await
    .map(drop)
}
