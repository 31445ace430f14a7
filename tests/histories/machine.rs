//! The life of a Cell: its rep starts, registers, loses and finds its presence, drains, dies.

use diego_operator::converge::harmony::Mode;
use diego_operator::presence::PresencePhase;

use crate::history::{Event, Sim};
use crate::presence::TTL;
use crate::rep::Rep;
use crate::store::{Kind, Writer};
use crate::watches::Owner;

/// How long a graceful stop waits for its work to be moved away.
const EVACUATION: i64 = 20_000;

/// And then for the last writes.
const LAST_WRITES: i64 = 10_000;

/// What happens to a rep by the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    Register,
    Sync,
    Unwatched,
    PhaseTold,
    Drain,
}

impl Sim {
    /// A rep starts on a machine that runs none: a new incarnation.
    pub fn start_rep(&mut self, rep: usize) {
        let one = &mut self.reps[rep];
        if one.alive {
            return;
        }
        let (cut_api, cut_presence, refuses) = (one.cut_api, one.cut_presence, one.refuses);
        let (life, lease) = (one.life + 1, one.lease);
        let fresh = Rep::new(&one.cell, &one.zone, one.containers_max);
        *one = Rep {
            alive: true,
            life,
            lease,
            cut_api,
            cut_presence,
            refuses,
            ..fresh
        };
        self.coverage.add("reps started", 1);
        let wait = self.rng.between(10, 1000);
        self.schedule(self.now + wait, Event::RepTick(rep, life, Tick::Register));
    }

    pub fn rep_tick(&mut self, rep: usize, tick: Tick) {
        match tick {
            Tick::Register => self.register(rep),
            Tick::Sync => self.sync(rep),
            Tick::Unwatched => self.look_after_the_unwatched(rep),
            Tick::PhaseTold => self.settle_all(rep),
            Tick::Drain => {}
        }
    }

    pub fn register(&mut self, rep: usize) {
        let one = &self.reps[rep];
        let life = one.life;
        if one.cut_presence || one.cut_api && one.first_epoch.is_none() {
            return self.schedule(self.now + 500, Event::RepTick(rep, life, Tick::Register));
        }
        if one.held {
            return;
        }
        let (cell, zone, room) = (one.cell.clone(), one.zone.clone(), one.containers_max);
        let first = one.first_epoch;
        let incarnation = format!("{cell}-{life}");
        let phase = match one.mode {
            Mode::Ordinary => PresencePhase::Held,
            Mode::Draining => PresencePhase::Draining,
        };
        if first.is_none() {
            self.store
                .register_cell(Writer::Rep(rep), &cell, &zone, room);
        }
        let found = self.presence.keys.get(&cell);
        let ours = found.and_then(|found| found.value.as_ref());
        let epoch = match (found, ours) {
            (Some(found), Some(value)) if value.incarnation == incarnation => {
                let epoch = found.epoch;
                self.publish_phase(rep, &cell);
                epoch
            }
            (Some(_), _) => {
                // Our former life's: mark it, end it, create it anew.
                self.presence.set_phase(&cell, PresencePhase::Restarting);
                self.presence.delete(&cell, self.now);
                self.coverage
                    .add("reps replaced their former life's presence", 1);
                self.presence.create(&cell, &incarnation, phase, first)
            }
            (None, _) => {
                if first.is_some() {
                    self.coverage.add("reps came back with their containers", 1);
                }
                self.presence.create(&cell, &incarnation, phase, first)
            }
        };
        self.tell_presence();
        let one = &mut self.reps[rep];
        one.held = true;
        one.epoch = epoch;
        one.lease += 1;
        self.log(|| format!("cell {rep} holds its presence under epoch {epoch}"));
        if first.is_none() {
            self.reps[rep].first_epoch = Some(epoch);
            self.relist_all(Owner::Rep(rep), 100);
            self.schedule(self.now + 50, Event::RepTick(rep, life, Tick::Sync));
        } else {
            self.settle_all(rep);
        }
        self.stimulus();
    }

    /// The machine dies; what ran on it is gone at once, its presence one TTL after the last renewal.
    pub fn kill_rep(&mut self, rep: usize) {
        if !self.reps[rep].alive {
            return;
        }
        self.containers_gone(rep);
        let cell = self.reps[rep].cell.clone();
        if !self.reps[rep].cut_presence && self.presence.keys.contains_key(&cell) {
            let after = self.rng.between(TTL * 2 / 3, TTL + 600);
            self.end_lease_after(rep, after);
        }
        self.coverage.add("cells killed", 1);
    }

    /// The rep and everything on it is no more.
    pub fn containers_gone(&mut self, rep: usize) {
        let one = &mut self.reps[rep];
        one.alive = false;
        one.held = false;
        one.life += 1;
        for watch in &mut one.watches {
            watch.connected = false;
            watch.queue.clear();
        }
        for guid in std::mem::take(&mut one.containers).into_keys() {
            self.observer.process_ended(&guid);
        }
    }

    pub fn end_lease_after(&mut self, rep: usize, after: i64) {
        let one = &mut self.reps[rep];
        one.lease += 1;
        let lease = one.lease;
        self.schedule(self.now + after, Event::LeaseEnds(rep, lease));
    }

    pub fn lease_ends(&mut self, rep: usize, lease: u64) {
        if self.reps[rep].lease != lease {
            return;
        }
        let cell = self.reps[rep].cell.clone();
        if self.presence.keys.contains_key(&cell) {
            self.log(|| format!("presence of cell {rep} expires"));
            self.coverage.add("presences expired", 1);
            self.stimulus();
        }
        self.presence.delete(&cell, self.now);
        self.tell_presence();
    }

    /// The rep can't reach the presence store: it counts its presence as lost before the store does.
    pub fn cut_presence(&mut self, rep: usize) {
        let one = &mut self.reps[rep];
        if one.cut_presence {
            return;
        }
        one.cut_presence = true;
        if one.held {
            let after = self.rng.between(TTL * 2 / 3, TTL + 600);
            self.end_lease_after(rep, after);
            let early = self.rng.between(after / 2, after);
            let lease = self.reps[rep].lease;
            self.schedule(self.now + early, Event::Unheld(rep, lease));
        }
        self.coverage
            .add("cells cut off from the presence store", 1);
    }

    pub fn unheld(&mut self, rep: usize, lease: u64) {
        if self.reps[rep].lease == lease && self.reps[rep].alive {
            self.reps[rep].held = false;
        }
    }

    /// It can again: what had not expired goes on.
    pub fn heal_presence(&mut self, rep: usize) {
        let one = &mut self.reps[rep];
        if !std::mem::take(&mut one.cut_presence) || !one.alive {
            return;
        }
        if one.held {
            one.lease += 1;
            let cell = one.cell.clone();
            self.publish_phase(rep, &cell);
            return;
        }
        let (life, wait) = (one.life, self.rng.between(10, 1700));
        self.schedule(self.now + wait, Event::RepTick(rep, life, Tick::Register));
    }

    /// What the rep wanted to say while it was cut off.
    pub fn publish_phase(&mut self, rep: usize, cell: &str) {
        let said = self
            .presence
            .keys
            .get(cell)
            .map(|presence| presence.phase());
        if self.reps[rep].mode == Mode::Draining && said == Some(PresencePhase::Held) {
            self.presence.set_phase(cell, PresencePhase::Draining);
        }
    }

    pub fn cut_api(&mut self, rep: usize) {
        if self.reps[rep].cut_api {
            return;
        }
        self.reps[rep].cut_api = true;
        self.break_watch(Owner::Rep(rep), Kind::Lrp, None);
        self.break_watch(Owner::Rep(rep), Kind::Task, None);
        self.coverage.add("cells cut off from the API server", 1);
    }

    pub fn heal_api(&mut self, rep: usize) {
        let one = &mut self.reps[rep];
        if std::mem::take(&mut one.cut_api) && one.alive && one.first_epoch.is_some() {
            self.relist_all(Owner::Rep(rep), 3000);
        }
    }

    // A graceful stop

    pub fn begin_draining(&mut self, rep: usize) {
        let now = self.now;
        let one = &mut self.reps[rep];
        if !one.alive || one.first_epoch.is_none() || one.mode == Mode::Draining {
            return;
        }
        one.mode = Mode::Draining;
        one.drain_deadline = Some(now + EVACUATION);
        let (life, cell, reached) = (one.life, one.cell.clone(), !one.cut_presence && one.held);
        let told = if reached {
            self.presence.set_phase(&cell, PresencePhase::Draining);
            self.tell_presence();
            self.rng.between(1, 100)
        } else {
            5000
        };
        self.schedule(now + told, Event::RepTick(rep, life, Tick::PhaseTold));
        self.schedule(now + EVACUATION + 1, Event::RepTick(rep, life, Tick::Drain));
        self.coverage.add("cells drained", 1);
    }

    /// One step of a graceful stop, after everything that happens to the rep.
    pub fn drain(&mut self, rep: usize) {
        let one = &self.reps[rep];
        let Some(deadline) = one.drain_deadline.filter(|_| one.alive) else {
            return;
        };
        let left = !one.containers.is_empty() || !one.busy.is_empty();
        let over = self.now >= deadline;
        if left && !over {
            return;
        }
        if left && !one.drain_forced {
            let (life, until) = (one.life, self.now + LAST_WRITES);
            self.reps[rep].drain_forced = true;
            self.reps[rep].drain_deadline = Some(until);
            let guids: Vec<String> = self.reps[rep].containers.keys().cloned().collect();
            for guid in guids {
                self.stop_container(rep, &guid);
            }
            self.coverage.add("drains that ran out of time", 1);
            return self.schedule(until + 1, Event::RepTick(rep, life, Tick::Drain));
        }
        // Nothing is left, or nothing more is waited for: the presence goes last.
        let (cell, reached) = (one.cell.clone(), !one.cut_presence && one.held);
        self.log(|| format!("cell {rep} has left"));
        self.containers_gone(rep);
        if reached {
            self.presence.set_phase(&cell, PresencePhase::Released);
            self.presence.delete(&cell, self.now);
            self.tell_presence();
        } else if !self.reps[rep].cut_presence && self.presence.keys.contains_key(&cell) {
            self.end_lease_after(rep, TTL);
        }
        self.coverage.add("drains ended", 1);
        self.stimulus();
    }

    // What the rep hears
}
