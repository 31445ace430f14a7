//! Carrying out plans as the controller does: one call per write, late, lost or in conflict, each settled in the world.

use std::collections::BTreeSet;
use std::rc::Rc;

use diego_operator::converge::plan::{Plan, Rules, Scope, plan};
use k8s_openapi::jiff::Timestamp;

use crate::at;
use crate::controller::INTERVAL;
use crate::history::{Event, Sim};
use crate::lanes::{Job, Then, Work};
use crate::store::{StoredLrp, StoredTask};

/// How often a scope is planned anew because a write met a newer version or failed.
const ATTEMPTS: u32 = 8;

/// A reconcile whose writes did not succeed is done again after this.
const RETRY: i64 = 2_000;

/// One attempt at a scope.
#[derive(Debug)]
pub struct Attempt {
    scope: Scope,
    number: u32,
    pending: usize,
    pub conflicts: u32,
    pub unfinished: u32,
    vanished: bool,
    recheck: Option<Timestamp>,
}

/// What is stored of the object that was written.
#[derive(Debug, Clone)]
pub enum Stored {
    Lrp(Option<Rc<StoredLrp>>),
    Task(Option<Rc<StoredTask>>),
}

impl Sim {
    pub fn converge(&mut self, one: usize, scope: Scope, then: Then) {
        let attempt = Attempt {
            scope,
            number: 0,
            pending: 0,
            conflicts: 0,
            unfinished: 0,
            vanished: false,
            recheck: None,
        };
        let job = self.add_job(one, Work::Converge(attempt), then);
        self.attempt(one, job);
    }

    pub fn attempt(&mut self, one: usize, job: u64) {
        let Some(Job {
            work: Work::Converge(attempt),
            ..
        }) = self.controllers[one].jobs.get_mut(&job)
        else {
            return;
        };
        let scope = attempt.scope.clone();
        let guids = &mut self.guids;
        let mut new_guid = || {
            *guids += 1;
            format!("g{guids}")
        };
        let world = &mut self.controllers[one].world;
        let plan = plan(
            world,
            &scope,
            &Rules::default(),
            at(self.now),
            &mut new_guid,
        );
        let Plan {
            writes,
            recheck,
            unknown_cells,
            refused,
            ..
        } = plan;
        for (key, refusal) in refused {
            self.violated(format!("plan.refused: {key}: {refusal}"));
        }
        let unknown: BTreeSet<String> = if self.grace(one) > 0 {
            BTreeSet::new()
        } else {
            unknown_cells
        };
        let Some(Job {
            work: Work::Converge(attempt),
            ..
        }) = self.controllers[one].jobs.get_mut(&job)
        else {
            return;
        };
        attempt.recheck = recheck;
        attempt.pending = writes.len() + unknown.len();
        (attempt.conflicts, attempt.unfinished, attempt.vanished) = (0, 0, false);
        if attempt.pending == 0 {
            return self.converged(one, job, true);
        }
        let life = self.controllers[one].life;
        for write in writes {
            let delay = self.network.call_delay(&mut self.rng);
            let event = Event::Write(one, life, job, Rc::new(write));
            self.schedule(self.now + delay, event);
        }
        for cell in unknown {
            let delay = self.network.call_delay(&mut self.rng);
            self.schedule(self.now + delay, Event::Vanished(one, life, job, cell));
        }
    }

    /// A Cell without an object: has it a presence?
    pub fn vanished(&mut self, one: usize, job: u64, cell: &str) {
        let gone = self.presence.read(cell).presence.is_none();
        if gone {
            let world = &mut self.controllers[one].world;
            let recorded = world.recorded_epoch(cell, i64::MAX);
            world.mark_vanished(cell, recorded);
            self.observer.read_as_vanished(cell);
            self.coverage.add("cells without a ledger that are gone", 1);
        }
        self.one_less(one, job, |attempt| attempt.vanished |= gone);
    }

    pub fn one_less(&mut self, one: usize, job: u64, account: impl FnOnce(&mut Attempt)) {
        let Some(Job {
            work: Work::Converge(attempt),
            ..
        }) = self.controllers[one].jobs.get_mut(&job)
        else {
            return;
        };
        account(attempt);
        attempt.pending -= 1;
        if attempt.pending > 0 {
            return;
        }
        let failed = attempt.conflicts + attempt.unfinished > 0;
        if !failed && !attempt.vanished {
            return self.converged(one, job, true);
        }
        attempt.number += 1;
        if attempt.number >= ATTEMPTS {
            return self.converged(one, job, !failed);
        }
        let pause = if attempt.unfinished > 0 {
            50 << (attempt.number - 1)
        } else {
            0
        };
        let life = self.controllers[one].life;
        self.schedule(self.now + pause, Event::Attempt(one, life, job));
    }

    fn converged(&mut self, one: usize, job: u64, well: bool) {
        let Some(Job { work, then }) = self.controllers[one].jobs.remove(&job) else {
            return;
        };
        let Work::Converge(attempt) = work else {
            return;
        };
        match then {
            Then::Nobody => {}
            Then::Recovered(cell) => self.recovered(one, cell),
            Then::Reconciled(target, again) => {
                let recheck = attempt.recheck.map_or(INTERVAL, |due| {
                    due.duration_since(at(self.now)).as_millis() as i64 + 5
                });
                let again = if well { again.min(recheck) } else { RETRY };
                self.reconciled(one, target, again);
            }
        }
    }
}
