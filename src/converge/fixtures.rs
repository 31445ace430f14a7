//! Records that the tests of the rules begin with.

use crate::api::{CellStatus, ExecutorKind, template::Resources};

use super::world::{CellRecord, Version};

/// A Cell that runs processes, and was never seen.
pub fn cell() -> CellRecord {
    CellRecord {
        version: Version::default(),
        generation: 1,
        zone: "z1".into(),
        executor: ExecutorKind::Process,
        node: None,
        capacity: Resources::default(),
        containers: 1,
        required_tags: Vec::new(),
        optional_tags: Vec::new(),
        unschedulable: false,
        evacuate: false,
        loss_confirmed: false,
        status: CellStatus::default(),
    }
}
