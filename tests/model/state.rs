//! The state of the model: everything that is stored, known somewhere, or on its way.
//!
//! Every value is small and finite. Versions of objects are not counted: a write on its way is forgotten when its object
//! changes, for it would be refused.

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    Present,
    Missing,
}

/// What matters of a Cell's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub epoch: Epoch,
    /// What the store's revision was counted on from.
    pub base: Epoch,
    pub life: u8,
    pub first: Epoch,
    pub fenced: bool,
}

/// What a controller read about a Cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seen {
    Held(Key),
    Gone {
        /// The ledger's epoch as the controller knew it before that read.
        ledger: Epoch,
        revision: Epoch,
    },
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
    /// Its renewals do not get through, and so it is with others at the same time.
    pub silent: bool,
    pub life: u8,
    /// The epoch of the first registration of this life.
    pub first: Option<Epoch>,
    /// The epoch under which it believes to hold its presence.
    pub epoch: Option<Epoch>,
    /// What its epochs are counted on from.
    pub base: Epoch,
    /// The records as its watch last told it; `None` is as they are stored.
    pub seen: Vec<Option<Record>>,
    pub containers: Vec<Container>,
    /// Statuses on their way to the API server, each decided on the version that is stored.
    pub writes: Vec<Option<Record>>,
}

/// What a step may break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    S2,
    S3,
    S4,
    S7,
}

/// What any controller may know of one Cell. There may be any number of them, each as slow as it likes: what was ever to
/// be read may be acted on at any time later.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Known {
    /// Every ledger that there was.
    pub ledgers: Vec<Ledger>,
    /// Everything that the presence store ever answered.
    pub seen: Vec<Seen>,
    /// What of it the guard has let pass: with a guard no other absence is acted on.
    pub believed: Vec<Seen>,
    /// It was held back once and is forgotten: only where nobody looks again.
    pub forgotten: bool,
    /// What its epochs were counted on from, by those of its presences that somebody heard of.
    pub bases: Vec<Epoch>,
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
    /// What the records were before: only without compare-and-swap.
    pub past: Vec<Vec<Record>>,
    pub reps: Vec<Rep>,
    pub known: Vec<Known>,
    /// An operator has confirmed the loss.
    pub confirmed: Vec<bool>,
    /// The store has lost its data.
    pub wiped: bool,
    /// Since then not everybody has had the time to show itself.
    pub distrusted: bool,
    /// How many faults may still happen.
    pub faults: u8,
    /// How often the process of each Task was started.
    pub starts: Vec<u8>,
    /// A rule that the last step broke.
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
    /// The greatest epoch, at most `up_to`, under which any work is recorded on the Cell; 0 for none.
    pub fn recorded(&self, cell: CellId, up_to: Epoch) -> Epoch {
        let unfinished = self.records.iter().filter(|record| match record {
            Record::Lrp(_) => true,
            Record::Task(job) => job.state != TaskState::Completed,
        });
        let on_cell = unfinished
            .flat_map(Record::runs)
            .filter(|run| run.cell == cell);
        let epochs = on_cell.map(|run| run.epoch).filter(|epoch| *epoch <= up_to);
        epochs.max().unwrap_or(0)
    }
}
