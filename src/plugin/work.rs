//! `retire` and `cancel`: what may be asked of ActualLRPs and Tasks.

use kube::{Api, ResourceExt};
use serde_json::json;

use super::cluster::Cluster;
use super::done::Done;
use super::failure::Failure;
use super::kind::Kind;
use super::output::{Screen, say};
use crate::api::{ActualLRP, Task, TaskState};

/// These name objects of one namespace.
fn one_namespace(cluster: &Cluster) -> Result<String, Failure> {
    match &cluster.namespace {
        Some(namespace) => Ok(namespace.clone()),
        None => Err(Failure::Usage(
            "-A does not go with names: choose the namespace with -n".into(),
        )),
    }
}

/// Stops ActualLRPs; a fresh instance is started in the place of each.
///
/// # Errors
/// When one is not there, or the API server does not want it.
pub async fn retire(cluster: &Cluster, names: &[String], screen: &Screen) -> Result<(), Failure> {
    let namespace = one_namespace(cluster)?;
    let api: Api<ActualLRP> = cluster.own();
    for name in names {
        cluster.delete(&api, Kind::ActualLRP, name).await?;
        Done::new(Kind::ActualLRP, Some(namespace.clone()), name, "retired").show(screen)?;
    }
    Ok(())
}

/// Cancels Tasks.
///
/// # Errors
/// When one is not there, or the API server does not want it.
pub async fn cancel(cluster: &Cluster, names: &[String], screen: &Screen) -> Result<(), Failure> {
    let namespace = one_namespace(cluster)?;
    let api: Api<Task> = cluster.own();
    for name in names {
        let task = cluster.get(&api, Kind::Task, name).await?;
        let result = match ended(&task) {
            Some(words) => {
                say(&words);
                "already ended"
            }
            None => {
                let patch = json!({ "spec": { "cancelled": true } });
                cluster.patch(&api, Kind::Task, name, patch).await?;
                "cancelled"
            }
        };
        Done::new(Kind::Task, Some(namespace.clone()), name, result).show(screen)?;
    }
    Ok(())
}

/// How a Task has ended, if it has.
fn ended(task: &Task) -> Option<String> {
    let status = task.status.clone().unwrap_or_default();
    let name = task.name_any();
    match status.state {
        TaskState::Pending | TaskState::Running => None,
        TaskState::Completed | TaskState::Resolving => Some(match status.failed {
            Some(true) => {
                let reason = status.failure_reason.unwrap_or_default();
                format!("{name} has failed already: {reason}")
            }
            Some(false) | None => format!("{name} has succeeded already"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixtures::task;

    #[test]
    fn a_task_that_has_ended_is_not_cancelled() {
        assert_eq!(ended(&task("t", TaskState::Running, Some("a"))), None);
        let mut done = task("t", TaskState::Completed, Some("a"));
        assert_eq!(ended(&done).as_deref(), Some("t has succeeded already"));
        let status = done.status.as_mut().unwrap();
        (status.failed, status.failure_reason) = (Some(true), Some("no room".into()));
        assert_eq!(
            ended(&done).as_deref(),
            Some("t has failed already: no room")
        );
    }
}
