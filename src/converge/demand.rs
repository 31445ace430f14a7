//! What a DesiredLRP or Task asks of the Cell it shall run on.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;

use crate::api::template::{self, RawTemplate, Resources};

use super::neighbours::{Likeness, Of, PodNeeds};
use super::node::{self, NodeNeeds};
use super::process_spec::ProcessSpec;

/// The needs of one instance or Task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Demand {
    /// What it takes. Every instance also takes one container.
    pub resources: Resources,
    /// Placement tags, sorted.
    pub tags: Vec<String>,
    /// What a Cell with executor Process could not give, as a sentence; `None` if it can give all.
    pub process_refusal: Option<String>,
    /// The same of a Cell with executor Pods.
    pub pods_refusal: Option<String>,
    /// What it asks of a Cell that is a node.
    pub node: NodeNeeds,
    /// What it asks of the Pods near it there.
    pub pods: PodNeeds,
    /// The labels of its Pods, beside ours.
    pub labels: BTreeMap<String, String>,
    /// The scheduler that its placement is left to; the auction places what names none.
    pub scheduler: Option<String>,
}

impl Demand {
    /// Reads a template and its placement tags.
    ///
    /// # Errors
    /// What is wrong with the template, naming the field.
    pub fn new(template: &RawTemplate, tags: &[String]) -> Result<Demand, String> {
        let parsed: PodTemplateSpec = template.parse().map_err(|error| error.to_string())?;
        let resources = template::resources(&parsed).map_err(|error| error.to_string())?;
        let mut tags = tags.to_vec();
        tags.sort();
        let process_refusal = ProcessSpec::from_template(&parsed)
            .err()
            .map(|refusal| refusal.to_string());
        let labels = parsed.metadata.and_then(|metadata| metadata.labels);
        let pod = parsed.spec.unwrap_or_default();
        let mut unread = Vec::new();
        let node = NodeNeeds::read(&pod).unwrap_or_else(|field| {
            unread.push(field);
            NodeNeeds::default()
        });
        let pods = PodNeeds::read(&pod).unwrap_or_else(|field| {
            unread.push(field);
            // Wherever a scheduler puts it, the auction keeps others off it.
            PodNeeds::of_scheduled(&pod)
        });
        Ok(Demand {
            resources,
            tags,
            process_refusal,
            pods_refusal: node::refusal(&pod, unread),
            node,
            pods,
            labels: labels.unwrap_or_default(),
            scheduler: pod.scheduler_name,
        })
    }

    /// Its Pods as the terms of others see them.
    pub fn likeness<'a>(&'a self, namespace: &'a str, of: Of<'a>) -> Likeness<'a> {
        Likeness {
            namespace,
            labels: &self.labels,
            of: Some(of),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn demand(spec: Value) -> Demand {
        let template = RawTemplate {
            metadata: None,
            spec,
        };
        Demand::new(&template, &[]).expect("a template")
    }

    fn with(field: &str, value: Value) -> Demand {
        let mut spec = json!({"containers": [{"name": "a", "image": "web"}]});
        spec[field] = value;
        demand(spec)
    }

    #[test]
    fn a_pod_needs_an_image_and_a_process_a_command() {
        let refusals = |container| {
            let demand = demand(json!({ "containers": [container] }));
            (demand.process_refusal.is_some(), demand.pods_refusal)
        };
        let no_image = "a Cell with executor Pods can't run it: spec.template.spec.containers[0].image is not set";
        assert_eq!(
            refusals(json!({"name": "a", "command": ["web"]})),
            (false, Some(no_image.to_owned()))
        );
        assert_eq!(refusals(json!({"name": "a", "image": "web"})), (true, None));
        let both = json!({"name": "a", "image": "web", "command": ["web"]});
        assert_eq!(refusals(both), (false, None));
    }

    #[test]
    fn what_only_a_scheduler_can_honour_is_refused_with_field_and_remedy() {
        let team = json!({"matchLabels": {"team": "db"}});
        let term = json!([{"topologyKey": "zone", "namespaceSelector": team}]);
        let keys = json!([{"topologyKey": "zone", "matchLabelKeys": ["hash"]}]);
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        let port = json!([{"name": "a", "image": "web", "ports": [{"containerPort": 80, "hostPort": 80}]}]);
        let gpu = json!([{"name": "a", "image": "web", "resources": {"limits": {"example.com/gpu": "1"}}}]);
        for (field, value, told) in [
            (
                "affinity",
                json!({"podAffinity": {required: term}}),
                "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].namespaceSelector (only {} is known, for all namespaces)",
            ),
            (
                "affinity",
                json!({"podAntiAffinity": {required: keys}}),
                "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys",
            ),
            (
                "topologySpreadConstraints",
                json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]),
                "spec.topologySpreadConstraints[0] (whenUnsatisfiable: DoNotSchedule)",
            ),
            ("containers", port, "spec.containers[0].ports[0].hostPort"),
            (
                "containers",
                gpu,
                "spec.containers[0].resources.limits[example.com/gpu]",
            ),
            (
                "resourceClaims",
                json!([{"name": "gpu"}]),
                "spec.resourceClaims",
            ),
            (
                "volumes",
                json!([{"name": "v", "persistentVolumeClaim": {"claimName": "v"}}]),
                "spec.volumes[0]",
            ),
            (
                "tolerations",
                json!([{"key": "a", "operator": "Gt", "value": "1"}]),
                "spec.tolerations[0].operator (\"Gt\" is not known)",
            ),
        ] {
            let refusal = with(field, value.clone()).pods_refusal;
            let expected = format!(
                "a Cell with executor Pods can't honour: {told}; set spec.template.spec.schedulerName to leave the placement to a scheduler"
            );
            assert_eq!(refusal, Some(expected));
            let mut left = json!({"containers": [{"name": "a", "image": "web"}], "schedulerName": "default-scheduler"});
            left[field] = value;
            let left = demand(left);
            assert_eq!(left.pods_refusal, None, "{told}");
            let keeps_off = told.starts_with("spec.affinity.podAntiAffinity");
            assert_eq!(left.pods.apart.len(), usize::from(keeps_off), "{told}");
            assert_eq!(left.scheduler.as_deref(), Some("default-scheduler"));
        }
    }

    #[test]
    fn what_is_only_preferred_is_no_hindrance() {
        let term = json!({"topologyKey": "zone", "labelSelector": {}});
        let preferred = json!([{"weight": 1, "podAffinityTerm": term}]);
        let affinity = json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}});
        assert_eq!(with("affinity", affinity).pods_refusal, None);
        let anyway =
            json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]);
        assert_eq!(with("topologySpreadConstraints", anyway).pods_refusal, None);
    }
}
