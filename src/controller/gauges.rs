//! Gauges that are read off the world when Prometheus asks for them.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::api::{ActualLRPState, CellState, TaskState};
use crate::converge::world::World;

use super::context::Context;
use super::leader;

/// Registers the gauges of the world.
pub fn register(registry: &mut Registry, context: &Arc<Context>) {
    registry.register_collector(Box::new(Gauges {
        context: Arc::downgrade(context),
    }));
}

struct Gauges {
    context: Weak<Context>,
}

impl std::fmt::Debug for Gauges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gauges")
    }
}

/// One gauge with one label, every value from 0 on.
type Counts = BTreeMap<&'static str, i64>;

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(context) = self.context.upgrade() else {
            return Ok(());
        };
        let Counted {
            cells,
            lrps,
            suspects,
            tasks,
            desired,
            missing,
            extra,
        } = context.world(|world| count(world));
        // Asked for now and not kept, so that it is true of a process that was frozen too.
        let leads = ConstGauge::new(i64::from(context.leading()));
        let mut metric = encoder.encode_descriptor(
            "leader_election_master_status",
            "1 while this controller leads, and without --leader-elect; 0 while it stands by",
            None,
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        leads.encode(metric.encode_family(&[("name", leader::NAME)])?)?;
        by_state(&mut encoder, "diego_cells", "Cells, by state", cells)?;
        by_state(
            &mut encoder,
            "diego_actuallrps",
            "ActualLRPs, by state",
            lrps,
        )?;
        by_state(&mut encoder, "diego_tasks", "Tasks, by state", tasks)?;
        let deliveries = context.callbacks.counts();
        let deliveries = [
            ("UnderWay", deliveries.taken as i64),
            ("Waiting", deliveries.waiting as i64),
        ];
        by_state(
            &mut encoder,
            "diego_task_callback_deliveries",
            "Deliveries of completion callbacks, by whether they have begun",
            deliveries.into(),
        )?;
        by_state(
            &mut encoder,
            "diego_actuallrps_suspect",
            "Instances kept on missing Cells, by state",
            suspects,
        )?;
        plain(
            &mut encoder,
            "diego_desired_instances",
            "Instances that all DesiredLRPs together want",
            desired,
        )?;
        plain(
            &mut encoder,
            "diego_actuallrps_missing",
            "Wanted instances that are not Running",
            missing,
        )?;
        plain(
            &mut encoder,
            "diego_actuallrps_extra",
            "ActualLRPs that no DesiredLRP wants",
            extra,
        )
    }
}

fn by_state(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    counts: Counts,
) -> std::fmt::Result {
    let mut metric = encoder.encode_descriptor(
        name,
        help,
        None,
        prometheus_client::metrics::MetricType::Gauge,
    )?;
    for (state, count) in counts {
        ConstGauge::new(count).encode(metric.encode_family(&[("state", state)])?)?;
    }
    Ok(())
}

fn plain(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    count: i64,
) -> std::fmt::Result {
    let gauge = ConstGauge::new(count);
    let metric = encoder.encode_descriptor(
        name,
        help,
        None,
        prometheus_client::metrics::MetricType::Gauge,
    )?;
    gauge.encode(metric)
}

struct Counted {
    cells: Counts,
    lrps: Counts,
    suspects: Counts,
    tasks: Counts,
    desired: i64,
    missing: i64,
    extra: i64,
}

fn count(world: &World) -> Counted {
    let zero = |states: &[&'static str]| states.iter().map(|state| (*state, 0)).collect::<Counts>();
    let mut all = Counted {
        cells: zero(&["Unknown", "Present", "Missing", "Evacuating", "Evacuated"]),
        lrps: zero(&["Unclaimed", "Claimed", "Running", "Crashed"]),
        suspects: zero(&["Claimed", "Running"]),
        tasks: zero(&["Pending", "Running", "Completed", "Resolving"]),
        desired: 0,
        missing: 0,
        extra: 0,
    };
    for cell in world.cells().values() {
        *all.cells.entry(cell_state(cell.status.state)).or_default() += 1;
    }
    let mut running = 0;
    for (key, lrp) in world.all_lrps() {
        *all.lrps.entry(lrp_state(lrp.status.state)).or_default() += 1;
        if let Some(suspect) = &lrp.status.suspect {
            *all.suspects.entry(lrp_state(suspect.state)).or_default() += 1;
        }
        let process = crate::converge::world::Key::new(&*key.namespace, &*lrp.process);
        let wanted = world
            .desired(&process)
            .is_some_and(|desired| lrp.index < desired.instances);
        all.extra += i64::from(!wanted);
        running += i64::from(wanted && lrp.status.state == ActualLRPState::Running);
    }
    for (_, task) in world.all_tasks() {
        *all.tasks.entry(task_state(task.status.state)).or_default() += 1;
    }
    all.desired = world
        .all_desired()
        .map(|(_, desired)| i64::from(desired.instances))
        .sum();
    all.missing = all.desired - running;
    all
}

fn cell_state(state: Option<CellState>) -> &'static str {
    match state {
        None => "Unknown",
        Some(CellState::Present) => "Present",
        Some(CellState::Missing) => "Missing",
        Some(CellState::Evacuating) => "Evacuating",
        Some(CellState::Evacuated) => "Evacuated",
    }
}

fn lrp_state(state: ActualLRPState) -> &'static str {
    match state {
        ActualLRPState::Unclaimed => "Unclaimed",
        ActualLRPState::Claimed => "Claimed",
        ActualLRPState::Running => "Running",
        ActualLRPState::Crashed => "Crashed",
    }
}

fn task_state(state: TaskState) -> &'static str {
    match state {
        TaskState::Pending => "Pending",
        TaskState::Running => "Running",
        TaskState::Completed => "Completed",
        TaskState::Resolving => "Resolving",
    }
}
