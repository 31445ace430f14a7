//! The state of the model: everything that is stored, known somewhere, or on its way.
//!
//! Every value is small and finite. Versions of objects are not counted: a write on its way remembers whether its
//! object changed since it was decided on. Guids are renumbered, since a guid that nobody holds any more says nothing.

use std::hash::{DefaultHasher, Hash, Hasher};

use diego_operator::api::{ActualLRPState, TaskState};
use diego_operator::converge::harmony::ContainerState;

/// A Cell, by its number.
pub type CellId = usize;

/// An epoch, or a revision of the presence store.
pub type Epoch = u8;

/// One run of an instance.
pub type Guid = u8;

/// Where an instance is, under which epoch, as which run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Run {
    pub cell: CellId,
    pub epoch: Epoch,
    pub guid: Guid,
}

/// What matters of an ActualLRP's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Slot {
    pub state: ActualLRPState,
    pub run: Option<Run>,
    pub suspect: Option<(Run, ActualLRPState)>,
    pub crashes: u8,
    /// No Cell could take it.
    pub waits: bool,
}

/// What matters of a Task's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Job {
    pub state: TaskState,
    pub run: Option<Run>,
    pub failed: Option<bool>,
    /// It failed because its Cell was lost.
    pub lost: bool,
    pub waits: bool,
}

/// A stored object that is placed on Cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Record {
    Lrp(Slot),
    Task(Job),
}

/// What matters of a Cell's state, with a `Hash`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    Present,
    Missing,
}

/// What matters of a Cell's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ledger {
    pub state: Standing,
    pub life: u8,
    pub epoch: Epoch,
    /// The first epoch of the incarnation.
    pub first: Epoch,
    /// What must not run twice is stopped there before the presence can end.
    pub fenced: bool,
}

/// A presence key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub epoch: Epoch,
    pub life: u8,
    pub first: Epoch,
    pub fenced: bool,
}

/// What a controller read about a Cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Seen {
    Held(Key),
    Gone {
        /// The ledger's epoch as the controller knew it before that read.
        ledger: Epoch,
        revision: Epoch,
    },
}

/// A status on its way to the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Write {
    pub to: Record,
    /// The object is still the version it was decided on.
    pub fresh: bool,
}

/// A verdict on its way. The write is decided anew when somebody was faster, so what was seen is all there is to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Verdict {
    pub seen: Seen,
    /// What is written whatever is stored by then: only without compare-and-swap.
    pub blind: Option<Ledger>,
}

/// One that decides. Leadership is not modelled: every controller acts whenever it can.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Controller {
    /// The ledgers as its watch last told it.
    pub view: Vec<Ledger>,
    pub verdicts: Vec<Option<Verdict>>,
    pub writes: Vec<Option<Write>>,
}

/// A container on a Cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Container {
    pub record: usize,
    pub guid: Guid,
    pub state: ContainerState,
}

impl Container {
    pub fn has_process(&self) -> bool {
        matches!(
            self.state,
            ContainerState::Starting | ContainerState::Running | ContainerState::Stopping
        )
    }
}

/// A Cell's machine and its rep.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rep {
    pub alive: bool,
    /// It is alive and does nothing; its containers go on.
    pub paused: bool,
    pub life: u8,
    /// The epoch of the first registration of this life.
    pub first: Option<Epoch>,
    /// The epoch under which it believes to hold its presence.
    pub epoch: Option<Epoch>,
    /// The records as its watch last told it.
    pub seen: Vec<Record>,
    pub containers: Vec<Container>,
    pub writes: Vec<Option<Write>>,
}

/// What a write may break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    S2,
    S3,
    S4,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// The presence store's.
    pub revision: Epoch,
    pub keys: Vec<Option<Key>>,
    /// The greatest epoch of each Cell that the store has certainly let go of.
    pub gone: Vec<Epoch>,
    pub ledgers: Vec<Ledger>,
    pub records: Vec<Record>,
    pub reps: Vec<Rep>,
    pub controllers: Vec<Controller>,
    /// How many faults may still happen.
    pub faults: u8,
    /// How often the process of each Task was started.
    pub starts: Vec<u8>,
    /// A rule that the last write broke.
    pub broken: Option<Rule>,
}

impl Record {
    /// The runs that it names.
    pub fn runs(&self) -> impl Iterator<Item = Run> {
        let (ordinary, suspect) = match self {
            Record::Lrp(slot) => (slot.run, slot.suspect.map(|(run, _)| run)),
            Record::Task(job) => (job.run, None),
        };
        ordinary.into_iter().chain(suspect)
    }

    pub fn each_guid(&mut self, change: &mut impl FnMut(&mut Guid)) {
        let (ordinary, suspect) = match self {
            Record::Lrp(slot) => (&mut slot.run, slot.suspect.as_mut().map(|(run, _)| run)),
            Record::Task(job) => (&mut job.run, None),
        };
        for run in ordinary.iter_mut().chain(suspect) {
            change(&mut run.guid);
        }
    }
}

impl State {
    fn each_guid(&mut self, mut change: impl FnMut(&mut Guid)) {
        for record in &mut self.records {
            record.each_guid(&mut change);
        }
        for rep in &mut self.reps {
            for container in &mut rep.containers {
                change(&mut container.guid);
            }
            for record in &mut rep.seen {
                record.each_guid(&mut change);
            }
            for write in rep.writes.iter_mut().flatten() {
                write.to.each_guid(&mut change);
            }
        }
        for controller in &mut self.controllers {
            for write in controller.writes.iter_mut().flatten() {
                write.to.each_guid(&mut change);
            }
        }
    }

    /// A guid that nobody has.
    pub fn new_guid(&mut self) -> Guid {
        let mut greatest = 0;
        self.each_guid(|guid| greatest = greatest.max(*guid));
        greatest + 1
    }

    /// States that differ only in names become one: guids are renumbered, controllers sorted.
    pub fn canonical(mut self) -> State {
        self.controllers.sort_by_key(|controller| {
            let mut hasher = DefaultHasher::new();
            controller.hash(&mut hasher);
            hasher.finish()
        });
        let mut names = [0; 64];
        let mut next = 0;
        self.each_guid(|guid| {
            let name = &mut names[usize::from(*guid)];
            if *name == 0 {
                next += 1;
                *name = next;
            }
            *guid = *name;
        });
        for rep in &mut self.reps {
            rep.containers.sort_by_key(|one| (one.record, one.guid));
        }
        self
    }

    /// A write on a record has taken effect: the others that were decided on the version before it never will.
    pub fn put(&mut self, record: usize, to: Record) {
        self.records[record] = to;
        let of_controllers = self.controllers.iter_mut().map(|one| &mut one.writes);
        let of_reps = self.reps.iter_mut().map(|one| &mut one.writes);
        for writes in of_controllers.chain(of_reps) {
            if let Some(write) = &mut writes[record] {
                write.fresh = false;
            }
        }
    }
}
