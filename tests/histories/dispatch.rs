//! Every event to whoever it is for, unless that one has died since.

use crate::history::{Event, Sim};
use crate::store::Kind;
use crate::watches::Owner;

impl Sim {
    pub fn handle(&mut self, event: Event) {
        match event {
            Event::Stimulus(stimulus) => self.apply(stimulus),
            Event::Heal | Event::Look => {}
            Event::Collect(owner) => {
                self.store.collect(&owner);
            }
            Event::LeaseEnds(rep, lease) => self.lease_ends(rep, lease),
            Event::Unheld(rep, lease) => self.unheld(rep, lease),
            Event::RepCall(rep, life, work, job) => self.rep_call(rep, life, work, *job),
            Event::Write(one, life, job, write) => self.controller_write(one, life, job, write),
            Event::LedgerWrite(one, life, job, cell, write) => {
                self.ledger_write(one, life, job, cell, *write);
            }
            Event::Watch(owner, _, life) | Event::Relist(owner, _, life)
                if self.life(owner) != life => {}
            Event::Watch(owner, kind, _) => self.watch_arrives(owner, kind),
            Event::Relist(owner, kind, _) => self.relist(owner, kind),
            Event::RepTick(rep, life, _)
            | Event::RepAnswer(rep, life, ..)
            | Event::RepRetry(rep, life, _)
            | Event::RepSynced(rep, life, _)
            | Event::Process(rep, life, ..)
                if self.reps[rep].life != life => {}
            event @ (Event::RepTick(rep, ..)
            | Event::RepAnswer(rep, ..)
            | Event::RepRetry(rep, ..)
            | Event::RepSynced(rep, ..)
            | Event::Process(rep, ..)) => {
                self.handle_rep(event);
                self.after_rep(rep);
            }
            Event::PresenceWatch(one, life)
            | Event::PresenceRelist(one, life)
            | Event::Reconcile(one, life, _)
            | Event::Orphaned(one, life, _)
            | Event::CellRead(one, life, _)
            | Event::Recover(one, life, _)
            | Event::Confirm(one, life, ..)
            | Event::Ledger(one, life, _)
            | Event::LedgerAnswer(one, life, ..)
            | Event::Attempt(one, life, _)
            | Event::FirstStatus(one, life, ..)
            | Event::WriteAnswer(one, life, ..)
            | Event::Settle(one, life, ..)
            | Event::Vanished(one, life, ..)
                if self.controllers[one].life != life => {}
            event => self.handle_controller(event),
        }
    }

    pub fn watch_arrives(&mut self, owner: Owner, kind: Kind) {
        let now = self.now;
        while let Some(item) = self.watch(owner, kind).arrived(now) {
            match owner {
                Owner::Controller(one) => self.controller_hears(one, kind, item),
                Owner::Rep(rep) => {
                    self.rep_hears(rep, kind, item);
                    self.after_rep(rep);
                }
            }
        }
    }

    pub fn after_rep(&mut self, rep: usize) {
        self.drain(rep);
        self.wind_up(rep);
    }

    pub fn handle_rep(&mut self, event: Event) {
        match event {
            Event::RepTick(rep, _, tick) => self.rep_tick(rep, tick),
            Event::RepAnswer(rep, _, work, answered) => {
                let (job, answer) = *answered;
                self.rep_answered(rep, work, job, answer);
            }
            Event::RepRetry(rep, _, work) => {
                self.reps[rep].busy.remove(&work);
                self.read(rep, &work);
            }
            Event::RepSynced(rep, _, list) => self.synced(rep, list),
            Event::Process(rep, _, guid, event) => self.process_changed(rep, &guid, event),
            other => unreachable!("not a rep's: {other:?}"),
        }
    }

    pub fn handle_controller(&mut self, event: Event) {
        match event {
            Event::PresenceWatch(one, _) => self.presence_arrives(one),
            Event::PresenceRelist(one, _) => self.relist_presence(one),
            Event::Reconcile(one, _, target) => self.reconcile(one, target),
            Event::Orphaned(one, _, key) => self.orphan(one, key),
            Event::CellRead(one, _, name) => self.cell_read(one, name),
            Event::Recover(one, _, loss) => self.recover(one, loss),
            Event::Confirm(one, _, loss, epoch, pause) => self.confirmed(one, loss, epoch, pause),
            Event::Ledger(one, _, job) => self.decide_ledger(one, job),
            Event::LedgerAnswer(one, _, job, answer, uid) => {
                self.ledger_answered(one, job, *answer, &uid);
            }
            Event::Attempt(one, _, job) => self.attempt(one, job),
            Event::FirstStatus(one, life, job, write, version) => {
                self.first_status(one, life, job, write, version);
            }
            Event::WriteAnswer(one, _, job, write, answer) => {
                self.write_answered(one, job, write, *answer);
            }
            Event::Settle(one, _, job, write, settled) => {
                let (refused, live) = *settled;
                self.settle_write(one, job, &write, &refused, live);
            }
            Event::Vanished(one, _, job, cell) => self.vanished(one, job, &cell),
            other => unreachable!("not a controller's: {other:?}"),
        }
    }
}
