//! Wrong values are refused, and the message names the field.

use crate::helm::{Failure, NAMESPACE, RELEASE, chart, said, template, tool};

/// Renders with these `--set`s and gives the complaint.
fn refusal(sets: &[&str]) -> Result<String, Failure> {
    let mut command = tool("helm")?;
    command.args(["template", RELEASE]).arg(chart());
    command.args(["--namespace", NAMESPACE]);
    for set in sets {
        command.args(["--set", set]);
    }
    let output = command.output()?;
    assert!(!output.status.success(), "{sets:?} was taken");
    // The schema's messages have paths such as "/presence/ttlSeconds".
    Ok(said(&output).replace('/', "."))
}

#[test]
fn a_wrong_value_is_refused_by_its_name() -> Result<(), Failure> {
    for (set, field) in [
        ("presence.store=consul", "presence.store"),
        ("presence.ttlSeconds=0", "presence.ttlSeconds"),
        ("presence.ttlSeconds=five", "presence.ttlSeconds"),
        (
            "presence.autoTTL.minSeconds=0.1",
            "presence.autoTTL.minSeconds",
        ),
        // Does not go together with the longest of 30 s.
        (
            "presence.autoTTL.minSeconds=31",
            "presence.autoTTL.minSeconds",
        ),
        ("rep.minReadySeconds=-1", "rep.minReadySeconds"),
        (
            "presence.etcd.endpoints[0]=etcd:2379",
            "presence.etcd.endpoints",
        ),
        (
            "presence.etcd.bundled.replicas=2",
            "presence.etcd.bundled.replicas",
        ),
        (
            "presence.etcd.bundled.clusterDomain=Cluster.local.",
            "presence.etcd.bundled.clusterDomain",
        ),
        ("controller.replicas=-1", "controller.replicas"),
        (
            "controller.tasks.kickSeconds=0",
            "controller.tasks.kickSeconds",
        ),
        (
            "controller.writeConcurrency=5000",
            "controller.writeConcurrency",
        ),
        (
            "controller.leaderElection.renewDeadlineSeconds=0",
            "controller.leaderElection.renewDeadlineSeconds",
        ),
        ("image.digest=abc", "image.digest"),
        ("image.pullPolicy=Sometimes", "image.pullPolicy"),
        (
            "monitoring.serviceMonitor.interval=soon",
            "monitoring.serviceMonitor.interval",
        ),
        (
            "monitoring.prometheusRule.overrides.DiegoCellsMissing.severity=bad",
            "DiegoCellsMissing.severity",
        ),
        (
            "networkPolicy.apiServerPorts[0]=0",
            "networkPolicy.apiServerPorts",
        ),
        ("log.format=xml", "log.format"),
        ("rep.extraArgs.--zone=a", "rep.extraArgs"),
    ] {
        let message = refusal(&[set])?;
        assert!(message.contains(field), "{set}: {message}");
    }
    Ok(())
}

#[test]
fn a_misspelt_value_is_refused_by_its_name() -> Result<(), Failure> {
    for (set, word) in [
        ("replicas=3", "replicas"),
        ("presence.tllSeconds=3", "tllSeconds"),
        ("controller.replica=3", "replica"),
        ("crds.instal=true", "instal"),
    ] {
        let message = refusal(&[set])?;
        assert!(message.contains(word), "{set}: {message}");
    }
    Ok(())
}

#[test]
fn values_that_do_not_go_together_are_refused() -> Result<(), Failure> {
    for (sets, words) in [
        (
            &["presence.store=etcd"][..],
            &["presence.etcd.endpoints", "presence.etcd.bundled.enabled"][..],
        ),
        (&["presence.etcd.bundled.enabled=true"], &["presence.store"]),
        (
            &[
                "presence.store=etcd",
                "presence.etcd.bundled.enabled=true",
                "presence.etcd.endpoints[0]=http:..e:2379",
            ],
            &["presence.etcd.endpoints", "choose one"],
        ),
        (
            &[
                "presence.store=etcd",
                "presence.etcd.bundled.enabled=true",
                "presence.etcd.bundled.persistence.enabled=false",
            ],
            &["presence.etcd.bundled.persistence.enabled", "replicas to 1"],
        ),
        (
            &[
                "presence.store=etcd",
                "presence.etcd.bundled.enabled=true",
                "presence.etcd.tls.secretName=x",
            ],
            &["presence.etcd.bundled.tls.secretName"],
        ),
        (
            &["controller.leaderElection.leaseDurationSeconds=1"],
            &["renewDeadlineSeconds 1.5", "leaseDurationSeconds 1", "4.5"],
        ),
        (
            &["controller.leaderElection.retryPeriodSeconds=1"],
            &["retryPeriodSeconds 1", "half"],
        ),
        (&["rep.hostNetwork=true"], &["rep.hostNetwork", "maxSurge"]),
        (
            &[
                "rep.serviceAccount.name=one",
                "controller.serviceAccount.name=one",
            ],
            &["rep.serviceAccount.name", "controller.serviceAccount.name"],
        ),
        // Both would be the namespace's "default".
        (
            &[
                "rep.serviceAccount.create=false",
                "controller.serviceAccount.create=false",
            ],
            &["rep.serviceAccount.name", "default"],
        ),
        (
            &["controller.serviceAccount.name=diego-operator-rep"],
            &["rep.serviceAccount.name", "diego-operator-rep"],
        ),
        (
            &["rep.serviceAccount.create=false"],
            &["rep.serviceAccount.name", "default", "rbac.create"],
        ),
        (
            &["rep.serviceAccount.name=default"],
            &["rep.serviceAccount.name", "default", "rbac.create"],
        ),
        (
            &[
                "monitoring.prometheusRule.enabled=true",
                "monitoring.prometheusRule.overrides.DiegoNothing.enabled=false",
            ],
            &["DiegoNothing", "DiegoCellsMissing"],
        ),
    ] {
        let sets: Vec<String> = sets.iter().map(|set| set.replace("..", "//")).collect();
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let message = refusal(&sets)?;
        for word in words {
            assert!(message.contains(word), "{sets:?}: {message}");
        }
    }
    Ok(())
}

#[test]
fn kubernetes_that_is_too_old_is_refused() -> Result<(), Failure> {
    let error = template(&["--kube-version", "1.31.4"]).expect_err("it is too old");
    assert!(
        error
            .to_string()
            .contains("incompatible with Kubernetes v1.31.4"),
        "{error}"
    );
    template(&["--kube-version", "v1.32.1-eks-1234"]).map(drop)
}
