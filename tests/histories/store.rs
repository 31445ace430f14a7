//! The simulated API server: objects with uids and versions, compare-and-swap, and the server's own rules.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use diego_operator::api::{
    ActualLRP, CellStatus, ExecutorKind, MissingCellPolicy, Task, template::Resources,
};
use diego_operator::converge::demand::Demand;
use diego_operator::converge::world::{CellRecord, Desired, Key, Lrp, TaskRecord, Version};

/// The kinds, as indices of watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Cell,
    Desired,
    Lrp,
    Task,
}

pub const KINDS: [Kind; 4] = [Kind::Cell, Kind::Desired, Kind::Lrp, Kind::Task];

/// A stored ActualLRP, as the controller and as the rep see it.
#[derive(Debug)]
pub struct StoredLrp {
    pub key: Key,
    pub record: Lrp,
    pub object: ActualLRP,
}

/// A stored Task.
#[derive(Debug)]
pub struct StoredTask {
    pub key: Key,
    pub record: TaskRecord,
    pub object: Task,
}

/// A stored object.
#[derive(Debug, Clone)]
pub enum Object {
    Cell(String, Rc<CellRecord>),
    Desired(Key, Rc<Desired>),
    Lrp(Rc<StoredLrp>),
    Task(Rc<StoredTask>),
}

impl Object {
    pub fn kind(&self) -> Kind {
        match self {
            Object::Cell(..) => Kind::Cell,
            Object::Desired(..) => Kind::Desired,
            Object::Lrp(_) => Kind::Lrp,
            Object::Task(_) => Kind::Task,
        }
    }

    /// The Cell in `status.cellName`.
    pub fn assigned(&self) -> Option<&str> {
        match self {
            Object::Cell(..) | Object::Desired(..) => None,
            Object::Lrp(lrp) => lrp.record.status.cell_name.as_deref(),
            Object::Task(task) => task.record.status.cell_name.as_deref(),
        }
    }
}

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    User,
    Collector,
    Controller,
    Rep(usize),
}

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    Conflict,
    NotFound,
    AlreadyExists,
    /// A rule of the schema: whoever sent it broke a promise.
    Invalid(&'static str),
    /// It did not arrive, or its answer was lost.
    Failed,
}

/// One change, for watches and the observer.
#[derive(Debug, Clone)]
pub struct Change {
    pub writer: Writer,
    pub old: Option<Object>,
    pub new: Option<Object>,
}

/// What a write is bound to.
#[derive(Debug, Clone, Copy)]
pub struct Bound<'a> {
    pub uid: &'a str,
    pub revision: u64,
}

#[derive(Debug, Default)]
pub struct Store {
    revision: u64,
    uids: u64,
    pub cells: BTreeMap<String, Rc<CellRecord>>,
    pub desired: BTreeMap<Key, Rc<Desired>>,
    pub lrps: BTreeMap<Key, Rc<StoredLrp>>,
    pub tasks: BTreeMap<Key, Rc<StoredTask>>,
    /// Not yet told to the watches.
    pub changes: Vec<Change>,
    /// Versions are not compared.
    pub blind: bool,
}

pub type Answer<T> = Result<T, Refused>;

impl Store {
    pub fn next(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    pub fn new_version(&mut self, kind: &str) -> Version {
        self.uids += 1;
        Version {
            uid: format!("{kind}{}", self.uids),
            revision: self.next(),
            generation: 1,
            deleting: false,
        }
    }

    pub fn bound(&self, version: &Version, bound: Bound<'_>) -> Answer<()> {
        let same = version.uid == bound.uid && version.revision == bound.revision;
        if same || self.blind {
            Ok(())
        } else {
            Err(Refused::Conflict)
        }
    }

    pub fn changed(&mut self, writer: Writer, old: Option<Object>, new: Option<Object>) {
        self.changes.push(Change { writer, old, new });
    }

    /// Everything of a kind, as a list call sees it.
    pub fn list(&self, kind: Kind) -> Vec<Object> {
        match kind {
            Kind::Cell => (self.cells.iter())
                .map(|(name, cell)| Object::Cell(name.clone(), cell.clone()))
                .collect(),
            Kind::Desired => (self.desired.iter())
                .map(|(key, desired)| Object::Desired(key.clone(), desired.clone()))
                .collect(),
            Kind::Lrp => self.lrps.values().cloned().map(Object::Lrp).collect(),
            Kind::Task => self.tasks.values().cloned().map(Object::Task).collect(),
        }
    }

    // Cells

    /// The rep makes or keeps its Cell.
    pub fn register_cell(&mut self, writer: Writer, name: &str, zone: &str, containers: i32) {
        if self.cells.contains_key(name) {
            return;
        }
        let record = CellRecord {
            version: self.new_version("c"),
            generation: 1,
            zone: zone.to_owned(),
            executor: ExecutorKind::Process,
            node: None,
            capacity: Resources {
                memory: 1 << 30,
                disk: 1 << 30,
                cpu: 0,
            },
            containers,
            required_tags: Vec::new(),
            optional_tags: Vec::new(),
            unschedulable: false,
            evacuate: false,
            loss_confirmed: false,
            status: CellStatus::default(),
        };
        self.put_cell(writer, name, record);
    }

    pub fn put_cell(&mut self, writer: Writer, name: &str, record: CellRecord) -> Rc<CellRecord> {
        let new = Rc::new(record);
        let old = self.cells.insert(name.to_owned(), new.clone());
        let object = |cell| Object::Cell(name.to_owned(), cell);
        self.changed(writer, old.map(object), Some(object(new.clone())));
        new
    }

    pub fn change_cell_spec(&mut self, name: &str, change: impl FnOnce(&mut CellRecord)) {
        let Some(cell) = self.cells.get(name) else {
            return;
        };
        let mut next = (**cell).clone();
        change(&mut next);
        next.generation += 1;
        next.version.generation += 1;
        next.version.revision = self.next();
        self.put_cell(Writer::User, name, next);
    }

    pub fn write_cell_status(
        &mut self,
        name: &str,
        bound: Bound<'_>,
        status: CellStatus,
    ) -> Answer<Rc<CellRecord>> {
        let cell = self.cells.get(name).cloned().ok_or(Refused::NotFound)?;
        self.bound(&cell.version, bound)?;
        if status.epoch < cell.status.epoch {
            return Err(Refused::Invalid("epoch must never go back"));
        }
        let mut next = (*cell).clone();
        next.status = status;
        next.version.revision = self.next();
        Ok(self.put_cell(Writer::Controller, name, next))
    }

    pub fn delete_cell(&mut self, name: &str) {
        if let Some(old) = self.cells.remove(name) {
            self.next();
            let old = Object::Cell(name.to_owned(), old);
            self.changed(Writer::User, Some(old), None);
        }
    }

    // DesiredLRPs

    pub fn create_desired(&mut self, key: &Key, instances: i32, policy: MissingCellPolicy) {
        if self.desired.contains_key(key) {
            return;
        }
        let record = Desired {
            version: self.new_version("d"),
            instances,
            domain: None,
            policy,
            demand: Ok(Arc::new(Demand::default())),
            status: Default::default(),
        };
        self.put_desired(key, record);
    }

    fn put_desired(&mut self, key: &Key, record: Desired) {
        let new = Rc::new(record);
        let old = self.desired.insert(key.clone(), new.clone());
        let object = |desired| Object::Desired(key.clone(), desired);
        self.changed(Writer::User, old.map(object), Some(object(new)));
    }

    pub fn scale(&mut self, key: &Key, instances: i32) {
        if let Some(desired) = self.desired.get(key) {
            let mut next = (**desired).clone();
            next.instances = instances;
            next.version.generation += 1;
            next.version.revision = self.next();
            self.put_desired(key, next);
        }
    }

    /// Returns the uid, for the garbage collector.
    pub fn delete_desired(&mut self, key: &Key) -> Option<String> {
        let old = self.desired.remove(key)?;
        self.next();
        let uid = old.version.uid.clone();
        self.changed(Writer::User, Some(Object::Desired(key.clone(), old)), None);
        Some(uid)
    }

    /// The garbage collector takes everything of that owner.
    pub fn collect(&mut self, owner: &str) {
        let owned: Vec<Key> = (self.lrps.values())
            .filter(|lrp| lrp.record.owner.as_deref() == Some(owner))
            .map(|lrp| lrp.key.clone())
            .collect();
        for key in owned {
            self.remove_lrp(Writer::Collector, &key);
        }
    }

    // ActualLRPs
}
