//! The `pods` executor: what a rep does for its processes, the controller does for the Cells that are nodes.
//!
//! ```text
//!  World: records, Cells ──> Wake ──┐                                   ┌─> one write, or one act on a Pod, after the
//!  watch of our Pods ───> PodIndex ─┼─> dispatch: one look per record ──┤   other, until converge::pods has nothing to do
//!  timers, retries, resync ─────────┘   at a time, bounded in number    └─> when to look again
//! ```
//!
//! Not a kube-runtime Controller: its queue is unordered once its concurrency is limited.

mod calls;
mod dispatch;
mod queue;
mod settle;
mod source;
mod tell;

use std::sync::Mutex;

use kube::runtime::reflector::Store;
use tokio::sync::mpsc;

use super::context::Lane;
use crate::api::{DesiredLRP, Task};
use crate::converge::pods::{PodIndex, WorkKey};
use crate::metrics::PodMetrics;
use crate::sync::locked;

pub use dispatch::run;

/// Who has to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wake {
    /// One record.
    Work(WorkKey),
    /// All records of a Cell.
    Cell(String),
    /// All records: this controller begins to lead.
    Term,
}

/// What the executor shares with the other lanes.
pub struct Pods {
    /// For the executor alone.
    pub lane: Lane,
    /// Its metrics.
    pub metrics: PodMetrics,
    index: Mutex<PodIndex>,
    wake: mpsc::UnboundedSender<Wake>,
}

impl Pods {
    /// No Pod is known yet. What is returned beside it is for [`run`].
    pub fn new(lane: Lane, metrics: PodMetrics) -> (Self, mpsc::UnboundedReceiver<Wake>) {
        // Unbounded, but never long: what it names is taken out at once.
        let (wake, wakes) = mpsc::unbounded_channel();
        let pods = Pods {
            lane,
            metrics,
            index: Mutex::default(),
            wake,
        };
        (pods, wakes)
    }

    /// Looks at, or changes, what is known of our Pods. Never held across an await, and never while the world is asked
    /// for.
    pub fn index<T>(&self, f: impl FnOnce(&mut PodIndex) -> T) -> T {
        f(&mut locked(&self.index))
    }

    /// Has somebody looked at.
    pub fn wake(&self, wake: Wake) {
        // Fails only when the controller is ending.
        let _ = self.wake.send(wake);
    }
}

/// Where the templates are.
#[derive(Clone)]
pub struct Templates {
    /// The DesiredLRPs.
    pub desired: Store<DesiredLRP>,
    /// The Tasks.
    pub tasks: Store<Task>,
}
