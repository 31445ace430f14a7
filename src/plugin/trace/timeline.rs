//! The moments of an object's life that its record, its conditions and its Events name.

use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde::Serialize;

use crate::api::{ActualLRP, ActualLRPState, Cell, Task, TaskState};
use crate::plugin::output::Row;
use crate::plugin::text::{count, moment, span};

/// Where a moment is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Source {
    /// In a field of the object.
    Record,
    /// In a condition of it.
    Condition,
    /// In an Event about it.
    Event,
}

impl Source {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Record => "record",
            Source::Condition => "condition",
            Source::Event => "event",
        }
    }
}

/// One moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When.
    pub time: Timestamp,
    /// Where it is told.
    pub source: Source,
    /// What, in one word.
    pub what: String,
    /// Why, or what of it.
    pub message: String,
    /// Whether it was unexpected.
    pub warning: bool,
    /// Whether the time is told in whole seconds only.
    #[serde(skip)]
    pub coarse: bool,
    /// The object's full name.
    #[serde(skip)]
    pub object: String,
}

impl Entry {
    fn record(time: Option<&MicroTime>, what: &str, message: String) -> Option<Entry> {
        Some(Entry {
            time: time?.0,
            source: Source::Record,
            what: what.into(),
            message,
            warning: false,
            coarse: false,
            object: String::new(),
        })
    }

    /// Whether it tells of what is planned, and not of what a clock that is ahead says it did.
    pub fn is_planned(&self) -> bool {
        self.source == Source::Record && matches!(&*self.what, "NextRestart" | "HeldDownUntil")
    }

    /// Its place in the order of time. A condition that changed within a second stands at the end of it, since it follows
    /// from what happened; a creation at its beginning.
    pub fn place(&self) -> Timestamp {
        let rest = match self.coarse && self.source == Source::Condition {
            true => SignedDuration::from_millis(999),
            false => SignedDuration::ZERO,
        };
        self.time.checked_add(rest).unwrap_or(self.time)
    }
}

impl Row for Entry {
    const HEADS: &'static [(&'static str, bool)] = &[("TIME", false), ("WHAT", false)];

    fn values(&self, _: Timestamp) -> Vec<String> {
        vec![moment(self.time), self.what.clone()]
    }

    fn id(&self) -> String {
        self.object.clone()
    }
}

fn created<K: ResourceExt>(object: &K, message: String) -> Option<Entry> {
    let time = object.creation_timestamp().map(|time| MicroTime(time.0));
    let entry = Entry::record(time.as_ref(), "Created", message)?;
    Some(Entry {
        coarse: true,
        ..entry
    })
}

fn of_condition(condition: &Condition) -> Entry {
    Entry {
        time: condition.last_transition_time.0,
        source: Source::Condition,
        what: format!("{}={}", condition.type_, condition.status),
        message: match &*condition.message {
            "" => condition.reason.clone(),
            message => format!("{}: {message}", condition.reason),
        },
        warning: false,
        coarse: true,
        object: String::new(),
    }
}

/// An Event, if it says when.
pub fn of_event(event: &Event) -> Option<Entry> {
    let first = event.event_time.as_ref().map(|time| time.0);
    let old = event.deprecated_first_timestamp.as_ref().map(|time| time.0);
    let note = event.note.clone().unwrap_or_default();
    let message = match &event.series {
        Some(series) if series.count > 1 => format!(
            "{note} ({} times, the last at {})",
            series.count,
            moment(series.last_observed_time.0)
        ),
        Some(_) | None => note,
    };
    Some(Entry {
        time: first.or(old)?,
        source: Source::Event,
        what: event.reason.clone().unwrap_or_default(),
        message,
        warning: event.type_.as_deref() == Some("Warning"),
        coarse: false,
        object: String::new(),
    })
}

/// What a Cell's record and conditions tell.
pub fn of_cell(cell: &Cell) -> Vec<Entry> {
    let status = cell.status.clone().unwrap_or_default();
    let made = format!(
        "in zone {}, executor {:?}",
        cell.spec.zone, cell.spec.executor
    );
    let mut entries = vec![created(cell, made)];
    if let Some(recovery) = &status.last_recovery {
        let lost = recovery.lost_time.as_ref();
        let after = |time: Option<&MicroTime>| match (lost, time) {
            (Some(lost), Some(time)) => format!(", {} after it was lost", span(lost.0, time.0)),
            _ => String::new(),
        };
        let detected = recovery.detected_time.as_ref();
        let recovered = recovery.recovered_time.as_ref();
        let source = recovery.source.as_deref().unwrap_or("unknown");
        let confirmed = match recovery.confirmed {
            Some(true) => ", confirmed by an operator",
            Some(false) | None => "",
        };
        entries.extend([
            Entry::record(
                lost,
                "PresenceLost",
                format!("the store dropped epoch {}", recovery.epoch),
            ),
            Entry::record(
                detected,
                "LossDetected",
                format!("by the {source}{}{confirmed}", after(detected)),
            ),
            Entry::record(
                recovered,
                "Recovered",
                format!(
                    "{} placed elsewhere, {} waiting, {} failed{}",
                    number(recovery.actual_lrps, "ActualLRP"),
                    recovery.waiting_actual_lrps,
                    number(recovery.tasks, "Task"),
                    after(recovered)
                ),
            ),
        ]);
    }
    let flaps = format!(
        "lost and back {} in a row",
        number(status.flaps.unwrap_or(0), "time")
    );
    entries.extend([
        Entry::record(status.last_return_time.as_ref(), "Returned", flaps.clone()),
        Entry::record(
            status.held_down_until.as_ref(),
            "HeldDownUntil",
            format!("no new work before: {flaps}"),
        ),
    ]);
    let entries = entries.into_iter().flatten();
    entries
        .chain(status.conditions.iter().map(of_condition))
        .collect()
}

fn number(number: i32, what: &str) -> String {
    count(usize::try_from(number).unwrap_or(0), what)
}

/// What an ActualLRP's record tells.
pub fn of_lrp(lrp: &ActualLRP) -> Vec<Entry> {
    let status = lrp.status.clone().unwrap_or_default();
    let made = format!(
        "instance {} of {}",
        lrp.spec.index, lrp.spec.desired_lrp_name
    );
    let on = match (&status.cell_name, status.cell_epoch) {
        (Some(cell), Some(epoch)) => format!("on Cell {cell}, epoch {epoch}"),
        (Some(cell), None) => format!("on Cell {cell}"),
        (None, _) => "without a Cell".into(),
    };
    let why = match (&status.placement_error, &status.start_reason) {
        (Some(error), _) => format!(": {error}"),
        (None, Some(reason)) => format!(" ({reason})"),
        (None, None) => String::new(),
    };
    let state = match status.state {
        ActualLRPState::Unclaimed => "Unclaimed",
        ActualLRPState::Claimed => "Claimed",
        ActualLRPState::Running => "Running",
        ActualLRPState::Crashed => "Crashed",
    };
    let crashes = status.crash_count.unwrap_or(0);
    let reason = status.crash_reason.unwrap_or_default();
    let suspect = status.suspect.as_ref();
    let evacuating = status.evacuating.as_ref();
    let entries = [
        created(lrp, made),
        Entry::record(
            status.state_transition_time.as_ref(),
            state,
            format!("{on}{why}"),
        ),
        Entry::record(
            status.last_crash_time.as_ref(),
            "LastCrash",
            format!("crash {crashes} in a row: {reason}"),
        ),
        Entry::record(
            status.next_restart_time.as_ref(),
            "NextRestart",
            String::new(),
        ),
        suspect.and_then(|one| {
            let kept = format!(
                "kept on missing Cell {} until its replacement runs",
                one.cell_name
            );
            Entry::record(one.since.as_ref(), "Suspect", kept)
        }),
        evacuating.and_then(|one| {
            let kept = format!("kept on Cell {} until its replacement runs", one.cell_name);
            Entry::record(one.since.as_ref(), "Evacuating", kept)
        }),
    ];
    entries.into_iter().flatten().collect()
}

/// What a Task's record and conditions tell.
pub fn of_task(task: &Task) -> Vec<Entry> {
    let status = task.status.clone().unwrap_or_default();
    let on = match &status.cell_name {
        Some(cell) => format!("on Cell {cell}"),
        None => "without a Cell".into(),
    };
    let state = match status.state {
        TaskState::Pending => "Pending",
        TaskState::Running => "Running",
        TaskState::Completed => "Completed",
        TaskState::Resolving => "Resolving",
    };
    let outcome = match (status.failed, &status.failure_reason, &status.result) {
        (Some(true), reason, _) => format!("failed: {}", reason.clone().unwrap_or_default()),
        (_, _, Some(result)) => format!("succeeded: {result}"),
        (_, _, None) => "succeeded".into(),
    };
    let rejected = status.rejection_reason.map(|reason| format!(": {reason}"));
    let entries = [
        created(task, "a Task that runs at most once".into()),
        Entry::record(
            status.state_transition_time.as_ref(),
            state,
            format!("{on}{}", rejected.unwrap_or_default()),
        ),
        Entry::record(status.first_completed_time.as_ref(), "Ended", outcome),
    ];
    let entries = entries.into_iter().flatten();
    entries
        .chain(status.conditions.iter().map(of_condition))
        .collect()
}

#[cfg(test)]
#[path = "timeline_tests.rs"]
mod tests;
