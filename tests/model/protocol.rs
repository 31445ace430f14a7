//! The protocol of a lost Cell: what may happen next in a state, and what comes of it.
//!
//! Everything is asynchronous: every step of everybody may come at any time or never. So a delayed message is one
//! that has not been delivered yet, a slow process is one whose step has not come yet, and no clock is needed: a
//! lease may end whenever its rep might not renew it.

use std::sync::Arc;

use diego_operator::api::{ActualLRPState, TaskState};
use stateright::{Model, Property};

use crate::reached::Reached;
use crate::rules;
use crate::settle;
use crate::state::{CellId, Guid, Job, Record, Rep, Slot, State};

/// A rep has so many containers at most.
const CONTAINERS: usize = 3;

/// What the protocol relies on; each can be taken out, to see that it is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// The presence is read once more before a loss is believed.
    ConfirmingRead,
    /// The ledger is read before the presence is.
    LedgerBeforePresence,
    /// A write takes effect on the version it was decided on only.
    CompareAndSwap,
    /// A rep's write carries its epoch, and is refused under an older one.
    EpochInWrite,
    /// A Cell that lost its containers is known by its new incarnation.
    Incarnation,
    /// A Task's record says Running before its process starts.
    RecordBeforeProcess,
    /// A rep stops what no record gives to it any more.
    StopStrangers,
    /// What must not run twice is killed before the presence can end, and not begun without it.
    Fence,
    /// An instance that may still run on a lost Cell is not replaced.
    HoldBack,
}

/// One kind of thing that goes wrong. Every one that happens is taken off [`Protocol::faults`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A machine dies.
    Die,
    /// A rep stands still: its processes go on.
    Pause,
    /// A rep is cut off from the presence store until its lease has run out.
    Cut,
    /// The process of an LRP ends by itself.
    Crash,
}

/// The model and its bounds.
#[derive(Debug, Clone)]
pub struct Protocol {
    pub cells: usize,
    pub controllers: usize,
    pub records: Vec<Record>,
    /// Every record runs on the first Cell already.
    pub placed: bool,
    pub faults: u8,
    pub kinds: Vec<Fault>,
    /// Writes may arrive twice.
    pub duplicates: bool,
    /// Every LRP has `missingCellPolicy: Strict`.
    pub strict: bool,
    /// Every Cell has a fence, as `tests/model/fence.rs` shows that it works.
    pub fenced: bool,
    pub without: Option<Protection>,
    /// Of so many states one is checked for whether it comes to rest as it should; 0: none is.
    pub settle_one_in: u64,
    pub reached: Arc<Reached>,
}

/// Who writes to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Controller(usize),
    Rep(CellId),
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A controller's watch tells it the ledger of a Cell.
    Hear(usize, CellId),
    /// A controller reads the presence of a Cell, and wants to write what it means.
    Look(usize, CellId),
    /// That write arrives.
    Judge(usize, CellId),
    /// It gets lost.
    LoseVerdict(usize, CellId),
    /// A controller decides about every record; `true`: after every wait is over.
    Plan(usize, bool),
    /// A write to a record arrives.
    Deliver(Who, usize),
    /// It arrives, and will once more.
    DeliverTwice(Who, usize),
    /// It gets lost.
    Lose(Who, usize),
    /// A rep's watch tells it a record.
    Read(CellId, usize),
    /// A rep takes the next step about a record.
    Act(CellId, usize),
    /// A process is ready.
    Ready(CellId, Guid),
    /// A process ends by itself.
    End(CellId, Guid),
    /// A rep registers its presence.
    Register(CellId),
    /// A presence runs out.
    Expire(CellId),
    Die(CellId),
    Boot(CellId),
    Pause(CellId),
    Resume(CellId),
}

impl Protocol {
    pub fn lacks(&self, protection: Protection) -> bool {
        self.without == Some(protection)
    }

    /// Whether what must not run twice dies with the presence at the latest.
    pub fn fences(&self) -> bool {
        self.strict && self.fenced && !self.lacks(Protection::Fence)
    }

    pub fn may(&self, state: &State, fault: Fault) -> bool {
        state.faults > 0 && self.kinds.contains(&fault)
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![self.start()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.broken.is_some() {
            return;
        }
        self.steps_of_reps(state, steps);
        self.steps_of_controllers(state, steps);
        self.steps_of_the_network(state, steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        match step {
            Step::Hear(one, cell) => next.controllers[one].view[cell] = next.ledgers[cell],
            Step::Look(one, cell) => {
                next.controllers[one].verdicts[cell] = self.look(state, one, cell);
            }
            Step::Judge(one, cell) => self.judge(&mut next, one, cell),
            Step::LoseVerdict(one, cell) => next.controllers[one].verdicts[cell] = None,
            Step::Plan(one, late) => self.plan(&mut next, one, late),
            Step::Deliver(who, record) => self.deliver(&mut next, who, record, false),
            Step::DeliverTwice(who, record) => self.deliver(&mut next, who, record, true),
            Step::Lose(who, record) => Self::writes(&mut next, who)[record] = None,
            Step::Read(cell, record) => next.reps[cell].seen[record] = next.records[record],
            Step::Act(cell, record) => self.act(&mut next, cell, record),
            Step::Ready(cell, guid) => next.reps[cell].process_ready(guid),
            Step::End(cell, guid) => {
                let record = next.reps[cell].process_ended(guid);
                if let Record::Lrp(_) = next.records[record] {
                    next.faults -= 1;
                }
            }
            Step::Register(cell) => next.register(cell, self.fenced),
            Step::Expire(cell) => {
                if self.fences() {
                    next.reps[cell].kill_all(&next.records);
                }
                next.expire(cell);
            }
            Step::Die(cell) => {
                next.faults -= 1;
                next.die(cell);
            }
            Step::Boot(cell) => next.boot(cell),
            Step::Pause(cell) => {
                next.faults -= 1;
                next.reps[cell].paused = true;
            }
            Step::Resume(cell) => next.reps[cell].paused = false,
        }
        let next = next.canonical();
        (next != *state).then_some(next)
    }

    /// Lost claims and placements that are given up may follow each other for ever, and leave a container each.
    fn within_boundary(&self, state: &State) -> bool {
        let few = |rep: &Rep| rep.containers.len() <= CONTAINERS;
        state.reps.iter().all(few)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = rules::always();
        all.push(Property::always(
            "L1 without faults it settles",
            settle::settles,
        ));
        all.extend([
            Property::sometimes("an instance is Suspect", |_, state: &State| {
                state.records.iter().any(|record| {
                    matches!(record, Record::Lrp(slot) if slot.suspect.is_some())
                })
            }),
            Property::sometimes("an instance runs on another Cell than the first", |_, state: &State| {
                state.records.iter().any(|record| {
                    matches!(record, Record::Lrp(Slot { state: ActualLRPState::Running, run: Some(run), .. }) if run.cell == 1)
                })
            }),
            Property::sometimes("a Task failed with its Cell", |_, state: &State| {
                state.records.iter().any(|record| {
                    matches!(record, Record::Task(Job { state: TaskState::Completed, lost: true, .. }))
                })
            }),
        ]);
        all
    }
}
