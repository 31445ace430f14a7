//! What the ledger (Cell.status) says about work that was recorded on a Cell under an epoch.

use crate::api::CellState;

use super::world::CellRecord;

/// The fate of work that was recorded on a Cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// The Cell is present in the same incarnation.
    Alive,
    /// The Cell is there but is moving its work away.
    Draining,
    /// The Cell is present in a new incarnation: this work died, the Cell can run it again.
    Superseded {
        /// The Cell's epoch now.
        epoch: i64,
    },
    /// The Cell's presence expired.
    Lost,
    /// The Cell gave its presence back on purpose: this work was stopped.
    Left,
    /// Nothing is known: act on nothing.
    Unknown,
}

/// The life of work recorded under `epoch` on `cell`; `None` is a Cell without an object.
pub fn of(cell: Option<&CellRecord>, epoch: i64) -> Life {
    let Some(cell) = cell else {
        return Life::Unknown;
    };
    let first = cell.status.incarnation_epoch.unwrap_or(0);
    let current = cell.status.epoch.unwrap_or(0);
    match cell.status.state {
        None => Life::Unknown,
        // A record newer than the ledger: the ledger in hand is stale.
        Some(_) if epoch > current => Life::Unknown,
        Some(CellState::Missing) => Life::Lost,
        Some(CellState::Evacuated) => Life::Left,
        Some(CellState::Present) if epoch < first => Life::Superseded { epoch: current },
        Some(CellState::Evacuating) if epoch < first => Life::Left,
        Some(CellState::Present) if cell.evacuate => Life::Draining,
        Some(CellState::Present) => Life::Alive,
        Some(CellState::Evacuating) => Life::Draining,
    }
}
