//! A Cell in a few words and numbers: its state, and what is used of what it has.

use serde::Serialize;

use super::text::count;
use crate::api::conditions::{self, READY};
use crate::api::{Allocated, Capacity, Cell, quantity};

/// How a Cell is, in one word.
pub fn state(cell: &Cell) -> String {
    let status = cell.status.clone().unwrap_or_default();
    let ready = conditions::get(&status.conditions, READY);
    match ready.map(|ready| (&*ready.status, &*ready.reason)) {
        Some(("True", "PresenceHeld")) => "Ready".into(),
        Some((_, "Unschedulable" | "NodeUnschedulable")) => "Cordoned".into(),
        Some((_, "PresenceExpired")) => "Missing".into(),
        Some((_, "PresenceUnknown")) | None => "Unknown".into(),
        Some((_, reason)) => reason.into(),
    }
}

/// Whether it takes new work.
pub fn takes_work(cell: &Cell) -> bool {
    state(cell) == "Ready" && !cell.spec.evacuate.unwrap_or(false)
}

/// Whether its state is one to look at.
pub fn is_trouble(state: &str) -> bool {
    !matches!(state, "Ready" | "Cordoned" | "Evacuating" | "Evacuated")
}

/// What a Cell has and what is used of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// What the Cell offers.
    pub capacity: Capacity,
    /// What is taken by what is assigned to it.
    pub allocated: Allocated,
}

impl Load {
    /// The Cell's.
    pub fn new(cell: &Cell) -> Load {
        let status = cell.status.as_ref();
        let nothing = || Allocated {
            memory: "0".into(),
            disk: "0".into(),
            containers: 0,
        };
        let allocated = status.and_then(|status| status.allocated.clone());
        Load {
            capacity: cell.spec.capacity.clone(),
            allocated: allocated.unwrap_or_else(nothing),
        }
    }

    /// Containers: used and all.
    pub fn containers(&self) -> String {
        format!("{}/{}", self.allocated.containers, self.capacity.containers)
    }

    /// Memory, in hundredths.
    pub fn memory_percent(&self) -> Option<i64> {
        percent(&self.allocated.memory, &self.capacity.memory)
    }

    /// Memory: used, all, and hundredths.
    pub fn memory(&self) -> String {
        used(&self.allocated.memory, &self.capacity.memory)
    }

    /// Disk: used, all, and hundredths.
    pub fn disk(&self) -> String {
        used(&self.allocated.disk, &self.capacity.disk)
    }
}

fn used(used: &str, all: &str) -> String {
    match percent(used, all) {
        Some(percent) => format!("{used}/{all} {percent}%"),
        None => format!("{used}/{all}"),
    }
}

fn percent(used: &str, all: &str) -> Option<i64> {
    let (used, all) = (quantity::bytes(used).ok()?, quantity::bytes(all).ok()?);
    (all > 0).then(|| i64::try_from(i128::from(used) * 100 / i128::from(all)).unwrap_or(i64::MAX))
}

/// What is still there while a Cell is emptied: `Evacuating, 3 instances and 1 Task left`. Containers are those of every
/// instance and Task; the Cell's own count of ActualLRPs is without those that wait for their replacement.
pub fn left(cell: &Cell) -> String {
    let status = cell.status.clone().unwrap_or_default();
    let number = |number: i32| usize::try_from(number).unwrap_or(0);
    let tasks = status.tasks.unwrap_or(0);
    let state = state(cell);
    match status.allocated {
        Some(allocated) => {
            let instances = count(number(allocated.containers - tasks), "instance");
            let tasks = count(number(tasks), "Task");
            format!("{state}, {instances} and {tasks} left")
        }
        None => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixtures::cell;

    #[test]
    fn a_cell_in_one_word() {
        for (status, reason, word) in [
            ("True", "PresenceHeld", "Ready"),
            ("True", "Unschedulable", "Cordoned"),
            ("False", "PresenceExpired", "Missing"),
            ("False", "MassLossHeld", "MassLossHeld"),
            ("Unknown", "PresenceUnknown", "Unknown"),
        ] {
            assert_eq!(state(&cell("a", "z1", status, reason)), word);
        }
        assert_eq!(state(&Cell::new("a", Default::default())), "Unknown");
    }

    #[test]
    fn numbers_that_are_none_are_no_trouble() {
        let mut a = cell("a", "z1", "True", "PresenceHeld");
        let load = Load::new(&a);
        assert_eq!(
            (load.containers(), load.memory()),
            ("2/250".into(), "1Gi/4Gi 25%".into())
        );
        a.status = None;
        a.spec.capacity.memory = "lots".into();
        assert_eq!(Load::new(&a).memory(), "0/lots");
        a.spec.capacity.memory = "0".into();
        assert_eq!(Load::new(&a).memory(), "0/0");
    }

    #[test]
    fn what_is_left_is_counted() {
        let mut a = cell("a", "z1", "False", "Evacuating");
        let status = a.status.as_mut().unwrap();
        // An instance that waits for its replacement is no longer among the Cell's ActualLRPs.
        (status.actual_lrps, status.tasks) = (Some(0), Some(1));
        status.allocated.as_mut().unwrap().containers = 4;
        assert_eq!(left(&a), "Evacuating, 3 instances and 1 Task left");
        a.status.as_mut().unwrap().allocated = None;
        assert_eq!(left(&a), "Evacuating");
    }
}
