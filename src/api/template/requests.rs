//! What a Pod takes of its node, counted as the scheduler counts it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{Resources, TemplateError};
use crate::api::quantity;

/// What is wanted, by the name of the resource.
type Quantities = Option<BTreeMap<String, Quantity>>;

/// The parts of a Pod that take something.
#[derive(Debug, Default)]
pub struct Wants<'a> {
    /// What each container wants.
    pub containers: Vec<Option<&'a ResourceRequirements>>,
    /// What each init container wants, and whether it goes on beside the containers.
    pub init: Vec<(Option<&'a ResourceRequirements>, bool)>,
    /// What the Pod wants as a whole, instead of the sum of its containers.
    pub whole: Option<&'a ResourceRequirements>,
    /// What a runtime class takes on top.
    pub overhead: Option<&'a BTreeMap<String, Quantity>>,
}

impl<'a> Wants<'a> {
    /// Those of a Pod.
    pub fn of(pod: &'a PodSpec) -> Self {
        let restarts =
            |container: &Container| container.restart_policy.as_deref() == Some("Always");
        Wants {
            containers: pod
                .containers
                .iter()
                .map(|container| container.resources.as_ref())
                .collect(),
            init: pod
                .init_containers
                .iter()
                .flatten()
                .map(|container| (container.resources.as_ref(), restarts(container)))
                .collect(),
            whole: pod.resources.as_ref(),
            overhead: pod.overhead.as_ref(),
        }
    }
}

/// The greater of what the containers take together and of what any init container takes, with those that go on
/// beside; the overhead comes on top.
///
/// # Errors
/// A quantity that can't be read.
pub fn of_pod(wants: &Wants<'_>) -> Result<Resources, TemplateError> {
    let mut together = Resources::default();
    for (i, container) in wants.containers.iter().enumerate() {
        together = together.plus(of_container(*container, &format!("containers[{i}]"))?);
    }
    let mut beside = Resources::default();
    let mut greatest = Resources::default();
    for (i, (container, goes_on)) in wants.init.iter().enumerate() {
        let own = of_container(*container, &format!("initContainers[{i}]"))?;
        if *goes_on {
            beside = beside.plus(own);
            greatest = greatest.max(beside);
        } else {
            greatest = greatest.max(beside.plus(own));
        }
    }
    let mut all = together.plus(beside).max(greatest);
    if let Some(whole) = wants.whole {
        all = of_whole(whole, all)?;
    }
    let overhead = read(wants.overhead, "spec.overhead")?;
    Ok(all.plus(overhead.map(Option::unwrap_or_default)))
}

/// Memory, disk and CPU, as far as they are given.
struct Given {
    memory: Option<i64>,
    disk: Option<i64>,
    cpu: Option<i64>,
}

impl Given {
    fn or(self, other: Given) -> Given {
        Given {
            memory: self.memory.or(other.memory),
            disk: self.disk.or(other.disk),
            cpu: self.cpu.or(other.cpu),
        }
    }

    fn map(self, value: impl Fn(Option<i64>) -> i64) -> Resources {
        Resources {
            memory: value(self.memory),
            disk: value(self.disk),
            cpu: value(self.cpu),
        }
    }
}

/// The request, else the limit: the API server makes the one of the other.
fn of_container(
    wanted: Option<&ResourceRequirements>,
    container: &str,
) -> Result<Resources, TemplateError> {
    let Some(wanted) = wanted else {
        return Ok(Resources::default());
    };
    let field = |which| format!("spec.{container}.resources.{which}");
    let requests = given(&wanted.requests, &field("requests"))?;
    let limits = given(&wanted.limits, &field("limits"))?;
    Ok(requests.or(limits).map(Option::unwrap_or_default))
}

/// What the Pod as a whole requests goes before what its containers do; its limit counts where neither requests any.
fn of_whole(
    whole: &ResourceRequirements,
    containers: Resources,
) -> Result<Resources, TemplateError> {
    let requests = given(&whole.requests, "spec.resources.requests")?;
    let limits = given(&whole.limits, "spec.resources.limits")?;
    let one = |request: Option<i64>, limit: Option<i64>, sum: i64| match (request, sum) {
        (Some(request), _) => request,
        (None, 0) => limit.unwrap_or(0),
        (None, sum) => sum,
    };
    Ok(Resources {
        memory: one(requests.memory, limits.memory, containers.memory),
        disk: one(requests.disk, limits.disk, containers.disk),
        cpu: one(requests.cpu, limits.cpu, containers.cpu),
    })
}

fn given(quantities: &Quantities, field: &str) -> Result<Given, TemplateError> {
    read(quantities.as_ref(), field)
}

fn read(
    quantities: Option<&BTreeMap<String, Quantity>>,
    field: &str,
) -> Result<Given, TemplateError> {
    let one = |name: &str, read: fn(&str) -> Result<i64, String>| {
        let Some(quantity) = quantities.and_then(|quantities| quantities.get(name)) else {
            return Ok(None);
        };
        read(&quantity.0)
            .map(Some)
            .map_err(|problem| TemplateError::new(&format!("{field}.{name}"), problem))
    };
    Ok(Given {
        memory: one("memory", quantity::bytes)?,
        disk: one("ephemeral-storage", quantity::bytes)?,
        cpu: one("cpu", quantity::millis)?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(spec: serde_json::Value) -> Result<Resources, String> {
        let pod: PodSpec = serde_json::from_value(spec).unwrap();
        of_pod(&Wants::of(&pod)).map_err(|error| error.to_string())
    }

    fn wants(cpu: &str, memory: &str) -> serde_json::Value {
        json!({"requests": {"cpu": cpu, "memory": memory}})
    }

    fn is(cpu: i64, memory: i64) -> Result<Resources, String> {
        Ok(Resources {
            memory,
            disk: 0,
            cpu,
        })
    }

    #[test]
    fn init_containers_run_before_the_others_and_not_beside_them() {
        let pod = |init| {
            json!({
                "initContainers": [{"name": "i", "resources": init}],
                "containers": [
                    {"name": "a", "resources": wants("100m", "10")},
                    {"name": "b", "resources": {"limits": {"cpu": "1", "memory": "5"}}},
                ],
            })
        };
        assert_eq!(of(pod(wants("1", "100"))), is(1100, 100));
        assert_eq!(of(pod(wants("2", "1"))), is(2000, 15));
    }

    #[test]
    fn an_init_container_that_goes_on_counts_beside_all_that_come_after_it() {
        let pod = json!({
            "initContainers": [
                {"name": "first", "resources": wants("3", "1")},
                {"name": "side", "restartPolicy": "Always", "resources": wants("1", "8")},
                {"name": "last", "resources": wants("1500m", "7")},
            ],
            "containers": [{"name": "a", "resources": wants("1", "4")}],
            "overhead": {"cpu": "10m", "memory": "1"},
        });
        // CPU: first alone; memory: side and last.
        assert_eq!(of(pod), is(3010, 16));
    }

    #[test]
    fn what_the_pod_requests_as_a_whole_goes_before_its_containers() {
        let pod = json!({
            "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "4", "memory": "100"}},
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "3"}}}],
        });
        assert_eq!(of(pod), is(2000, 100));
    }

    #[test]
    fn a_quantity_that_is_none_names_its_field() {
        let pod = json!({
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "two"}}}],
            "containers": [],
        });
        let error = of(pod).unwrap_err();
        assert!(
            error.starts_with("spec.template.spec.initContainers[0].resources.requests.cpu: 'two'"),
            "{error}"
        );
    }
}
