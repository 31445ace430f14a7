//! Where everything starts, and the life of machines and presences.

use diego_operator::api::{ActualLRPState, TaskState};
use diego_operator::converge::harmony::ContainerState;
use diego_operator::presence::keeper::epoch_base;

use crate::protocol::{Protection, Protocol};
use crate::reached::What;
use crate::real::small;
use crate::state::{CellId, Container, Key, Known, Ledger, Record, Rep, Run, Standing, State};

impl Protocol {
    /// Every Cell is registered and recorded as present.
    pub fn start(&self) -> State {
        let mut state = self.unplaced();
        for number in (0..self.records.len()).filter(|_| self.placed) {
            let guid = state.new_guid();
            let run = Some(Run {
                cell: 0,
                epoch: state.ledgers[0].epoch,
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
        }
        self.learn(&mut state);
        self.canonical(state)
    }

    fn unplaced(&self) -> State {
        // The store has counted some already: one that begins anew counts less.
        let epoch = |cell: usize| u8::try_from(cell + 1 + self.cells).expect("a few Cells");
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
            silent: false,
            life: 1,
            first: Some(epoch(cell)),
            epoch: Some(epoch(cell)),
            base: 0,
            seen: none.clone(),
            containers: Vec::new(),
            writes: none.clone(),
        };
        // A controller that has only just begun has heard of no base.
        let known = Known {
            bases: vec![0],
            ..Known::default()
        };
        State {
            revision: epoch(self.cells - 1),
            keys: of_cells()
                .map(|cell| {
                    Some(Key {
                        epoch: epoch(cell),
                        base: 0,
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
            past: vec![Vec::new(); self.records.len()],
            known: vec![known; self.cells],
            confirmed: vec![false; self.cells],
            wiped: false,
            distrusted: false,
            faults: self.faults,
            starts: vec![0; self.records.len()],
            broken: None,
        }
    }
}

impl Protocol {
    /// Whether the rep hears that it was judged lost under an epoch that is not before its own: it registers anew, since
    /// nobody hears it under this one.
    pub fn hears_of_its_loss(&self, state: &State, cell: CellId) -> bool {
        let (rep, ledger) = (&state.reps[cell], &state.ledgers[cell]);
        let lost = ledger.state == Standing::Missing && rep.epoch <= Some(ledger.epoch);
        lost && state.holds_presence(cell) && !self.lacks(Protection::DeadEpoch)
    }

    /// The greatest epochs of its Cell that a rep may know when it registers. One that has just begun reads the ledger
    /// first; one that goes on may have heard nothing since its last registration.
    pub fn epochs_known(&self, state: &State, cell: CellId) -> Vec<u8> {
        let (rep, ledger) = (&state.reps[cell], state.ledgers[cell].epoch);
        let own = rep.epoch.filter(|_| !self.hears_of_its_loss(state, cell));
        let base = |last| self.base(state, cell, last);
        match own {
            Some(own) if base(own) != base(own.max(ledger)) => vec![own, own.max(ledger)],
            Some(own) => vec![own],
            None => vec![ledger.max(rep.epoch.unwrap_or(0))],
        }
    }

    fn base(&self, state: &State, cell: CellId, last: u8) -> u8 {
        match self.lacks(Protection::EpochBase) {
            true => 0,
            false => small(epoch_base(
                state.reps[cell].base.into(),
                last.into(),
                state.revision.into(),
            )),
        }
    }

    pub fn register(&self, state: &mut State, cell: CellId, last: u8) {
        let base = self.base(state, cell, last);
        if base > 0 {
            self.reached.note(What::CountedOn);
        }
        state.let_go(cell);
        state.confirmed[cell] = false;
        state.known[cell].forgotten = false;
        state.revision += 1;
        let epoch = base + state.revision;
        let rep = &mut state.reps[cell];
        (rep.epoch, rep.base) = (Some(epoch), base);
        let first = *rep.first.get_or_insert(epoch);
        state.keys[cell] = Some(Key {
            epoch,
            base,
            life: rep.life,
            first,
            fenced: self.fenced,
        });
    }

    pub fn expire(&self, state: &mut State, cell: CellId) {
        if self.fences() {
            state.reps[cell].kill_all(&state.records);
        }
        if state.renews(cell) {
            state.faults -= 1;
        }
        state.let_go(cell);
    }

    /// Two Cells fall silent at once. A bit per Cell says whether its machine is off.
    pub fn black_out(&self, state: &mut State, off: u8) {
        state.faults -= 1;
        for cell in 0..2 {
            if off & (1 << cell) != 0 {
                state.die(cell);
            }
            state.reps[cell].silent = true;
        }
    }

    /// The presence store loses its data. What nobody renews any more is gone for good with that.
    pub fn wipe(&self, state: &mut State) {
        state.faults -= 1;
        for cell in 0..self.cells {
            match state.renews(cell) {
                true => state.keys[cell] = None,
                false => state.let_go(cell),
            }
        }
        (state.revision, state.wiped, state.distrusted) = (0, true, true);
    }
}

impl State {
    /// Whether the presence of this Cell is what its rep believes to hold.
    pub fn holds_presence(&self, cell: CellId) -> bool {
        let rep = &self.reps[cell];
        self.keys[cell].is_some_and(|key| key.life == rep.life && Some(key.epoch) == rep.epoch)
    }

    /// Whether the rep keeps the presence of its Cell.
    pub fn renews(&self, cell: CellId) -> bool {
        let rep = &self.reps[cell];
        rep.alive && !rep.paused && !rep.silent && self.holds_presence(cell)
    }

    pub fn let_go(&mut self, cell: CellId) {
        if let Some(key) = self.keys[cell].take() {
            self.gone[cell] = key.epoch;
        }
    }

    /// A Cell that can't show itself in a store that lost its data is gone under the epoch that it had.
    fn falls_silent(&mut self, cell: CellId) {
        let epoch = self.reps[cell].epoch.filter(|_| self.keys[cell].is_none());
        self.gone[cell] = self.gone[cell].max(epoch.unwrap_or(0));
    }

    pub fn pause(&mut self, cell: CellId) {
        self.faults -= 1;
        self.falls_silent(cell);
        self.reps[cell].paused = true;
    }

    pub fn die(&mut self, cell: CellId) {
        self.falls_silent(cell);
        let rep = &mut self.reps[cell];
        (rep.alive, rep.paused) = (false, false);
        (rep.epoch, rep.first, rep.base) = (None, None, 0);
        rep.containers.clear();
    }

    pub fn boot(&mut self, cell: CellId) {
        let rep = &mut self.reps[cell];
        (rep.alive, rep.silent) = (true, false);
        rep.life += 1;
    }
}
