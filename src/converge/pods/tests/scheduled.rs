//! A slot whose placement is left to a scheduler.

use std::collections::BTreeMap;

use super::super::{Phase, PodRecord, Step, WorkKind};
use super::fixpoint::{LIVES, held, stages};
use super::model::{Model, version};
use super::{at, read};
use crate::api::{ActualLRPState, ActualLRPStatus, TaskState, TaskStatus};
use crate::converge::life::Life;
use crate::converge::world::{Lrp, TaskRecord};

/// A slot that waits for a scheduler.
fn awaiting(kind: WorkKind) -> Model {
    let mut model = Model {
        lrp: None,
        task: None,
        pods: Vec::new(),
        local: BTreeMap::new(),
        life: Life::Alive,
        scheduler: Some("volcano"),
        refuses: false,
        strict: false,
    };
    match kind {
        WorkKind::Lrp => {
            model.lrp = Some(Lrp {
                version: version(false),
                process: "web".into(),
                index: 0,
                owner: None,
                status: ActualLRPStatus::default(),
            });
        }
        WorkKind::Task => {
            model.task = Some(TaskRecord {
                version: version(false),
                created: at(0),
                cancelled: false,
                callback: None,
                seen_finished: None,
                keep: None,
                demand: Err("no matter".into()),
                status: TaskStatus::default(),
            });
        }
    }
    model
}

#[test]
fn a_slot_follows_the_pod_that_its_scheduler_binds() {
    let mut model = awaiting(WorkKind::Lrp);
    model.settle();
    let told = |model: &Model| {
        model
            .lrp
            .as_ref()
            .and_then(|lrp| lrp.status.placement_error.clone())
    };
    assert_eq!(
        told(&model).as_deref(),
        Some("waiting for scheduler \"volcano\"")
    );
    assert_eq!((model.pods.len(), &*model.pods[0].guid), (1, "new"));
    model.pods[0].unscheduled = Some("Unschedulable: 0/3 nodes".into());
    model.settle();
    let expected = "waiting for scheduler \"volcano\": Unschedulable: 0/3 nodes";
    assert_eq!(told(&model).as_deref(), Some(expected));
    model.pods[0].node = Some("n1".into());
    model.settle();
    let status = model
        .lrp
        .as_ref()
        .map(|lrp| lrp.status.clone())
        .unwrap_or_default();
    assert_eq!(
        (
            status.state,
            status.cell_name.as_deref(),
            status.instance_guid.as_deref()
        ),
        (ActualLRPState::Claimed, Some("a"), Some("new"))
    );
    assert_eq!((status.placement_error, model.pods.len()), (None, 1));
    // Its Cell is lost and the record has moved on: the Pod goes, although it bears no Cell's name.
    model.life = Life::Lost;
    model.scheduler = None;
    if let Some(lrp) = &mut model.lrp {
        lrp.status = ActualLRPStatus::default();
    }
    model.settle();
    assert!(model.pods.is_empty());
}

#[test]
fn a_node_that_is_no_cell_is_refused_and_not_tried_in_a_hot_loop() {
    let mut model = awaiting(WorkKind::Lrp);
    model.settle();
    model.pods[0].node = Some("elsewhere".into());
    let steps = model.settle();
    assert!(
        steps.iter().any(|step| matches!(step, Step::Delete { .. })),
        "{steps:?}"
    );
    let told = model
        .lrp
        .as_ref()
        .and_then(|lrp| lrp.status.placement_error.clone());
    assert!(told.is_some_and(|told| told.contains("chose node elsewhere, which is no Cell")));
    model.pods.clear();
    assert_eq!(model.settle(), [], "the next one has to wait");
    let mut model = awaiting(WorkKind::Lrp);
    model.refuses = true;
    model.settle();
    let told = model
        .lrp
        .as_ref()
        .and_then(|lrp| lrp.status.placement_error.clone());
    assert_eq!(told.as_deref(), Some("quota"));
    assert_eq!(model.settle(), []);
}

#[test]
fn a_task_whose_pod_ran_before_anybody_saw_it_is_not_run_again() {
    let mut model = awaiting(WorkKind::Task);
    model.settle();
    model.pods[0].node = Some("n1".into());
    model.pods[0].phase = Phase::Succeeded;
    let steps = model.settle();
    assert!(
        !steps
            .iter()
            .any(|step| matches!(step, Step::CreateUnbound(_) | Step::Create(_)))
    );
    let status = model
        .task
        .as_ref()
        .map(|task| task.status.clone())
        .unwrap_or_default();
    assert_eq!(
        (status.state, status.failed),
        (TaskState::Completed, Some(false))
    );
}

#[test]
fn whatever_is_there_while_a_slot_waits_for_its_scheduler_settles() {
    for life in LIVES {
        for (pod, local) in stages(read)
            .into_iter()
            .flat_map(|pod| held().map(|one| (pod.clone(), one)))
        {
            for (node, cell) in [
                (None, None),
                (Some("n1"), None),
                (Some("x"), None),
                (Some("n1"), Some("a")),
            ] {
                let mut model = awaiting(WorkKind::Lrp);
                model.life = life;
                model.pods.extend(pod.clone().map(|pod| PodRecord {
                    node: node.map(ToOwned::to_owned),
                    cell: cell.map(ToOwned::to_owned),
                    ..pod
                }));
                model
                    .local
                    .extend(local.clone().map(|local| ("g1".to_owned(), local)));
                model.settle();
                assert_eq!(model.settle(), []);
            }
        }
    }
}

fn creates(steps: &[Step]) -> usize {
    let creates = |step: &&Step| {
        matches!(
            step,
            Step::CreateUnbound(_) | Step::Create(_) | Step::Try(_)
        )
    };
    steps.iter().filter(creates).count()
}

fn task_of(model: &Model) -> TaskStatus {
    let task = model.task.as_ref();
    task.map(|task| task.status.clone()).unwrap_or_default()
}

/// A Task whose Pod was made, once.
fn waiting_task() -> Model {
    let mut model = awaiting(WorkKind::Task);
    let steps = model.settle();
    assert_eq!(creates(&steps), 1, "{steps:?}");
    let told = task_of(&model).rejection_reason;
    assert_eq!(told.as_deref(), Some("waiting for scheduler \"volcano\""));
    model
}

#[test]
fn a_tasks_record_says_that_it_has_a_pod_before_there_is_one() {
    let mut model = awaiting(WorkKind::Task);
    let steps = model.settle();
    let told = steps
        .iter()
        .position(|step| matches!(step, Step::Task { .. }));
    let made = steps
        .iter()
        .position(|step| matches!(step, Step::CreateUnbound(_)));
    assert!(told < made && told.is_some(), "{steps:?}");
    model.refuses = true;
    let mut model = Model {
        pods: Vec::new(),
        local: BTreeMap::new(),
        ..model
    };
    if let Some(task) = &mut model.task {
        task.status = TaskStatus::default();
    }
    model.settle();
    assert_eq!(
        task_of(&model).rejection_reason.as_deref(),
        Some("quota"),
        "it was not made"
    );
    assert_eq!(task_of(&model).state, TaskState::Pending);
}

#[test]
fn a_task_whose_pod_is_gone_is_never_run_again() {
    // Bound and gone, or never seen to be bound: another controller finds no Pod.
    let mut model = waiting_task();
    model.pods.clear();
    let steps = model.settle();
    assert_eq!(creates(&steps), 0, "{steps:?}");
    assert!(
        matches!(steps[0], Step::ReadPod(_)),
        "not on what a cache says: {steps:?}"
    );
    let status = task_of(&model);
    assert_eq!(
        (status.state, status.failed),
        (TaskState::Completed, Some(true))
    );
    assert_eq!(
        status.failure_reason.as_deref(),
        Some("its Pod is gone, and may have run")
    );

    // Placed already, as far as its record says.
    let mut model = waiting_task();
    model.pods.clear();
    if let Some(task) = &mut model.task {
        task.status.cell_name = Some("a".into());
        task.status.cell_epoch = Some(12);
        task.status.instance_guid = Some("new".into());
        task.status.rejection_reason = None;
    }
    for life in [Life::Alive, Life::Draining] {
        let mut model = Model {
            life,
            ..model.clone()
        };
        let steps = model.settle();
        assert_eq!(creates(&steps), 0, "{steps:?}");
        assert_eq!(task_of(&model).failed, Some(true));
    }
}

#[test]
fn a_task_that_its_scheduler_sends_to_no_living_cell_fails() {
    for (node, life) in [
        ("elsewhere", Life::Alive),
        ("n1", Life::Lost),
        ("n1", Life::Left),
    ] {
        let mut model = waiting_task();
        model.life = life;
        model.pods[0].node = Some(node.into());
        let steps = model.settle();
        assert_eq!(creates(&steps), 0, "{steps:?}");
        let status = task_of(&model);
        assert_eq!(
            (status.state, status.failed),
            (TaskState::Completed, Some(true))
        );
        let reason = status.failure_reason.unwrap_or_default();
        assert!(reason.contains(&format!("chose node {node}")), "{reason}");
        assert!(
            model.pods.iter().all(|pod| pod.deleting.is_some()),
            "and its Pod goes"
        );
    }
    // A bound Pod spends the run at once.
    for life in [Life::Alive, Life::Draining] {
        let mut model = waiting_task();
        model.life = life;
        model.pods[0].node = Some("n1".into());
        model.settle();
        assert_eq!(task_of(&model).state, TaskState::Running, "{life:?}");
    }
}

#[test]
fn a_cell_that_takes_no_work_is_refused_and_not_tried_in_a_hot_loop() {
    for life in [Life::Lost, Life::Draining, Life::Left] {
        let mut model = awaiting(WorkKind::Lrp);
        model.settle();
        model.life = life;
        model.pods[0].node = Some("n1".into());
        let steps = model.settle();
        let pause = steps.iter().find_map(|step| match step {
            Step::Pause(until) => Some(*until),
            _ => None,
        });
        assert_eq!(pause, Some(at(60)), "half a minute: {steps:?}");
        let told = model
            .lrp
            .as_ref()
            .and_then(|lrp| lrp.status.placement_error.clone());
        let told = told.unwrap_or_default();
        assert!(
            told.contains("chose node n1, whose Cell takes no work"),
            "{told}"
        );
        let deletes = |step: &Step| match step {
            Step::Delete { force, .. } => *force == (life == Life::Lost),
            _ => false,
        };
        assert!(steps.iter().any(deletes), "{steps:?}");
        model.pods.clear();
        assert_eq!(model.settle(), [], "the next one has to wait");
    }
}

#[test]
fn what_differs_in_numbers_alone_is_not_written_again() {
    let mut model = awaiting(WorkKind::Lrp);
    model.settle();
    model.pods[0].unscheduled = Some("Unschedulable: 0/3 nodes".into());
    assert_eq!(model.settle().len(), 1);
    model.pods[0].unscheduled = Some("Unschedulable: 0/14 nodes".into());
    assert_eq!(model.settle(), []);
    model.pods[0].unscheduled = Some("Unschedulable: 0/14 nodes, insufficient cpu".into());
    assert_eq!(model.settle().len(), 1);
}
