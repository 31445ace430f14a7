//! Monitoring as a user sets it up: a real Prometheus scrapes controllers and reps, knows the chart's alerts, and answers the
//! dashboard's queries, before, during and after the loss of a node.

use crate::{
    installed::{Installed, NAMESPACE, RELEASE, SOON},
    prometheus::Prometheus,
    support::{Failure, eventually},
};
use serde_json::Value;
use std::{sync::Mutex, time::Duration};

/// Two convergence passes and a scrape: some numbers are there only then.
const PASSES: Duration = Duration::from_secs(100);

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/diego-operator");

const WORK: &str = "
apiVersion: diego.cloudfoundry.org/v1alpha1
kind: DesiredLRP
metadata: {name: web, namespace: default}
spec:
  instances: 4
  template:
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: web, image: test-app:dev, command: [sleep, '100000']}]
---
apiVersion: diego.cloudfoundry.org/v1alpha1
kind: Task
metadata: {name: long, namespace: default}
spec:
  ttlSecondsAfterFinished: 3600
  template: {spec: {containers: [{name: long, image: test-app:dev, command: [sleep, '100000']}]}}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_sees_the_loss_of_a_node_and_its_end() -> Result<(), Failure> {
    let site = Installed::start(2, &[]).await?;
    // One alert fires sooner than it would, by the values that users have for that.
    let rendered = site
        .helm(&format!(
            "template {RELEASE} {CHART} -n {NAMESPACE} --set monitoring.prometheusRule.enabled=true \
             --set monitoring.dashboard.enabled=true --set monitoring.prometheusRule.overrides.DiegoCellsMissing.for=1s"
        ))
        .await?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&rendered)?;
    let of_kind = |kind: &str, name: &str| {
        let mut found = objects.iter().filter(|object| object["kind"] == kind);
        found
            .find(|object| {
                object["metadata"]["name"]
                    .as_str()
                    .is_some_and(|it| it.ends_with(name))
            })
            .ok_or(format!("no {kind} {name}"))
    };
    let rules = &of_kind("PrometheusRule", "")?["spec"];
    let dashboard = &of_kind("ConfigMap", "-dashboard")?["data"]["diego.json"];
    let dashboard: Value = serde_json::from_str(dashboard.as_str().ok_or("no dashboard")?)?;
    let prometheus = Prometheus::start(&site, rules).await?;

    // Everything is scraped, and reads as Prometheus wants it.
    let up = r#"count by (job) (up == 1)"#;
    let all = |jobs: &[(String, f64)]| {
        let of = |end: &str| {
            jobs.iter()
                .any(|(job, count)| job.contains(end) && *count == 2.0)
        };
        jobs.len() == 2 && of("-controller") && of("-rep")
    };
    prometheus.until(up, SOON, all).await?;
    let addresses = format!(
        "get pods -n {NAMESPACE} -l app.kubernetes.io/part-of=diego -o jsonpath={{.items[*].status.podIP}}"
    );
    for address in site.kubectl(&addresses).await?.split(' ') {
        Prometheus::check_metrics(&format!("{address}:8080")).await?;
    }

    site.apply(WORK).await?;
    let running = "get dlrp web -o jsonpath={.status.running}";
    site.until(running, SOON, |running| running == "4").await?;
    // The Task's node is the one to be lost; the leader may be there too.
    let node = site
        .until(
            "get dtask long -o jsonpath={.status.state}:{.status.cellName}",
            SOON,
            |task| task.starts_with("Running:"),
        )
        .await?;
    let node = node.trim_start_matches("Running:").to_owned();

    // A healthy system: every rule was evaluated on that, and none has anything to say.
    prometheus.rules_evaluated().await?;
    prometheus
        .until("ALERTS", SOON, |alerts| alerts.is_empty())
        .await?;
    let fired = prometheus
        .query(r#"max_over_time(ALERTS{alertstate="firing"}[1h])"#)
        .await?;
    assert!(fired.is_empty(), "{fired:?}");

    site.node(&node)?.kill().await?;
    let fires = |alert: &'static str, state: &'static str, more: String| {
        let query = format!(r#"ALERTS{{alertname="{alert}",alertstate="{state}"{more}}}"#);
        let prometheus = &prometheus;
        async move {
            prometheus
                .until(&query, SOON, |found| !found.is_empty())
                .await
        }
    };
    fires("DiegoCellsMissing", "firing", String::new()).await?;
    fires("DiegoRepDown", "pending", format!(r#",cell="{node}""#)).await?;
    site.until(running, SOON, |running| running == "4").await?;
    let task = "get dtask long -o jsonpath={.status.failed}";
    site.until(task, SOON, |failed| failed == "true").await?;

    site.node(&node)?.start().await?;
    site.nodes.ready(&node).await?;
    site.cells_ready(2).await?;
    // Pods of a node that was switched on again may have other addresses.
    site.until(&format!("get pods -n {NAMESPACE} -l app.kubernetes.io/component=rep -o jsonpath={{.items[*].status.containerStatuses[0].ready}}"), SOON, |ready| ready == "true true").await?;
    Prometheus::find_targets(&site).await?;
    for alert in ["DiegoCellsMissing", "DiegoRepDown"] {
        let query = format!(r#"ALERTS{{alertname="{alert}"}}"#);
        prometheus
            .until(&query, SOON, |found| found.is_empty())
            .await?;
    }

    // Every panel has something to show now.
    let asked = queries(&dashboard);
    let empty = Mutex::new(Vec::new());
    let shown = eventually("every panel shows something", PASSES, || async {
        let still = prometheus.empty_queries(&asked).await.ok()?;
        let none = still.is_empty();
        *empty.lock().ok()? = still;
        none.then_some(())
    });
    shown
        .await
        .map_err(|error| format!("{error}; empty: {empty:?}"))?;
    Ok(())
}

/// The dashboard's queries with Grafana's variables as it would fill them in, and those of its own variables.
fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries: Vec<String> = targets
        .filter_map(|target| target["expr"].as_str())
        .map(|query| {
            query
                .replace("$__rate_interval", "5m")
                .replace("$__range", "5m")
                .replace("$controller", &format!("{RELEASE}-controller"))
                .replace("$rep", &format!("{RELEASE}-rep"))
        })
        .collect();
    assert!(queries.len() > 30, "{}", queries.len());
    assert!(
        queries.iter().all(|query| !query.contains('$')),
        "{queries:#?}"
    );
    queries
}
