//! An instance that must not run twice (`missingCellPolicy: Strict`): nothing begins, and nothing is told to have ended,
//! while a Pod of its slot may still run.

use std::collections::BTreeMap;

use serde_json::json;

use super::super::{Deleting, Local, Phase, PodRecord, Step};
use super::model::{Model, version};
use super::{at, failed, half_ended, read, ready, waiting};
use crate::api::{ActualLRPState, ActualLRPStatus, SuspectInstance};
use crate::converge::life::Life;
use crate::converge::world::Lrp;

fn model(status: ActualLRPStatus, pods: Vec<PodRecord>) -> Model {
    Model {
        lrp: Some(Lrp {
            version: version(false),
            process: "web".into(),
            index: 0,
            owner: None,
            status,
        }),
        task: None,
        pods,
        local: BTreeMap::new(),
        life: Life::Alive,
        scheduler: None,
        refuses: false,
        strict: true,
    }
}

fn on_a(state: ActualLRPState, guid: &str) -> ActualLRPStatus {
    ActualLRPStatus {
        state,
        cell_name: Some("a".into()),
        cell_epoch: Some(12),
        instance_guid: Some(guid.into()),
        ..ActualLRPStatus::default()
    }
}

fn status(model: &Model) -> ActualLRPStatus {
    let lrp = model.lrp.as_ref();
    lrp.map(|lrp| lrp.status.clone()).unwrap_or_default()
}

#[test]
fn a_slot_that_is_held_back_asks_no_scheduler_and_is_told_nothing() {
    let held_back = ActualLRPStatus {
        placement_error: Some("missingCellPolicy Strict: ...".into()),
        suspect: Some(SuspectInstance {
            cell_name: "a".into(),
            cell_epoch: 12,
            instance_guid: "g1".into(),
            state: ActualLRPState::Running,
            ..SuspectInstance::default()
        }),
        ..ActualLRPStatus::default()
    };
    let mut model = Model {
        scheduler: Some("volcano"),
        life: Life::Lost,
        ..model(held_back.clone(), vec![read(ready())])
    };
    assert_eq!(model.settle(), []);
    // One that was made before the Cell was lost goes, bound or not.
    for node in [None, Some("n1")] {
        let mut model = model.clone();
        model.pods.push(PodRecord {
            guid: "g2".into(),
            uid: "pod-g2".into(),
            cell: None,
            node: node.map(ToOwned::to_owned),
            ..read(json!({}))
        });
        let steps = model.settle();
        let deletes = |step: &Step| matches!(step, Step::Delete { guid, .. } if guid == "g2");
        assert!(steps.iter().any(deletes), "{node:?}: {steps:?}");
        assert_eq!(status(&model), held_back, "nothing is written over");
    }
    model.strict = false;
    assert_ne!(model.settle(), [], "any other is placed at once");
}

#[test]
fn nothing_begins_while_a_pod_of_the_slot_may_run() {
    let old = PodRecord {
        deleting: Some(Deleting {
            until: at(0),
            grace: 30,
        }),
        ..read(ready())
    };
    let placed = on_a(ActualLRPState::Unclaimed, "g2");
    for (scheduler, status) in [
        (Some("volcano"), ActualLRPStatus::default()),
        (None, placed),
    ] {
        let mut model = Model {
            scheduler,
            ..model(status, vec![old.clone()])
        };
        assert_eq!(model.settle(), [], "{scheduler:?}");
        model.pods[0].phase = Phase::Failed;
        model.settle();
        assert_eq!(model.pods.len(), 2, "{scheduler:?}: the next one is made");
    }
}

#[test]
fn a_crash_is_told_when_nothing_of_the_pod_runs_any_more() {
    for (running, words) in [
        (half_ended(3), "container main exited with status 3"),
        (
            waiting("ImagePullBackOff", "no such image"),
            "ImagePullBackOff: no such image",
        ),
    ] {
        for gone in [false, true] {
            let claimed = on_a(ActualLRPState::Claimed, "g1");
            let mut model = model(claimed, vec![read(running.clone())]);
            let steps = model.settle();
            assert!(
                matches!(
                    &steps[..],
                    [Step::NoteCrash { .. }, Step::Delete { force: false, .. }]
                ),
                "{steps:?}"
            );
            assert_eq!(status(&model).state, ActualLRPState::Claimed);
            match gone {
                true => model.pods.clear(),
                false => {
                    let over = read(failed(json!({ "exitCode": 143 })));
                    model.pods[0].phase = over.phase;
                    model.pods[0].containers = over.containers;
                }
            }
            model.settle();
            let told = status(&model);
            assert_eq!(told.crash_reason.as_deref(), Some(words), "gone: {gone}");
            assert_eq!(told.crash_count, Some(1));
            model.pods.clear();
            model.settle();
            assert_eq!(model.local.get("g1"), None, "forgotten");
        }
    }
}

#[test]
fn one_that_never_became_ready_ends_first() {
    let mut claimed = on_a(ActualLRPState::Claimed, "g1");
    let since = at(-100);
    claimed.state_transition_time = Some(
        k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(since),
    );
    let mut model = model(claimed, vec![read(json!({ "phase": "Running" }))]);
    model.settle();
    assert_eq!(status(&model).state, ActualLRPState::Claimed);
    assert!(model.pods[0].deleting.is_some());
    let words =
        |local: &Local| matches!(local, Local::Crashed(words) if words == "not ready within 60 s");
    assert!(model.local.values().any(words), "{:?}", model.local);
}

#[test]
fn a_grace_that_is_over_ends_nothing() {
    let pod = PodRecord {
        deleting: Some(Deleting {
            until: at(0),
            grace: 30,
        }),
        ..read(ready())
    };
    let running = on_a(ActualLRPState::Running, "g1");
    let mut model = model(running.clone(), vec![pod]);
    assert_eq!(model.settle().len(), 1, "it says what it waits for");
    let told = status(&model);
    let error = told.placement_error.clone().unwrap_or_default();
    for part in ["web-0-g1", "terminates", "out-of-service"] {
        assert!(error.contains(part), "{error}");
    }
    let expected = ActualLRPStatus {
        placement_error: Some(error),
        ..running
    };
    assert_eq!(told, expected, "and nothing else");
    model.pods[0].phase = Phase::Failed;
    model.settle();
    let told = status(&model);
    assert_eq!(
        (told.state, told.cell_name),
        (ActualLRPState::Unclaimed, None)
    );
    assert_eq!(told.placement_error, None);
}

#[test]
fn it_begins_under_the_epoch_that_its_record_names() {
    let mut claimed = on_a(ActualLRPState::Claimed, "g1");
    // The model's Cell was registered anew since, under 12.
    claimed.cell_epoch = Some(11);
    let mut again = model(claimed.clone(), Vec::new());
    again.local.insert("g1".into(), Local::SetAside);
    let steps = again.settle();
    assert!(
        matches!(&steps[..], [Step::Lrp { .. }, Step::Create(_)]),
        "{steps:?}"
    );
    assert_eq!(status(&again).cell_epoch, Some(12));
    let mut any = model(claimed, Vec::new());
    any.strict = false;
    any.local.insert("g1".into(), Local::SetAside);
    assert!(matches!(&any.settle()[..], [Step::Create(_)]));
}

#[test]
fn what_may_begin_after_a_reboot_is_given_the_time_to_end() {
    for (strict, force) in [(true, false), (false, true)] {
        let given_away = on_a(ActualLRPState::Claimed, "g2");
        let mut model = Model {
            strict,
            life: Life::Superseded { epoch: 12 },
            ..model(given_away, vec![read(waiting("ContainerCreating", ""))])
        };
        let steps = model.settle();
        let how = steps.iter().find_map(|step| match step {
            Step::Delete { guid, force, .. } if guid == "g1" => Some(*force),
            _ => None,
        });
        assert_eq!(how, Some(force), "{steps:?}");
    }
}
