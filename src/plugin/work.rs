//! `retire` and `cancel`: what may be asked of ActualLRPs and Tasks.

use kube::{Api, ResourceExt};
use serde_json::json;

use super::args::RetireArgs;
use super::cluster::Cluster;
use super::done::Done;
use super::failure::Failure;
use super::kind::Kind;
use super::output::{Screen, say};
use crate::api::{ActualLRP, DesiredLRP, MissingCellPolicy, Task, TaskState};
use crate::client::bounded;

/// An instance that changes each time that it is to be deleted is tried so often.
const TRIES: usize = 5;

/// Stops ActualLRPs; a fresh instance is started in the place of each. All are looked up before the first is stopped.
///
/// # Errors
/// When one is not there, a second instance of it might run, or the API server does not want it.
pub async fn retire(cluster: &Cluster, args: &RetireArgs, screen: &Screen) -> Result<(), Failure> {
    let api: Api<ActualLRP> = cluster.own();
    let mut found: Vec<ActualLRP> = Vec::new();
    for name in &args.instances {
        if found.iter().all(|lrp| lrp.name_any() != *name) {
            found.push(cluster.get(&api, Kind::ActualLRP, name).await?);
        }
    }
    if !args.force {
        for lrp in &found {
            refuse(cluster, lrp).await?;
        }
    }
    for lrp in found {
        let name = lrp.name_any();
        retire_one(cluster, &api, lrp, args.force).await?;
        let namespace = Some(cluster.one_namespace.clone());
        Done::new(Kind::ActualLRP, namespace, &name, "retired").show(screen)?;
    }
    Ok(())
}

/// Deletes it as it was looked at: what it became since is looked at first.
async fn retire_one(
    cluster: &Cluster,
    api: &Api<ActualLRP>,
    mut lrp: ActualLRP,
    force: bool,
) -> Result<(), Failure> {
    let (name, uid) = (lrp.name_any(), lrp.uid());
    for _ in 0..TRIES {
        if cluster.delete(api, Kind::ActualLRP, &lrp).await? {
            return Ok(());
        }
        lrp = cluster.get(api, Kind::ActualLRP, &name).await?;
        if lrp.uid() != uid {
            break;
        }
        if !force {
            refuse(cluster, &lrp).await?;
        }
    }
    Err(Failure::Failed(format!(
        "{name} changed meanwhile and was not retired: look with {} trace actuallrp/{name} -n {}, and try again",
        cluster.command(),
        cluster.one_namespace
    )))
}

/// Fails where a second instance might run if this one were deleted.
async fn refuse(cluster: &Cluster, lrp: &ActualLRP) -> Result<(), Failure> {
    if !has_suspect(lrp) {
        return Ok(());
    }
    let api: Api<DesiredLRP> = cluster.own();
    let desired = bounded(api.get_opt(&lrp.spec.desired_lrp_name)).await;
    let policy = desired.ok().flatten();
    let policy = policy.map(|desired| desired.spec.missing_cell_policy);
    match held(lrp, policy) {
        Some(words) => Err(Failure::Failed(words)),
        None => Ok(()),
    }
}

fn has_suspect(lrp: &ActualLRP) -> bool {
    let status = lrp.status.as_ref();
    status.is_some_and(|status| status.suspect.is_some())
}

/// Why an ActualLRP must stay: it alone knows of an instance that may still run, and whose successor must wait.
fn held(lrp: &ActualLRP, policy: Option<MissingCellPolicy>) -> Option<String> {
    let cell = &lrp.status.as_ref()?.suspect.as_ref()?.cell_name;
    let name = lrp.name_any();
    let why = match policy {
        Some(MissingCellPolicy::Suspect) => return None,
        Some(MissingCellPolicy::Strict) => "its missingCellPolicy is Strict",
        None => "whether its missingCellPolicy is Strict could not be read from its DesiredLRP",
    };
    Some(format!(
        "{name} waits for what ran on missing Cell {cell}, and {why}: without {name} a second instance would start while the first one may still run. See to it that the first one is dead (docs/operating.md); it then goes on by itself. Only who knows that takes --force"
    ))
}

/// Cancels Tasks.
///
/// # Errors
/// When one is not there, or the API server does not want it.
pub async fn cancel(cluster: &Cluster, names: &[String], screen: &Screen) -> Result<(), Failure> {
    let namespace = &cluster.one_namespace;
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
    use crate::api::{ActualLRPState, SuspectInstance};
    use crate::plugin::fixtures::{lrp, task};

    #[test]
    fn a_slot_that_holds_a_second_instance_back_is_not_retired() {
        let mut web = lrp("web", 0, ActualLRPState::Unclaimed, None);
        assert_eq!(held(&web, Some(MissingCellPolicy::Strict)), None);
        web.status.as_mut().unwrap().suspect = Some(SuspectInstance {
            cell_name: "cell-2".into(),
            ..SuspectInstance::default()
        });
        assert_eq!(held(&web, Some(MissingCellPolicy::Suspect)), None);
        for (policy, words) in [
            (Some(MissingCellPolicy::Strict), "is Strict:"),
            (None, "could not be read"),
        ] {
            let told = held(&web, policy).unwrap();
            assert!(told.contains("missing Cell cell-2"), "{told}");
            assert!(told.contains(words) && told.contains("--force"), "{told}");
        }
    }

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
