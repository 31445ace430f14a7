//! Objects for the tests of what is drawn of them.

use crate::api::conditions::{self, Truth};
use crate::api::{
    ActualLRP, ActualLRPSpec, ActualLRPState, ActualLRPStatus, Allocated, Capacity, Cell, CellSpec,
    CellState, CellStatus, Task, TaskSpec, TaskState, TaskStatus,
};
use k8s_openapi::jiff::Timestamp;

/// A Cell whose condition Ready has this status and reason.
pub fn cell(name: &str, zone: &str, ready: &str, reason: &str) -> Cell {
    let mut cell = Cell::new(
        name,
        CellSpec {
            zone: zone.into(),
            capacity: Capacity {
                memory: "4Gi".into(),
                disk: "10Gi".into(),
                containers: 250,
            },
            ..CellSpec::default()
        },
    );
    let truth = match ready {
        "True" => Truth::True,
        "False" => Truth::False,
        _ => Truth::Unknown,
    };
    let mut status = CellStatus {
        state: Some(if reason == "PresenceExpired" {
            CellState::Missing
        } else {
            CellState::Present
        }),
        allocated: Some(Allocated {
            memory: "1Gi".into(),
            disk: "0".into(),
            containers: 2,
        }),
        actual_lrps: Some(2),
        tasks: Some(0),
        ..CellStatus::default()
    };
    let now = Timestamp::from_second(1000).expect("a time");
    conditions::set(
        &mut status.conditions,
        "Ready",
        truth,
        reason,
        "",
        None,
        now,
    );
    cell.status = Some(status);
    cell
}

/// An ActualLRP of a process and index in this state.
pub fn lrp(process: &str, index: i32, state: ActualLRPState, on: Option<&str>) -> ActualLRP {
    let spec = ActualLRPSpec {
        desired_lrp_name: process.into(),
        index,
        domain: None,
    };
    let mut lrp = ActualLRP::new(&format!("{process}-{index}"), spec);
    lrp.metadata.namespace = Some("default".into());
    lrp.status = Some(ActualLRPStatus {
        state,
        cell_name: on.map(Into::into),
        ..ActualLRPStatus::default()
    });
    lrp
}

/// A Task in this state.
pub fn task(name: &str, state: TaskState, on: Option<&str>) -> Task {
    let mut task = Task::new(name, TaskSpec::default());
    task.metadata.namespace = Some("default".into());
    task.status = Some(TaskStatus {
        state,
        cell_name: on.map(Into::into),
        ..TaskStatus::default()
    });
    task
}

/// A Cell in this state, and whether it is to be emptied.
pub fn cell_in(name: &str, state: CellState, evacuate: bool) -> Cell {
    let reason = match state {
        CellState::Present => "PresenceHeld",
        CellState::Missing => "PresenceExpired",
        CellState::Evacuating => "Evacuating",
        CellState::Evacuated => "Evacuated",
    };
    let ready = if reason == "PresenceHeld" {
        "True"
    } else {
        "False"
    };
    let mut cell = cell(name, "z1", ready, reason);
    cell.spec.evacuate = Some(evacuate);
    cell.status.as_mut().expect("it has one").state = Some(state);
    cell
}
