//! The lines of a scenario in which a rep or a user speaks: verbs on a record, and a rep's next step.

use diego_operator::api::{ActualLRP, ActualLRPSpec, MissingCellPolicy, Task, TaskSpec};
use diego_operator::converge::harmony::{self, ContainerState, LrpAction, Mode, TaskAction};
use diego_operator::converge::lrp::transition::{self, Instance, Verb};
use diego_operator::converge::task::transition as task;
use diego_operator::converge::world::{Key, Lrp, TaskRecord};
use diego_operator::rep::records::{self, lrp_view, task_view};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp;

use super::read::{number, options, place};
use super::say;
use crate::world::{Sandbox, key};

/// `claim web/0 by a@1 [as=GUID]`, `start`, `crash ... because=WORDS`, `give-back ... [refused=WORDS]`; without an
/// index the same of a Task: `start t by a@1`, `complete t by a@1 [failed=WORDS] [result=WORD]`, `reject`.
pub fn rep_says(
    sandbox: &mut Sandbox,
    verb: &str,
    words: &[&str],
    now: Timestamp,
) -> Result<String, String> {
    let [name, "by", on, ..] = words else {
        return Err(format!(
            "write: {verb} PROCESS/INDEX by CELL@EPOCH, or {verb} TASK by CELL@EPOCH"
        ));
    };
    let (cell, epoch) = place(on)?;
    let options = options(&words[3..]);
    let text = |name: &str| options.get(name).map(|words| words.replace('_', " "));
    let guid = options.get("as").map(|guid| (*guid).to_owned());
    match slot(name) {
        Some((process, index)) => {
            let record = record_of(sandbox, &process, index)?;
            let guid = guid.unwrap_or_else(|| known_guid(&record, &process, index, &cell));
            let instance = Instance { cell, epoch, guid };
            let verb = match verb {
                "claim" => Verb::Claim(instance),
                "start" => Verb::Start {
                    instance,
                    address: "10.0.0.2".into(),
                    ports: Vec::new(),
                },
                "evacuate" => Verb::Evacuate {
                    instance,
                    address: "10.0.0.2".into(),
                    ports: Vec::new(),
                },
                "crash" => Verb::Crash {
                    instance,
                    reason: text("because").unwrap_or_else(|| "exited with status 1".into()),
                },
                "give-back" => Verb::GiveBack {
                    instance,
                    refused: text("refused"),
                },
                other => return Err(format!("no rep says {other:?} of an instance")),
            };
            say_of_lrp(sandbox, &process, index, record, &verb, now)
        }
        None => {
            let record = task_of(sandbox, name)?;
            let guid = guid.unwrap_or_else(|| format!("{name}-run"));
            let instance = Instance { cell, epoch, guid };
            let verb = match verb {
                "start" => task::Verb::Start { instance },
                "complete" => task::Verb::Complete {
                    instance,
                    outcome: match text("failed") {
                        Some(reason) => task::Outcome::Failed(reason),
                        None => task::Outcome::Succeeded(text("result")),
                    },
                },
                "reject" => task::Verb::Reject {
                    instance,
                    reason: text("because").unwrap_or_else(|| "no free port".into()),
                },
                other => return Err(format!("no rep says {other:?} of a Task")),
            };
            let to = match task::apply(&record.status, &verb, record.version.generation, now) {
                Ok(to) => to,
                Err(refusal) => return Ok(format!("refused: {refusal}\n")),
            };
            let line = say::task(name, &to);
            let version = sandbox.version(&record.version.uid);
            let record = TaskRecord {
                version,
                status: to,
                ..record
            };
            sandbox.world.put_task(&key(name), record);
            Ok(line)
        }
    }
}

fn say_of_lrp(
    sandbox: &mut Sandbox,
    process: &str,
    index: i32,
    record: Lrp,
    verb: &Verb,
    now: Timestamp,
) -> Result<String, String> {
    let to = match transition::apply(&record.status, verb, now) {
        Ok(to) => to,
        Err(refusal) => return Ok(format!("refused: {refusal}\n")),
    };
    let key = key(process).instance(index);
    let line = say::lrp(&key, &to);
    let version = sandbox.version(&record.version.uid);
    let record = Lrp {
        version,
        status: to,
        ..record
    };
    sandbox.world.put_lrp(&key, record);
    Ok(line)
}

/// `rep a has web/0 Running [as=GUID] [draining] [retired]`: what the rep of Cell a does next about its container.
pub fn rep_has(sandbox: &Sandbox, words: &[&str]) -> Result<String, String> {
    let [cell, "has", name, state, ..] = words else {
        return Err("write: rep CELL has PROCESS/INDEX STATE, or rep CELL has TASK STATE".into());
    };
    let options = options(&words[4..]);
    let mode = match options.contains_key("draining") {
        true => Mode::Draining,
        false => Mode::Ordinary,
    };
    let container = container_state(state)?;
    let action = match slot(name) {
        Some((process, index)) => {
            let key = key(&process).instance(index);
            let record = sandbox.world.lrp(&key);
            let guid = match (options.get("as"), record) {
                (Some(guid), _) => (*guid).to_owned(),
                (None, Some(record)) => known_guid(record, &process, index, cell),
                (None, None) => format!("{process}-{index}-on-{cell}"),
            };
            let owner = format!("desired-{process}");
            let instance = records::Instance {
                cell,
                guid: &guid,
                owner: (container != ContainerState::None).then_some(owner.as_str()),
                retired: options.contains_key("retired"),
            };
            let wanted = sandbox
                .world
                .desired(&self::key(&process))
                .filter(|desired| index < desired.instances)
                .map(|desired| desired.version.uid.clone());
            let object = record.map(|record| lrp_object(&key, record));
            let view = lrp_view(object.as_ref(), wanted.as_deref(), instance);
            let desired = sandbox.world.desired(&self::key(&process));
            let strict = desired.is_some_and(|desired| desired.policy == MissingCellPolicy::Strict);
            let table = if strict {
                harmony::strict_lrp
            } else {
                harmony::lrp
            };
            let action = table(view, container, mode);
            let acts = matches!(action, LrpAction::Stop | LrpAction::CreateRecord);
            live(format!("{action:?}"), container, acts)
        }
        None => {
            let guid = options
                .get("as")
                .map_or_else(|| format!("{name}-run"), |guid| (*guid).to_owned());
            let record = sandbox.world.task(&key(name));
            let object = record.map(|record| task_object(name, record));
            let uid = options.get("uid").copied();
            let view = task_view(object.as_ref(), uid, cell, &guid);
            let action = harmony::task(view, container, mode);
            live(format!("{action:?}"), container, action == TaskAction::Stop)
        }
    };
    Ok(format!("{action}\n"))
}

fn live(action: String, container: ContainerState, acts: bool) -> String {
    match harmony::wants_live_read(container, acts) {
        true => format!("{action}, if the record read now says so too"),
        false => action,
    }
}

fn container_state(text: &str) -> Result<ContainerState, String> {
    Ok(match text {
        "nothing" => ContainerState::None,
        "Reserved" => ContainerState::Reserved,
        "Starting" => ContainerState::Starting,
        "Running" => ContainerState::Running,
        "Stopping" => ContainerState::Stopping,
        "CompletedShutdown" => ContainerState::CompletedShutdown,
        "CompletedCrashed" => ContainerState::CompletedCrashed,
        other => return Err(format!("unknown container state {other:?}")),
    })
}

/// `web/0`
fn slot(name: &str) -> Option<(String, i32)> {
    let (process, index) = name.split_once('/')?;
    Some((process.to_owned(), number(index).ok()? as i32))
}

fn record_of(sandbox: &Sandbox, process: &str, index: i32) -> Result<Lrp, String> {
    let record = sandbox.world.lrp(&key(process).instance(index));
    record
        .cloned()
        .ok_or_else(|| format!("there is no {process}/{index}"))
}

fn task_of(sandbox: &Sandbox, name: &str) -> Result<TaskRecord, String> {
    let record = sandbox.world.task(&key(name));
    record
        .cloned()
        .ok_or_else(|| format!("there is no Task {name}"))
}

/// The guid that the record has on that Cell; one of its own where it has none there.
fn known_guid(record: &Lrp, process: &str, index: i32, cell: &str) -> String {
    let there = record.status.named().find(|one| one.cell == cell);
    let guid = there.and_then(|one| one.guid).map(ToOwned::to_owned);
    guid.unwrap_or_else(|| format!("{process}-{index}-on-{cell}"))
}

fn lrp_object(key: &Key, record: &Lrp) -> ActualLRP {
    let spec = ActualLRPSpec {
        desired_lrp_name: record.process.clone(),
        index: record.index,
        domain: None,
    };
    let mut object = ActualLRP::new(&key.name, spec);
    object.metadata.owner_references = Some(vec![OwnerReference {
        uid: record.owner.clone().unwrap_or_default(),
        controller: Some(true),
        ..OwnerReference::default()
    }]);
    object.status = Some(record.status.clone());
    object
}

fn task_object(name: &str, record: &TaskRecord) -> Task {
    let spec = TaskSpec {
        cancelled: record.cancelled.then_some(true),
        ..TaskSpec::default()
    };
    let mut object = Task::new(name, spec);
    object.metadata.uid = Some(record.version.uid.clone());
    object.status = Some(record.status.clone());
    object
}
