//! Worlds for tests: made from values, and carrying out plans as a server that never refuses would.

use std::sync::Arc;

use diego_operator::api::template::Resources;
use diego_operator::api::{
    ActualLRPStatus, CellState, CellStatus, ExecutorKind, MissingCellPolicy,
};
use diego_operator::converge::demand::Demand;
use diego_operator::converge::plan::{Plan, Rules, Scope, Write, plan};
use diego_operator::converge::world::{CellRecord, Desired, Key, Lrp, TaskRecord, Version, World};
use k8s_openapi::jiff::Timestamp;

/// A world and the counters a server would keep.
#[derive(Debug, Clone, Default)]
pub struct Sandbox {
    pub world: World,
    pub rules: Rules,
    revision: u64,
    guids: u64,
}

pub fn key(name: &str) -> Key {
    Key::new("default", name)
}

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time in range")
}

impl Sandbox {
    pub fn version(&mut self, uid: &str) -> Version {
        self.revision += 1;
        Version {
            uid: uid.to_owned(),
            revision: self.revision,
            generation: 1,
            deleting: false,
        }
    }

    pub fn cell(
        &mut self,
        name: &str,
        zone: &str,
        state: CellState,
        epoch: i64,
        first_epoch: i64,
    ) -> CellRecord {
        CellRecord {
            version: self.version(&format!("cell-{name}")),
            generation: 1,
            zone: zone.to_owned(),
            executor: ExecutorKind::Process,
            node: None,
            capacity: Resources {
                memory: 1 << 30,
                disk: 1 << 30,
                cpu: 0,
            },
            containers: 250,
            required_tags: Vec::new(),
            optional_tags: Vec::new(),
            unschedulable: false,
            evacuate: false,
            loss_confirmed: false,
            status: CellStatus {
                state: Some(state),
                epoch: Some(epoch),
                incarnation_epoch: Some(first_epoch),
                incarnation: Some(format!("{name}-{first_epoch}")),
                ..CellStatus::default()
            },
        }
    }

    pub fn desired(&mut self, name: &str, instances: i32) -> Desired {
        Desired {
            version: self.version(&format!("desired-{name}")),
            instances,
            domain: None,
            policy: MissingCellPolicy::Suspect,
            demand: Ok(Arc::new(Demand::default())),
            status: Default::default(),
        }
    }

    pub fn lrp(&mut self, process: &str, index: i32, status: ActualLRPStatus) -> Lrp {
        Lrp {
            version: self.version(&format!("lrp-{process}-{index}")),
            process: process.to_owned(),
            index,
            owner: Some(format!("desired-{process}")),
            status,
        }
    }

    /// Plans and carries out every write at once.
    pub fn converge(&mut self, scope: &Scope, now: Timestamp) -> Plan {
        let plan = self.plan(scope, now);
        for write in &plan.writes {
            self.succeed(write);
        }
        plan
    }

    pub fn plan(&mut self, scope: &Scope, now: Timestamp) -> Plan {
        let guids = &mut self.guids;
        let mut new_guid = || {
            *guids += 1;
            format!("guid-{guids}")
        };
        plan(&mut self.world, scope, &self.rules, now, &mut new_guid)
    }

    /// The server takes the write.
    pub fn succeed(&mut self, write: &Write) {
        match write {
            Write::CreateLrp {
                key,
                desired,
                index,
                status,
                ..
            } => {
                let record = self.lrp(&desired.name, *index, (**status).clone());
                self.world.settle_lrp(key, Some(record));
            }
            Write::LrpStatus {
                key, version, to, ..
            } => {
                let known = self
                    .world
                    .lrp(key)
                    .cloned()
                    .expect("what is written is known");
                let version = self.version(&version.uid);
                self.world.settle_lrp(
                    key,
                    Some(Lrp {
                        version,
                        status: (**to).clone(),
                        ..known
                    }),
                );
            }
            Write::DeleteLrp { key, .. } => self.world.settle_lrp(key, None),
            Write::TaskStatus {
                key, version, to, ..
            } => {
                let known = self
                    .world
                    .task(key)
                    .cloned()
                    .expect("what is written is known");
                let version = self.version(&version.uid);
                self.world.settle_task(
                    key,
                    Some(TaskRecord {
                        version,
                        status: (**to).clone(),
                        ..known
                    }),
                );
            }
            Write::DeleteTask { key, .. } => self.world.settle_task(key, None),
        }
    }
}
