//! The command lines of kube-apiserver and kube-controller-manager.

use crate::pki::Pki;
use std::path::Path;

/// The controllers that stand-alone API objects need: deletion of owned objects and of namespaces, the service accounts without
/// which no Pod is admitted, the content of the roles view, edit and admin, and whoever scales by the scale subresource. What
/// would act on Pods or Nodes is left out.
const CONTROLLERS: [&str; 5] = [
    "clusterrole-aggregation-controller",
    "garbage-collector-controller",
    "horizontal-pod-autoscaler-controller",
    "namespace-controller",
    "serviceaccount-controller",
];

/// The API server's arguments. `controllers` says whether service accounts will be made.
pub(crate) fn apiserver(
    pki: &Pki,
    etcd: &[String],
    tokens: &Path,
    port: u16,
    controllers: bool,
) -> Vec<String> {
    let mut args = vec![
        format!("--etcd-servers={}", etcd.join(",")),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
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
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        "--allow-privileged=true".to_owned(),
        // A loopback address is refused as an endpoint of the `kubernetes` Service, with a complaint every ten seconds.
        "--endpoint-reconciler-type=none".to_owned(),
        "--profiling=false".to_owned(),
    ];
    if !controllers {
        // It would refuse every Pod for want of a service account.
        args.push("--disable-admission-plugins=ServiceAccount".to_owned());
    }
    args
}

/// The controller manager's arguments.
pub(crate) fn controller_manager(kubeconfig: &Path) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--controllers={}", CONTROLLERS.join(",")),
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
    ]
}
