//! `make bench-auction`: what it costs to place much work on many Cells at once, and one instance among many Cells.

#[allow(dead_code)]
#[path = "../tests/rules/world.rs"]
mod world;

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use diego_operator::api::{
    ActualLRPState, ActualLRPStatus, CellState, ExecutorKind, TaskStatus, template::Resources,
};
use diego_operator::converge::demand::Demand;
use diego_operator::converge::neighbours::{Namespaces, PodNeeds, PodTerm};
use diego_operator::converge::node::{CellNode, Expression, NodeRecord, Operator};
use diego_operator::converge::placement::{Ask, Auction, Bidder, Knobs, Room, Work};
use diego_operator::converge::plan::{Plan, Scope};
use diego_operator::converge::world::TaskRecord;

use world::{Sandbox, at, key};

const CELLS: usize = 1_000;
const ZONES: usize = 3;
const PROCESSES: usize = 500;
const INSTANCES: i32 = 15;
const TASKS: usize = 2_500;

/// Runs of each measurement.
const RUNS: usize = 21;

/// Plans for one more instance each.
const SINGLES: usize = 200;

const MIB: i64 = 1 << 20;

const HOSTNAME: &str = "kubernetes.io/hostname";

fn main() {
    println!(
        "{CELLS} Cells in {ZONES} zones; {PROCESSES} processes x {INSTANCES} instances + {TASKS} Tasks = {} placements\n",
        placements()
    );
    println!("| milliseconds | p50 | p90 | max |\n| --- | --- | --- | --- |");
    let mut waiting = cells(CELLS);
    enter_work(&mut waiting);
    let batch = batch();
    let auction = measure("auction of the batch", RUNS, || {
        || assert_eq!(place(&waiting, &batch), placements())
    });
    let instances = &batch[..PROCESSES * INSTANCES as usize];
    measure(
        "auction of its instances, none may start, one Cell has room",
        RUNS,
        || || assert_eq!(auction_at_the_limit(&waiting, instances), 0),
    );
    let plan = measure("world -> plan of the batch", RUNS, || {
        let mut sandbox = waiting.clone();
        move || assert_eq!(all(&mut sandbox).writes.len(), placements())
    });
    let mut placed = waiting.clone();
    let writes = all(&mut placed).writes;
    writes.iter().for_each(|write| placed.succeed(write));
    let mut refused = cells(CELLS);
    shrink(&mut refused);
    enter_work(&mut refused);
    let writes = all(&mut refused).writes;
    writes.iter().for_each(|write| refused.succeed(write));
    let refused = RefCell::new(refused);
    let wait = measure(
        "world -> plan of the batch, no room for any of it",
        RUNS,
        || {
            || {
                let plan = refused.borrow_mut().plan(&Scope::Waiting, at(1_000));
                assert!(plan.writes.is_empty());
            }
        },
    );
    let lost = one_lost(true);
    let apart = measure(
        "world -> plan of a lost Cell's 250 instances, each kept off its own",
        RUNS,
        || replaced(&lost),
    );
    let lost = one_lost(false);
    let free = measure("the same without any term", RUNS, || replaced(&lost));
    let many = one_more("world -> plan of one more instance", &mut placed);
    let few = one_more("the same on 10 empty Cells", &mut cells(10));
    println!(
        "\none placement of the batch: {:.1} us in the auction, {:.1} us in the plan (medians)\nauction / plan: {:.2}; no room / room: {:.2}; one more instance on {CELLS} Cells / on 10: {:.0}; kept apart / free: {:.1}",
        auction * 1_000.0 / placements() as f64,
        plan * 1_000.0 / placements() as f64,
        auction / plan,
        wait / plan,
        many / few,
        apart / free,
    );
}

/// Processes that each have an instance on the lost Cell.
const LOST: usize = 250;

/// Instances of each of them.
const OF_EACH: usize = 40;

/// Cells that are nodes, one of them lost; with `apart` the instances of a process must not share a node.
fn one_lost(apart: bool) -> Sandbox {
    let mut sandbox = Sandbox::default();
    let name = |n: usize| format!("cell-{n:04}");
    let resources = Resources {
        memory: 64 << 30,
        disk: 1 << 40,
        cpu: 64_000,
    };
    for n in 0..CELLS {
        let state = match n {
            0 => CellState::Missing,
            _ => CellState::Present,
        };
        let mut record = sandbox.cell(&name(n), &format!("z{}", n % ZONES), state, 1, 1);
        record.capacity = resources;
        record.executor = ExecutorKind::Pods;
        record.node = Some(CellNode {
            name: name(n),
            ..CellNode::default()
        });
        sandbox.world.put_cell(&name(n), record);
        let node = NodeRecord {
            labels: [(HOSTNAME.to_owned(), name(n))].into(),
            ready: true,
            allocatable: resources,
            pods: 250,
            ..NodeRecord::default()
        };
        sandbox.world.put_node(&name(n), node);
    }
    let nodes = (0..CELLS).map(name).collect();
    sandbox.world.end_node_list(&nodes);
    sandbox.world.end_foreign_list(0);
    for process in 0..LOST {
        let of = format!("apart-{process:04}");
        let mut record = sandbox.desired(&of, OF_EACH as i32);
        record.demand = Ok(Arc::new(alone(&of, apart)));
        sandbox.world.put_desired(&key(&of), record);
        for index in 0..OF_EACH {
            let on = match index {
                0 => 0,
                _ => 1 + (process * OF_EACH + index) % (CELLS - 1),
            };
            let status = ActualLRPStatus {
                state: ActualLRPState::Running,
                cell_name: Some(name(on)),
                cell_epoch: Some(1),
                instance_guid: Some(format!("{of}-{index}")),
                ..ActualLRPStatus::default()
            };
            let record = sandbox.lrp(&of, index as i32, status);
            let key = key(&of).instance(index as i32);
            sandbox.world.put_lrp(&key, record);
        }
    }
    sandbox
}

/// One that has no other of its own on its node.
fn alone(name: &str, apart: bool) -> Demand {
    let is = Expression {
        key: "app".into(),
        operator: Operator::In,
        values: vec![name.to_owned()],
    };
    let term = PodTerm {
        topology: HOSTNAME.into(),
        selector: Some(vec![is]),
        namespaces: Namespaces::Own,
    };
    Demand {
        labels: [("app".to_owned(), name.to_owned())].into(),
        pods: PodNeeds {
            near: Vec::new(),
            apart: if apart { vec![term] } else { Vec::new() },
        },
        ..Demand::default()
    }
}

/// The plan of a world that has lost a Cell.
fn replaced(lost: &Sandbox) -> impl FnOnce() + use<> {
    let mut sandbox = lost.clone();
    move || assert_eq!(all(&mut sandbox).writes.len(), LOST)
}

fn placements() -> usize {
    PROCESSES * INSTANCES as usize + TASKS
}

/// The work of [`enter_work`], as the auction is asked for it.
fn batch() -> Vec<(Work, Arc<Demand>)> {
    let instances = (0..PROCESSES).flat_map(|n| {
        let process = key(&format!("process-{n:04}"));
        (0..INSTANCES).map(move |index| {
            let process = process.clone();
            (Work::Lrp { process, index }, demand(n))
        })
    });
    let tasks = (0..TASKS).map(|n| (Work::Task(key(&format!("task-{n:04}"))), demand(n)));
    instances.chain(tasks).collect()
}

/// Sorts and places the batch. Returns how much of it found a place.
fn place(sandbox: &Sandbox, batch: &[(Work, Arc<Demand>)]) -> usize {
    place_on(bidders(sandbox).collect(), 0, Knobs::default(), batch)
}

/// The same on Cells of which one has room, when no instance may start.
fn auction_at_the_limit(sandbox: &Sandbox, batch: &[(Work, Arc<Demand>)]) -> usize {
    let knobs = Knobs {
        starting_container_count_maximum: 1,
        ..Knobs::default()
    };
    let mut bidders: Vec<Bidder<'_>> = bidders(sandbox).collect();
    // The last in the order in which they are looked at.
    let free = CELLS - 2;
    for (_, bidder) in bidders.iter_mut().enumerate().filter(|(n, _)| *n != free) {
        bidder.room.used = bidder.room.capacity;
    }
    place_on(bidders, 1, knobs, batch)
}

fn bidders(sandbox: &Sandbox) -> impl Iterator<Item = Bidder<'_>> {
    let cells = sandbox.world.cells().iter().enumerate();
    cells.map(|(index, (name, cell))| Bidder {
        name,
        index,
        epoch: 1,
        zone: &cell.zone,
        executor: cell.executor,
        required_tags: &cell.required_tags,
        optional_tags: &cell.optional_tags,
        cordoned: false,
        rests: false,
        node: None,
        room: Room {
            capacity: cell.capacity,
            containers: cell.containers,
            ..Room::default()
        },
    })
}

fn place_on(
    bidders: Vec<Bidder<'_>>,
    starting: i64,
    knobs: Knobs,
    batch: &[(Work, Arc<Demand>)],
) -> usize {
    let mut auction = Auction::new(bidders, starting, knobs);
    let mut asks: Vec<Ask<'_>> = batch
        .iter()
        .map(|(work, demand)| Ask {
            work,
            demand,
            avoid: &[],
        })
        .collect();
    asks.sort_by(|a, b| a.rank().cmp(&b.rank()));
    let winners = asks.iter().map(|ask| auction.place(ask, Vec::new));
    winners.filter(|winner| black_box(winner).is_ok()).count()
}

fn all(sandbox: &mut Sandbox) -> Plan {
    sandbox.plan(&Scope::All, at(1_000))
}

/// Plans for one DesiredLRP after the other, each of one instance.
fn one_more(name: &str, sandbox: &mut Sandbox) -> f64 {
    let sandbox = RefCell::new(sandbox);
    let mut n = 0;
    measure(name, SINGLES, || {
        n += 1;
        let one_more = key(&format!("one-more-{n}"));
        let record = sandbox.borrow_mut().desired(&one_more.name, 1);
        sandbox.borrow_mut().world.put_desired(&one_more, record);
        || {
            let plan = sandbox
                .borrow_mut()
                .plan(&Scope::Desired(one_more), at(1_000));
            assert_eq!(plan.writes.len(), 1);
        }
    })
}

/// Times what `prepare` returns, so many times, and prints a row. Returns the median in milliseconds.
fn measure<F: FnOnce()>(name: &str, runs: usize, mut prepare: impl FnMut() -> F) -> f64 {
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let run = prepare();
            let began = Instant::now();
            run();
            began.elapsed().as_secs_f64() * 1_000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let rank = |percent: usize| times[(percent * times.len()).div_ceil(100) - 1];
    let median = rank(50);
    println!(
        "| {name} | {median:.3} | {:.3} | {:.3} |",
        rank(90),
        rank(100)
    );
    median
}

fn cells(count: usize) -> Sandbox {
    let mut sandbox = Sandbox::default();
    for n in 0..count {
        let name = format!("cell-{n:04}");
        let zone = format!("z{}", n % ZONES);
        let mut record = sandbox.cell(&name, &zone, CellState::Present, 1, 1);
        record.capacity = Resources {
            memory: 64 << 30,
            disk: 1 << 40,
            cpu: 0,
        };
        if n % 20 == 0 {
            record.required_tags = vec!["gpu".into()];
        }
        if n % 2 == 0 {
            record.optional_tags = vec!["ssd".into()];
        }
        sandbox.world.put_cell(&name, record);
    }
    sandbox
}

/// Leaves no memory on any Cell.
fn shrink(sandbox: &mut Sandbox) {
    let mut cells: Vec<_> = sandbox.world.cells().clone().into_iter().collect();
    for (name, cell) in &mut cells {
        cell.capacity.memory = MIB;
        cell.version = sandbox.version(&format!("cell-{name}"));
        sandbox.world.put_cell(name, cell.clone());
    }
}

fn demand(n: usize) -> Arc<Demand> {
    let tags = match n % 50 {
        0 => vec!["gpu".into()],
        1..=9 => vec!["ssd".into()],
        _ => Vec::new(),
    };
    Arc::new(Demand {
        resources: Resources {
            memory: (64 + n as i64 % 8 * 64) * MIB,
            disk: 128 * MIB,
            cpu: 0,
        },
        tags,
        ..Demand::default()
    })
}

fn enter_work(sandbox: &mut Sandbox) {
    for n in 0..PROCESSES {
        let name = format!("process-{n:04}");
        let mut record = sandbox.desired(&name, INSTANCES);
        record.demand = Ok(demand(n));
        sandbox.world.put_desired(&key(&name), record);
    }
    for n in 0..TASKS {
        let name = format!("task-{n:04}");
        let record = TaskRecord {
            version: sandbox.version(&name),
            created: at(1_000),
            cancelled: false,
            callback: None,
            seen_finished: None,
            keep: None,
            demand: Ok(demand(n)),
            status: TaskStatus::default(),
        };
        sandbox.world.put_task(&key(&name), record);
    }
}
