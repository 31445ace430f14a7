//! What came out, in words.

use std::fmt::Write as _;

use diego_operator::api::{ActualLRPState, ActualLRPStatus, TaskStatus};
use diego_operator::converge::plan::{LrpChange, Plan, TaskChange, Write};
use diego_operator::converge::world::Key;

/// The plan in words, one line per write.
pub fn plan(plan: &Plan) -> String {
    let mut text = String::new();
    for write in &plan.writes {
        let _ = writeln!(text, "{}", line(write));
    }
    for key in &plan.callbacks {
        let _ = writeln!(text, "task {}: deliver its callback", key.name);
    }
    for cell in &plan.unknown_cells {
        let _ = writeln!(text, "ask for the presence of {cell}");
    }
    for (key, refusal) in &plan.refused {
        let _ = writeln!(text, "FAULT: {} decided and refused: {refusal}", key.name);
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
        Write::DeleteTask { key, reason, .. } => {
            format!("task {}: delete ({})", short(key), reason.as_str())
        }
        Write::TaskStatus { key, change, .. } => {
            format!("task {}: {}", short(key), task_change(change))
        }
    }
}

fn lrp_change(change: &LrpChange, to: &ActualLRPStatus) -> String {
    let beside = match (&to.suspect, &to.evacuating) {
        (Some(suspect), _) => match suspect.state {
            ActualLRPState::Running => format!(", suspect on {}", suspect.cell_name),
            state => format!(", {state:?} suspect on {}", suspect.cell_name),
        },
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
        LrpChange::SuspectEvacuated { cell } => format!("the suspect on {cell} is evacuating"),
        LrpChange::SuspectDropped => "drop the suspect".into(),
        LrpChange::EvacuatingDropped => "drop the evacuating instance".into(),
        LrpChange::Told { done } => (*done).into(),
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
        TaskChange::Told { done } => (*done).into(),
        TaskChange::Resolving => "resolve, and deliver its callback".into(),
        TaskChange::Demoted => "back to Completed: its callback was not delivered".into(),
        TaskChange::Settled => "its callback is settled".into(),
        TaskChange::Failed { kind, reason } => format!("fail ({}): {reason}", kind.as_str()),
    }
}

/// The whole record in one line.
pub fn lrp(key: &Key, status: &ActualLRPStatus) -> String {
    let mut text = format!("{}: {:?}", key.name, status.state);
    if let (Some(cell), epoch) = (&status.cell_name, status.cell_epoch.unwrap_or(0)) {
        let _ = write!(text, " on {cell}@{epoch}");
    }
    if let Some(suspect) = &status.suspect {
        let _ = write!(
            text,
            ", suspect {:?} on {}@{}",
            suspect.state, suspect.cell_name, suspect.cell_epoch
        );
    }
    if let Some(evacuating) = &status.evacuating {
        let _ = write!(
            text,
            ", evacuating on {}@{}",
            evacuating.cell_name, evacuating.cell_epoch
        );
    }
    if let Some(crashes) = status.crash_count {
        let _ = write!(text, ", {crashes} crashes");
    }
    if let Some(time) = &status.next_restart_time {
        let _ = write!(text, ", starts again at {}", time.0.as_second());
    }
    if let Some(error) = &status.placement_error {
        let _ = write!(text, ", placement error: {error}");
    }
    rejected_by(&mut text, &status.rejected_by);
    text.push('\n');
    text
}

/// The whole record of a Task in one line.
pub fn task(name: &str, status: &TaskStatus) -> String {
    let mut text = format!("task {name}: {:?}", status.state);
    if let Some(cell) = &status.cell_name {
        let _ = write!(text, " on {cell}");
    }
    match (status.failed, &status.failure_reason) {
        (Some(true), reason) => {
            let _ = write!(text, ", failed: {}", reason.as_deref().unwrap_or_default());
        }
        (Some(false), _) => text.push_str(", succeeded"),
        (None, _) => {}
    }
    if let Some(result) = &status.result {
        let _ = write!(text, ", result {result:?}");
    }
    if let Some(count) = status.rejection_count {
        let reason = status.rejection_reason.as_deref().unwrap_or_default();
        let _ = write!(text, ", {count} rejections: {reason}");
    }
    rejected_by(&mut text, &status.rejected_by);
    text.push('\n');
    text
}

fn rejected_by(text: &mut String, cells: &[String]) {
    if !cells.is_empty() {
        let _ = write!(text, ", given back by {}", cells.join(", "));
    }
}
