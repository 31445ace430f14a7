//! What a seed begins with.

use crate::observer::judge::Invariant;

/// Quick, so that another leads before the history is over; by default all of it takes twice as long.
const ELECTION: [&str; 7] = [
    "--leader-elect",
    "--leader-elect-lease-duration-seconds",
    "1",
    "--leader-elect-renew-deadline-seconds",
    "0.8",
    "--leader-elect-retry-period-seconds",
    "0.3",
];

/// How many controllers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controllers {
    /// One, without an election.
    One,
    /// Two, one of which leads.
    Elected,
    /// Two that take themselves for the only one, against what operators are told. Even then nothing runs twice.
    Rivals,
}

/// What a seed begins with.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Who acts.
    pub controllers: Controllers,
    /// Without faults nobody looks at anything again by the clock: what an event should have told must have been told.
    pub faults: bool,
    /// Whether losses of many Cells at once are held back.
    pub guard: bool,
}

impl Plan {
    /// That of a seed.
    pub fn of(seed: u64) -> Plan {
        Plan {
            controllers: match seed % 8 {
                5 => Controllers::Rivals,
                1 | 3 | 7 => Controllers::Elected,
                _ => Controllers::One,
            },
            faults: seed % 4 >= 2,
            guard: seed.is_multiple_of(3),
        }
    }

    /// The flags of its controllers.
    pub fn flags(&self) -> Vec<String> {
        let interval = if self.faults { "2" } else { "3600" };
        let threshold = if self.guard { "33" } else { "100" };
        let convergence = ["--convergence-interval-seconds", interval];
        let guard = ["--mass-loss-threshold-percent", threshold];
        let mut flags: Vec<&str> = convergence.into_iter().chain(guard).collect();
        if self.controllers == Controllers::Elected {
            flags.extend(ELECTION);
        }
        flags.into_iter().map(str::to_owned).collect()
    }
}

/// What rivals keep all the same.
pub const SAFE: [Invariant; 4] = [Invariant::S1, Invariant::S2, Invariant::S4, Invariant::S5];
