//! The rep's side of the fence: what must not run twice (`missingCellPolicy: Strict`) begins only while the presence is
//! renewed, and lives by the deadlines that follow from the renewals.
//!
//! The killing is the supervisor's: it needs nothing of the rep but the last deadline, so that a rep that hangs, or
//! is stopped, is fenced like one that the presence store does not answer.

use tokio::sync::watch;

use super::actor::Actor;
use crate::api::MissingCellPolicy;
use crate::boottime;
use crate::converge::fence::{self, BootTime};
use crate::presence::keeper::Keeping;

/// The deadlines as the presence's keeper publishes them, one per answered renewal.
#[derive(Debug, Clone)]
pub struct Deadlines(watch::Receiver<Keeping>);

impl Deadlines {
    /// Those of this presence.
    pub fn new(keeping: watch::Receiver<Keeping>) -> Self {
        Self(keeping)
    }

    /// The last one; it may have passed.
    pub fn current(&self) -> Option<BootTime> {
        self.0.borrow().fence_deadline()
    }

    /// Waits for the next one. A keeper that has ended gives none any more.
    pub async fn next(&mut self) -> BootTime {
        while self.0.changed().await.is_ok() {
            let deadline = self.0.borrow_and_update().fence_deadline();
            if let Some(deadline) = deadline {
                return deadline;
            }
        }
        std::future::pending().await
    }
}

impl Actor {
    /// Whether an instance that must not run twice may begin now. If not, all is looked at again when the presence is
    /// renewed.
    pub(super) fn may_begin_strict(&mut self) -> bool {
        let may = self.is_renewed();
        self.waits_for_renewal |= !may;
        may
    }

    /// Whether the presence was renewed that something waits for.
    pub(super) fn renewed(&mut self) -> bool {
        let renewed = self.waits_for_renewal && self.is_renewed();
        self.waits_for_renewal &= !renewed;
        renewed
    }

    fn is_renewed(&self) -> bool {
        let keeping = *self.keeping.borrow();
        let deadline = keeping.fence_deadline();
        deadline.is_some_and(|deadline| fence::may_begin(boottime::now(), deadline, keeping.ttl))
    }

    /// Whether an instance of this policy can be run here at all.
    ///
    /// # Errors
    /// Why it can't, with the remedy.
    pub(super) fn can_fence(&self, policy: MissingCellPolicy) -> Result<(), String> {
        match policy {
            MissingCellPolicy::Suspect => Ok(()),
            MissingCellPolicy::Strict => fence::reach(self.keeping.borrow().least)
                .map(drop)
                .map_err(|error| error.to_string()),
        }
    }
}
