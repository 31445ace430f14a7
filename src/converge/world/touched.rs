//! What changed that Pods follow: records on Cells with executor Pods, and those Cells themselves.

use std::collections::BTreeSet;

use super::{CellRecord, Charge, Key, Waiting, World};
use crate::api::ExecutorKind;
use crate::converge::pods::WorkKey;

/// Since the last [`World::take_touched`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Records.
    pub works: BTreeSet<WorkKey>,
    /// Cells.
    pub cells: BTreeSet<String>,
}

impl World {
    /// What changed since the last call; `None` for nothing.
    pub fn take_touched(&mut self) -> Option<Touched> {
        let touched = &self.touched;
        (!touched.works.is_empty() || !touched.cells.is_empty())
            .then(|| std::mem::take(&mut self.touched))
    }

    /// The Cells with executor Pods.
    pub fn cells_of_pods(&self) -> Vec<String> {
        let cells = self.cells.keys().filter(|cell| self.may_run_pods(cell));
        cells.cloned().collect()
    }

    /// All records that wait for a scheduler of Kubernetes.
    pub fn works_of_schedulers(&self) -> impl Iterator<Item = WorkKey> {
        self.waiting.iter().filter_map(|waiting| match waiting {
            Waiting::Lrp(key) => {
                let lrp = self.lrp(key)?;
                let process = Key::new(&*key.namespace, &*lrp.process);
                self.has_scheduler(&process)
                    .then(|| WorkKey::lrp(key.clone()))
            }
            Waiting::Task(key) => {
                let demand = self.task(key)?.demand.as_ref().ok()?;
                demand.scheduler.as_ref()?;
                Some(WorkKey::task(key.clone()))
            }
        })
    }

    /// Whether a scheduler of Kubernetes places the instances of this DesiredLRP.
    pub(super) fn has_scheduler(&self, process: &Key) -> bool {
        let demand = self.desired.get(process).map(|desired| &desired.demand);
        demand.is_some_and(|demand| {
            demand
                .as_ref()
                .is_ok_and(|demand| demand.scheduler.is_some())
        })
    }

    /// All records that name a Cell.
    pub fn works_on(&self, cell: &str) -> BTreeSet<WorkKey> {
        let Some(load) = self.loads.get(cell) else {
            return BTreeSet::new();
        };
        let lrps = load.lrps.iter().cloned().map(WorkKey::lrp);
        lrps.chain(load.tasks.iter().cloned().map(WorkKey::task))
            .collect()
    }

    pub(super) fn touch(&mut self, work: WorkKey) {
        self.touched.works.insert(work);
    }

    /// Notes a change of something that is charged so.
    pub(super) fn touch_charged(&mut self, charges: &[Charge], work: impl FnOnce() -> WorkKey) {
        if charges.iter().any(|charge| self.may_run_pods(&charge.cell)) {
            self.touch(work());
        }
    }

    pub(super) fn touch_cell(&mut self, cell: &str) {
        if self.may_run_pods(cell) {
            self.touched.cells.insert(cell.to_owned());
        }
    }

    /// Notes what decides about the fate of a Cell's work, and nothing else that is written about it.
    pub(super) fn touch_cell_if_changed(&mut self, cell: &str, before: Option<&CellRecord>) {
        let fate = |record: &CellRecord| {
            let status = &record.status;
            let epochs = (status.epoch, status.incarnation_epoch);
            (record.evacuate, status.state, epochs)
        };
        if before.map(fate) != self.cells.get(cell).map(fate) {
            self.touch_cell(cell);
        }
    }

    /// A Cell without an object may be anything.
    fn may_run_pods(&self, cell: &str) -> bool {
        let known = self.cells.get(cell);
        known.is_none_or(|cell| cell.executor == ExecutorKind::Pods)
    }
}
