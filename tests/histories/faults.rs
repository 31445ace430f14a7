//! What goes wrong by itself (slow and lost messages), and what is made wrong to see that the observer notices.

use crate::rng::Rng;

/// One rule that the simulated shell breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mutation {
    /// A departed presence is believed without the confirming read.
    SkipConfirm,
    /// The ledger's first epoch of an incarnation is not looked at: a Cell that is back counts as never gone.
    PromoteByName,
    /// Writes are not bound to the version they were decided on.
    WriteBlindly,
    /// A rep goes on writing under the epoch of its first registration.
    IgnoreEpoch,
    /// A rep starts a Task's process before the record says so.
    RunTaskFirst,
    /// A rep does not stop what is not assigned to it any more.
    NeverStop,
    /// A rep refuses a placement without counting it.
    RefuseUncounted,
    /// A rep that lost its watch does not list again, nor compare from time to time.
    NeverList,
    /// The controller has no periodic pass.
    NoResync,
    /// A deletion that failed, and whose object could not be read after that, counts as done.
    ForgetUnread,
}

/// How the network of one history is.
#[derive(Debug, Clone, Copy)]
pub struct Network {
    /// The longest delay of a call's one way, in milliseconds.
    pub call: i64,
    /// The longest delay of a watch event.
    pub watch: i64,
    /// Calls that fail, in a thousand.
    pub errors: u32,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is carried out and answered.
    Answered,
    /// It is carried out, and its answer is lost.
    AnswerLost,
    /// It never arrives.
    Lost,
}

impl Network {
    pub fn random(rng: &mut Rng) -> Self {
        Network {
            call: *rng.pick(&[5, 40, 40, 400]),
            watch: *rng.pick(&[5, 100, 100, 1000, 8000]),
            errors: *rng.pick(&[0, 0, 20, 100]),
        }
    }

    /// After the faults.
    pub fn healed(self) -> Self {
        Network {
            call: 20,
            watch: 50,
            errors: 0,
        }
    }

    pub fn fate(&self, rng: &mut Rng, cut: bool) -> Fate {
        if cut {
            return Fate::Lost;
        }
        if !rng.per_mille(self.errors) {
            return Fate::Answered;
        }
        if rng.per_mille(500) {
            Fate::AnswerLost
        } else {
            Fate::Lost
        }
    }

    pub fn call_delay(&self, rng: &mut Rng) -> i64 {
        rng.between(1, self.call)
    }

    pub fn watch_delay(&self, rng: &mut Rng) -> i64 {
        rng.between(1, self.watch)
    }
}
