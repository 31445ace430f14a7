//! A simulated rep: the real views and the real harmonisation table, driven as the rep's actor drives them.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use diego_operator::converge::harmony::{ContainerState, Mode};
use diego_operator::converge::task::transition::Outcome;
use diego_operator::converge::world::Key;

use crate::history::Sim;
use crate::store::{Kind, StoredLrp, StoredTask};
use crate::watches::Watch;

/// An ActualLRP or a Task.
pub type Work = (Kind, Key);

/// A record as last read.
#[derive(Debug, Clone)]
pub enum Record {
    Lrp(Rc<StoredLrp>),
    Task(Rc<StoredTask>),
}

impl Record {
    pub fn uid(&self) -> &str {
        match self {
            Record::Lrp(lrp) => &lrp.record.version.uid,
            Record::Task(task) => &task.record.version.uid,
        }
    }

    pub fn revision(&self) -> u64 {
        match self {
            Record::Lrp(lrp) => lrp.record.version.revision,
            Record::Task(task) => task.record.version.revision,
        }
    }

    pub fn assigned(&self) -> Option<&str> {
        match self {
            Record::Lrp(lrp) => lrp.record.status.cell_name.as_deref(),
            Record::Task(task) => task.record.status.cell_name.as_deref(),
        }
    }

    /// Every instance that it names: Cell, guid and epoch.
    pub fn named(&self) -> Vec<(&str, &str, Option<i64>)> {
        let mut all = Vec::new();
        let (cell, guid, epoch) = match self {
            Record::Lrp(lrp) => {
                let status = &lrp.record.status;
                if let Some(one) = &status.suspect {
                    all.push((&*one.cell_name, &*one.instance_guid, Some(one.cell_epoch)));
                }
                if let Some(one) = &status.evacuating {
                    all.push((&*one.cell_name, &*one.instance_guid, Some(one.cell_epoch)));
                }
                (&status.cell_name, &status.instance_guid, status.cell_epoch)
            }
            Record::Task(task) => {
                let status = &task.record.status;
                (&status.cell_name, &status.instance_guid, status.cell_epoch)
            }
        };
        if let (Some(cell), Some(guid)) = (cell, guid) {
            all.push((cell, guid, epoch));
        }
        all
    }
}

/// What happened to a record while a call for it was under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Meanwhile {
    Nothing,
    Changed,
    Doubted,
}

#[derive(Debug)]
pub struct Container {
    pub work: Work,
    pub process: String,
    pub index: i32,
    pub uid: String,
    pub owner: Option<String>,
    /// It must not run twice. What that costs on a lost Cell, the fence, is left out: time stands still for it.
    pub strict: bool,
    pub retired: bool,
    pub state: ContainerState,
    pub cancelled: bool,
    pub outcome: Option<Outcome>,
}

/// A rep, its machine, and its way to both stores.
#[derive(Debug)]
pub struct Rep {
    pub cell: String,
    pub zone: String,
    pub containers_max: i32,
    pub alive: bool,
    /// One per start of the rep.
    pub life: u64,
    pub mode: Mode,
    pub held: bool,
    pub epoch: i64,
    pub first_epoch: Option<i64>,
    /// Cancels what was scheduled for its lease.
    pub lease: u64,
    pub cut_api: bool,
    pub cut_presence: bool,
    /// It can't make room for anything.
    pub refuses: bool,
    pub listed: bool,
    pub watches: [Watch; 4],
    pub records: BTreeMap<Work, Record>,
    pub left: BTreeMap<Work, String>,
    pub containers: BTreeMap<String, Container>,
    pub busy: BTreeMap<Work, Meanwhile>,
    pub failures: BTreeMap<Work, u32>,
    pub drain_deadline: Option<i64>,
    pub drain_forced: bool,
    pub unwatched_due: bool,
}

/// What happens to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    Ready,
    Ended { well: bool },
}

/// What a step did.
pub enum Took {
    Nothing,
    Local,
    Call,
}

impl Rep {
    pub fn new(cell: &str, zone: &str, containers_max: i32) -> Self {
        Rep {
            cell: cell.to_owned(),
            zone: zone.to_owned(),
            containers_max,
            alive: false,
            life: 0,
            mode: Mode::Ordinary,
            held: false,
            epoch: 0,
            first_epoch: None,
            lease: 0,
            cut_api: false,
            cut_presence: false,
            refuses: false,
            listed: false,
            watches: Default::default(),
            records: BTreeMap::new(),
            left: BTreeMap::new(),
            containers: BTreeMap::new(),
            busy: BTreeMap::new(),
            failures: BTreeMap::new(),
            drain_deadline: None,
            drain_forced: false,
            unwatched_due: false,
        }
    }

    /// The epoch under which writes may be made now.
    pub fn stamp(&self) -> Option<i64> {
        self.held.then_some(self.epoch)
    }

    pub fn holds(&self, work: &Work) -> bool {
        self.containers.values().any(|one| one.work == *work)
    }

    pub fn shown(&self, work: &Work) -> bool {
        self.records
            .get(work)
            .is_some_and(|record| record.assigned() == Some(&self.cell))
    }

    pub fn guids(&self, work: &Work) -> BTreeSet<String> {
        let here = (self.containers.iter())
            .filter(|(_, one)| one.work == *work)
            .map(|(guid, _)| guid.clone());
        let named = self
            .records
            .get(work)
            .map(Record::named)
            .unwrap_or_default();
        let named = (named.into_iter())
            .filter(|(cell, ..)| *cell == self.cell)
            .map(|(_, guid, _)| guid.to_owned());
        here.chain(named).collect()
    }

    pub fn is_of_an_earlier_life(&self, work: &Work, guid: &str) -> bool {
        let recorded = self.records.get(work).and_then(|record| {
            let named = record.named();
            let found = named.into_iter().find(|(_, other, _)| *other == guid);
            found.and_then(|(_, _, epoch)| epoch)
        });
        !self.containers.contains_key(guid)
            && recorded.is_some_and(|epoch| epoch < self.first_epoch.unwrap_or(i64::MIN))
    }

    pub fn remember(&mut self, work: Work, record: Record) {
        let newer_known = self.records.get(&work).is_some_and(|known| {
            known.uid() == record.uid() && known.revision() > record.revision()
        });
        if !newer_known {
            self.records.insert(work, record);
        }
    }

    pub fn state(&self, guid: &str) -> ContainerState {
        self.containers
            .get(guid)
            .map_or(ContainerState::None, |one| one.state)
    }
}

impl Sim {}
