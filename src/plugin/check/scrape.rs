//! What makes Prometheus look at controllers and reps, and what it knows of them.

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use serde_json::Value;

use super::facts::{Monitors, Read, Scraped, namespace};
use super::read::{Reader, USUAL_NAMESPACE, serves};
use crate::plugin::failure::Failure;

/// Group of the kinds of prometheus-operator.
const MONITORING: &str = "monitoring.coreos.com";

impl Reader<'_> {
    /// What makes Prometheus look at us.
    pub async fn monitors(&self, params: &ListParams) -> Read<Monitors> {
        if !serves(&self.ask, &format!("{MONITORING}/v1")).await? {
            return Ok(Monitors::default());
        }
        let (services, pods, rules) = futures::try_join!(
            self.monitors_of("ServiceMonitor", "servicemonitors", params),
            self.monitors_of("PodMonitor", "podmonitors", params),
            self.monitors_of("PrometheusRule", "prometheusrules", params),
        )?;
        Ok(Monitors {
            operator: true,
            services,
            pods,
            rules,
        })
    }

    async fn monitors_of(&self, kind: &str, plural: &str, params: &ListParams) -> Read<usize> {
        let resource = ApiResource {
            group: MONITORING.into(),
            version: "v1".into(),
            api_version: format!("{MONITORING}/v1"),
            kind: kind.into(),
            plural: plural.into(),
        };
        let all = Api::<DynamicObject>::all_with(self.ask.client.clone(), &resource);
        let found = match self.ask.list(&all, params.clone()).await {
            Err(Failure::NoRight(_)) => {
                let space = self.at.own.unwrap_or(USUAL_NAMESPACE);
                let one = Api::<DynamicObject>::namespaced_with(
                    self.ask.client.clone(),
                    space,
                    &resource,
                );
                self.ask.list(&one, params.clone()).await
            }
            found => found,
        };
        match found {
            Ok(found) => Ok(found.len()),
            // One kind of the operator alone is not there.
            Err(Failure::NoCrds(_)) => Ok(0),
            Err(failure) => Err(failure),
        }
    }

    /// What a Prometheus of the operator knows. Who may not look for one is not asked to.
    pub async fn prometheus(&self) -> Read<Option<Scraped>> {
        let services = Api::<Service>::all(self.ask.client.clone());
        let params = ListParams::default().labels("operated-prometheus=true");
        let found = match self.ask.list(&services, params).await {
            Err(Failure::NoRight(_)) => return Ok(None),
            found => found?,
        };
        let Some(service) = found.first() else {
            return Ok(None);
        };
        let ports = service
            .spec
            .iter()
            .flat_map(|spec| spec.ports.iter().flatten());
        let port = ports.map(|port| port.port).next().unwrap_or(9090);
        let (name, space) = (service.name_any(), namespace(service));
        let count = async |metric: &str| {
            let path = format!(
                "/api/v1/namespaces/{space}/services/{name}:{port}/proxy/api/v1/query?query=count({metric})"
            );
            counted(&self.ask.text(&path).await?)
        };
        let counts = async {
            futures::try_join!(
                count("diego_presence_store_reachable"),
                count("diego_rep_presence_held")
            )
        };
        Ok(Some(Scraped {
            counts: counts.await,
            service: format!("{space}/{name}"),
        }))
    }
}

/// The number in Prometheus' answer to a count; none is 0.
fn counted(text: &str) -> Read<u64> {
    let answer: Value = serde_json::from_str(text).unwrap_or_default();
    if answer["status"] != "success" {
        let said: String = text.chars().take(200).collect();
        return Err(Failure::Refused(format!("Prometheus says {said}")));
    }
    let value = answer["data"]["result"][0]["value"][1].as_str();
    Ok(value.and_then(|value| value.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn a_count_of_prometheus_is_read() {
        let some = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"2"]}]}}"#;
        assert_eq!(counted(some), Ok(2));
        let none = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
        assert_eq!(counted(none), Ok(0));
        assert!(counted("<html>no</html>").is_err());
    }
}
