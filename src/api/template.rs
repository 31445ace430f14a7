//! The pod template as the API server keeps it, and as it is read.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub mod requests;

/// A core/v1 PodTemplateSpec that nobody has judged yet.
///
/// It is kept raw so that one object with a template that does not parse never hides the others.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct RawTemplate {
    /// Labels and annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// What to run.
    #[serde(default)]
    pub spec: Value,
}

/// Why a template can't be used, with the path of the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct TemplateError {
    /// The path of the field below the object: `spec.template.spec.containers[0].name`.
    pub field: String,
    /// What is wrong with it, and what to write instead.
    pub problem: String,
}

impl TemplateError {
    /// A problem with `field`, which is given below the template.
    pub fn new(field: &str, problem: impl Into<String>) -> Self {
        TemplateError {
            field: format!("spec.template.{field}"),
            problem: problem.into(),
        }
    }
}

/// What a template asks of a Cell, or what a Cell has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Resources {
    /// Memory, in bytes.
    pub memory: i64,
    /// Disk (ephemeral-storage), in bytes.
    pub disk: i64,
    /// CPU, in thousandths. Limits Cells that are nodes only.
    pub cpu: i64,
}

impl Resources {
    /// Both together.
    pub fn plus(self, other: Resources) -> Resources {
        self.zip(other, i64::saturating_add)
    }

    /// The greater of both, one by one.
    pub fn max(self, other: Resources) -> Resources {
        self.zip(other, i64::max)
    }

    /// The lesser of both, one by one.
    pub fn min(self, other: Resources) -> Resources {
        self.zip(other, i64::min)
    }

    fn zip(self, other: Resources, with: fn(i64, i64) -> i64) -> Resources {
        Resources {
            memory: with(self.memory, other.memory),
            disk: with(self.disk, other.disk),
            cpu: with(self.cpu, other.cpu),
        }
    }
}

impl RawTemplate {
    /// Reads the template.
    ///
    /// # Errors
    /// The first field that a PodTemplateSpec can't have, with what is expected there.
    pub fn parse(&self) -> Result<PodTemplateSpec, TemplateError> {
        if !self.spec.is_object() {
            return Err(TemplateError::new(
                "spec",
                "must be an object with at least one container",
            ));
        }
        let value =
            serde_json::to_value(self).map_err(|e| TemplateError::new("", e.to_string()))?;
        let template: PodTemplateSpec = serde_json::from_value(value)
            .map_err(|e| TemplateError::new("spec", format!("is no PodTemplateSpec: {e}")))?;
        check(&template)?;
        Ok(template)
    }
}

/// What the pod types alone let pass and no executor can run.
fn check(template: &PodTemplateSpec) -> Result<(), TemplateError> {
    let containers = template
        .spec
        .as_ref()
        .map(|spec| spec.containers.as_slice())
        .unwrap_or_default();
    if containers.is_empty() {
        return Err(TemplateError::new(
            "spec.containers",
            "must have at least one container",
        ));
    }
    for (i, container) in containers.iter().enumerate() {
        let mut seen = std::collections::BTreeSet::new();
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let field = format!("spec.containers[{i}].ports[{j}].containerPort");
            if !(1..=65535).contains(&port.container_port) {
                return Err(TemplateError::new(
                    &field,
                    format!(
                        "is {}: a port must be between 1 and 65535",
                        port.container_port
                    ),
                ));
            }
            if !seen.insert(port.container_port) {
                return Err(TemplateError::new(
                    &field,
                    format!(
                        "{} is declared twice: every port must be declared once",
                        port.container_port
                    ),
                ));
            }
        }
    }
    resources(template).map(|_| ())
}

/// The resources a template asks for.
///
/// # Errors
/// A quantity that can't be read.
pub fn resources(template: &PodTemplateSpec) -> Result<Resources, TemplateError> {
    match &template.spec {
        Some(spec) => requests::of_pod(&requests::Wants::of(spec)),
        None => Ok(Resources::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn raw(spec: Value) -> RawTemplate {
        RawTemplate {
            metadata: None,
            spec,
        }
    }

    #[test]
    fn a_template_that_does_not_parse_names_the_field() {
        let wrong = |spec| raw(spec).parse().unwrap_err().to_string();
        assert_eq!(
            wrong(json!("sleep")),
            "spec.template.spec: must be an object with at least one container"
        );
        assert_eq!(
            wrong(json!({"containers": []})),
            "spec.template.spec.containers: must have at least one container"
        );
        assert!(
            wrong(json!({"containers": [{"name": 3}]}))
                .starts_with("spec.template.spec: is no PodTemplateSpec")
        );
        let twice = json!({"containers": [{"name": "a", "ports": [{"containerPort": 80}, {"containerPort": 80}]}]});
        assert_eq!(
            wrong(twice),
            "spec.template.spec.containers[0].ports[1].containerPort: 80 is declared twice: every port must be declared once"
        );
        let memory =
            json!({"containers": [{"name": "a", "resources": {"requests": {"memory": "lots"}}}]});
        assert!(
            wrong(memory)
                .starts_with("spec.template.spec.containers[0].resources.requests.memory: ")
        );
    }

    #[test]
    fn resources_are_requests_else_limits_summed_over_containers() {
        let template = raw(json!({"containers": [
            {"name": "a", "resources": {"requests": {"memory": "64Mi", "ephemeral-storage": "1Gi"}, "limits": {"memory": "1Gi"}}},
            {"name": "b", "resources": {"limits": {"memory": "32Mi"}}},
        ]}))
        .parse()
        .unwrap();
        assert_eq!(
            resources(&template).unwrap(),
            Resources {
                memory: 96 << 20,
                disk: 1 << 30,
                cpu: 0,
            }
        );
    }
}
