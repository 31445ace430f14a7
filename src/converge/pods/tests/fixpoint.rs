//! Every record against every Pod: a few steps, none of them refused, and then nothing until something changes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::{Deleting, Local, Phase, PodRecord, Step};
use super::model::{Model, version};
use super::{at, failed, half_ended, read, read_task, ready, waiting};
use crate::api::{
    ActualLRPState, ActualLRPStatus, EvacuatingInstance, SuspectInstance, TaskState, TaskStatus,
};
use crate::converge::life::Life;
use crate::converge::world::{Lrp, TaskRecord};

pub(super) const LIVES: [Life; 6] = [
    Life::Alive,
    Life::Draining,
    Life::Lost,
    Life::Left,
    Life::Superseded { epoch: 12 },
    Life::Unknown,
];

pub(super) fn stages(of: fn(Value) -> PodRecord) -> Vec<Option<PodRecord>> {
    let evicted = json!({ "phase": "Failed", "reason": "Evicted" });
    let deleted = |until| {
        let mut pod = of(ready());
        pod.deleting = Some(Deleting {
            until: at(until),
            grace: 30,
        });
        pod
    };
    let mut retired = of(ready());
    retired.owner = "another".into();
    let all = [
        of(json!({})),
        of(ready()),
        of(waiting("ImagePullBackOff", "no such image")),
        of(failed(json!({ "exitCode": 1 }))),
        of(half_ended(1)),
        of(json!({ "phase": "Succeeded" })),
        of(evicted),
        deleted(60),
        deleted(0),
        retired,
    ];
    [None].into_iter().chain(all.map(Some)).collect()
}

pub(super) fn held() -> [Option<Local>; 3] {
    [
        None,
        Some(Local::SetAside),
        Some(Local::Refused("quota".into())),
    ]
}

fn each(record: impl Fn(&mut Model), of: fn(Value) -> PodRecord, mut check: impl FnMut(Model)) {
    for life in LIVES {
        for pod in stages(of) {
            for local in held() {
                for (refuses, strict) in
                    [(false, false), (true, false), (false, true), (true, true)]
                {
                    let local = local.clone().map(|local| ("g1".to_owned(), local));
                    let mut model = Model {
                        lrp: None,
                        task: None,
                        pods: pod.clone().into_iter().collect(),
                        local: local.into_iter().collect(),
                        life,
                        scheduler: None,
                        refuses,
                        strict,
                    };
                    record(&mut model);
                    check(model);
                }
            }
        }
    }
}

fn statuses() -> Vec<ActualLRPStatus> {
    use ActualLRPState as S;
    let mut all = vec![ActualLRPStatus::default()];
    all.push(ActualLRPStatus {
        state: S::Crashed,
        ..Default::default()
    });
    for state in [S::Unclaimed, S::Claimed, S::Running] {
        for (cell, guid) in [("a", "g1"), ("a", "g2"), ("b", "g3")] {
            all.push(ActualLRPStatus {
                state,
                cell_name: Some(cell.into()),
                cell_epoch: Some(11),
                instance_guid: Some(guid.into()),
                address: (state == S::Running).then(|| "10.0.0.7".into()),
                ..Default::default()
            });
        }
    }
    let mut with = Vec::new();
    for status in all {
        for (cell, guid) in [("a", "g1"), ("b", "g4")] {
            if status.instance_guid.as_deref() == Some(guid) {
                continue;
            }
            let suspect = SuspectInstance {
                cell_name: cell.into(),
                cell_epoch: 11,
                instance_guid: guid.into(),
                state: S::Running,
                ..Default::default()
            };
            let evacuating = EvacuatingInstance {
                cell_name: cell.into(),
                cell_epoch: 11,
                instance_guid: guid.into(),
                ..Default::default()
            };
            let (suspect, evacuating) = (Some(suspect), Some(evacuating));
            with.push(ActualLRPStatus {
                suspect,
                ..status.clone()
            });
            with.push(ActualLRPStatus {
                evacuating,
                ..status.clone()
            });
        }
        with.push(status);
    }
    with
}

#[test]
fn every_instance_settles() {
    let mut pairs = 0;
    for status in statuses() {
        for deleting in [false, true] {
            let record = |model: &mut Model| {
                model.lrp = Some(Lrp {
                    version: version(deleting),
                    process: "web".into(),
                    index: 0,
                    owner: Some("web-uid".into()),
                    status: status.clone(),
                });
            };
            each(record, read, |mut model| {
                model.settle();
                pairs += 1;
                let again = model.settle();
                assert!(again.is_empty(), "not settled: {again:?}");
            });
        }
    }
    each(|_| {}, read, |mut model| drop(model.settle()));
    assert!(pairs > 10_000, "{pairs}");
}

#[test]
fn every_task_settles_and_runs_at_most_once() {
    use TaskState as S;
    let mut states = vec![(S::Pending, None)];
    for state in [S::Pending, S::Running, S::Completed, S::Resolving] {
        states.push((state, Some(("a", "g1"))));
        states.push((state, Some(("b", "g2"))));
    }
    for (state, place) in states {
        for (cancelled, deleting) in [(false, false), (true, false), (false, true)] {
            let record = |model: &mut Model| {
                model.task = Some(TaskRecord {
                    version: version(deleting),
                    created: at(0),
                    cancelled,
                    callback: None,
                    seen_finished: None,
                    keep: None,
                    demand: Err("no matter".into()),
                    status: TaskStatus {
                        state,
                        cell_name: place.map(|(cell, _)| cell.into()),
                        cell_epoch: place.map(|_| 11),
                        instance_guid: place.map(|(_, guid)| guid.into()),
                        ..Default::default()
                    },
                });
            };
            each(record, read_task, |mut model| {
                let spent = state != S::Pending;
                let set_aside = model.local.contains_key("g1");
                let steps = model.settle();
                let creations = steps.iter().filter(|step| matches!(step, Step::Create(_)));
                let creations = creations.count();
                assert!(creations <= 1);
                assert!(
                    creations == 0 || !spent || set_aside,
                    "run twice: {steps:?}"
                );
            });
        }
    }
    each(|_| {}, read_task, |mut model| drop(model.settle()));
}

#[test]
fn a_placed_instance_is_claimed_made_and_reported() {
    let status = ActualLRPStatus {
        cell_name: Some("a".into()),
        cell_epoch: Some(11),
        instance_guid: Some("g1".into()),
        ..Default::default()
    };
    let mut model = Model {
        lrp: Some(Lrp {
            version: version(false),
            process: "web".into(),
            index: 0,
            owner: None,
            status,
        }),
        task: None,
        pods: Vec::new(),
        local: BTreeMap::new(),
        life: Life::Alive,
        scheduler: None,
        refuses: false,
        strict: false,
    };
    model.settle();
    assert_eq!(
        model.lrp.as_ref().map(|lrp| lrp.status.state),
        Some(ActualLRPState::Claimed)
    );
    assert_eq!(model.pods.len(), 1);
    model.pods = vec![read(ready())];
    model.settle();
    let status = model
        .lrp
        .as_ref()
        .map(|lrp| lrp.status.clone())
        .unwrap_or_default();
    assert_eq!(status.state, ActualLRPState::Running);
    assert_eq!(status.address.as_deref(), Some("10.0.0.7"));
    assert_eq!(
        (status.ports[0].container_port, status.ports[0].host_port),
        (8080, 8080)
    );
    assert_eq!(status.cell_epoch, Some(12));

    model.pods = vec![read(failed(json!({ "exitCode": 3 })))];
    model.settle();
    let status = model
        .lrp
        .as_ref()
        .map(|lrp| lrp.status.clone())
        .unwrap_or_default();
    assert_eq!(status.crash_reason.as_deref(), Some("exited with status 3"));
    assert_eq!(model.pods.len(), 1, "the Pod is kept for its logs");
    assert_eq!(model.pods[0].phase, Phase::Failed);
    model.life = Life::Lost;
    model.settle();
    assert_eq!(model.pods.len(), 0, "not on a lost Cell");
}

fn ended_task(state: TaskState) -> TaskRecord {
    TaskRecord {
        version: version(false),
        created: at(0),
        cancelled: false,
        callback: None,
        seen_finished: None,
        keep: None,
        demand: Err("no matter".into()),
        status: TaskStatus {
            state,
            cell_name: Some("a".into()),
            cell_epoch: Some(11),
            instance_guid: Some("g1".into()),
            ..Default::default()
        },
    }
}

#[test]
fn a_task_that_failed_since_its_cell_left_does_not_run_on() {
    for life in [Life::Left, Life::Unknown] {
        let mut model = Model {
            lrp: None,
            task: Some(ended_task(TaskState::Completed)),
            pods: vec![read_task(ready())],
            local: BTreeMap::new(),
            life,
            scheduler: None,
            refuses: false,
            strict: false,
        };
        let steps = model.settle();
        let deletes = |step: &Step| matches!(step, Step::Delete { force: false, .. });
        assert!(steps.iter().any(deletes), "{life:?}: {steps:?}");
        assert_eq!(
            steps.first(),
            Some(&Step::ReadRecord),
            "its record is read before"
        );
        model.pods = vec![read_task(failed(json!({ "exitCode": 1 })))];
        assert_eq!(model.settle(), [], "kept for its logs");
    }
}

#[test]
fn the_outcome_of_a_task_is_not_deleted_on_what_a_cache_says() {
    let mut model = Model {
        lrp: None,
        task: None,
        pods: vec![read_task(json!({ "phase": "Succeeded" }))],
        local: BTreeMap::new(),
        life: Life::Alive,
        scheduler: None,
        refuses: false,
        strict: false,
    };
    let steps = model.settle();
    assert_eq!(steps.first(), Some(&Step::ReadRecord), "{steps:?}");
    assert!(
        matches!(steps.get(1), Some(Step::Delete { .. })),
        "{steps:?}"
    );
}

#[test]
fn a_pod_on_another_node_than_its_cell_is_not_reported() {
    let status = ActualLRPStatus {
        state: ActualLRPState::Claimed,
        cell_name: Some("a".into()),
        cell_epoch: Some(11),
        instance_guid: Some("g1".into()),
        ..Default::default()
    };
    for status in [status, ActualLRPStatus::default()] {
        let mut model = Model {
            lrp: Some(Lrp {
                version: version(false),
                process: "web".into(),
                index: 0,
                owner: None,
                status,
            }),
            task: None,
            pods: vec![PodRecord {
                node: Some("n2".into()),
                ..read(ready())
            }],
            local: BTreeMap::new(),
            life: Life::Alive,
            scheduler: None,
            refuses: false,
            strict: false,
        };
        let steps = model.settle();
        assert!(
            matches!(steps[..], [Step::ReadRecord, Step::Delete { .. }]),
            "{steps:?}"
        );
    }
}
