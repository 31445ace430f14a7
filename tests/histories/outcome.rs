//! L1: once faults have stopped, what is there is what is wanted, exactly.

use std::collections::BTreeSet;

use diego_operator::api::{ActualLRPState, CellState, TaskState};
use diego_operator::converge::harmony::{ContainerState, Mode};
use diego_operator::converge::world::Key;

use crate::history::Sim;

impl Sim {
    /// What is not as it should be, if anything.
    pub fn unwell(&self) -> Option<String> {
        for (key, desired) in &self.store.desired {
            let wanted: BTreeSet<i32> = (0..desired.instances).collect();
            let there: BTreeSet<i32> = (self.store.lrps.values())
                .filter(|lrp| lrp.record.owner.as_ref() == Some(&desired.version.uid))
                .map(|lrp| lrp.record.index)
                .collect();
            if wanted != there {
                return Some(format!("{key} wants {wanted:?} and has {there:?}"));
            }
        }
        let mut expected: BTreeSet<(usize, String)> = BTreeSet::new();
        for (key, lrp) in &self.store.lrps {
            let process = Key::new(&*key.namespace, &*lrp.record.process);
            let owner = self
                .store
                .desired
                .get(&process)
                .map(|desired| &desired.version.uid);
            if owner != lrp.record.owner.as_ref() {
                return Some(format!("{key} belongs to nobody"));
            }
            let status = &lrp.record.status;
            let alone = status.suspect.is_none() && status.evacuating.is_none();
            let (Some(cell), Some(guid)) = (&status.cell_name, &status.instance_guid) else {
                return Some(format!("{key} is {:?} nowhere: {status:?}", status.state));
            };
            if status.state != ActualLRPState::Running || !alone {
                return Some(format!("{key} is {status:?}"));
            }
            let rep = self.reps.iter().position(|rep| rep.cell == *cell);
            let Some(rep) = rep.filter(|rep| self.is_well(*rep)) else {
                return Some(format!("{key} is on {cell}, which is not there"));
            };
            let container = self.reps[rep].containers.get(guid);
            if container
                .is_none_or(|one| one.state != ContainerState::Running || one.work.1 != *key)
            {
                return Some(format!(
                    "{key} is Running as {guid} on {cell}, which has {container:?}"
                ));
            }
            expected.insert((rep, guid.clone()));
        }
        for (key, task) in &self.store.tasks {
            let status = &task.record.status;
            match status.state {
                TaskState::Completed | TaskState::Resolving => {}
                TaskState::Pending | TaskState::Running => {
                    return Some(format!("{key} is {status:?}"));
                }
            }
        }
        let held: BTreeSet<(usize, String)> = (self.reps.iter().enumerate())
            .flat_map(|(rep, one)| one.containers.keys().map(move |guid| (rep, guid.clone())))
            .collect();
        if held != expected {
            return Some(format!(
                "there are containers {held:?}, and records of {expected:?}"
            ));
        }
        let live: BTreeSet<(usize, String)> = (self.observer.live())
            .map(|(rep, _, _, guid)| (rep, guid.to_owned()))
            .collect();
        if live != expected {
            return Some(format!(
                "there are processes {live:?}, and records of {expected:?}"
            ));
        }
        None
    }

    /// Its rep lives, is in touch, takes on work, and its ledger says so.
    fn is_well(&self, rep: usize) -> bool {
        let one = &self.reps[rep];
        let cell = self.store.cells.get(&one.cell);
        one.alive
            && one.held
            && !one.cut_api
            && one.mode == Mode::Ordinary
            && cell.is_some_and(|cell| {
                cell.status.state == Some(CellState::Present)
                    && cell.status.epoch == Some(one.epoch)
            })
    }
}
