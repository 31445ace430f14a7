//! The body of every write of the rep: merge patches of `status`, bound to the version that was decided on.
//!
//! A field that must go is named with null, since a merge patch leaves alone what it does not name. Every write
//! about an assignment carries the epoch of the presence under which it is made; only the two that drop a kept
//! instance don't, because the epoch in the record is then another Cell's.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::outcome::Outcome;
use crate::api::conditions::{self, SUCCEEDED, Truth};
use crate::api::{ActualLRPState, ActualLRPStatus, PortMapping, Task};
use crate::converge::crash::{self, Restart};

/// Reasons in a record are at most so long.
const MAX_REASON: usize = 1024;

/// What a write is made under.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// The Cell.
    pub cell: String,
    /// The epoch of its presence.
    pub epoch: i64,
    /// The time.
    pub now: Timestamp,
}

fn clip(text: &str) -> String {
    text.chars().take(MAX_REASON).collect()
}

fn micro(now: Timestamp) -> Value {
    json!(MicroTime(now))
}

/// Unclaimed -> Claimed.
pub fn claim(stamp: &Stamp) -> Value {
    json!({
        "state": "Claimed",
        "cellEpoch": stamp.epoch,
        "stateTransitionTime": micro(stamp.now),
        "placementError": null,
    })
}

/// -> Running, in the same write dropping the Suspect and the Evacuating instance.
pub fn running(stamp: &Stamp, guid: &str, address: &str, ports: &[PortMapping]) -> Value {
    json!({
        "state": "Running",
        "cellName": stamp.cell,
        "cellEpoch": stamp.epoch,
        "instanceGuid": guid,
        "stateTransitionTime": micro(stamp.now),
        "address": address,
        "ports": ports,
        "placementError": null,
        "rejectionCount": null,
        "nextRestartTime": null,
        "suspect": null,
        "evacuating": null,
    })
}

/// -> Crashed. When it is restarted is the controller's to decide.
pub fn crashed(stamp: &Stamp, status: &ActualLRPStatus, reason: &str) -> Value {
    let ran_since = (status.state == ActualLRPState::Running)
        .then(|| status.state_transition_time.as_ref().map(|time| time.0))
        .flatten();
    let count = crash::count_after(status.crash_count.unwrap_or(0), ran_since, stamp.now);
    let next_restart = match crash::next_restart(count, stamp.now) {
        Restart::At(time) => json!(micro(time)),
        Restart::Never => Value::Null,
    };
    json!({
        "state": "Crashed",
        "nextRestartTime": next_restart,
        "cellName": null,
        "cellEpoch": stamp.epoch,
        "instanceGuid": null,
        "stateTransitionTime": micro(stamp.now),
        "address": null,
        "ports": null,
        "crashCount": count,
        "crashReason": clip(reason),
    })
}

/// -> Unclaimed on no Cell, so that it is placed again.
pub fn unclaim(stamp: &Stamp) -> Value {
    json!({
        "state": "Unclaimed",
        "cellName": null,
        "cellEpoch": stamp.epoch,
        "instanceGuid": null,
        "stateTransitionTime": micro(stamp.now),
        "address": null,
        "ports": null,
        "placementError": null,
    })
}

/// As [`unclaim`], because it can't be here. Counted until it runs somewhere, so that a placement that no Cell takes is
/// not tried in a hot loop.
pub fn refuse(stamp: &Stamp, status: &ActualLRPStatus, reason: &str) -> Value {
    let mut patch = unclaim(stamp);
    patch["placementError"] = json!(clip(reason));
    patch["rejectionCount"] = json!(status.rejection_count.unwrap_or(0).saturating_add(1));
    patch
}

/// Drops the Suspect instance, which was this rep's.
pub fn drop_suspect() -> Value {
    json!({ "suspect": null })
}

/// Drops the Evacuating instance, which was this rep's.
pub fn drop_evacuating() -> Value {
    json!({ "evacuating": null })
}

/// Pending -> Running.
pub fn task_running(stamp: &Stamp, task: &Task, guid: &str) -> Value {
    let message = format!("The Task runs on Cell {}.", stamp.cell);
    json!({
        "state": "Running",
        "cellName": stamp.cell,
        "cellEpoch": stamp.epoch,
        "instanceGuid": guid,
        "stateTransitionTime": micro(stamp.now),
        "rejectionReason": null,
        "conditions": succeeded(task, Truth::Unknown, "Running", &message, stamp.now),
    })
}

/// Running -> Completed.
pub fn task_completed(stamp: &Stamp, task: &Task, outcome: &Outcome) -> Value {
    let (failed, reason, result, truth, word, message) = match outcome {
        Outcome::Succeeded(result) => (
            false,
            None,
            result.clone(),
            Truth::True,
            "Completed",
            "The Task exited with status 0.".to_owned(),
        ),
        Outcome::Failed(reason) => (
            true,
            Some(clip(reason)),
            None,
            Truth::False,
            "Failed",
            clip(reason),
        ),
    };
    json!({
        "state": "Completed",
        "cellEpoch": stamp.epoch,
        "stateTransitionTime": micro(stamp.now),
        "firstCompletedTime": micro(stamp.now),
        "failed": failed,
        "failureReason": reason,
        "result": result,
        "conditions": succeeded(task, truth, word, &message, stamp.now),
    })
}

/// -> Pending on no Cell, with the reason why it can't be here.
pub fn task_rejected(stamp: &Stamp, task: &Task, reason: &str) -> Value {
    let count = task
        .status
        .as_ref()
        .and_then(|status| status.rejection_count)
        .unwrap_or(0);
    let message = format!("Cell {} can't run the Task: {}.", stamp.cell, clip(reason));
    json!({
        "state": "Pending",
        "cellName": null,
        "cellEpoch": stamp.epoch,
        "instanceGuid": null,
        "stateTransitionTime": micro(stamp.now),
        "rejectionCount": count.saturating_add(1),
        "rejectionReason": clip(reason),
        "conditions": succeeded(task, Truth::Unknown, "Rejected", &message, stamp.now),
    })
}

/// A merge patch replaces a list as a whole, so the other conditions are repeated.
fn succeeded(task: &Task, truth: Truth, reason: &str, message: &str, now: Timestamp) -> Value {
    let mut list = task
        .status
        .as_ref()
        .map(|status| status.conditions.clone())
        .unwrap_or_default();
    conditions::set(
        &mut list,
        SUCCEEDED,
        truth,
        reason,
        message,
        task.metadata.generation,
        now,
    );
    json!(list)
}

/// The whole patch: `status`, bound to a version.
pub fn bound(version: Option<&str>, status: Value) -> Value {
    json!({ "metadata": { "resourceVersion": version }, "status": status })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(second: i64) -> Stamp {
        Stamp {
            cell: "a".into(),
            epoch: 7,
            now: Timestamp::from_second(second).expect("a time"),
        }
    }

    #[test]
    fn a_crash_after_more_than_five_minutes_of_running_counts_as_the_first() {
        let status = |state, since| ActualLRPStatus {
            state,
            crash_count: Some(4),
            state_transition_time: Some(MicroTime(Timestamp::from_second(since).expect("a time"))),
            ..Default::default()
        };
        for (state, since, count) in [
            (ActualLRPState::Running, 1000 - 301, 1),
            (ActualLRPState::Running, 1000 - 300, 5),
            (ActualLRPState::Claimed, 0, 5),
        ] {
            let patch = crashed(&stamp(1000), &status(state, since), "exited with status 1");
            assert_eq!(patch["crashCount"], count);
            assert_eq!(patch["crashReason"], "exited with status 1");
            for gone in ["cellName", "instanceGuid", "address", "ports"] {
                assert!(
                    patch[gone].is_null() && patch.get(gone).is_some(),
                    "{gone} is named with null"
                );
            }
        }
    }

    #[test]
    fn running_drops_the_kept_instances_by_name() {
        let patch = running(&stamp(1), "g", "10.0.0.1", &[]);
        for gone in ["suspect", "evacuating", "placementError", "rejectionCount"] {
            assert!(
                patch.get(gone).is_some_and(Value::is_null),
                "{gone} is named with null"
            );
        }
        assert_eq!(
            (&patch["cellName"], &patch["cellEpoch"]),
            (&json!("a"), &json!(7))
        );
    }

    #[test]
    fn a_refusal_is_counted_until_it_runs() {
        for (before, after) in [(None, 1), (Some(3), 4), (Some(i32::MAX), i32::MAX)] {
            let status = ActualLRPStatus {
                rejection_count: before,
                ..Default::default()
            };
            let patch = refuse(&stamp(1), &status, &"x".repeat(5000));
            assert_eq!(patch["rejectionCount"], after);
            let reason = patch["placementError"].as_str();
            assert_eq!(reason.map(str::len), Some(MAX_REASON));
            for gone in ["cellName", "instanceGuid", "address", "ports"] {
                assert!(
                    patch.get(gone).is_some_and(Value::is_null),
                    "{gone} is named with null"
                );
            }
        }
        // What is given back without a reason, or claimed, leaves the count alone.
        for patch in [unclaim(&stamp(1)), claim(&stamp(1))] {
            assert_eq!(patch.get("rejectionCount"), None);
        }
    }

    #[test]
    fn a_task_tells_its_end_once() {
        let task = Task::new("t", Default::default());
        let patch = task_completed(
            &stamp(1),
            &task,
            &Outcome::Failed("exited with status 3".into()),
        );
        assert_eq!(patch["failed"], true);
        assert_eq!(patch["conditions"][0]["status"], "False");
        assert_eq!(patch["conditions"][0]["reason"], "Failed");
        let patch = task_completed(&stamp(1), &task, &Outcome::Succeeded(Some("42".into())));
        assert_eq!(
            (&patch["failed"], &patch["result"]),
            (&json!(false), &json!("42"))
        );
        assert_eq!(patch["conditions"][0]["status"], "True");
    }

    #[test]
    fn a_rejection_is_counted_and_long_reasons_are_clipped() {
        let task = Task::new("t", Default::default());
        let patch = task_rejected(&stamp(1), &task, &"x".repeat(5000));
        assert_eq!(patch["rejectionCount"], 1);
        assert_eq!(
            patch["rejectionReason"].as_str().map(str::len),
            Some(MAX_REASON)
        );
    }
}
