//! S3 and S1 for every move: what the controller did to a record, and whether it had reason to.

use diego_operator::api::{ActualLRPState, ActualLRPStatus, CellState};
use diego_operator::converge::lrp::StartReason;
use diego_operator::converge::plan::{LrpChange, TaskChange, Write};
use diego_operator::converge::task::FailureKind;
use diego_operator::converge::world::Key;

use crate::observer::{Observer, Verdict};
use crate::presence::PresenceStore;
use crate::store::{StoredTask, Writer};

impl Observer {
    /// S3 for one change by the controller.
    pub fn move_of_lrp(
        &self,
        key: &Key,
        change: &LrpChange,
        from: &ActualLRPStatus,
        to: &ActualLRPStatus,
        presence: &PresenceStore,
    ) -> Verdict {
        let holds = matches!(
            from.state,
            ActualLRPState::Claimed | ActualLRPState::Running
        );
        let cell = from.cell_name.as_deref().unwrap_or_default();
        let epoch = from.cell_epoch.unwrap_or_default();
        let unfounded =
            |what: &str| Err(format!("S3: {key} on {cell} under epoch {epoch}: {what}"));
        match change {
            LrpChange::Placed { reason, .. } | LrpChange::Waiting { reason, .. } if holds => {
                match reason {
                    StartReason::MissingCell if !self.gone(cell, epoch, presence) => {
                        unfounded("moved, but the Cell was never found gone since")
                    }
                    StartReason::Evacuation if !self.drained(cell) => {
                        unfounded("moved, but the Cell was never asked to give its work away")
                    }
                    StartReason::MissingCell | StartReason::Evacuation => Ok(()),
                    StartReason::MissingInstance
                    | StartReason::CrashedInstance
                    | StartReason::StaleUnclaimed => unfounded("moved without need"),
                }
            }
            LrpChange::RestartedHere { .. } if !self.gone(cell, epoch, presence) => {
                unfounded("restarted, but the Cell was never found gone since")
            }
            LrpChange::Promoted { cell } => {
                let suspect = from.suspect.as_ref().map_or(0, |one| one.cell_epoch);
                let back = to.cell_epoch.unwrap_or_default();
                let alive = self.ledgers.get(cell).is_some_and(|ledger| {
                    (ledger.versions.iter()).any(|(state, epoch, first)| {
                        *state == CellState::Present && *epoch == back && *first <= suspect
                    })
                });
                if alive {
                    return Ok(());
                }
                Err(format!(
                    "S1: {key} is promoted on {cell} under epoch {back}, whose containers of epoch {suspect} are gone"
                ))
            }
            LrpChange::SuspectDropped => {
                let (cell, epoch) = from
                    .suspect
                    .as_ref()
                    .map_or(("", 0), |one| (&one.cell_name, one.cell_epoch));
                if from.state == ActualLRPState::Running || self.gone(cell, epoch, presence) {
                    return Ok(());
                }
                Err(format!(
                    "S3: the suspect of {key} on {cell} is dropped before its replacement runs"
                ))
            }
            LrpChange::EvacuatingDropped => {
                let one = from.evacuating.as_ref();
                let (cell, epoch) = one.map_or(("", 0), |one| (&one.cell_name, one.cell_epoch));
                if from.state == ActualLRPState::Running || self.gone(cell, epoch, presence) {
                    return Ok(());
                }
                Err(format!(
                    "S3: the evacuating instance of {key} on {cell} is dropped before its replacement runs"
                ))
            }
            LrpChange::Placed { .. }
            | LrpChange::Waiting { .. }
            | LrpChange::RestartedHere { .. }
            | LrpChange::SuspectEvacuated { .. }
            | LrpChange::Told { .. } => Ok(()),
        }
    }

    pub fn task(
        &mut self,
        writer: Writer,
        before: &StoredTask,
        after: &StoredTask,
        presence: &PresenceStore,
    ) -> Verdict {
        let key = &after.key;
        let (old, new) = (&before.record.status, &after.record.status);
        let same_run = old.cell_name == new.cell_name && old.instance_guid == new.instance_guid;
        if same_run && old.cell_name.is_some() && new.cell_epoch < old.cell_epoch {
            return Err(format!("S4: {key}: the epoch went back"));
        }
        let Some(Write::TaskStatus { change, from, .. }) = self.judging() else {
            return Ok(());
        };
        let TaskChange::Failed { kind, .. } = change else {
            return Ok(());
        };
        if writer != Writer::Controller || kind != FailureKind::CellMissing {
            return Ok(());
        }
        let cell = from.cell_name.as_deref().unwrap_or_default();
        let epoch = from.cell_epoch.unwrap_or_default();
        if self.gone(cell, epoch, presence) {
            return Ok(());
        }
        Err(format!(
            "S3: Task {key} is failed, but {cell} was never found gone since epoch {epoch}"
        ))
    }
}
