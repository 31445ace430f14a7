//! Where everything starts, and the life of machines and presences.

use diego_operator::api::{ActualLRPState, TaskState};
use diego_operator::converge::harmony::ContainerState;

use crate::protocol::Protocol;
use crate::state::{CellId, Container, Controller, Key, Ledger, Record, Rep, Run, Standing, State};

impl Protocol {
    /// Every Cell is registered and recorded as present.
    pub fn start(&self) -> State {
        let mut state = self.unplaced();
        for number in (0..self.records.len()).filter(|_| self.placed) {
            let guid = state.new_guid();
            let run = Some(Run {
                cell: 0,
                epoch: 1,
                guid,
            });
            match &mut state.records[number] {
                Record::Lrp(slot) => (slot.state, slot.run) = (ActualLRPState::Running, run),
                Record::Task(job) => (job.state, job.run) = (TaskState::Running, run),
            }
            state.reps[0].containers.push(Container {
                record: number,
                guid,
                state: ContainerState::Running,
            });
            state.starts[number] = u8::from(matches!(state.records[number], Record::Task(_)));
            for rep in &mut state.reps {
                rep.seen = state.records.clone();
            }
        }
        state
    }

    fn unplaced(&self) -> State {
        let epoch = |cell: usize| u8::try_from(cell + 1).expect("a few Cells");
        let of_cells = || 0..self.cells;
        let ledgers: Vec<Ledger> = of_cells()
            .map(|cell| Ledger {
                state: Standing::Present,
                life: 1,
                epoch: epoch(cell),
                first: epoch(cell),
                fenced: self.fenced,
            })
            .collect();
        let none = vec![None; self.records.len()];
        let rep = |cell| Rep {
            alive: true,
            paused: false,
            life: 1,
            first: Some(epoch(cell)),
            epoch: Some(epoch(cell)),
            seen: self.records.clone(),
            containers: Vec::new(),
            writes: none.clone(),
        };
        let controller = Controller {
            view: ledgers.clone(),
            verdicts: vec![None; self.cells],
            writes: none.clone(),
        };
        State {
            revision: epoch(self.cells - 1),
            keys: of_cells()
                .map(|cell| {
                    Some(Key {
                        epoch: epoch(cell),
                        life: 1,
                        first: epoch(cell),
                        fenced: self.fenced,
                    })
                })
                .collect(),
            gone: vec![0; self.cells],
            ledgers,
            records: self.records.clone(),
            reps: of_cells().map(rep).collect(),
            controllers: vec![controller; self.controllers],
            faults: self.faults,
            starts: vec![0; self.records.len()],
            broken: None,
        }
    }
}

impl State {
    /// Whether the presence of this Cell is what its rep believes to hold.
    pub fn holds_presence(&self, cell: CellId) -> bool {
        let rep = &self.reps[cell];
        self.keys[cell].is_some_and(|key| key.life == rep.life && Some(key.epoch) == rep.epoch)
    }

    pub fn let_go(&mut self, cell: CellId) {
        if let Some(key) = self.keys[cell].take() {
            self.gone[cell] = key.epoch;
        }
    }

    pub fn register(&mut self, cell: CellId, fenced: bool) {
        self.let_go(cell);
        self.revision += 1;
        let rep = &mut self.reps[cell];
        rep.epoch = Some(self.revision);
        let first = *rep.first.get_or_insert(self.revision);
        self.keys[cell] = Some(Key {
            epoch: self.revision,
            life: rep.life,
            first,
            fenced,
        });
    }

    pub fn expire(&mut self, cell: CellId) {
        let rep = &self.reps[cell];
        if rep.alive && !rep.paused && self.holds_presence(cell) {
            self.faults -= 1;
        }
        self.let_go(cell);
    }

    pub fn die(&mut self, cell: CellId) {
        let rep = &mut self.reps[cell];
        rep.alive = false;
        rep.paused = false;
        rep.epoch = None;
        rep.containers.clear();
    }

    pub fn boot(&mut self, cell: CellId) {
        let rep = &mut self.reps[cell];
        rep.alive = true;
        rep.life += 1;
        rep.first = None;
        rep.seen = self.records.clone();
    }
}
