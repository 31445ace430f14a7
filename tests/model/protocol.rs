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
use crate::settle::{self, Resting};
use crate::state::{CellId, Epoch, Guid, Job, Ledger, Record, Rep, Seen, Slot, State};

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
    /// What must not run twice is claimed under the present epoch before its process starts.
    ClaimAgain,
    /// Losses of too many Cells at once are held back.
    Guard,
    /// Before a loss is believed it is asked who else is overdue.
    RollCall,
    /// What is held back is looked at again.
    LookAgain,
    /// In a store that begins anew nothing is taken for gone before everybody has had the time to show itself.
    Distrust,
    /// Epochs are counted on in a store that begins anew.
    EpochBase,
    /// A rep that was judged lost under an epoch not before its own registers anew.
    DeadEpoch,
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
    /// The first two Cells fall silent in the same moment: their machines are off, or are cut off for a while.
    Blackout,
    /// The presence store loses its data, and begins anew.
    Wipe,
}

/// The model and its bounds.
#[derive(Debug, Clone)]
pub struct Protocol {
    pub cells: usize,
    pub records: Vec<Record>,
    /// Every record runs on the first Cell already.
    pub placed: bool,
    /// A rep has so many containers at most.
    pub containers: usize,
    pub faults: u8,
    pub kinds: Vec<Fault>,
    /// Every LRP has `missingCellPolicy: Strict`.
    pub strict: bool,
    /// Every Cell has a fence, as `tests/model/fence.rs` shows that it works.
    pub fenced: bool,
    /// Losses are asked of the mass-loss guard; each Cell is a zone of its own.
    pub guard: bool,
    pub without: Option<Protection>,
    /// Of so many states one is checked for whether it comes to rest as it should; 0: none is.
    pub settle_one_in: u64,
    pub reached: Arc<Reached>,
    /// States that are known to come to rest as they should.
    pub resting: Arc<Resting>,
}

/// Who writes to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Controller,
    Rep(CellId),
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A controller writes what it once saw of a Cell's presence means.
    Judge(CellId, Seen),
    /// It writes it whatever is stored by then: only without compare-and-swap.
    Overwrite(CellId, Ledger),
    /// A controller changes a record.
    Plan(usize, Record),
    /// An operator confirms the loss of a Cell.
    Confirm(CellId),
    /// What a rep writes to a record arrives.
    Deliver(CellId, usize),
    /// It gets lost.
    Lose(CellId, usize),
    /// A rep's watch tells it a record.
    Read(CellId, usize),
    /// A rep takes the next step about a record.
    Act(CellId, usize),
    /// A process is ready.
    Ready(CellId, Guid),
    /// A process ends by itself.
    End(CellId, Guid),
    /// A rep that knows of epochs up to this one registers its presence.
    Register(CellId, Epoch),
    /// A presence runs out.
    Expire(CellId),
    Die(CellId),
    Boot(CellId),
    Pause(CellId),
    Resume(CellId),
    BlackOut(u8),
    Heal(CellId),
    Wipe,
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
        self.steps_of_the_rest(state, steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        match step {
            Step::Judge(cell, seen) => self.judge(&mut next, cell, seen),
            Step::Overwrite(cell, ledger) => rules::ledger_written(&mut next, cell, ledger),
            Step::Plan(record, to) => self.place(&mut next, record, to),
            Step::Confirm(cell) => next.confirmed[cell] = true,
            Step::Deliver(cell, record) => {
                let to = next.reps[cell].writes[record].take();
                self.write(
                    &mut next,
                    Who::Rep(cell),
                    record,
                    to.expect("a write on its way"),
                );
            }
            Step::Lose(cell, record) => next.reps[cell].writes[record] = None,
            Step::Read(cell, record) => next.reps[cell].seen[record] = None,
            Step::Act(cell, record) => self.act(&mut next, cell, record),
            Step::Ready(cell, guid) => next.reps[cell].process_ready(guid),
            Step::End(cell, guid) => {
                let record = next.reps[cell].process_ended(guid);
                if let Record::Lrp(_) = next.records[record] {
                    next.faults -= 1;
                }
            }
            Step::Register(cell, last) => self.register(&mut next, cell, last),
            Step::Expire(cell) => self.expire(&mut next, cell),
            Step::Die(cell) => {
                next.faults -= 1;
                next.die(cell);
            }
            Step::Boot(cell) => next.boot(cell),
            Step::Pause(cell) => next.pause(cell),
            Step::Resume(cell) => next.reps[cell].paused = false,
            Step::BlackOut(off) => self.black_out(&mut next, off),
            Step::Heal(cell) => next.reps[cell].silent = false,
            Step::Wipe => self.wipe(&mut next),
        }
        self.learn(&mut next);
        let next = self.canonical(next);
        (next != *state).then_some(next)
    }

    /// Lost claims and placements that are given up may follow each other for ever, and leave a container each.
    fn within_boundary(&self, state: &State) -> bool {
        let few = |rep: &Rep| rep.containers.len() <= self.containers;
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
