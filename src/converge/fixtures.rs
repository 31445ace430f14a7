//! Records that the tests of the rules begin with.

use crate::api::{CellStatus, ExecutorKind, LastRecovery, template::Resources};

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

/// A loss that this source noticed.
pub fn last_recovery(source: &str) -> LastRecovery {
    LastRecovery {
        epoch: 0,
        lost_time: None,
        detected_time: None,
        recovered_time: None,
        actual_lrps: 0,
        waiting_actual_lrps: 0,
        tasks: 0,
        source: Some(source.into()),
        confirmed: None,
    }
}
