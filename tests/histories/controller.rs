//! A simulated controller: the real world and the real view of presences, fed as the controller's watches feed them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use diego_operator::converge::plan::Scope;
use diego_operator::converge::world::{Key, Waiting, World};
use diego_operator::presence::view::View;
use diego_operator::presence::{Presence, PresenceEvent, PresencePhase};

use crate::history::{Event, Sim};
use crate::lanes::{Job, Loss};
use crate::presence::{self, TTL};
use crate::store::Kind;
use crate::watches::{Owner, Watch};

/// The convergence interval.
pub const INTERVAL: i64 = 30_000;

/// What a reconciler looks at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Cell(String),
    Desired(Key),
    Task(Key),
}

impl Target {
    pub fn scope(&self) -> Scope {
        match self {
            Target::Cell(name) => Scope::Cell(name.clone()),
            Target::Desired(key) => Scope::Desired(key.clone()),
            Target::Task(key) => Scope::Task(key.clone()),
        }
    }
}

/// What was last heard of a Cell.
#[derive(Debug, Clone, Copy)]
pub struct Heard {
    pub phase: PresencePhase,
    pub at: i64,
}

#[derive(Debug)]
pub struct Controller {
    pub alive: bool,
    /// One per start.
    pub life: u64,
    pub world: World,
    pub view: View,
    pub presence_watch: Watch2,
    pub watches: [Watch; 4],
    pub listed: BTreeSet<Kind>,
    pub synced: bool,
    pub trusted_since: i64,
    pub heard: BTreeMap<String, Heard>,
    /// Cells whose recovery is under way, with the loss that was noticed meanwhile.
    pub recovering: BTreeMap<String, Option<Loss>>,
    /// When each is looked at next.
    pub due: BTreeMap<Target, i64>,
    pub running: BTreeSet<Target>,
    pub again: BTreeSet<Target>,
    pub jobs: BTreeMap<u64, Job>,
    /// The uid and generation of what was last seen.
    pub seen: BTreeMap<Target, (String, i64)>,
    pub since_lrps: u64,
    pub since_tasks: u64,
}

/// The watch of presences.
#[derive(Debug, Default)]
pub struct Watch2 {
    pub connected: bool,
    pub queue: std::collections::VecDeque<(i64, PresenceItem)>,
    pub last: i64,
}

/// What the watch of presences delivers.
#[derive(Debug, Clone)]
pub enum PresenceItem {
    Change(presence::Change),
    Listed(Vec<Presence>, i64),
}

impl Controller {
    pub fn new(life: u64) -> Self {
        Controller {
            alive: false,
            life,
            world: World::default(),
            view: View::new(),
            presence_watch: Watch2::default(),
            watches: Default::default(),
            listed: BTreeSet::new(),
            synced: false,
            trusted_since: 0,
            heard: BTreeMap::new(),
            recovering: BTreeMap::new(),
            due: BTreeMap::new(),
            running: BTreeSet::new(),
            again: BTreeSet::new(),
            jobs: BTreeMap::new(),
            seen: BTreeMap::new(),
            since_lrps: 0,
            since_tasks: 0,
        }
    }
}

impl Sim {
    pub fn start_controller(&mut self, one: usize) {
        if self.controllers[one].alive {
            return;
        }
        let life = self.controllers[one].life + 1;
        self.controllers[one] = Controller::new(life);
        self.controllers[one].alive = true;
        self.controllers[one].trusted_since = self.now;
        self.relist_all(Owner::Controller(one), 500);
        self.schedule(self.now + 20, Event::PresenceRelist(one, life));
        self.coverage.add("controllers started", 1);
        self.log(|| format!("controller {one} starts"));
    }

    pub fn kill_controller(&mut self, one: usize) {
        let life = self.controllers[one].life + 1;
        self.controllers[one] = Controller::new(life);
        self.log(|| format!("controller {one} dies"));
    }

    /// Looks at it at that time, or earlier if it was to be looked at earlier.
    pub fn wake_at(&mut self, one: usize, target: Target, when: i64) {
        let controller = &mut self.controllers[one];
        if controller.running.contains(&target) {
            controller.again.insert(target);
            return;
        }
        let due = controller.due.get(&target).copied();
        if due.is_some_and(|due| due <= when) {
            return;
        }
        controller.due.insert(target.clone(), when);
        let life = controller.life;
        self.schedule(when, Event::Reconcile(one, life, target));
    }

    pub fn wake(&mut self, one: usize, target: Target) {
        self.wake_at(one, target, self.now);
    }

    /// Room may have come free.
    pub fn wake_waiting(&mut self, one: usize) {
        for waiting in self.controllers[one].world.waiting() {
            match waiting {
                Waiting::Lrp(key) => self.wake(one, Target::Desired(key)),
                Waiting::Task(key) => self.wake(one, Target::Task(key)),
            }
        }
    }

    // Watches of objects

    /// Tells every controller's watch what changed.
    pub fn tell_presence(&mut self) {
        for change in std::mem::take(&mut self.presence.changes) {
            for one in 0..self.controllers.len() {
                if self.controllers[one].presence_watch.connected {
                    self.send_presence(one, PresenceItem::Change(change.clone()));
                }
            }
        }
    }

    fn send_presence(&mut self, one: usize, item: PresenceItem) {
        let delay = self.network.watch_delay(&mut self.rng);
        let controller = &mut self.controllers[one];
        let due = (self.now + delay).max(controller.presence_watch.last);
        controller.presence_watch.last = due;
        controller.presence_watch.queue.push_back((due, item));
        let life = controller.life;
        self.schedule(due, Event::PresenceWatch(one, life));
    }

    pub fn break_presence_watch(&mut self, one: usize, again: i64) {
        let watch = &mut self.controllers[one].presence_watch;
        watch.connected = false;
        let lost = watch.queue.len() as u64;
        watch.queue.clear();
        self.coverage.add("presence events lost", lost);
        let life = self.controllers[one].life;
        self.schedule(self.now + again, Event::PresenceRelist(one, life));
    }

    pub fn relist_presence(&mut self, one: usize) {
        let list = self.presence.keys.values().cloned().collect();
        let revision = self.presence.revision;
        self.controllers[one].presence_watch.connected = true;
        self.controllers[one].presence_watch.queue.clear();
        self.send_presence(one, PresenceItem::Listed(list, revision));
    }

    pub fn presence_arrives(&mut self, one: usize) {
        loop {
            let watch = &mut self.controllers[one].presence_watch;
            let due = watch.queue.front().is_some_and(|(due, _)| *due <= self.now);
            let arrived = if due { watch.queue.pop_front() } else { None };
            let Some((_, item)) = arrived else { return };
            let when = self.instant();
            let view = &mut self.controllers[one].view;
            let events = match item {
                PresenceItem::Change(presence::Change::Put(presence, revision)) => {
                    view.put(presence, revision, when)
                }
                PresenceItem::Change(presence::Change::Delete(cell, last, revision)) => {
                    view.delete(&cell, Some(last), revision, when)
                }
                PresenceItem::Listed(list, revision) => view.relist(list, revision, 1, when),
            };
            for event in events {
                match event {
                    PresenceEvent::Held(presence) => {
                        self.heard(one, &presence);
                        self.wake(one, Target::Cell(presence.cell));
                    }
                    PresenceEvent::Gone(departure) => {
                        let phase = departure.last.value.as_ref().map(|value| value.phase);
                        self.presence_gone(one, departure.last.cell, phase);
                    }
                    PresenceEvent::Synced { .. }
                    | PresenceEvent::Unreachable { .. }
                    | PresenceEvent::WatchRestarted { .. } => {}
                }
            }
        }
    }

    fn presence_gone(&mut self, one: usize, cell: String, phase: Option<PresencePhase>) {
        let life = self.controllers[one].life;
        let mut loss = Loss { cell, phase };
        let mut wait = 0;
        if phase == Some(PresencePhase::Restarting) {
            wait = TTL;
            loss.phase = Some(PresencePhase::Held);
        }
        self.schedule(self.now + wait, Event::Recover(one, life, loss));
    }

    pub fn heard(&mut self, one: usize, presence: &Presence) {
        let heard = Heard {
            phase: presence.phase(),
            at: self.now,
        };
        let controller = &mut self.controllers[one];
        controller.heard.insert(presence.cell.clone(), heard);
        controller.world.mark_alive(&presence.cell);
    }

    /// The simulated time on a monotonic clock.
    fn instant(&self) -> Instant {
        self.began + Duration::from_millis(self.now.unsigned_abs())
    }

    /// How long absence must still not be believed.
    pub fn grace(&self, one: usize) -> i64 {
        (self.controllers[one].trusted_since + TTL - self.now).max(0)
    }
}
