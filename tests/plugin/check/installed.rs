//! An installation as the chart would have made it, with processes instead of Pods.

use std::net::{IpAddr, UdpSocket};

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::proxy::Proxy;
use crate::support::{Failure, eventually, site::START, site::Site};

/// Where the chart is told to be installed.
pub const SPACE: &str = "diego-system";

/// A site whose controller the API server knows as a Pod.
pub struct Installed {
    /// The programs.
    pub site: Site,
    /// Between the controller and its presence store.
    pub store: Proxy,
    /// Between the API server and the controller's metrics: no Pod has an address of loopback.
    _metrics: Proxy,
}

/// An address of this machine that is not loopback's. Nothing is sent.
fn address() -> Result<IpAddr, Failure> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let way_out = socket.connect("192.0.2.1:9");
    way_out.map_err(|error| {
        format!("this test needs a network interface besides loopback: {error}")
    })?;
    Ok(socket.local_addr()?.ip())
}

fn apply() -> PatchParams {
    PatchParams::apply("tests").force()
}

/// Labels as the chart sets them.
fn labels(release: &str, component: &str) -> Value {
    json!({
        "app.kubernetes.io/part-of": "diego",
        "app.kubernetes.io/name": "diego-operator",
        "app.kubernetes.io/instance": release,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/version": env!("CARGO_PKG_VERSION"),
    })
}

fn program(release: &str, component: &str) -> (String, Value) {
    let name = format!("{release}-diego-operator-{component}");
    let labels = labels(release, component);
    let container = json!({
        "name": component,
        "image": "none",
        "ports": [{ "name": "metrics", "containerPort": 8080 }],
    });
    let spec = json!({
        "selector": { "matchLabels": labels },
        "template": { "metadata": { "labels": labels }, "spec": { "containers": [container] } },
    });
    (name, spec)
}

/// A namespace.
pub async fn namespace(site: &Site, name: &str) -> Result<(), Failure> {
    let space = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    let api = Api::<Namespace>::all(site.client.clone());
    api.patch(name, &apply(), &Patch::Apply(&space)).await?;
    Ok(())
}

/// The controllers' Deployment of a release, so many of them being ready of two.
pub async fn deployment(
    site: &Site,
    space: &str,
    release: &str,
    ready: i32,
) -> Result<(), Failure> {
    let (name, mut spec) = program(release, "controller");
    spec["replicas"] = 2.into();
    let object = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name, "labels": labels(release, "controller") },
        "spec": spec,
    });
    let api = Api::<Deployment>::namespaced(site.client.clone(), space);
    api.patch(&name, &apply(), &Patch::Apply(&object)).await?;
    let status = json!({ "status": { "replicas": 2, "readyReplicas": ready } });
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    Ok(())
}

async fn daemon_set(site: &Site, release: &str, reps: i32) -> Result<(), Failure> {
    let (name, spec) = program(release, "rep");
    let object = json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": { "name": name, "labels": labels(release, "rep") },
        "spec": spec,
    });
    let api = Api::<DaemonSet>::namespaced(site.client.clone(), SPACE);
    api.patch(&name, &apply(), &Patch::Apply(&object)).await?;
    let status = json!({ "status": {
        "currentNumberScheduled": reps, "desiredNumberScheduled": reps, "numberMisscheduled": 0, "numberReady": reps,
    } });
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    Ok(())
}

/// The Pod that the controller would be.
async fn pod(site: &Site, address: IpAddr, port: u16) -> Result<(), Failure> {
    const NAME: &str = "controller-1";
    let object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": NAME, "labels": labels("diego", "controller") },
        "spec": { "containers": [{
            "name": "controller",
            "image": "none",
            "ports": [{ "name": "metrics", "containerPort": port }],
        }] },
    });
    let api = Api::<Pod>::namespaced(site.client.clone(), SPACE);
    // Not before the namespace has its service account.
    eventually("the Pod is admitted", START, || async {
        api.patch(NAME, &apply(), &Patch::Apply(&object)).await.ok()
    })
    .await?;
    let status = json!({ "status": {
        "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
        "conditions": [{ "type": "Ready", "status": "True" }],
    } });
    api.patch_status(NAME, &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    Ok(())
}

impl Installed {
    /// A controller that leads, and Cells in three zones.
    pub async fn start() -> Result<Installed, Failure> {
        let mut site = Site::start().await?;
        namespace(&site, SPACE).await?;
        let endpoint = site.etcd.endpoints().remove(0);
        let target = endpoint.trim_start_matches("http://").to_owned();
        let store = Proxy::start(target).await?;
        let through = format!("http://{}", store.address());
        let flags = [
            "--leader-elect",
            "--namespace",
            SPACE,
            "--convergence-interval-seconds",
            "1",
        ];
        site.start_controller_at(&through, &flags).await?;
        let address = address()?;
        let target = format!("127.0.0.1:{}", site.controller().metrics_port);
        let metrics = Proxy::start_on(address, target).await?;
        pod(&site, address, metrics.address().port()).await?;
        deployment(&site, SPACE, "diego", 2).await?;
        daemon_set(&site, "diego", 3).await?;
        for (cell, zone) in [("cell-1", "z1"), ("cell-2", "z2"), ("cell-3", "z3")] {
            site.start_rep(cell, zone, &["--presence-ttl-seconds", "2"])
                .await?;
        }
        Ok(Installed {
            site,
            store,
            _metrics: metrics,
        })
    }

    /// What makes Prometheus look, as its operator and the chart have it.
    pub async fn monitors(&self) -> Result<(), Failure> {
        const GROUP: &str = "monitoring.coreos.com";
        let client = &self.site.client;
        for (kind, plural) in [
            ("ServiceMonitor", "servicemonitors"),
            ("PodMonitor", "podmonitors"),
            ("PrometheusRule", "prometheusrules"),
        ] {
            let name = format!("{plural}.{GROUP}");
            let open = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
            let crd = json!({
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": { "name": name },
                "spec": {
                    "group": GROUP, "scope": "Namespaced",
                    "names": { "kind": kind, "plural": plural, "singular": plural.trim_end_matches('s') },
                    "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": open } }],
                },
            });
            let crds = Api::<CustomResourceDefinition>::all(client.clone());
            crds.patch(&name, &apply(), &Patch::Apply(&crd)).await?;
            let resource = ApiResource {
                group: GROUP.into(),
                version: "v1".into(),
                api_version: format!("{GROUP}/v1"),
                kind: kind.into(),
                plural: plural.into(),
            };
            let api = Api::<DynamicObject>::namespaced_with(client.clone(), SPACE, &resource);
            let object = json!({
                "apiVersion": format!("{GROUP}/v1"), "kind": kind,
                "metadata": { "name": "diego", "labels": labels("diego", "controller") },
                "spec": {},
            });
            eventually(kind, START, || async {
                api.patch("diego", &apply(), &Patch::Apply(&object))
                    .await
                    .ok()
            })
            .await?;
        }
        Ok(())
    }
}
