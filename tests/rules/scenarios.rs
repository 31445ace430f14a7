//! Runs the scenario files under `tests/converge/`: each reads as a specification of the rules.
//!
//! A file is a list of blocks, separated by blank lines. The first lines of a block change the world (`now`,
//! `cell`, `desired`, `lrp`, `task`, `gone`), its last command is `converge`, and below `----` stands what
//! the plan must be. `UPDATE_SCENARIOS=1 cargo test --test rules` writes what the rules do now into the
//! files; read the difference before you commit it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use diego_operator::api::{
    ActualLRPState, ActualLRPStatus, CellState, EvacuatingInstance, MissingCellPolicy,
    SuspectInstance, TaskState, TaskStatus, quantity, template::Resources,
};
use diego_operator::converge::demand::Demand;
use diego_operator::converge::plan::{LrpChange, Plan, Scope, TaskChange, Write};
use diego_operator::converge::world::{Key, TaskRecord};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use crate::world::{Sandbox, at, key};

#[test]
fn every_scenario_comes_out_as_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/converge");
    let update = std::env::var_os("UPDATE_SCENARIOS").is_some();
    let mut failures = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(&directory)
        .expect("tests/converge exists")
        .map(|entry| entry.expect("tests/converge can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    assert!(
        files.len() >= 8,
        "only {} scenario files were found",
        files.len()
    );
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a scenario can be read");
        let actual = run(&text).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
        if actual == text {
            continue;
        }
        if update {
            std::fs::write(&path, &actual).expect("a scenario can be written");
        } else {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            failures.push(format!("{name}:\n{}", difference(&text, &actual)));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn difference(expected: &str, actual: &str) -> String {
    let mut text = String::new();
    let (expected, actual): (Vec<_>, Vec<_>) =
        (expected.lines().collect(), actual.lines().collect());
    for i in 0..expected.len().max(actual.len()) {
        let (want, got) = (
            expected.get(i).copied().unwrap_or(""),
            actual.get(i).copied().unwrap_or(""),
        );
        if want != got {
            let _ = writeln!(text, "  line {}: written {want:?}, came out {got:?}", i + 1);
        }
    }
    text
}

/// The file's text with what comes out in the place of what is expected.
fn run(text: &str) -> Result<String, String> {
    let mut sandbox = Sandbox::default();
    let mut now = 0;
    let mut output = String::new();
    let mut skipping = false;
    for line in text.lines() {
        if skipping {
            if !line.trim().is_empty() {
                continue;
            }
            skipping = false;
        }
        let _ = writeln!(output, "{line}");
        let mut words = line.split_whitespace();
        let Some(command) = words.next().filter(|word| !word.starts_with('#')) else {
            continue;
        };
        let rest: Vec<&str> = words.collect();
        match command {
            "now" => now = number(rest.first().ok_or("now needs a time")?)?,
            "cell" => cell(&mut sandbox, &rest)?,
            "desired" => desired(&mut sandbox, &rest)?,
            "lrp" => lrp(&mut sandbox, &rest, now)?,
            "task" => task(&mut sandbox, &rest, now)?,
            "gone" => gone(&mut sandbox, &rest)?,
            "converge" => {
                let plan = sandbox.converge(&scope(&rest)?, at(now));
                let _ = write!(output, "----\n{}", describe(&plan));
                // What stands below is what was expected.
                skipping = true;
            }
            other => return Err(format!("unknown command {other:?}")),
        }
    }
    Ok(output)
}

fn number(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

/// `name=value` and bare words.
fn options<'a>(words: &[&'a str]) -> HashMap<&'a str, &'a str> {
    words
        .iter()
        .map(|word| word.split_once('=').unwrap_or((word, "")))
        .collect()
}

fn tags(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

fn cell(sandbox: &mut Sandbox, words: &[&str]) -> Result<(), String> {
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
    Ok(Ok(Arc::new(Demand {
        resources: Resources { memory, disk: 0 },
        tags: options
            .get("tags")
            .map(|text| tags(text))
            .unwrap_or_default(),
        process_refusal: options
            .contains_key("volumes")
            .then(|| "a Cell with executor Process can't give: volumes".into()),
    })))
}

fn desired(sandbox: &mut Sandbox, words: &[&str]) -> Result<(), String> {
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
fn place(text: &str) -> Result<(String, i64), String> {
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

fn lrp(sandbox: &mut Sandbox, words: &[&str], now: i64) -> Result<(), String> {
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
    if let Some(suspect) = options.get("suspect") {
        let (cell_name, cell_epoch) = place(suspect)?;
        let state = ActualLRPState::Running;
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

fn task(sandbox: &mut Sandbox, words: &[&str], now: i64) -> Result<(), String> {
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
    status.rejection_count = rejections(&options)?;
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
        demand: demand(&options)?,
        status,
    };
    sandbox.world.put_task(&key(name), record);
    Ok(())
}

fn gone(sandbox: &mut Sandbox, words: &[&str]) -> Result<(), String> {
    match words {
        ["desired", name] => sandbox
            .world
            .remove_desired(&key(name), &format!("desired-{name}")),
        ["cell", name] => sandbox.world.remove_cell(name, &format!("cell-{name}")),
        ["presence-of", name] => {
            sandbox.world.mark_vanished(name);
            true
        }
        other => {
            return Err(format!(
                "write: gone desired NAME | gone cell NAME | gone presence-of NAME, not {other:?}"
            ));
        }
    };
    Ok(())
}

fn scope(words: &[&str]) -> Result<Scope, String> {
    Ok(match words {
        [] => Scope::All,
        ["cell", name] => Scope::Cell((*name).to_owned()),
        ["desired", name] => Scope::Desired(key(name)),
        ["task", name] => Scope::Task(key(name)),
        other => return Err(format!("unknown scope {other:?}")),
    })
}

/// The plan in words, one line per write.
fn describe(plan: &Plan) -> String {
    let mut text = String::new();
    for write in &plan.writes {
        let _ = writeln!(text, "{}", line(write));
    }
    for cell in &plan.unknown_cells {
        let _ = writeln!(text, "ask for the presence of {cell}");
    }
    if let Some(time) = plan.recheck {
        let _ = writeln!(text, "look again at {}", time.as_second());
    }
    if text.is_empty() {
        text.push_str("nothing to do\n");
    }
    text
}

fn line(write: &Write) -> String {
    let short = |key: &Key| key.name.clone();
    match write {
        Write::CreateLrp {
            key,
            status,
            change,
            ..
        } => format!("create {}: {}", short(key), lrp_change(change, status)),
        Write::LrpStatus {
            key, to, change, ..
        } => format!("{}: {}", short(key), lrp_change(change, to)),
        Write::DeleteLrp {
            key,
            orphan_of: None,
            ..
        } => format!("{}: delete", short(key)),
        Write::DeleteLrp {
            key,
            orphan_of: Some(desired),
            ..
        } => {
            format!(
                "{}: delete, if DesiredLRP {} is really gone",
                short(key),
                short(desired)
            )
        }
        Write::TaskStatus { key, change, .. } => {
            format!("task {}: {}", short(key), task_change(change))
        }
    }
}

fn lrp_change(change: &LrpChange, to: &ActualLRPStatus) -> String {
    let beside = match (&to.suspect, &to.evacuating) {
        (Some(suspect), _) => format!(", suspect on {}", suspect.cell_name),
        (None, Some(evacuating)) => format!(", evacuating on {}", evacuating.cell_name),
        (None, None) => String::new(),
    };
    let what = match change {
        LrpChange::Placed { reason, cell } => format!("place on {cell} ({})", reason.as_str()),
        LrpChange::Waiting { reason, error } => format!("wait ({}): {error}", reason.as_str()),
        LrpChange::RestartedHere { cell } => format!("start anew on {cell}"),
        LrpChange::Promoted { cell } => format!(
            "keep the original on {cell}, {:?} under epoch {}",
            to.state,
            to.cell_epoch.unwrap_or(0)
        ),
        LrpChange::SuspectDropped => "drop the suspect".into(),
        LrpChange::EvacuatingDropped => "drop the evacuating instance".into(),
    };
    let crashes = to
        .crash_count
        .map_or_else(String::new, |count| format!(", {count} crashes"));
    format!("{what}{beside}{crashes}")
}

fn task_change(change: &TaskChange) -> String {
    match change {
        TaskChange::Placed { cell } => format!("place on {cell}"),
        TaskChange::Waiting { error } => format!("wait: {error}"),
        TaskChange::Failed { kind, reason } => format!("fail ({}): {reason}", kind.as_str()),
    }
}
