//! With `metrics.secure` controller and reps may ask whose token they were sent, and nobody else may.

use crate::api_server::{kubectl, with_chart};
use crate::helm::{Failure, NAMESPACE, template};

const SECURE: [&str; 4] = [
    "--set",
    "metrics.secure.enabled=true",
    "--set",
    "metrics.secure.secretName=metrics-tls",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_programs_may_ask_who_reads_their_metrics() -> Result<(), Failure> {
    let cluster = with_chart(&template(&SECURE)?).await?;
    let can = async |user: &str, verb: &str, what: &str| -> Result<bool, Failure> {
        let output = cluster
            .kubectl(&["auth", "can-i", verb, what, "--as", user])
            .await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match said.trim() {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => Err(format!("{said}{}", String::from_utf8_lossy(&output.stderr)).into()),
        }
    };
    let account = |name: &str| format!("system:serviceaccount:{NAMESPACE}:{name}");
    for (name, may) in [
        ("diego-operator-controller", true),
        ("diego-operator-rep", true),
        ("default", false),
    ] {
        for what in [
            "tokenreviews.authentication.k8s.io",
            "subjectaccessreviews.authorization.k8s.io",
        ] {
            assert_eq!(
                can(&account(name), "create", what).await?,
                may,
                "{name} {what}"
            );
        }
        assert!(!can(&account(name), "get", "/metrics").await?, "{name}");
    }
    // The role that is there to be bound.
    let scraper = account("scraper");
    assert!(!can(&scraper, "get", "/metrics").await?);
    let bind = [
        "create",
        "clusterrolebinding",
        "scraper",
        "--clusterrole=diego-operator-metrics-reader",
        &format!("--serviceaccount={NAMESPACE}:scraper"),
    ];
    kubectl(&cluster, &bind).await?;
    assert!(can(&scraper, "get", "/metrics").await?);
    assert!(!can(&scraper, "get", "/healthz/etcd").await?);
    Ok(())
}
