//! What the controller tells about a DesiredLRP and about a Cell's load.

use k8s_openapi::jiff::Timestamp;

use crate::api::conditions::{self, READY, Truth};
use crate::api::{
    ActualLRPState as State, ActualLRPStatus, Allocated, CellStatus, DesiredLRPStatus,
    LABEL_DESIRED_LRP, quantity,
};

use super::world::{Key, World};

/// The status a DesiredLRP should show; `None` when there is no such DesiredLRP.
pub fn desired(world: &World, key: &Key, now: Timestamp) -> Option<DesiredLRPStatus> {
    let desired = world.desired(key)?;
    let mut next = desired.status.clone();
    let mut count = Count::default();
    for index in world.slots(key).into_iter().flatten() {
        if let Some(lrp) = world.lrp(&key.instance(*index)) {
            count.enter(&key.instance(*index), &lrp.status);
        }
    }
    next.instances = count.total;
    next.running = count.running;
    next.selector = Some(format!("{LABEL_DESIRED_LRP}={}", key.name));
    next.observed_generation = Some(desired.version.generation);
    let wanted = desired.instances;
    let so_far = format!("{} of {wanted} instances run", count.running);
    let (truth, reason, message) = match (&desired.demand, &count.error) {
        (Err(problem), _) => (
            Truth::False,
            "InvalidTemplate",
            format!("{problem}. No instance can be started."),
        ),
        _ if count.running >= wanted && count.total <= wanted => {
            (Truth::True, "AllInstancesRunning", format!("{so_far}."))
        }
        _ if count.total > wanted => (
            Truth::False,
            "InstancesStopping",
            format!("{so_far}, {} more are being removed.", count.total - wanted),
        ),
        (_, Some(error)) => (
            Truth::False,
            "InstancesUnplaced",
            format!("{so_far}; another can't be started: {error}."),
        ),
        _ if count.crashed > 0 => {
            let one = count.crash.unwrap_or_default();
            let message = format!("{so_far}, {} crashed: {one}.", count.crashed);
            (Truth::False, "InstancesCrashed", message)
        }
        _ => (Truth::False, "InstancesStarting", format!("{so_far}.")),
    };
    let generation = Some(desired.version.generation);
    conditions::set(
        &mut next.conditions,
        READY,
        truth,
        reason,
        &message,
        generation,
        now,
    );
    Some(next)
}

#[derive(Default)]
struct Count {
    total: i32,
    running: i32,
    crashed: i32,
    error: Option<String>,
    /// The first crash, in words.
    crash: Option<String>,
}

impl Count {
    fn enter(&mut self, key: &Key, status: &ActualLRPStatus) {
        self.total += 1;
        match status.state {
            State::Running => self.running += 1,
            State::Crashed => {
                self.crashed += 1;
                self.crash.get_or_insert_with(|| crash(key, status));
            }
            State::Unclaimed | State::Claimed => {}
        }
        if self.error.is_none() {
            self.error = status.placement_error.clone();
        }
    }
}

fn crash(key: &Key, status: &ActualLRPStatus) -> String {
    let reason = status
        .crash_reason
        .as_deref()
        .unwrap_or("for no known reason");
    let next = match &status.next_restart_time {
        Some(time) => format!("starts again at {}", time.0.strftime("%H:%M:%S UTC")),
        None => "is not started again".to_owned(),
    };
    format!("{} {reason}, and {next}", key.name)
}

/// Sets the load of a Cell in its status.
pub fn cell_load(world: &World, name: &str, status: &mut CellStatus) {
    let idle = super::world::Load::default();
    let load = world.load(name).unwrap_or(&idle);
    status.allocated = Some(Allocated {
        memory: quantity::format(load.resources.memory),
        disk: quantity::format(load.resources.disk),
        containers: load.containers,
    });
    // What ran there before it was lost is counted where it runs now.
    let ordinary = load
        .lrps
        .iter()
        .filter(|key| {
            world
                .lrp(key)
                .is_some_and(|lrp| lrp.status.cell_name.as_deref() == Some(name))
        })
        .count();
    status.actual_lrps = i32::try_from(ordinary).ok();
    status.tasks = i32::try_from(load.tasks.len()).ok();
}
