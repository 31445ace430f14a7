//! Stimuli: what users, operators, machines and networks do to the system.

use diego_operator::api::MissingCellPolicy;
use diego_operator::converge::world::Key;

use crate::history::{Event, Sim};
use crate::rng::Rng;
use crate::store::{Kind, Writer};
use crate::watches::Owner;

/// One thing that is done. Numbers name Cells, DesiredLRPs, Tasks and controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stimulus {
    StartCell(usize),
    KillCell(usize),
    /// The machine dies and its rep is back before anybody can know.
    RestartCell(usize),
    DrainCell(usize),
    CutPresence(usize),
    CutApi(usize),
    CutOff(usize),
    HealCell(usize),
    Cordon(usize, bool),
    Evacuate(usize, bool),
    DeleteCell(usize),
    Refuse(usize, bool),
    CreateDesired(usize, i32, bool),
    Scale(usize, i32),
    DeleteDesired(usize),
    ReplaceDesired(usize, i32),
    DeleteInstance(usize, i32),
    CreateTask(usize),
    CancelTask(usize),
    DeleteTask(usize),
    StartController(usize),
    KillController(usize),
    BreakControllerWatch(usize, usize),
    BreakPresenceWatch(usize),
    BreakRepWatch(usize, bool),
}

pub const CELLS: usize = 4;
const PROCESSES: usize = 2;
const TASKS: usize = 3;

pub fn process(number: usize) -> Key {
    Key::new("ns", format!("web{number}"))
}

pub fn task(number: usize) -> Key {
    Key::new("ns", format!("task{number}"))
}

/// A random script: what is done, and when.
pub fn script(rng: &mut Rng) -> Vec<(i64, Stimulus)> {
    let mut script = Vec::new();
    let cells = rng.between(2, CELLS as i64) as usize;
    for cell in 0..cells {
        script.push((rng.between(0, 500), Stimulus::StartCell(cell)));
    }
    script.push((0, Stimulus::StartController(0)));
    let instances = rng.between(1, 3) as i32;
    let strict = rng.per_mille(250);
    script.push((
        rng.between(0, 1500),
        Stimulus::CreateDesired(0, instances, strict),
    ));
    let mut now = rng.between(500, 6000);
    let pace = *rng.pick(&[300, 2000, 8000]);
    for _ in 0..rng.between(4, 16) {
        now += rng.between(1, pace);
        script.push((now, random(rng)));
    }
    script.sort_by_key(|(when, _)| *when);
    script
}

fn random(rng: &mut Rng) -> Stimulus {
    let cell = rng.below(CELLS);
    let process = rng.below(PROCESSES);
    let task = rng.below(TASKS);
    let yes = rng.per_mille(500);
    let instances = rng.between(0, 4) as i32;
    let controller = rng.below(2);
    match rng.below(100) {
        0..=5 => Stimulus::StartCell(cell),
        6..=14 => Stimulus::KillCell(cell),
        15..=20 => Stimulus::RestartCell(cell),
        21..=26 => Stimulus::DrainCell(cell),
        27..=33 => Stimulus::CutPresence(cell),
        34..=37 => Stimulus::CutApi(cell),
        38..=43 => Stimulus::CutOff(cell),
        44..=53 => Stimulus::HealCell(cell),
        54..=55 => Stimulus::Cordon(cell, yes),
        56..=58 => Stimulus::Evacuate(cell, yes),
        59 => Stimulus::DeleteCell(cell),
        60..=62 => Stimulus::Refuse(cell, yes),
        63..=66 => Stimulus::CreateDesired(process, instances, yes),
        67..=71 => Stimulus::Scale(process, instances),
        72 => Stimulus::DeleteDesired(process),
        73..=74 => Stimulus::ReplaceDesired(process, instances),
        75..=77 => Stimulus::DeleteInstance(process, instances.max(1) - 1),
        78..=83 => Stimulus::CreateTask(task),
        84 => Stimulus::CancelTask(task),
        85 => Stimulus::DeleteTask(task),
        86..=88 => Stimulus::StartController(controller),
        89..=91 => Stimulus::KillController(controller),
        92..=94 => Stimulus::BreakControllerWatch(controller, rng.below(4)),
        95..=96 => Stimulus::BreakPresenceWatch(controller),
        _ => Stimulus::BreakRepWatch(cell, yes),
    }
}

impl Sim {
    pub fn apply(&mut self, stimulus: Stimulus) {
        self.stimulus();
        self.coverage.add("stimuli", 1);
        self.log(|| format!("* {stimulus:?}"));
        match stimulus {
            Stimulus::StartCell(cell) => self.start_rep(cell),
            Stimulus::KillCell(cell) => self.kill_rep(cell),
            Stimulus::RestartCell(cell) => {
                self.kill_rep(cell);
                self.start_rep(cell);
            }
            Stimulus::DrainCell(cell) => self.begin_draining(cell),
            Stimulus::CutPresence(cell) => self.cut_presence(cell),
            Stimulus::CutApi(cell) => self.cut_api(cell),
            Stimulus::CutOff(cell) => {
                self.cut_presence(cell);
                self.cut_api(cell);
            }
            Stimulus::HealCell(cell) => {
                self.heal_presence(cell);
                self.heal_api(cell);
            }
            Stimulus::Cordon(cell, yes) => {
                let name = self.reps[cell].cell.clone();
                self.store
                    .change_cell_spec(&name, |cell| cell.unschedulable = yes);
            }
            Stimulus::Evacuate(cell, yes) => {
                let name = self.reps[cell].cell.clone();
                self.store
                    .change_cell_spec(&name, |cell| cell.evacuate = yes);
            }
            Stimulus::DeleteCell(cell) => {
                let name = self.reps[cell].cell.clone();
                self.store.delete_cell(&name);
            }
            Stimulus::Refuse(cell, yes) => self.reps[cell].refuses = yes,
            Stimulus::CreateDesired(one, instances, strict) => {
                let policy = if strict {
                    MissingCellPolicy::Strict
                } else {
                    MissingCellPolicy::Suspect
                };
                self.store.create_desired(&process(one), instances, policy);
            }
            Stimulus::Scale(one, instances) => self.store.scale(&process(one), instances),
            Stimulus::DeleteDesired(one) => self.delete_desired(one),
            Stimulus::ReplaceDesired(one, instances) => {
                self.delete_desired(one);
                let policy = MissingCellPolicy::Suspect;
                self.store.create_desired(&process(one), instances, policy);
            }
            Stimulus::DeleteInstance(one, index) => {
                self.store
                    .remove_lrp(Writer::User, &process(one).instance(index));
            }
            Stimulus::CreateTask(one) => self.store.create_task(&task(one), self.now),
            Stimulus::CancelTask(one) => self.store.cancel_task(&task(one)),
            Stimulus::DeleteTask(one) => {
                let _none_there = self.store.delete_task(Writer::User, &task(one), None);
            }
            Stimulus::StartController(one) => self.start_controller(one),
            Stimulus::KillController(one) => self.kill_controller(one),
            Stimulus::BreakControllerWatch(one, kind) => {
                if self.controllers[one].alive {
                    let again = self.rng.between(100, 20_000);
                    let kind = crate::store::KINDS[kind];
                    self.break_watch(Owner::Controller(one), kind, Some(again));
                }
            }
            Stimulus::BreakPresenceWatch(one) => {
                if self.controllers[one].alive {
                    let again = self.rng.between(100, 40_000);
                    self.break_presence_watch(one, again);
                }
            }
            Stimulus::BreakRepWatch(cell, lrps) => {
                if self.reps[cell].alive && self.reps[cell].first_epoch.is_some() {
                    let kind = if lrps { Kind::Lrp } else { Kind::Task };
                    let again = self.rng.between(100, 20_000);
                    self.break_watch(Owner::Rep(cell), kind, Some(again));
                }
            }
        }
    }

    /// The garbage collector comes later.
    fn delete_desired(&mut self, one: usize) {
        if let Some(uid) = self.store.delete_desired(&process(one)) {
            let wait = self.rng.between(10, 5000);
            self.schedule(self.now + wait, Event::Collect(uid));
        }
    }

    /// Everything that is cut is joined, everybody calms down, and a Cell with room for all joins.
    pub fn heal(&mut self) {
        self.stimulus();
        self.log(|| "* heal".into());
        self.calm = true;
        self.network = self.network.healed();
        for cell in 0..self.reps.len() {
            self.heal_presence(cell);
            self.heal_api(cell);
            self.reps[cell].refuses = false;
            let name = self.reps[cell].cell.clone();
            let changed = self
                .store
                .cells
                .get(&name)
                .is_some_and(|cell| cell.evacuate || cell.unschedulable);
            if changed {
                self.store.change_cell_spec(&name, |cell| {
                    cell.evacuate = false;
                    cell.unschedulable = false;
                });
            }
            if !self.reps[cell].alive && (cell >= CELLS || self.rng.per_mille(500)) {
                self.start_rep(cell);
            }
        }
        self.kill_controller(1);
        self.start_controller(0);
    }
}
