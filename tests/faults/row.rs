//! One row of the fault matrix: what breaks, what is promised, and how it is tried.

use std::pin::Pin;

use crate::observer::facts::Within;
use crate::stage::Stage;
use crate::support::Failure;

/// A row.
pub struct Row {
    /// Its number in the matrix.
    pub number: u32,
    /// What breaks.
    pub fault: &'static str,
    /// What is promised.
    pub promise: &'static str,
    /// How it is tried.
    pub tried: Tried,
}

/// Where the Cells' presences are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Store {
    /// In etcd.
    #[default]
    Etcd,
    /// In Leases of the API server: `--presence kubernetes`.
    Leases,
}

impl std::fmt::Display for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Store::Etcd => "etcd",
            Store::Leases => "Leases",
        })
    }
}

/// How a row is tried.
pub enum Tried {
    /// Here, on real processes.
    Here {
        /// How the fault is made.
        injected: &'static str,
        /// The line of protection without which the row was seen to fail.
        protection: Protection,
        /// Whether it belongs to the subset that runs with all other tests.
        short: bool,
        /// Makes the fault and looks at what comes of it.
        run: Run,
    },
    /// By tests that were there before.
    Elsewhere {
        /// Which.
        tests: &'static str,
        /// The line of protection without which they were seen to fail.
        without: &'static str,
        /// How they failed.
        said: &'static str,
    },
}

/// A line of protection.
pub enum Protection {
    /// Taken out in a copy of the tree; the row then failed so.
    Seen {
        /// What was taken out.
        without: &'static str,
        /// What the row said.
        said: &'static str,
    },
    /// It is no line of ours.
    NotOurs {
        /// What the row rests on.
        by: &'static str,
        /// What was taken out all the same, and did no harm.
        said: &'static str,
    },
}

/// The run of a row.
pub type Run = for<'a> fn(&'a mut Stage) -> Running<'a>;

/// A row that runs.
pub type Running<'a> = Pin<Box<dyn Future<Output = Result<Figures, Failure>> + Send + 'a>>;

/// What a row has measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// From the fault to the start of each replacement, in seconds.
    pub away: Vec<f64>,
    /// What that may be, where it is promised.
    pub within: Option<Within>,
    /// What else was measured.
    pub note: String,
}

impl Figures {
    /// These times.
    pub fn away(away: Vec<f64>) -> Figures {
        Figures {
            away,
            ..Figures::default()
        }
    }

    /// No such times, but something else.
    pub fn note(note: impl Into<String>) -> Figures {
        Figures::away(Vec::new()).and(note)
    }

    /// And this.
    pub fn and(self, note: impl Into<String>) -> Figures {
        Figures {
            note: note.into(),
            ..self
        }
    }
}
