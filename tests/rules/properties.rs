//! Properties of the rules over random worlds and random orders of events.

use std::collections::{BTreeMap, BTreeSet};

use diego_operator::api::{
    ActualLRPState, ActualLRPStatus, CellState, EvacuatingInstance, SuspectInstance, TaskState,
    TaskStatus,
};
use diego_operator::converge::plan::{LrpChange, Scope, Write};
use diego_operator::converge::world::{Key, Lrp, TaskRecord};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use proptest::prelude::*;

use crate::world::{Sandbox, at, key};

const NOW: i64 = 10_000;

/// One object of a random world.
#[derive(Debug, Clone)]
enum Item {
    Cell {
        name: usize,
        state: CellState,
        epoch: i64,
        first: i64,
    },
    Desired {
        name: usize,
        instances: i32,
    },
    Lrp {
        process: usize,
        index: i32,
        status: Box<ActualLRPStatus>,
    },
    Task {
        name: usize,
        status: Box<TaskStatus>,
    },
}

const CELLS: [&str; 4] = ["a", "b", "c", "d"];
const PROCESSES: [&str; 3] = ["web", "api", "db"];

fn cell_state() -> impl Strategy<Value = CellState> {
    prop_oneof![
        4 => Just(CellState::Present),
        2 => Just(CellState::Missing),
        1 => Just(CellState::Evacuating),
        1 => Just(CellState::Evacuated),
    ]
}

fn lrp_status() -> impl Strategy<Value = ActualLRPStatus> {
    let state = prop_oneof![
        1 => Just(ActualLRPState::Unclaimed),
        1 => Just(ActualLRPState::Claimed),
        3 => Just(ActualLRPState::Running),
        1 => Just(ActualLRPState::Crashed),
    ];
    (
        state,
        0..CELLS.len(),
        1..4i64,
        0..2000i64,
        0..12i32,
        any::<bool>(),
        0..6usize,
    )
        .prop_map(|(state, cell, epoch, ago, crashes, placed, beside)| {
            let on_cell = match state {
                ActualLRPState::Claimed | ActualLRPState::Running => true,
                ActualLRPState::Unclaimed => placed,
                ActualLRPState::Crashed => false,
            };
            ActualLRPStatus {
                state,
                cell_name: on_cell.then(|| CELLS[cell].to_owned()),
                cell_epoch: on_cell.then_some(epoch),
                instance_guid: on_cell.then(|| format!("old-{cell}-{epoch}")),
                state_transition_time: Some(MicroTime(at(NOW - ago))),
                crash_count: (crashes > 0).then_some(crashes),
                suspect: (beside == 1).then(|| SuspectInstance {
                    cell_name: CELLS[(cell + 1) % CELLS.len()].to_owned(),
                    cell_epoch: epoch,
                    instance_guid: "suspect".into(),
                    state: ActualLRPState::Running,
                    ..Default::default()
                }),
                evacuating: (beside == 2).then(|| EvacuatingInstance {
                    cell_name: CELLS[(cell + 1) % CELLS.len()].to_owned(),
                    cell_epoch: epoch,
                    instance_guid: "evacuating".into(),
                    ..Default::default()
                }),
                ..Default::default()
            }
        })
}

fn task_status() -> impl Strategy<Value = TaskStatus> {
    let state = prop_oneof![
        Just(TaskState::Pending),
        Just(TaskState::Running),
        Just(TaskState::Completed)
    ];
    (state, 0..CELLS.len(), 1..4i64, any::<bool>()).prop_map(|(state, cell, epoch, placed)| {
        let on_cell = placed || state == TaskState::Running;
        TaskStatus {
            state,
            cell_name: on_cell.then(|| CELLS[cell].to_owned()),
            cell_epoch: on_cell.then_some(epoch),
            instance_guid: on_cell.then(|| "run".to_owned()),
            state_transition_time: Some(MicroTime(at(NOW - 5))),
            ..Default::default()
        }
    })
}

/// At most one object of each name, in any order.
fn items() -> impl Strategy<Value = Vec<Item>> {
    let cells = proptest::collection::vec((cell_state(), 1..4i64, 1..4i64), CELLS.len());
    let desired = proptest::collection::vec(proptest::option::of(0..5i32), PROCESSES.len());
    let lrps = proptest::collection::btree_map((0..PROCESSES.len(), 0..7i32), lrp_status(), 0..14);
    let tasks = proptest::collection::vec(task_status(), 0..4);
    (cells, desired, lrps, tasks)
        .prop_map(|(cells, desired, lrps, tasks)| {
            let mut items = Vec::new();
            for (name, (state, epoch, first)) in cells.into_iter().enumerate() {
                items.push(Item::Cell {
                    name,
                    state,
                    epoch: epoch.max(first),
                    first,
                });
            }
            for (name, instances) in desired.into_iter().enumerate() {
                items.extend(instances.map(|instances| Item::Desired { name, instances }));
            }
            for ((process, index), status) in lrps {
                items.push(Item::Lrp {
                    process,
                    index,
                    status: Box::new(status),
                });
            }
            for (name, status) in tasks.into_iter().enumerate() {
                items.push(Item::Task {
                    name,
                    status: Box::new(status),
                });
            }
            items
        })
        .prop_shuffle()
}

fn enter(sandbox: &mut Sandbox, item: &Item) {
    match item {
        Item::Cell {
            name,
            state,
            epoch,
            first,
        } => {
            let zone = if name % 2 == 0 { "z1" } else { "z2" };
            let record = sandbox.cell(CELLS[*name], zone, *state, *epoch, *first);
            sandbox.world.put_cell(CELLS[*name], record);
        }
        Item::Desired { name, instances } => {
            let record = sandbox.desired(PROCESSES[*name], *instances);
            sandbox.world.put_desired(&key(PROCESSES[*name]), record);
        }
        Item::Lrp {
            process,
            index,
            status,
        } => {
            let record = sandbox.lrp(PROCESSES[*process], *index, (**status).clone());
            sandbox
                .world
                .put_lrp(&key(PROCESSES[*process]).instance(*index), record);
        }
        Item::Task { name, status } => {
            let record = TaskRecord {
                version: sandbox.version(&format!("task-{name}")),
                created: at(NOW - 100),
                cancelled: false,
                callback: None,
                seen_finished: None,
                keep: None,
                demand: Ok(Default::default()),
                status: (**status).clone(),
            };
            sandbox.world.put_task(&key(&format!("t{name}")), record);
        }
    }
}

fn world_of(items: &[Item]) -> Sandbox {
    let mut sandbox = Sandbox::default();
    items.iter().for_each(|item| enter(&mut sandbox, item));
    sandbox
}

/// What the rules decided, without the guids and versions that depend on the order of events.
fn essence(writes: &[Write]) -> BTreeMap<(Key, bool), String> {
    writes
        .iter()
        .map(|write| match write {
            Write::CreateLrp { key, change, .. } => {
                ((key.clone(), false), format!("create {change:?}"))
            }
            Write::LrpStatus { key, change, .. } => ((key.clone(), false), format!("{change:?}")),
            Write::DeleteLrp { key, .. } => ((key.clone(), false), "delete".to_owned()),
            Write::TaskStatus { key, change, .. } => ((key.clone(), true), format!("{change:?}")),
            Write::DeleteTask { key, reason, .. } => {
                ((key.clone(), true), format!("delete {reason:?}"))
            }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_events_does_not_matter(items in items()) {
        let mut sorted = items.clone();
        sorted.sort_by_key(|item| format!("{item:?}"));
        let shuffled = world_of(&items).plan(&Scope::All, at(NOW));
        let ordered = world_of(&sorted).plan(&Scope::All, at(NOW));
        prop_assert_eq!(essence(&shuffled.writes), essence(&ordered.writes));
    }

    #[test]
    fn a_plan_writes_every_object_at_most_once_and_never_its_own_writes_again(items in items()) {
        let mut sandbox = world_of(&items);
        let first = sandbox.plan(&Scope::All, at(NOW));
        prop_assert_eq!(essence(&first.writes).len(), first.writes.len());
        // Nothing was answered yet: whoever plans meanwhile leaves it alone.
        let meanwhile = sandbox.plan(&Scope::All, at(NOW));
        prop_assert!(meanwhile.writes.is_empty(), "{:?}", meanwhile.writes);
    }

    #[test]
    fn it_comes_to_rest(items in items()) {
        let mut sandbox = world_of(&items);
        // A suspect or evacuating instance is settled first, then the ordinary one: a few rounds at most.
        for _ in 0..4 {
            sandbox.converge(&Scope::All, at(NOW));
        }
        let rest = sandbox.plan(&Scope::All, at(NOW));
        prop_assert!(rest.writes.is_empty(), "{:?}", rest.writes);
    }

    #[test]
    fn no_index_is_forgotten_and_none_is_extra(items in items()) {
        let mut sandbox = world_of(&items);
        for _ in 0..4 {
            sandbox.converge(&Scope::All, at(NOW));
        }
        for item in &items {
            if let Item::Desired { name, instances } = item {
                let there: BTreeSet<i32> = sandbox.world.slots(&key(PROCESSES[*name])).cloned().unwrap_or_default();
                prop_assert_eq!(there, (0..*instances).collect::<BTreeSet<_>>());
            }
        }
    }

    #[test]
    fn work_goes_to_present_cells_alone_and_running_tasks_never_move(items in items()) {
        let mut sandbox = world_of(&items);
        let before = sandbox.clone();
        let plan = sandbox.plan(&Scope::All, at(NOW));
        for write in &plan.writes {
            let placed = match write {
                Write::CreateLrp { change: LrpChange::Placed { cell, .. }, .. }
                | Write::LrpStatus { change: LrpChange::Placed { cell, .. } | LrpChange::RestartedHere { cell }, .. } => Some(cell),
                Write::TaskStatus { to, .. } if to.state == TaskState::Pending => to.cell_name.as_ref(),
                _ => None,
            };
            if let Some(cell) = placed {
                let state = before.world.cells()[cell].status.state;
                prop_assert_eq!(state, Some(CellState::Present), "{}", cell);
            }
            if let Write::TaskStatus { from, to, .. } = write {
                prop_assert!(from.state != TaskState::Completed, "a completed Task changed");
                prop_assert!(from.state != TaskState::Running || to.state == TaskState::Completed);
            }
        }
    }

    #[test]
    fn the_loss_of_a_cell_is_no_crash(items in items()) {
        let mut sandbox = world_of(&items);
        let plan = sandbox.plan(&Scope::All, at(NOW));
        for write in &plan.writes {
            if let Write::LrpStatus { from, to, .. } = write {
                prop_assert_eq!(from.crash_count, to.crash_count);
            }
        }
    }

    #[test]
    fn what_is_alive_stays_where_it_is(items in items()) {
        let mut sandbox = world_of(&items);
        let before = sandbox.clone();
        sandbox.converge(&Scope::All, at(NOW));
        for (key, lrp) in before.world.all_lrps() {
            let Some((cell, epoch)) = lrp.status.cell_name.as_ref().zip(lrp.status.cell_epoch) else { continue };
            let ledger = &before.world.cells()[cell].status;
            let alive = ledger.state == Some(CellState::Present)
                && Some(epoch) >= ledger.incarnation_epoch
                && Some(epoch) <= ledger.epoch;
            let running = matches!(lrp.status.state, ActualLRPState::Running | ActualLRPState::Claimed);
            // A suspect whose Cell is back is the better instance: that rule has its own scenarios.
            if alive && running && lrp.status.suspect.is_none() && let Some(after) = sandbox.world.lrp(key) {
                let Lrp { status, .. } = after;
                prop_assert_eq!(&status.cell_name, &lrp.status.cell_name);
                prop_assert_eq!(&status.instance_guid, &lrp.status.instance_guid);
            }
        }
    }

    #[test]
    fn the_books_balance(items in items()) {
        let mut sandbox = world_of(&items);
        sandbox.converge(&Scope::All, at(NOW));
        let mut counted: BTreeMap<String, i32> = BTreeMap::new();
        for (_, lrp) in sandbox.world.all_lrps() {
            let status = &lrp.status;
            let cells = status.cell_name.iter()
                .chain(status.suspect.iter().map(|suspect| &suspect.cell_name))
                .chain(status.evacuating.iter().map(|evacuating| &evacuating.cell_name));
            cells.for_each(|cell| *counted.entry(cell.clone()).or_default() += 1);
        }
        for (_, task) in sandbox.world.all_tasks() {
            if matches!(task.status.state, TaskState::Pending | TaskState::Running) {
                task.status.cell_name.iter().for_each(|cell| *counted.entry(cell.clone()).or_default() += 1);
            }
        }
        for cell in CELLS {
            let load = sandbox.world.load(cell).map_or(0, |load| load.containers);
            prop_assert_eq!(load, counted.get(cell).copied().unwrap_or(0), "{}", cell);
        }
    }
}
