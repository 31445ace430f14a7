//! The beginning of a term: a standby that begins to lead looks at everything at once, and first at the Cells that it
//! has seen go.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::client::gate::Gate;
use crate::controller::context::Context;
use crate::controller::feed;
use crate::controller::guard;
use crate::controller::pods::Wake;
use crate::controller::recovery::{Loss, recover};
use crate::controller::runs::{self, Trigger};
use crate::sync::locked;

/// A loss that was seen longer ago than this and that no leader has handled since is left to the passes over all Cells;
/// so what is kept does not grow with the Cells that ever were.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// Losses that were seen while somebody else led, or nobody.
#[derive(Default)]
pub struct Kept(Mutex<HashMap<String, Loss>>);

impl Kept {
    /// Keeps a loss unless this controller leads. Returns whether it did.
    pub fn keep(&self, gate: &Gate, loss: &Loss) -> bool {
        let mut kept = locked(&self.0);
        // Under the lock: a term opens the gate before it takes what is kept.
        if gate.is_open() {
            return false;
        }
        kept.retain(|_, loss| loss.noticed.elapsed() < KEPT_FOR);
        kept.insert(loss.cell.clone(), loss.clone());
        true
    }

    /// The Cell is there again.
    pub fn forget(&self, cell: &str) {
        locked(&self.0).remove(cell);
    }

    fn take(&self) -> HashMap<String, Loss> {
        std::mem::take(&mut *locked(&self.0))
    }
}

/// Begins every term that is counted, for ever.
pub async fn terms(context: Arc<Context>, mut terms: watch::Receiver<u64>) {
    while terms.changed().await.is_ok() {
        begin(&context);
    }
    // Without an election there is one term, which began with the controller.
    std::future::pending().await
}

/// Losses seen live are believed at once: each gets its confirming read and its verdict now. Everything else is looked at
/// as after a start, with the grace that absences have had since this controller's own start.
fn begin(context: &Arc<Context>) {
    // First of all: what it holds back is to be known before anything is planned.
    guard::refresh(context);
    for (_, loss) in context.kept.take() {
        let context = context.clone();
        tokio::spawn(async move { recover(&context, loss).await });
    }
    runs::begin(context, Trigger::Leader);
    let (cells, desired, tasks, orphans) = context.world(|world| {
        (
            world.cells().keys().cloned().collect::<Vec<_>>(),
            world
                .all_desired()
                .map(|it| it.0.clone())
                .collect::<Vec<_>>(),
            world.all_tasks().map(|it| it.0.clone()).collect::<Vec<_>>(),
            world.slots_without_desired(),
        )
    });
    cells.iter().for_each(|name| context.wake_cell(name));
    desired.iter().for_each(|key| context.wake_desired(key));
    tasks.iter().for_each(|key| context.wake_task(key));
    orphans.iter().for_each(|key| feed::orphaned(context, key));
    context.note_room();
    context.pods.wake(Wake::Term);
}
