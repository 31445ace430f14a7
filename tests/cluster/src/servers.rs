//! The command lines of kube-apiserver, kube-controller-manager and kube-scheduler.

use crate::pki::Pki;
use std::{net::Ipv4Addr, path::Path};

/// The controllers that stand-alone API objects need: deletion of owned objects and of namespaces, the service accounts without
/// which no Pod is admitted, the content of the roles view, edit and admin, and whoever scales by the scale subresource. What
/// would act on Pods or Nodes is left out: with real nodes, all run.
const CONTROLLERS: [&str; 5] = [
    "clusterrole-aggregation-controller",
    "garbage-collector-controller",
    "horizontal-pod-autoscaler-controller",
    "namespace-controller",
    "serviceaccount-controller",
];

/// Where the API server is, and whether there are nodes.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The address it listens on.
    pub(crate) address: Ipv4Addr,
    /// The addresses of Services, as a CIDR.
    pub(crate) services: String,
    /// The first of them, that of the Service `kubernetes`.
    pub(crate) first_service: Ipv4Addr,
    /// Whether there are real nodes: then Pods are scheduled, and all controllers run.
    pub(crate) nodes: bool,
}

impl Place {
    /// The loopback address, without nodes.
    pub(crate) fn loopback() -> Self {
        Self {
            address: Ipv4Addr::LOCALHOST,
            services: "10.0.0.0/24".to_owned(),
            first_service: Ipv4Addr::new(10, 0, 0, 1),
            nodes: false,
        }
    }
}

/// The API server's arguments. `controllers` says whether service accounts will be made.
pub(crate) fn apiserver(
    pki: &Pki,
    etcd: &[String],
    tokens: &Path,
    port: u16,
    controllers: bool,
    place: &Place,
) -> Vec<String> {
    let mut args = vec![
        format!("--etcd-servers={}", etcd.join(",")),
        format!("--bind-address={}", place.address),
        format!("--advertise-address={}", place.address),
        format!("--secure-port={port}"),
        format!("--tls-cert-file={}", pki.cert_file.display()),
        format!("--tls-private-key-file={}", pki.key_file.display()),
        format!("--client-ca-file={}", pki.ca_file.display()),
        format!("--token-auth-file={}", tokens.display()),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!(
            "--service-account-key-file={}",
            pki.service_account_public.display()
        ),
        format!(
            "--service-account-signing-key-file={}",
            pki.service_account_key.display()
        ),
        format!("--service-cluster-ip-range={}", place.services),
        "--allow-privileged=true".to_owned(),
        "--profiling=false".to_owned(),
    ];
    if place.nodes {
        args.extend([
            // A kubelet may touch its own Node and Pods only.
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            format!(
                "--kubelet-client-certificate={}",
                pki.kubelet_client_cert.display()
            ),
            format!("--kubelet-client-key={}", pki.kubelet_client_key.display()),
            // Nobody resolves their names.
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
        ]);
    } else {
        // A loopback address is refused as an endpoint of the `kubernetes` Service, with a complaint every ten seconds.
        args.push("--endpoint-reconciler-type=none".to_owned());
    }
    if !controllers {
        // It would refuse every Pod for want of a service account.
        args.push("--disable-admission-plugins=ServiceAccount".to_owned());
    }
    args
}

/// The controller manager's arguments.
pub(crate) fn controller_manager(kubeconfig: &Path, pki: &Pki, place: &Place) -> Vec<String> {
    let mut args = vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        // There is only the one, and nobody asks it anything.
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        "--use-service-account-credentials=false".to_owned(),
        // The default of 20 requests a second would make a large deletion a matter of minutes.
        "--kube-api-qps=500".to_owned(),
        "--kube-api-burst=1000".to_owned(),
        // By default an autoscaler looks four times a minute.
        "--horizontal-pod-autoscaler-sync-period=2s".to_owned(),
        "--profiling=false".to_owned(),
    ];
    if place.nodes {
        args.extend([
            "--controllers=*".to_owned(),
            // What Pods trust as the API server's authority.
            format!("--root-ca-file={}", pki.ca_file.display()),
            format!(
                "--service-account-private-key-file={}",
                pki.service_account_key.display()
            ),
        ]);
    } else {
        args.push(format!("--controllers={}", CONTROLLERS.join(",")));
    }
    args
}

/// The scheduler's arguments.
pub(crate) fn scheduler(kubeconfig: &Path) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        "--profiling=false".to_owned(),
    ]
}
