//! The controller's flags about nodes and about Cells that are gone.

use std::time::Duration;

use clap::Args;

/// Flags about nodes and about Cells that are gone.
#[derive(Debug, Clone, Args)]
pub struct NodeArgs {
    /// Give the Node of a lost Cell the taint diego.cloudfoundry.org/cell-missing:NoExecute at once, and take it away on
    /// return: all Pods on it move in seconds, not only this controller's. Needs the right to patch nodes
    #[arg(long, env = "DIEGO_NODE_TAINT", help_heading = "Cells")]
    pub node_taint: bool,
    /// Seconds after which the object of a Cell that is gone, and has no work, is deleted
    #[arg(long, env = "DIEGO_MISSING_CELL_RETENTION_SECONDS", value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(1..=31_536_000), help_heading = "Cells")]
    pub missing_cell_retention_seconds: u64,
    /// Percent of all Cells that may be lost within 10 seconds, wherever they stand; of more, unless they all stand in one
    /// zone and another has Cells, nothing is moved until Cells come back or an operator confirms it. 100 is no guard
    #[arg(long, env = "DIEGO_MASS_LOSS_THRESHOLD_PERCENT", value_name = "PERCENT", default_value_t = 33, value_parser = clap::value_parser!(u32).range(1..=100), help_heading = "Cells")]
    pub mass_loss_threshold_percent: u32,
}

impl NodeArgs {
    /// How long the object of a Cell outlives it.
    pub fn retention(&self) -> Duration {
        Duration::from_secs(self.missing_cell_retention_seconds)
    }
}
