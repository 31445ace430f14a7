//! What a rep hears of its own Cell: what operators ask, and what the controller says.

use kube::ResourceExt;

use crate::api::{Cell, CellState};

/// What operators ask of this Cell, as last seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Asked {
    pub uid: String,
    pub generation: i64,
    pub evacuate: bool,
}

/// What the controller says of this Cell, as last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Told {
    pub state: Option<CellState>,
    /// What is recorded on it: every instance, also those that are being moved, and every Task.
    pub containers: Option<i32>,
}

impl Told {
    pub fn of(cell: &Cell) -> Told {
        let status = cell.status.as_ref();
        Told {
            state: status.and_then(|status| status.state),
            containers: status
                .and_then(|status| status.allocated.as_ref())
                .map(|allocated| allocated.containers),
        }
    }

    /// The controller knows that the Cell is being evacuated, so that nothing comes any more, and nothing is left.
    pub fn is_empty(&self) -> bool {
        let knows = match self.state {
            Some(CellState::Evacuating) => true,
            None | Some(CellState::Present | CellState::Missing | CellState::Evacuated) => false,
        };
        knows && self.containers == Some(0)
    }
}

impl Asked {
    pub fn of(cell: &Cell) -> Asked {
        Asked {
            uid: cell.uid().unwrap_or_default(),
            generation: cell.metadata.generation.unwrap_or_default(),
            evacuate: cell.spec.evacuate == Some(true),
        }
    }

    /// Takes `next` on, unless it is an older state of the same object. Returns whether it was news.
    pub fn see(&mut self, next: Asked) -> bool {
        let stale = next.uid == self.uid && next.generation < self.generation;
        !stale && *self != next && {
            *self = next;
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Allocated, CellStatus};

    #[test]
    fn a_cell_is_empty_when_the_controller_says_so_and_knows_that_it_leaves() {
        let told = |state, containers: Option<i32>| {
            let mut cell = Cell::new("a", Default::default());
            cell.status = Some(CellStatus {
                state,
                allocated: containers.map(|containers| Allocated {
                    containers,
                    ..Allocated::default()
                }),
                ..CellStatus::default()
            });
            Told::of(&cell).is_empty()
        };
        assert!(told(Some(CellState::Evacuating), Some(0)));
        assert!(!told(Some(CellState::Evacuating), Some(1)));
        assert!(!told(Some(CellState::Evacuating), None));
        for state in [None, Some(CellState::Present), Some(CellState::Missing)] {
            assert!(!told(state, Some(0)), "{state:?}");
        }
    }

    #[test]
    fn an_older_state_of_the_object_changes_nothing() {
        let asked = |uid: &str, generation, evacuate| Asked {
            uid: uid.into(),
            generation,
            evacuate,
        };
        let mut known = Asked::default();
        assert!(known.see(asked("1", 2, true)));
        assert!(!known.see(asked("1", 1, false)));
        assert!(known.evacuate);
        assert!(!known.see(asked("1", 2, true)), "no news");
        assert!(known.see(asked("1", 3, false)));
        // Made anew, it begins at 1 again.
        assert!(known.see(asked("2", 1, true)));
        assert!(known.see(Asked::default()), "deleted");
    }
}
