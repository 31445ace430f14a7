//! Before an installation, and with CRDs that are missing or old.

use std::time::{Duration, Instant};

use diego_operator::api::crds;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use local_cluster::{LocalCluster, Options};
use serde_json::Value;

use super::{Found, finds};
use crate::Plugin;
use crate::support::Failure;

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_crds_or_with_old_ones_is_told_as_such() -> Result<(), Failure> {
    let options = Options {
        garbage_collection: false,
        ..Options::default()
    };
    let cluster = LocalCluster::start(options).await?;
    let plugin = Plugin::at(cluster.kubeconfig());
    let path = cluster.kubeconfig().display().to_string();

    // Nothing but Nodes is missing before.
    let found = Found::by(&plugin, "--pre").await?;
    assert_eq!(found.status, 0);
    for (check, words) in [
        ("version", "is Kubernetes v1."),
        ("features", "admission policies"),
        ("rights", "you may create"),
        ("crds", "no CRDs of Diego"),
        ("releases", "not installed yet"),
    ] {
        assert!(found.has(check, "ok", &[words]), "{check}");
    }
    assert!(found.has("nodes", "warning", &["no Node is Ready"]));
    // Who may do nothing can't install, and is told what it takes.
    let found = Found::by(&plugin, "--pre --as eve").await?;
    assert_eq!(found.status, 1);
    assert!(found.has(
        "rights",
        "failure",
        &[
            "create clusterroles.rbac.authorization.k8s.io",
            "kubectl --as eve auth can-i create"
        ],
    ));

    // Commands mean the cluster that the user named.
    let found = Found::by(&plugin, &format!("--kubeconfig {path}")).await?;
    assert_eq!(found.status, 1);
    let command = format!("kubectl --kubeconfig {path} apply --server-side --filename crds/");
    assert!(found.has("crds", "failure", &["Diego is not installed", &command]));
    // Also for who may not read CRDs.
    assert!(
        Found::by(&plugin, "--as eve")
            .await?
            .has("crds", "failure", &["not installed"])
    );

    let kubeconfig = kube::config::Kubeconfig::read_from(cluster.kubeconfig())?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    let api = Api::<CustomResourceDefinition>::all(Client::try_from(config)?);
    let apply = PatchParams::apply("tests").force();
    for file in crds::all() {
        let name = file.crd.name_any();
        let mut crd = serde_json::to_value(&file.crd)?;
        if name.starts_with("cells.") {
            let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let status = &mut schema["properties"]["status"]["properties"];
            status.as_object_mut().ok_or("a status")?.remove("flaps");
        }
        api.patch::<Value>(&name, &apply, &Patch::Apply(crd))
            .await?;
    }
    let old = [
        "cells.diego.cloudfoundry.org is older",
        "lacks status.flaps",
        "apply --server-side --force-conflicts",
    ];
    finds(&plugin, "", "crds", "failure", &old).await?;
    finds(&plugin, "--pre", "crds", "failure", &old).await?;
    let cells = crds::all()
        .into_iter()
        .find(|file| file.crd.name_any().starts_with("cells."));
    let cells = cells.ok_or("there are Cells")?.crd;
    api.patch(&cells.name_any(), &apply, &Patch::Apply(&cells))
        .await?;
    let found = finds(&plugin, "", "crds", "ok", &[]).await?;
    // Kinds alone are no installation.
    assert!(found.has(
        "deployment",
        "failure",
        &["there is no controller", "helm install"]
    ));
    assert!(found.has("leader", "failure", &["there is no Lease diego-controller"]));
    assert!(found.has("cells", "failure", &["there are no Cells"]));

    // One that hangs is not waited for.
    cluster.apiserver().pause();
    let began = Instant::now();
    let found = Found::by(&plugin, "").await?;
    cluster.apiserver().resume();
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    assert!(found.has("api-server", "failure", &["does not answer"]));

    cluster.stop_apiserver().await;
    let found = Found::by(&plugin, "").await?;
    assert_eq!((found.status, found.all.len()), (1, 1));
    assert!(found.has(
        "api-server",
        "failure",
        &["does not answer", "kubectl config get-contexts"]
    ));
    Ok(())
}
