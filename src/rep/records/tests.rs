//! Records as the table sees them.

use super::*;
use crate::converge::harmony::{self, ContainerState, LrpAction, Mode};
use crate::converge::harmony::{LrpRecord, TaskRecord};
use serde_json::{Value, json};

fn lrp(status: Value) -> ActualLRP {
    let object = json!({
        "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "ActualLRP",
        "metadata": {"name": "web-0", "namespace": "ns", "uid": "u", "resourceVersion": "9"},
        "spec": {"desiredLRPName": "web", "index": 0}, "status": status,
    });
    serde_json::from_value(object).expect("an ActualLRP")
}

/// An instance of the DesiredLRP with the uid "u".
fn instance<'a>(cell: &'a str, guid: &'a str) -> Instance<'a> {
    let owner = Some("u");
    Instance {
        cell,
        guid,
        owner,
        retired: false,
    }
}

fn owned(mut lrp: ActualLRP, uid: &str) -> ActualLRP {
    let owner = json!([
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "x"},
        {"apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "DesiredLRP", "name": "web", "uid": uid,
         "controller": true},
    ]);
    lrp.metadata.owner_references = serde_json::from_value(owner).expect("owners");
    lrp
}

/// The old code must not come back to life under the new DesiredLRP of the same name.
#[test]
fn an_instance_of_a_replaced_desired_lrp_stops() {
    let this = instance("a", "g");
    let next = |view, container| harmony::lrp(view, container, Mode::Ordinary);
    for status in [
        json!(null),
        json!({"state": "Unclaimed"}),
        json!({"state": "Unclaimed", "cellName": "a", "instanceGuid": "h"}),
        json!({"state": "Claimed", "cellName": "b", "instanceGuid": "h"}),
        json!({"state": "Crashed"}),
    ] {
        let ours = lrp_view(Some(&owned(lrp(status.clone()), "u")), None, this);
        assert_eq!(
            next(ours, ContainerState::Running),
            LrpAction::ReportRunning,
            "{status}"
        );
        let theirs = lrp_view(Some(&owned(lrp(status.clone()), "new")), None, this);
        assert_eq!(theirs, LrpRecord::None { desired: false }, "{status}");
        for (container, action) in [
            (ContainerState::Reserved, LrpAction::Delete),
            (ContainerState::Starting, LrpAction::Stop),
            (ContainerState::Running, LrpAction::Stop),
            (ContainerState::CompletedShutdown, LrpAction::Delete),
            (ContainerState::CompletedCrashed, LrpAction::Delete),
        ] {
            assert_eq!(next(theirs, container), action, "{status}");
        }
    }
    for (wanted_by, action) in [
        (Some("u"), LrpAction::CreateRecord),
        (Some("new"), LrpAction::Stop),
        (None, LrpAction::Stop),
    ] {
        let view = lrp_view(None, wanted_by, this);
        assert_eq!(
            next(view, ContainerState::Running),
            action,
            "wanted by {wanted_by:?}"
        );
    }
}

#[test]
fn a_record_is_another_desired_lrps_only_where_both_are_known() {
    for (owner, desired, other) in [
        (Some("u"), Some("u"), false),
        (Some("u"), Some("new"), true),
        // Made by hand, or the DesiredLRP is gone: there is nothing to compare.
        (None, Some("u"), false),
        (Some("u"), None, false),
    ] {
        assert_eq!(differ(owner, desired), other, "{owner:?} {desired:?}");
    }
}

#[test]
fn a_placement_of_the_new_desired_lrp_is_taken_beside_the_old_run() {
    let mine = json!({"state": "Unclaimed", "cellName": "a", "instanceGuid": "h"});
    let record = owned(lrp(mine), "new");
    let placed = Instance {
        owner: None,
        ..instance("a", "h")
    };
    assert_eq!(
        lrp_view(Some(&record), None, placed),
        LrpRecord::UnclaimedMine
    );
    assert_eq!(owner_of(&record), Some("new"));
}

fn task(spec: Value, status: Value) -> Task {
    let mut object = json!({
        "apiVersion": "diego.cloudfoundry.org/v1alpha1", "kind": "Task",
        "metadata": {"name": "t", "namespace": "ns"},
        "spec": {"template": {"spec": {}}}, "status": status,
    });
    for (name, value) in spec.as_object().expect("an object") {
        object["spec"][name] = value.clone();
    }
    serde_json::from_value(object).expect("a Task")
}

#[test]
fn an_lrp_is_mine_by_cell_and_guid() {
    let view = |status: Value| lrp_view(Some(&lrp(status)), Some("u"), instance("a", "g"));
    for (state, mine, other) in [
        (
            "Unclaimed",
            LrpRecord::UnclaimedMine,
            LrpRecord::UnclaimedOther { evacuating: false },
        ),
        (
            "Claimed",
            LrpRecord::ClaimedMine,
            LrpRecord::ClaimedOther { evacuating: false },
        ),
        ("Running", LrpRecord::RunningMine, LrpRecord::RunningOther),
    ] {
        assert_eq!(
            view(json!({"state": state, "cellName": "a", "instanceGuid": "g"})),
            mine
        );
        assert_eq!(
            view(json!({"state": state, "cellName": "b", "instanceGuid": "g"})),
            other
        );
        assert_eq!(
            view(json!({"state": state, "cellName": "a", "instanceGuid": "h"})),
            other
        );
    }
    assert_eq!(
        view(json!({"state": "Unclaimed"})),
        LrpRecord::UnclaimedOther { evacuating: false }
    );
    assert_eq!(view(json!({"state": "Crashed"})), LrpRecord::Crashed);
    assert_eq!(
        view(json!(null)),
        LrpRecord::UnclaimedOther { evacuating: false }
    );
    assert_eq!(
        lrp_view(None, Some("u"), instance("a", "g")),
        LrpRecord::None { desired: true }
    );
    let mut leaving = lrp(json!({"state": "Running", "cellName": "a", "instanceGuid": "g"}));
    leaving.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
        ));
    assert_eq!(
        lrp_view(Some(&leaving), Some("u"), instance("a", "g")),
        LrpRecord::None { desired: false }
    );
}

#[test]
fn a_kept_instance_is_seen_beside_the_ordinary_one() {
    let one = json!({"cellName": "a", "cellEpoch": 1, "instanceGuid": "g", "state": "Running"});
    let suspect =
        lrp(json!({"state": "Claimed", "cellName": "b", "instanceGuid": "h", "suspect": one}));
    let view = |lrp: &ActualLRP, cell, guid| lrp_view(Some(lrp), None, instance(cell, guid));
    assert_eq!(view(&suspect, "a", "g"), LrpRecord::SuspectMine);
    assert_eq!(view(&suspect, "b", "h"), LrpRecord::ClaimedMine);
    assert_eq!(
        view(&suspect, "a", "x"),
        LrpRecord::ClaimedOther { evacuating: false }
    );
    let evacuating = lrp(json!({"state": "Unclaimed", "evacuating": one}));
    assert_eq!(view(&evacuating, "a", "g"), LrpRecord::EvacuatingMine);
    let record = Record::from(suspect);
    assert_eq!(record.guids_on("a"), ["g"]);
    assert_eq!(record.guids_on("b"), ["h"]);
    assert!(record.is_assigned_to("b") && !record.is_assigned_to("a"));
}

#[test]
fn a_cancelled_task_is_stopped_but_never_started() {
    let view = |spec: Value, status: Value| task_view(Some(&task(spec, status)), None, "a", "g");
    let mine = |state: &str| json!({"state": state, "cellName": "a", "instanceGuid": "g"});
    let cancelled = || json!({"cancelled": true});
    assert_eq!(view(json!({}), mine("Pending")), TaskRecord::PendingMine);
    assert_eq!(view(cancelled(), mine("Pending")), TaskRecord::PendingOther);
    assert_eq!(view(json!({}), mine("Running")), TaskRecord::RunningMine);
    assert_eq!(
        view(cancelled(), mine("Running")),
        TaskRecord::CancelledMine
    );
    assert_eq!(
        view(
            json!({}),
            json!({"state": "Running", "cellName": "b", "instanceGuid": "g"})
        ),
        TaskRecord::RunningOther
    );
    for state in ["Completed", "Resolving"] {
        assert_eq!(view(cancelled(), mine(state)), TaskRecord::Ended);
    }
    assert_eq!(view(json!({}), json!(null)), TaskRecord::PendingOther);
    assert_eq!(task_view(None, None, "a", "g"), TaskRecord::None);
}

#[test]
fn an_event_that_arrives_late_is_recognised() {
    let at = |version: &str| {
        let mut lrp = lrp(json!({}));
        lrp.metadata.resource_version = Some(version.into());
        Record::from(lrp)
    };
    assert!(at("10").is_newer_than(&at("9")));
    assert!(!at("9").is_newer_than(&at("10")));
    assert!(!at("x").is_newer_than(&at("9")));
}
