//! What the search has come by: a model that never gets there proves nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use diego_operator::api::{ActualLRPState, TaskState};

use crate::state::Record;

/// A step worth reaching.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Lost,
    Returned,
    NewIncarnation,
    /// A loss was not believed, since so many others were gone or overdue.
    Held,
    /// It was, after that.
    LetGo,
    /// An operator's word was enough.
    Confirmed,
    /// A rep registered in a store that had lost its data.
    CountedOn,
    StaleWriteRefused,
    OldEpochRefused,
    StrangerStopped,
    MadeSuspect,
    /// The suspect is the ordinary instance again.
    Promoted,
    SuspectDropped,
    /// A running instance took the slot from a mere plan or claim.
    RunningWon,
    TaskFailedByLoss,
    TaskSucceeded,
}

impl What {
    pub const ALL: [What; 16] = [
        What::Lost,
        What::Returned,
        What::NewIncarnation,
        What::Held,
        What::LetGo,
        What::Confirmed,
        What::CountedOn,
        What::StaleWriteRefused,
        What::OldEpochRefused,
        What::StrangerStopped,
        What::MadeSuspect,
        What::Promoted,
        What::SuspectDropped,
        What::RunningWon,
        What::TaskFailedByLoss,
        What::TaskSucceeded,
    ];
}

/// How often each was reached.
#[derive(Debug, Default)]
pub struct Reached([AtomicU64; What::ALL.len()]);

impl Reached {
    pub fn note(&self, what: What) {
        self.0[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn count(&self, what: What) -> u64 {
        self.0[what as usize].load(Ordering::Relaxed)
    }

    /// A write to a record took effect.
    pub fn note_change(&self, before: &Record, to: &Record) {
        match (before, to) {
            (Record::Lrp(before), Record::Lrp(to)) => {
                let guid = |run: Option<crate::state::Run>| run.map(|run| run.guid);
                let suspect = before.suspect.map(|(run, _)| run.guid);
                match (before.suspect, to.suspect) {
                    (None, Some(_)) => self.note(What::MadeSuspect),
                    (Some(_), None) if suspect == guid(to.run) => self.note(What::Promoted),
                    (Some(_), None) => self.note(What::SuspectDropped),
                    (_, _) => {}
                }
                let new = guid(before.run) != guid(to.run) && to.run.is_some();
                if new && to.state == ActualLRPState::Running && suspect != guid(to.run) {
                    self.note(What::RunningWon);
                }
            }
            (Record::Task(before), Record::Task(to)) => {
                if before.state != TaskState::Completed && to.state == TaskState::Completed {
                    if to.lost {
                        self.note(What::TaskFailedByLoss);
                    } else if to.failed == Some(false) {
                        self.note(What::TaskSucceeded);
                    }
                }
            }
            (_, _) => {}
        }
    }
}
