//! The lines of a scenario that say what there is.

use std::collections::HashMap;
use std::sync::Arc;

use diego_operator::api::{
    ActualLRPState, ActualLRPStatus, CellState, EvacuatingInstance, MissingCellPolicy,
    SuspectInstance, TaskState, TaskStatus, conditions, quantity, template::Resources,
};
use diego_operator::converge::demand::Demand;
use diego_operator::converge::plan::Scope;
use diego_operator::converge::task::Settlement;
use diego_operator::converge::world::TaskRecord;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::SignedDuration;

use crate::world::{Sandbox, at, key};

pub fn number(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

/// `name=value` and bare words.
pub fn options<'a>(words: &[&'a str]) -> HashMap<&'a str, &'a str> {
    words
        .iter()
        .map(|word| word.split_once('=').unwrap_or((word, "")))
        .collect()
}

fn tags(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

/// The knobs of the auction, from here on.
pub fn rules(sandbox: &mut Sandbox, words: &[&str]) -> Result<(), String> {
    for (name, value) in options(words) {
        let value: f64 = value
            .parse()
            .map_err(|_| format!("{name}={value}: no number"))?;
        let auction = &mut sandbox.rules.auction;
        match name {
            "starting-container-weight" => auction.starting_container_weight = value,
            "bin-pack-first-fit-weight" => auction.bin_pack_first_fit_weight = value,
            "starting-container-count-maximum" => {
                auction.starting_container_count_maximum = value as u32;
            }
            other => return Err(format!("unknown knob {other:?}")),
        }
    }
    Ok(())
}

pub fn cell(sandbox: &mut Sandbox, words: &[&str]) -> Result<(), String> {
    let name = *words.first().ok_or("cell needs a name")?;
    let state = match words.get(1).copied() {
        Some("Present") => CellState::Present,
        Some("Missing") => CellState::Missing,
        Some("Evacuating") => CellState::Evacuating,
        Some("Evacuated") => CellState::Evacuated,
        other => return Err(format!("cell {name}: unknown state {other:?}")),
    };
    let options = options(&words[2..]);
    let epoch = options.get("epoch").map_or(Ok(1), |text| number(text))?;
    let first = options
        .get("incarnation-epoch")
        .map_or(Ok(epoch), |text| number(text))?;
    let zone = options.get("zone").copied().unwrap_or("z1");
    let mut record = sandbox.cell(name, zone, state, epoch, first);
    if let Some(memory) = options.get("memory") {
        record.capacity.memory = quantity::bytes(memory)?;
    }
    if let Some(containers) = options.get("containers") {
        record.containers = number(containers)? as i32;
    }
    record.required_tags = options
        .get("tags")
        .map(|text| tags(text))
        .unwrap_or_default();
    record.optional_tags = options
        .get("optional")
        .map(|text| tags(text))
        .unwrap_or_default();
    record.unschedulable = options.contains_key("unschedulable");
    record.evacuate = options.contains_key("evacuate");
    record.status.fenced = options.contains_key("fenced").then_some(true);
    super::nodes::stand_on(&mut record, &options);
    sandbox.world.put_cell(name, record);
    Ok(())
}

fn demand(options: &HashMap<&str, &str>) -> Result<Result<Arc<Demand>, String>, String> {
    if options.contains_key("invalid") {
        return Ok(Err(
            "spec.template.spec: must be an object with at least one container".into(),
        ));
    }
    let memory = options
        .get("memory")
        .map_or(Ok(0), |text| quantity::bytes(text))?;
    let mut demand = Demand {
        resources: Resources {
            memory,
            ..Resources::default()
        },
        tags: options
            .get("tags")
            .map(|text| tags(text))
            .unwrap_or_default(),
        process_refusal: options
            .contains_key("volumes")
            .then(|| "a Cell with executor Process can't give: volumes".into()),
        ..Demand::default()
    };
    super::nodes::ask(&mut demand, options)?;
    Ok(Ok(Arc::new(demand)))
}

pub fn desired(sandbox: &mut Sandbox, words: &[&str]) -> Result<(), String> {
    let name = *words.first().ok_or("desired needs a name")?;
    let options = options(&words[1..]);
    let instances = number(
        options
            .get("instances")
            .ok_or("desired needs instances=N")?,
    )? as i32;
    let mut record = sandbox.desired(name, instances);
    record.demand = demand(&options)?;
    record.version.deleting = options.contains_key("deleting");
    if options.contains_key("strict") {
        record.policy = MissingCellPolicy::Strict;
    }
    sandbox.world.put_desired(&key(name), record);
    Ok(())
}

/// `cell@epoch`
pub fn place(text: &str) -> Result<(String, i64), String> {
    let (cell, epoch) = text
        .split_once('@')
        .ok_or_else(|| format!("{text:?}: write cell@epoch"))?;
    Ok((cell.to_owned(), number(epoch)?))
}

fn lrp_state(text: &str) -> Result<ActualLRPState, String> {
    Ok(match text {
        "Unclaimed" => ActualLRPState::Unclaimed,
        "Claimed" => ActualLRPState::Claimed,
        "Running" => ActualLRPState::Running,
        "Crashed" => ActualLRPState::Crashed,
        other => return Err(format!("unknown state {other:?}")),
    })
}

pub fn lrp(sandbox: &mut Sandbox, words: &[&str], now: i64) -> Result<(), String> {
    let [name, state, ..] = words else {
        return Err("write: lrp PROCESS/INDEX STATE ...".into());
    };
    let (process, index) = name
        .split_once('/')
        .ok_or("write: lrp PROCESS/INDEX STATE ...")?;
    let options = options(&words[2..]);
    let since = options.get("since").map_or(Ok(now), |text| number(text))?;
    let mut status = ActualLRPStatus {
        state: lrp_state(state)?,
        state_transition_time: Some(MicroTime(at(since))),
        ..Default::default()
    };
    if let Some(on) = options.get("on") {
        let (cell, epoch) = place(on)?;
        status.instance_guid = Some(format!("{process}-{index}-on-{cell}"));
        (status.cell_name, status.cell_epoch) = (Some(cell), Some(epoch));
    }
    if status.state == ActualLRPState::Running {
        status.address = Some("10.0.0.1".into());
    }
    status.crash_count = options
        .get("crashes")
        .map(|text| number(text).map(|n| n as i32))
        .transpose()?;
    status.rejection_count = rejections(&options)?;
    status.rejected_by = rejected_by(&options);
    if let Some(suspect) = options.get("suspect") {
        let (cell_name, cell_epoch) = place(suspect)?;
        let state = options
            .get("suspect-state")
            .map_or(Ok(ActualLRPState::Running), |state| lrp_state(state))?;
        status.suspect = Some(SuspectInstance {
            cell_name,
            cell_epoch,
            instance_guid: "old".into(),
            state,
            ..Default::default()
        });
    }
    if let Some(evacuating) = options.get("evacuating") {
        let (cell_name, cell_epoch) = place(evacuating)?;
        status.evacuating = Some(EvacuatingInstance {
            cell_name,
            cell_epoch,
            instance_guid: "old".into(),
            ..Default::default()
        });
    }
    let index = number(index)? as i32;
    let record = sandbox.lrp(process, index, status);
    sandbox.world.put_lrp(&key(process).instance(index), record);
    Ok(())
}

/// How often Cells gave it back.
fn rejections(options: &HashMap<&str, &str>) -> Result<Option<i32>, String> {
    options
        .get("rejections")
        .map(|text| number(text).map(|n| n as i32))
        .transpose()
}

/// Which Cells gave it back, the last one last.
fn rejected_by(options: &HashMap<&str, &str>) -> Vec<String> {
    let cells = options.get("rejected-by");
    cells.map(|text| tags(text)).unwrap_or_default()
}

pub fn task(sandbox: &mut Sandbox, words: &[&str], now: i64) -> Result<(), String> {
    let [name, state, ..] = words else {
        return Err("write: task NAME STATE ...".into());
    };
    let options = options(&words[2..]);
    let since = options.get("since").map_or(Ok(now), |text| number(text))?;
    let mut status = TaskStatus {
        state: match *state {
            "Pending" => TaskState::Pending,
            "Running" => TaskState::Running,
            "Completed" => TaskState::Completed,
            "Resolving" => TaskState::Resolving,
            other => return Err(format!("unknown state {other:?}")),
        },
        ..Default::default()
    };
    if let Some(on) = options.get("on") {
        let (cell, epoch) = place(on)?;
        (status.cell_name, status.cell_epoch) = (Some(cell), Some(epoch));
        status.instance_guid = Some(format!("{name}-run"));
        status.state_transition_time = Some(MicroTime(at(since)));
    }
    if let Some(completed) = options.get("completed") {
        let completed = MicroTime(at(number(completed)?));
        status.state_transition_time = Some(MicroTime(at(since)));
        status.first_completed_time = Some(completed);
        status.failed = Some(options.contains_key("failed"));
        if options.contains_key("settled") {
            let answer = Settlement::Answered { status: 200 };
            let (truth, reason, message) = answer.condition();
            let (list, kind) = (&mut status.conditions, conditions::CALLBACK_DELIVERED);
            conditions::set(list, kind, truth, reason, &message, None, at(since));
        }
    }
    status.rejection_count = rejections(&options)?;
    status.rejected_by = rejected_by(&options);
    if status.rejection_count.is_some() {
        status.state_transition_time = Some(MicroTime(at(since)));
        status.rejection_reason = Some("no free port".into());
    }
    let created = options
        .get("created")
        .map_or(Ok(now), |text| number(text))?;
    let record = TaskRecord {
        version: sandbox.version(&format!("task-{name}")),
        created: at(created),
        cancelled: options.contains_key("cancelled"),
        callback: options
            .get("callback")
            .map(|receiver| (*receiver).to_owned()),
        seen_finished: options
            .get("seen")
            .map(|text| number(text).map(at))
            .transpose()?,
        keep: options
            .get("ttl")
            .map(|text| number(text).map(SignedDuration::from_secs))
            .transpose()?,
        demand: demand(&options)?,
        status,
    };
    sandbox.world.put_task(&key(name), record);
    Ok(())
}

pub fn gone(sandbox: &mut Sandbox, words: &[&str]) -> Result<(), String> {
    match words {
        ["lrp", name] => {
            let (process, index) = name
                .split_once('/')
                .ok_or("write: gone lrp PROCESS/INDEX")?;
            let index = number(index)? as i32;
            sandbox.world.remove_lrp(
                &key(process).instance(index),
                &format!("lrp-{process}-{index}"),
            )
        }
        ["task", name] => sandbox
            .world
            .remove_task(&key(name), &format!("task-{name}")),
        ["desired", name] => sandbox
            .world
            .remove_desired(&key(name), &format!("desired-{name}")),
        ["pod", name] => super::nodes::no_pod(sandbox, name),
        ["cell", name] => sandbox.world.remove_cell(name, &format!("cell-{name}")),
        ["presence-of", name] => {
            sandbox.world.mark_vanished(name, i64::MAX);
            true
        }
        other => {
            return Err(format!(
                "write: gone desired NAME | gone lrp NAME | gone task NAME | gone pod NAME | gone cell NAME | gone presence-of NAME, not {other:?}"
            ));
        }
    };
    Ok(())
}

pub fn scope(words: &[&str]) -> Result<Scope, String> {
    Ok(match words {
        [] => Scope::All,
        ["cell", name] => Scope::Cell((*name).to_owned()),
        ["desired", name] => Scope::Desired(key(name)),
        ["task", name] => Scope::Task(key(name)),
        ["waiting"] => Scope::Waiting,
        other => return Err(format!("unknown scope {other:?}")),
    })
}
