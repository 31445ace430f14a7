//! Holds everything that is on its way between controllers and servers, and lets it go one after the other, in an order that
//! a seed decides.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use crate::rng::Rng;

/// A choice is made when nothing has come for so long, so that it is made among all that can come.
const QUIET: Duration = Duration::from_millis(2);

/// It is not waited longer for that.
const PATIENCE: Duration = Duration::from_millis(25);

/// How often a fate is bad, in a thousand.
const FAULTS: u32 = 25;

/// What is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request that changes something.
    Write,
    /// A request that does not.
    Read,
    /// A request for a watch.
    Watch,
    /// A call to the presence store.
    Call,
    /// The answer to any of them.
    Answer,
    /// What a watch brings.
    News,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Pass,
    /// It arrives twice.
    Twice,
    /// It is answered with this status, and goes no further.
    Refuse(u16),
    /// It is lost, and its connection with it.
    Lose,
}

impl Kind {
    /// What can befall it.
    fn fates(self) -> &'static [Fate] {
        use Fate::{Lose, Refuse, Twice};
        match self {
            Kind::Write => &[Lose, Refuse(409), Refuse(500), Refuse(429), Twice],
            Kind::Read => &[Lose, Refuse(500)],
            // Too old, as after a compaction.
            Kind::Watch => &[Lose, Refuse(410)],
            Kind::Call | Kind::Answer | Kind::News => &[Lose],
        }
    }
}

/// Something that waits for its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// What it shares its luck with: a lane may be slow for a while.
    pub lane: String,
    /// What it is. What chance decides of it, such as a guid, comes after a `~`.
    pub what: String,
    /// Which kind.
    pub kind: Kind,
    /// It waits no longer: whoever waits for it has a deadline.
    pub most: Duration,
}

impl Stop {
    /// What does not depend on chance.
    fn certain(&self) -> &str {
        self.what.split('~').next().unwrap_or_default()
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.lane, self.what)
    }
}

struct Held {
    stop: Stop,
    until: Instant,
    turn: oneshot::Sender<Fate>,
}

struct State {
    rng: Rng,
    holds: bool,
    faults: bool,
    held: Vec<Held>,
    arrivals: u64,
    /// Sent to a server and not answered yet.
    away: usize,
    weights: BTreeMap<String, u64>,
    began: Instant,
    log: Vec<String>,
    decisions: usize,
}

/// See the module.
pub struct Shuffler {
    state: Mutex<State>,
    bell: Notify,
}

/// Something that a server is at; over when dropped.
pub struct Away<'a>(&'a Shuffler);

impl Drop for Away<'_> {
    fn drop(&mut self) {
        self.0.state().away -= 1;
    }
}

impl Shuffler {
    /// Lets everything pass until it is told to hold.
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Shuffler {
            state: Mutex::new(State {
                rng: Rng::new(seed),
                holds: false,
                faults: false,
                held: Vec::new(),
                arrivals: 0,
                away: 0,
                weights: BTreeMap::new(),
                began: Instant::now(),
                log: Vec::new(),
                decisions: 0,
            }),
            bell: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// From now on everything is held.
    pub fn begin(&self) {
        let mut state = self.state();
        state.holds = true;
        state.began = Instant::now();
    }

    /// From now on, or not any more, things are lost, refused and doubled.
    pub fn faults(&self, faults: bool) {
        self.state().faults = faults;
    }

    /// From now on everything passes.
    pub fn end(&self) {
        let mut state = self.state();
        state.holds = false;
        for held in state.held.drain(..) {
            let _gone = held.turn.send(Fate::Pass);
        }
    }

    /// Waits for its turn.
    pub async fn hold(&self, stop: Stop) -> Fate {
        let turn = {
            let mut state = self.state();
            if !state.holds {
                return Fate::Pass;
            }
            let (turn, mine) = oneshot::channel();
            let until = Instant::now() + stop.most;
            state.held.push(Held { stop, until, turn });
            state.arrivals += 1;
            mine
        };
        self.bell.notify_one();
        turn.await.unwrap_or(Fate::Pass)
    }

    /// A server is at it: its answer is worth waiting for.
    pub fn away(&self) -> Away<'_> {
        self.state().away += 1;
        Away(self)
    }

    /// The history has something to say in the log.
    pub fn note(&self, what: &str) {
        let mut state = self.state();
        let at = state.began.elapsed().as_millis();
        state.log.push(format!("          {at:>6} ms  == {what}"));
    }

    /// How many choices were made.
    pub fn decisions(&self) -> usize {
        self.state().decisions
    }

    /// Whether nothing is held.
    pub fn is_idle(&self) -> bool {
        self.state().held.is_empty()
    }

    /// All choices so far, one a line.
    pub fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    /// Chooses, for ever.
    pub async fn run(self: Arc<Self>) {
        loop {
            if self.is_idle() {
                self.bell.notified().await;
                continue;
            }
            self.quiet().await;
            self.state().choose();
        }
    }

    async fn quiet(&self) {
        let began = Instant::now();
        let mut seen = self.state().arrivals;
        while began.elapsed() < PATIENCE {
            tokio::time::sleep(QUIET).await;
            let state = self.state();
            if state.arrivals == seen && state.away == 0 {
                return;
            }
            seen = state.arrivals;
        }
    }
}

impl State {
    fn choose(&mut self) {
        // Whoever waited for it has given up.
        self.held.retain(|held| !held.turn.is_closed());
        // The order of arrival is by chance; that of the names is not.
        self.held.sort_by(|a, b| {
            let of = |held: &Held| (held.stop.lane.clone(), held.stop.certain().to_owned());
            of(a).cmp(&of(b))
        });
        let Some(turn) = self.pick() else { return };
        let among = self.held.len();
        let held = self.held.remove(turn);
        let bad = self.rng.per_mille(FAULTS);
        let fate = match self.faults && bad {
            true => *self.rng.pick(held.stop.kind.fates()),
            false => Fate::Pass,
        };
        self.decisions += 1;
        let fell = match fate {
            Fate::Pass => String::new(),
            fate => format!("  *** {fate:?}"),
        };
        let at = self.began.elapsed().as_millis();
        let (n, stop) = (self.decisions, &held.stop);
        self.log
            .push(format!("{n:>5} {among:>3} {at:>6} ms  {stop}{fell}"));
        let _gone = held.turn.send(fate);
    }

    /// By weight, and who can wait no longer before all others.
    fn pick(&mut self) -> Option<usize> {
        let now = Instant::now();
        let late = self.held.iter().enumerate();
        let late = late.filter(|(_, held)| held.until <= now);
        if let Some((first, _)) = late.min_by_key(|(_, held)| held.until) {
            return Some(first);
        }
        let mut weights = Vec::with_capacity(self.held.len());
        for held in &self.held {
            let known = self.weights.get(&held.stop.lane).copied();
            let weight = match known {
                // A lane's luck changes now and then.
                Some(weight) if !self.rng.per_mille(15) => weight,
                Some(_) | None => *self.rng.pick(&[1, 6, 36, 216]),
            };
            self.weights.insert(held.stop.lane.clone(), weight);
            weights.push(weight);
        }
        let all: u64 = weights.iter().sum();
        let mut drawn = self.rng.next().checked_rem(all)?;
        weights.iter().position(|weight| {
            let mine = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            mine
        })
    }
}
