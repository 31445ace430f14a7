//! Whether Prometheus looks at controllers and reps, and knows the alerts.

use k8s_openapi::api::apps::v1::Deployment;

use crate::plugin::check::facts::{Facts, label, namespace};
use crate::plugin::check::finding::{Category, Finding};
use crate::plugin::failure::Failure;

/// All about it. Programs that run outside of Kubernetes are scraped in ways that can't be seen here.
pub fn monitoring(facts: &Facts) -> Vec<Finding> {
    let deployment = match &facts.programs.deployments {
        Ok(deployments) => deployments.first(),
        Err(failure) => {
            let what = "whether metrics are scraped";
            return vec![Finding::unseen(
                Category::Monitoring,
                "monitors",
                what,
                failure,
            )];
        }
    };
    let Some(deployment) = deployment else {
        return Vec::new();
    };
    let upgrade = |values: &str| {
        format!(
            "helm{} upgrade {} charts/diego-operator --namespace {} --reset-then-reuse-values {values}",
            facts.words.helm,
            label(deployment, "app.kubernetes.io/instance"),
            namespace(deployment)
        )
    };
    let monitors = match &facts.monitors {
        Ok(monitors) => monitors,
        Err(failure) => {
            return vec![Finding::unseen(
                Category::Monitoring,
                "monitors",
                "ServiceMonitors, PodMonitors and PrometheusRules",
                failure,
            )];
        }
    };
    let annotated = is_annotated(deployment);
    let mut findings = Vec::new();
    findings.push(match (monitors.services > 0, monitors.pods > 0, annotated) {
        (true, true, _) => Finding::ok(Category::Monitoring, "monitors", "controllers and reps have a ServiceMonitor and a PodMonitor"),
        (_, _, true) => Finding::ok(Category::Monitoring, "monitors", "controllers and reps have the annotations of prometheus.io"),
        (services, pods, false) => {
            let who = match (services, pods) {
                (true, false) => "the metrics of the reps are",
                (false, true) => "the metrics of the controllers are",
                _ => "the metrics are",
            };
            let values = match monitors.operator {
                true => "--set monitoring.serviceMonitor.enabled=true --set monitoring.podMonitor.enabled=true --set monitoring.prometheusRule.enabled=true",
                false => "--set monitoring.podAnnotations=true",
            };
            Finding::warning(Category::Monitoring, "monitors", format!("{who} not scraped: nothing tells Prometheus of them"))
                .because("nobody is told when something goes wrong")
                .remedy("switch the monitors on, with the labels that your Prometheus looks for")
                .command(upgrade(values))
                .docs("install.md#before-production")
        }
    });
    if monitors.services + monitors.pods > 0 {
        findings.push(match monitors.rules {
            0 => Finding::warning(
                Category::Monitoring,
                "alerts",
                "there is no PrometheusRule: Prometheus does not know the alerts",
            )
            .because("nobody is told when something goes wrong")
            .remedy("switch it on, with the labels that your Prometheus looks for")
            .command(upgrade("--set monitoring.prometheusRule.enabled=true"))
            .docs("runbooks/README.md"),
            _ => Finding::ok(
                Category::Monitoring,
                "alerts",
                "Prometheus is given the alerts",
            ),
        });
    }
    findings.extend(scraped(facts));
    findings
}

fn scraped(facts: &Facts) -> Option<Finding> {
    let scraped = match &facts.scraped {
        Ok(scraped) => scraped.as_ref()?,
        Err(failure) => {
            return Some(Finding::unseen(
                Category::Monitoring,
                "scrapes",
                "Prometheus",
                failure,
            ));
        }
    };
    let service = &scraped.service;
    Some(match &scraped.counts {
        Ok((controllers, reps)) if *controllers > 0 && *reps > 0 => Finding::ok(
            Category::Monitoring,
            "scrapes",
            format!("Prometheus ({service}) scrapes controllers ({controllers}) and reps ({reps})"),
        ),
        Ok((controllers, reps)) => {
            let who = match (controllers, reps) {
                (0, 0) => "neither controllers nor reps",
                (0, _) => "no controller",
                (_, _) => "no rep",
            };
            Finding::failure(Category::Monitoring, "scrapes", format!("Prometheus ({service}) scrapes {who}"))
                .because("it was told of them and does not select them, may not reach them, or may not read their metrics")
                .remedy("compare its selectors with the labels of the monitors (monitoring.serviceMonitor.additionalLabels), and look at its targets")
                .command(format!("kubectl{} get prometheuses.monitoring.coreos.com --all-namespaces --output yaml", facts.words.kubectl))
                .docs("install.md#before-production")
        }
        Err(failure @ Failure::NoRight(_)) => Finding::unseen(
            Category::Monitoring,
            "scrapes",
            &format!("what Prometheus ({service}) scrapes"),
            failure,
        ),
        Err(failure) => Finding::warning(
            Category::Monitoring,
            "scrapes",
            format!("Prometheus ({service}) does not say what it scrapes"),
        )
        .because(failure.to_string())
        .remedy("look at its targets")
        .docs("install.md#before-production"),
    })
}

/// Whether a Prometheus without its operator finds the Pods.
fn is_annotated(deployment: &Deployment) -> bool {
    let template = deployment.spec.as_ref().map(|spec| &spec.template);
    let annotations =
        template.and_then(|template| template.metadata.as_ref()?.annotations.as_ref());
    annotations.is_some_and(|all| {
        all.get("prometheus.io/scrape")
            .is_some_and(|value| value == "true")
    })
}
