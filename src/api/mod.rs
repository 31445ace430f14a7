//! The API group `diego.cloudfoundry.org/v1alpha1`: data only, no behaviour beyond parsing.
//!
//! The CRDs under `crds/` are generated from these types (`diego crds`); doc comments become the text of
//! `kubectl explain`, so they speak to the reader of the API, not of the code.

pub mod actual_lrp;
pub mod cell;
pub mod conditions;
pub mod crds;
pub mod desired_lrp;
pub mod quantity;
mod schema;
pub mod task;
pub mod template;

pub use actual_lrp::{
    ActualLRP, ActualLRPSpec, ActualLRPState, ActualLRPStatus, EvacuatingInstance, PortMapping,
    SuspectInstance,
};
pub use cell::{
    Allocated, Capacity, Cell, CellSpec, CellState, CellStatus, ExecutorKind, LastRecovery,
};
pub use desired_lrp::{DesiredLRP, DesiredLRPSpec, DesiredLRPStatus, MissingCellPolicy};
pub use task::{Task, TaskSpec, TaskState, TaskStatus};
pub use template::RawTemplate;

/// The API group of all four kinds.
pub const GROUP: &str = "diego.cloudfoundry.org";

/// The one served version.
pub const VERSION: &str = "v1alpha1";

/// Label on an ActualLRP that carries the name of its DesiredLRP.
pub const LABEL_DESIRED_LRP: &str = "diego.cloudfoundry.org/desired-lrp";

/// Annotation by which an operator confirms that a Cell whose loss is held back is really lost; its value is `true`.
pub const ANNOTATION_CONFIRM_LOSS: &str = "diego.cloudfoundry.org/confirm-loss";

/// Label on an ActualLRP that carries its index.
pub const LABEL_INDEX: &str = "diego.cloudfoundry.org/index";
