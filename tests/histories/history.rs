//! One history: a script of stimuli, the clock, the queue of what is under way, and the end, when all must be well.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;
use std::time::Instant;

use diego_operator::converge::plan::Write;
use diego_operator::converge::world::{CellRecord, Desired, Key};

use crate::calls::{Answer, Job};
use crate::controller::{Controller, Target};
use crate::coverage::Coverage;
use crate::execute::Stored;
use crate::faults::{Mutation, Network};
use crate::lanes::{LedgerWrite, Loss};
use crate::machine::Tick;
use crate::observer::Observer;
use crate::presence::PresenceStore;
use crate::rep::{Process, Rep, Work};
use crate::rng::Rng;
use crate::store::{Kind, Object, Refused, Store};
use crate::users::{CELLS, Stimulus, script};
use crate::watches::Owner;

/// How often the observer looks at what no event announces.
const LOOK: i64 = 5_000;

/// Everything must be well so long after the last fault: one resync, a TTL, a start, a stale placement or a wait after
/// rejections (30 s each), a rep's own comparison, a graceful stop.
const RECOVERS: i64 = 150_000;

/// Then nothing is written for longer than one convergence interval.
const QUIET: i64 = 35_000;

/// What is under way. The first numbers are whose it is, and in which of its lives.
#[derive(Debug)]
pub enum Event {
    Stimulus(Stimulus),
    Heal,
    Look,
    Collect(String),
    Watch(Owner, Kind, u64),
    Relist(Owner, Kind, u64),
    LeaseEnds(usize, u64),
    Unheld(usize, u64),
    // Reps
    RepTick(usize, u64, Tick),
    RepCall(usize, u64, Work, Box<Job>),
    RepAnswer(usize, u64, Work, Box<(Job, Answer)>),
    RepRetry(usize, u64, Work),
    RepSynced(usize, u64, Vec<Object>),
    Process(usize, u64, String, Process),
    // Controllers
    PresenceWatch(usize, u64),
    PresenceRelist(usize, u64),
    Reconcile(usize, u64, Target),
    Orphaned(usize, u64, Key),
    CellRead(usize, u64, String),
    Recover(usize, u64, Loss),
    Confirm(usize, u64, Loss, Option<i64>, i64),
    Ledger(usize, u64, u64),
    LedgerWrite(usize, u64, u64, String, Box<LedgerWrite>),
    LedgerAnswer(usize, u64, u64, Box<Result<CellRecord, Refused>>, String),
    Attempt(usize, u64, u64),
    Write(usize, u64, u64, Rc<Write>),
    FirstStatus(usize, u64, u64, Rc<Write>, (String, u64)),
    WriteAnswer(usize, u64, u64, Rc<Write>, Box<Result<Stored, Refused>>),
    Settle(usize, u64, u64, Rc<Write>, Box<(Refused, Option<Stored>)>),
    Vanished(usize, u64, u64, String),
}

/// The whole simulated system.
pub struct Sim {
    pub rng: Rng,
    pub now: i64,
    pub began: Instant,
    pub network: Network,
    /// Instances that crash, in a thousand.
    pub crashes: u32,
    /// After the faults.
    pub calm: bool,
    pub store: Store,
    pub presence: PresenceStore,
    pub controllers: Vec<Controller>,
    pub reps: Vec<Rep>,
    pub observer: Observer,
    pub coverage: Coverage,
    pub guids: u64,
    pub jobs: u64,
    mutation: Option<Mutation>,
    queue: BinaryHeap<Reverse<(i64, u64)>>,
    events: BTreeMap<u64, Event>,
    scheduled: u64,
    violation: Option<String>,
    pub logging: bool,
    pub lines: Vec<String>,
}

/// What to play.
#[derive(Debug, Clone)]
pub struct History {
    pub seed: u64,
    pub script: Vec<(i64, Stimulus)>,
    pub mutation: Option<Mutation>,
}

/// How it ended.
pub struct Ended {
    pub violation: Option<String>,
    pub coverage: Coverage,
    pub lines: Vec<String>,
}

impl History {
    pub fn random(seed: u64) -> Self {
        History {
            seed,
            script: script(&mut Rng::new(seed)),
            mutation: None,
        }
    }

    pub fn play(&self, logging: bool) -> Ended {
        let mut sim = Sim::new(self, logging);
        sim.run();
        let (running, suspect) = (sim.observer.beside_running, sim.observer.beside_suspect);
        sim.coverage
            .add("records: Running with an evacuating instance", running);
        sim.coverage
            .add("records: suspect with an evacuating instance", suspect);
        Ended {
            violation: sim.violation,
            coverage: sim.coverage,
            lines: sim.lines,
        }
    }

    /// The same violation with fewer stimuli: first a prefix, then without single ones.
    pub fn shrunk(&self) -> History {
        let fails = |history: &History| history.play(false).violation.is_some();
        let mut best = self.clone();
        for length in 1..self.script.len() {
            let mut shorter = self.clone();
            shorter.script.truncate(length);
            if fails(&shorter) {
                best = shorter;
                break;
            }
        }
        let mut index = best.script.len();
        while index > 0 {
            index -= 1;
            let mut shorter = best.clone();
            shorter.script.remove(index);
            if fails(&shorter) {
                best = shorter;
                index = index.min(best.script.len());
            }
        }
        best
    }
}

impl Sim {
    fn new(history: &History, logging: bool) -> Self {
        let mut rng = Rng::new(history.seed ^ 0xABCD_EF01);
        let network = Network::random(&mut rng);
        let crashes = *rng.pick(&[0, 50, 300]);
        let mut reps = Vec::new();
        for (number, name) in ["a", "b", "c", "d"].into_iter().enumerate().take(CELLS) {
            let room = rng.between(1, 5) as i32;
            reps.push(Rep::new(
                name,
                if number % 2 == 0 { "z1" } else { "z2" },
                room,
            ));
        }
        reps.push(Rep::new("fresh", "z3", 100));
        let mut sim = Sim {
            rng,
            now: 0,
            began: Instant::now(),
            network,
            crashes,
            calm: false,
            store: Store::default(),
            presence: PresenceStore::default(),
            controllers: vec![Controller::new(0), Controller::new(0)],
            reps,
            observer: Observer::default(),
            coverage: Coverage::default(),
            guids: 0,
            jobs: 0,
            mutation: history.mutation,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            scheduled: 0,
            violation: None,
            logging,
            lines: Vec::new(),
        };
        sim.store.blind = sim.breaks(Mutation::WriteBlindly);
        let mut last = 0;
        for (when, stimulus) in &history.script {
            sim.schedule(*when, Event::Stimulus(*stimulus));
            last = last.max(*when);
        }
        let heal = last + sim.rng.between(100, 15_000);
        sim.schedule(heal, Event::Heal);
        sim.schedule(LOOK, Event::Look);
        sim
    }

    pub fn breaks(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    pub fn schedule(&mut self, when: i64, event: Event) {
        self.scheduled += 1;
        self.queue
            .push(Reverse((when.max(self.now), self.scheduled)));
        self.events.insert(self.scheduled, event);
    }

    pub fn violated(&mut self, what: String) {
        self.log(|| format!("VIOLATION {what}"));
        self.violation.get_or_insert(what);
    }

    /// Something happened that writes may answer to.
    pub fn stimulus(&mut self) {
        self.observer.stimulus();
    }

    /// A write to this object was tried.
    pub fn wrote(&mut self, key: &Key, refused: Option<&Refused>) {
        self.coverage.add("writes", 1);
        match refused {
            Some(Refused::Invalid(rule)) => {
                self.violated(format!("S2: {key}: somebody tried to break a rule: {rule}"))
            }
            Some(Refused::Conflict) => self.coverage.add("conflicts", 1),
            Some(Refused::NotFound | Refused::AlreadyExists | Refused::Failed) | None => {}
        }
        if self.is_wanted_differently(key) || self.cells_are_seen_differently() {
            return self
                .coverage
                .add("writes beside a controller with an old view", 1);
        }
        let controllers = self.controllers.iter().filter(|one| one.alive).count() as i64;
        if let Err(violation) = self.observer.attempted(key, self.now, controllers) {
            self.violated(violation);
        }
    }

    /// A known limit: of two controllers that act at the same time, one with an old view of a Cell places there what the
    /// other one takes away, about once a second.
    fn cells_are_seen_differently(&self) -> bool {
        let revision = |record: &CellRecord| record.version.revision;
        self.controllers.iter().all(|one| one.synced)
            && (self.store.cells.iter()).any(|(name, stored)| {
                let seen = |one: &Controller| one.world.cells().get(name).map(revision);
                (self.controllers.iter()).any(|one| seen(one) != Some(revision(stored)))
            })
    }

    /// A known limit: while a controller has an old DesiredLRP, what it makes is deleted by another controller or by
    /// the garbage collector, and made again; S7 holds again as soon as it has heard.
    fn is_wanted_differently(&self, key: &Key) -> bool {
        let Some((process, _)) = key.name.rsplit_once('-') else {
            return false;
        };
        let process = Key::new(&*key.namespace, process);
        let version = |desired: &Desired| (desired.version.uid.clone(), desired.version.revision);
        let stored = self
            .store
            .desired
            .get(&process)
            .map(|desired| version(desired));
        (self.controllers.iter().filter(|one| one.synced))
            .any(|one| one.world.desired(&process).map(version) != stored)
    }

    fn run(&mut self) {
        let mut healed = None;
        // Since when everything is well, and how many writes there were then.
        let mut well: Option<(i64, u64)> = None;
        while let Some(Reverse((when, number))) = self.queue.pop() {
            self.now = when;
            let Some(event) = self.events.remove(&number) else {
                continue;
            };
            match event {
                Event::Heal => {
                    self.heal();
                    healed = Some(when);
                }
                Event::Look => {
                    self.look();
                    if let Some(healed) = healed {
                        match (self.unwell(), well) {
                            (None, None) => well = Some((when, self.observer.lrp_writes)),
                            (None, Some((since, writes))) if writes != self.observer.lrp_writes => {
                                let _written = since;
                                well = Some((when, self.observer.lrp_writes));
                            }
                            (None, Some((since, _))) if when - since > QUIET => return,
                            (None, Some(_)) => {}
                            (Some(_), _) => well = None,
                        }
                        if when - healed > RECOVERS + QUIET {
                            let what = self.unwell().unwrap_or_else(|| "it is never quiet".into());
                            self.violated(format!(
                                "L1: {} s after the last fault: {what}",
                                (when - healed) / 1000
                            ));
                        }
                    }
                    self.schedule(when + LOOK, Event::Look);
                }
                event => self.handle(event),
            }
            self.tell_changes();
            self.tell_presence();
            if self.violation.is_some() {
                return;
            }
        }
    }

    fn look(&mut self) {
        let touch: Vec<bool> = (self.reps.iter())
            .map(|rep| rep.alive && rep.held && !rep.cut_api)
            .collect();
        if let Err(violation) = self.observer.look(&self.store, self.now, |rep| touch[rep]) {
            self.violated(violation);
        }
    }
}
