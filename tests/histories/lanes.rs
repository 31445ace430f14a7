//! The controller's lanes: reconciles, the reaction to a lost Cell, and the ledger, as the controller runs them.

use diego_operator::api::{CellState, CellStatus};
use diego_operator::converge::cell::{Observation, Verdict};
use diego_operator::presence::{PresencePhase, Reading};

use crate::controller::{INTERVAL, Target};
use crate::execute::Attempt;
use crate::faults::{Fate, Mutation};
use crate::history::{Event, Sim};
use crate::presence::TTL;

/// A failed reconcile is done again after this.
pub const RETRY: i64 = 2_000;

/// While the watch is heard it gets this long to tell of a loss itself.
const WATCH_FIRST: i64 = 1_000;

/// A presence that was noticed to be gone.
#[derive(Debug, Clone)]
pub struct Loss {
    pub cell: String,
    pub phase: Option<PresencePhase>,
}

/// Who waits for a job.
#[derive(Debug, Clone)]
pub enum Then {
    Nobody,
    /// A reconcile of this target; look again then.
    Reconciled(Target, i64),
    /// The recovery of this Cell.
    Recovered(String),
}

/// What a job does.
#[derive(Debug)]
pub enum Work {
    /// Writes what was seen of a Cell into the ledger; then converges.
    Ledger {
        cell: String,
        seen: Observation,
        pause: i64,
    },
    /// Plans and writes until nothing is left to do.
    Converge(Attempt),
}

/// Something under way.
#[derive(Debug)]
pub struct Job {
    pub work: Work,
    pub then: Then,
}

/// What is written into the ledger.
#[derive(Debug, Clone)]
pub struct LedgerWrite {
    pub uid: String,
    pub revision: u64,
    pub status: CellStatus,
    pub verdict: Verdict,
}

impl Sim {
    pub fn add_job(&mut self, one: usize, work: Work, then: Then) -> u64 {
        self.jobs += 1;
        let id = self.jobs;
        self.controllers[one].jobs.insert(id, Job { work, then });
        id
    }

    // Reconciles

    pub fn reconcile(&mut self, one: usize, target: Target) {
        let controller = &mut self.controllers[one];
        if controller.due.get(&target) != Some(&self.now) {
            return;
        }
        controller.due.remove(&target);
        if !controller.synced {
            return self.wake_at(one, target, self.now + 100);
        }
        let world = &controller.world;
        let exists = match &target {
            Target::Cell(name) => world.cells().contains_key(name),
            Target::Desired(key) => world.desired(key).is_some(),
            Target::Task(key) => world.task(key).is_some(),
        };
        if !exists {
            return;
        }
        controller.running.insert(target.clone());
        match &target {
            Target::Cell(name) => {
                let life = controller.life;
                let name = name.clone();
                let delay = self.network.call_delay(&mut self.rng);
                self.schedule(self.now + delay, Event::CellRead(one, life, name));
            }
            Target::Desired(_) | Target::Task(_) => {
                let scope = target.scope();
                self.converge(one, scope, Then::Reconciled(target, INTERVAL));
            }
        }
    }

    /// A reconcile is done; `again` is when to look at it next.
    pub fn reconciled(&mut self, one: usize, target: Target, again: i64) {
        let controller = &mut self.controllers[one];
        controller.running.remove(&target);
        if controller.again.remove(&target) {
            return self.wake_at(one, target, self.now + 1);
        }
        if again >= INTERVAL && self.breaks(Mutation::NoResync) {
            return;
        }
        self.wake_at(one, target, self.now + again.clamp(5, INTERVAL));
    }

    /// The reconciler of a Cell has read its presence.
    pub fn cell_read(&mut self, one: usize, name: String) {
        let target = Target::Cell(name.clone());
        if self.store_fails() {
            return self.reconciled(one, target, RETRY);
        }
        let Some(presence) = self.presence.read(&name).presence else {
            let again = self.absent(one, &name);
            let scope = target.scope();
            return self.converge(one, scope, Then::Reconciled(target, again));
        };
        self.heard(one, &presence);
        let work = Work::Ledger {
            cell: name,
            seen: Observation::Held(presence),
            pause: 20,
        };
        let job = self.add_job(one, work, Then::Reconciled(target, INTERVAL));
        self.decide_ledger(one, job);
    }

    /// The key is not there. Returns when to look again.
    pub fn absent(&mut self, one: usize, name: &str) -> i64 {
        let controller = &self.controllers[one];
        let state = controller
            .world
            .cells()
            .get(name)
            .and_then(|cell| cell.status.state);
        if !matches!(state, Some(CellState::Present | CellState::Evacuating)) {
            return INTERVAL;
        }
        let grace = self.grace(one);
        if grace > 0 {
            return grace + 100;
        }
        let controller = &self.controllers[one];
        let heard = controller.heard.get(name).copied();
        if heard.is_some_and(|heard| {
            heard.phase == PresencePhase::Restarting && self.now - heard.at < TTL
        }) {
            return TTL;
        }
        let loss = Loss {
            cell: name.to_owned(),
            phase: heard.and_then(|heard| match heard.phase {
                phase @ (PresencePhase::Held | PresencePhase::Released | PresencePhase::Dead) => {
                    Some(phase)
                }
                PresencePhase::Restarting => Some(PresencePhase::Held),
                PresencePhase::Draining => None,
            }),
        };
        let wait = if controller.presence_watch.connected {
            WATCH_FIRST
        } else {
            0
        };
        let life = controller.life;
        self.coverage.add("absences found by the resync", 1);
        self.schedule(self.now + wait, Event::Recover(one, life, loss));
        INTERVAL
    }

    pub fn store_fails(&mut self) -> bool {
        let fate = self.network.fate(&mut self.rng, false);
        if fate != Fate::Answered {
            self.stimulus();
        }
        fate != Fate::Answered
    }

    // The reaction to a lost Cell

    pub fn recover(&mut self, one: usize, loss: Loss) {
        let controller = &mut self.controllers[one];
        let life = controller.life;
        if !controller.synced {
            return self.schedule(self.now + 100, Event::Recover(one, life, loss));
        }
        if let Some(meanwhile) = controller.recovering.get_mut(&loss.cell) {
            *meanwhile = Some(loss);
            return;
        }
        controller.recovering.insert(loss.cell.clone(), None);
        self.confirm(one, loss, 20);
    }

    /// Records before presences: the ledger's epoch is taken before the read is sent.
    pub fn confirm(&mut self, one: usize, loss: Loss, pause: i64) {
        let controller = &self.controllers[one];
        let ledger_epoch =
            (controller.world.cells().get(&loss.cell)).and_then(|cell| cell.status.epoch);
        let life = controller.life;
        let delay = self.network.call_delay(&mut self.rng);
        let event = Event::Confirm(one, life, loss, ledger_epoch, pause);
        self.schedule(self.now + delay, event);
    }

    /// The confirming read arrives at the store.
    pub fn confirmed(&mut self, one: usize, loss: Loss, ledger_epoch: Option<i64>, pause: i64) {
        if self.store_fails() {
            let pause = (pause * 2).min(1000);
            return self.confirm(one, loss, pause);
        }
        let mut reading: Reading = self.presence.read(&loss.cell);
        if self.breaks(Mutation::SkipConfirm) {
            reading.presence = None;
        }
        if let Some(presence) = reading.presence {
            self.coverage.add("losses not confirmed", 1);
            self.heard(one, &presence);
            self.wake(one, Target::Cell(loss.cell.clone()));
            return self.recovered(one, loss.cell);
        }
        self.coverage.add("losses confirmed", 1);
        let world = &self.controllers[one].world;
        let recorded = world.recorded_epoch(&loss.cell, reading.revision);
        let then = Then::Recovered(loss.cell.clone());
        let work = Work::Ledger {
            cell: loss.cell,
            seen: Observation::Gone {
                ledger_epoch,
                revision: reading.revision,
                recorded,
                phase: loss.phase,
                fence: None,
            },
            pause,
        };
        let job = self.add_job(one, work, then);
        let (life, delay) = (
            self.controllers[one].life,
            self.network.call_delay(&mut self.rng),
        );
        self.schedule(self.now + delay, Event::Ledger(one, life, job));
    }

    pub fn recovered(&mut self, one: usize, cell: String) {
        let Some(meanwhile) = self.controllers[one].recovering.get_mut(&cell) else {
            return;
        };
        match meanwhile.take() {
            Some(loss) => self.confirm(one, loss, 20),
            None => drop(self.controllers[one].recovering.remove(&cell)),
        }
    }

    // The ledger
}
