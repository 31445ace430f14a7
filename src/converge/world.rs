//! The world as the controller knows it: trimmed records, indexed by Cell and by DesiredLRP.
//!
//! It is a plain synchronous value. Watches feed it, writes are entered before they are sent (so that no two
//! plans decide the same thing twice) and settled by the answer; an older version never replaces a newer one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::{
    ActualLRPState, ActualLRPStatus, CellStatus, DesiredLRPStatus, ExecutorKind, MissingCellPolicy,
    TaskState, TaskStatus, template::Resources,
};

use super::demand::Demand;
use super::life::{self, Life};

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Key {
    /// The key of `namespace/name`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Key {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of an instance of this DesiredLRP.
    pub fn instance(&self, index: i32) -> Key {
        Key {
            namespace: self.namespace.clone(),
            name: format!("{}-{index}", self.name),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which stored version of an object this is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Version {
    /// The object's uid.
    pub uid: String,
    /// Its resourceVersion; a decimal that only grows for one kind (KEP-5504). 0: not stored yet.
    pub revision: u64,
    /// Its metadata.generation.
    pub generation: i64,
    /// It is being deleted.
    pub deleting: bool,
}

/// A Cell.
#[derive(Debug, Clone, PartialEq)]
pub struct CellRecord {
    /// The stored version.
    pub version: Version,
    /// metadata.generation.
    pub generation: i64,
    /// Failure domain.
    pub zone: String,
    /// How it runs work.
    pub executor: ExecutorKind,
    /// Memory and disk, in bytes.
    pub capacity: Resources,
    /// Containers at once.
    pub containers: i32,
    /// Tags that work must carry.
    pub required_tags: Vec<String>,
    /// Tags that work may carry.
    pub optional_tags: Vec<String>,
    /// Takes no new work.
    pub unschedulable: bool,
    /// Is asked to move its work away.
    pub evacuate: bool,
    /// The ledger.
    pub status: CellStatus,
}

/// A DesiredLRP.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// The stored version.
    pub version: Version,
    /// How many instances.
    pub instances: i32,
    /// Carried through to its ActualLRPs.
    pub domain: Option<String>,
    /// What becomes of an instance whose Cell is missing.
    pub policy: MissingCellPolicy,
    /// What an instance needs, or what is wrong with the template.
    pub demand: Result<Arc<Demand>, String>,
    /// What was last written.
    pub status: DesiredLRPStatus,
}

/// An ActualLRP.
#[derive(Debug, Clone, PartialEq)]
pub struct Lrp {
    /// The stored version.
    pub version: Version,
    /// Its DesiredLRP, in the same namespace.
    pub process: String,
    /// Which instance.
    pub index: i32,
    /// The uid of the owning DesiredLRP.
    pub owner: Option<String>,
    /// Its state.
    pub status: ActualLRPStatus,
}

/// A Task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRecord {
    /// The stored version.
    pub version: Version,
    /// metadata.creationTimestamp.
    pub created: Timestamp,
    /// The user wants it ended.
    pub cancelled: bool,
    /// Its outcome is to be told to somebody.
    pub callback: bool,
    /// How long it is kept when it has ended, if it says so itself.
    pub keep: Option<SignedDuration>,
    /// What it needs, or what is wrong with the template.
    pub demand: Result<Arc<Demand>, String>,
    /// Its state.
    pub status: TaskStatus,
}

/// What is assigned to a Cell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Load {
    /// Every ActualLRP that names the Cell, be it as ordinary, suspect or evacuating instance.
    pub lrps: BTreeSet<Key>,
    /// Every unfinished Task on it.
    pub tasks: BTreeSet<Key>,
    /// Memory and disk taken.
    pub resources: Resources,
    /// Containers taken.
    pub containers: i32,
    /// Instances that are placed or claimed and not Running yet.
    pub starting: i32,
}

/// An entry with what it is charged for.
#[derive(Debug, Clone)]
struct Entry<T> {
    record: T,
    charges: Vec<Charge>,
    /// A write is under way; `record` already shows its result.
    in_flight: bool,
    /// The re-list this entry was last seen in.
    seen: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Charge {
    cell: String,
    resources: Resources,
    starting: bool,
}

/// Which of the two kinds that are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Lrp,
    Task,
}

/// Something that no Cell could take so far.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waiting {
    /// An instance of this DesiredLRP.
    Lrp(Key),
    /// A Task.
    Task(Key),
}

/// Everything the rules look at.
#[derive(Debug, Clone, Default)]
pub struct World {
    cells: BTreeMap<String, CellRecord>,
    desired: HashMap<Key, Desired>,
    lrps: HashMap<Key, Entry<Lrp>>,
    tasks: HashMap<Key, Entry<TaskRecord>>,
    loads: HashMap<String, Load>,
    /// Indices by DesiredLRP.
    slots: HashMap<Key, BTreeSet<i32>>,
    /// Objects that were deleted while a write on them was under way: its answer is older than the deletion.
    buried: HashMap<(Kind, Key), String>,
    /// Tasks whose completion callback this process is delivering.
    delivering: HashSet<Key>,
    /// Cells whose load changed since the last [`World::take_changed_loads`].
    changed_loads: BTreeSet<String>,
    /// ActualLRPs and Tasks that wait for room on some Cell.
    waiting: BTreeSet<Waiting>,
    /// Starts that are over, however they ended.
    starts_ended: u64,
    /// Cells without a ledger whose presence was read as gone, and the store's revision at that read.
    vanished: HashMap<String, i64>,
    relist: u64,
}

impl World {
    /// All Cells, by name.
    pub fn cells(&self) -> &BTreeMap<String, CellRecord> {
        &self.cells
    }

    /// One DesiredLRP.
    pub fn desired(&self, key: &Key) -> Option<&Desired> {
        self.desired.get(key)
    }

    /// All DesiredLRPs, in no order.
    pub fn all_desired(&self) -> impl Iterator<Item = (&Key, &Desired)> {
        self.desired.iter()
    }

    /// One ActualLRP, as it will be once the writes under way have succeeded.
    pub fn lrp(&self, key: &Key) -> Option<&Lrp> {
        self.lrps.get(key).map(|entry| &entry.record)
    }

    /// All ActualLRPs, in no order.
    pub fn all_lrps(&self) -> impl Iterator<Item = (&Key, &Lrp)> {
        self.lrps.iter().map(|(key, entry)| (key, &entry.record))
    }

    /// One Task.
    pub fn task(&self, key: &Key) -> Option<&TaskRecord> {
        self.tasks.get(key).map(|entry| &entry.record)
    }

    /// All Tasks, in no order.
    pub fn all_tasks(&self) -> impl Iterator<Item = (&Key, &TaskRecord)> {
        self.tasks.iter().map(|(key, entry)| (key, &entry.record))
    }

    /// What is assigned to a Cell.
    pub fn load(&self, cell: &str) -> Option<&Load> {
        self.loads.get(cell)
    }

    /// The Cells whose load changed since the last call.
    pub fn take_changed_loads(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.changed_loads)
    }

    /// Puts a Cell back among those whose load changed.
    pub fn mark_changed_load(&mut self, cell: &str) {
        self.changed_loads.insert(cell.to_owned());
    }

    /// The indices that exist for a DesiredLRP.
    pub fn slots(&self, desired: &Key) -> Option<&BTreeSet<i32>> {
        self.slots.get(desired)
    }

    /// The DesiredLRPs and Tasks that wait for room.
    pub fn waiting(&self) -> BTreeSet<Waiting> {
        self.waiting
            .iter()
            .map(|waiting| match waiting {
                Waiting::Lrp(key) => match self.lrp(key) {
                    Some(lrp) => Waiting::Lrp(Key::new(&*key.namespace, &*lrp.process)),
                    None => waiting.clone(),
                },
                Waiting::Task(_) => waiting.clone(),
            })
            .collect()
    }

    /// The ActualLRPs and the Tasks that wait for room.
    pub fn waiting_work(&self) -> (Vec<Key>, Vec<Key>) {
        let (mut lrps, mut tasks) = (Vec::new(), Vec::new());
        for waiting in &self.waiting {
            match waiting {
                Waiting::Lrp(key) => lrps.push(key.clone()),
                Waiting::Task(key) => tasks.push(key.clone()),
            }
        }
        (lrps, tasks)
    }

    /// How many starts are over, however they ended. It only grows: a difference says that another may begin.
    pub fn starts_ended(&self) -> u64 {
        self.starts_ended
    }

    /// DesiredLRPs that have ActualLRPs and do not exist.
    pub fn slots_without_desired(&self) -> Vec<Key> {
        self.slots
            .keys()
            .filter(|key| !self.desired.contains_key(*key))
            .cloned()
            .collect()
    }

    /// Whether a write on this ActualLRP is under way.
    pub fn lrp_in_flight(&self, key: &Key) -> bool {
        self.lrps.get(key).is_some_and(|entry| entry.in_flight)
    }

    /// Whether a write on this Task is under way.
    pub fn task_in_flight(&self, key: &Key) -> bool {
        self.tasks.get(key).is_some_and(|entry| entry.in_flight)
    }

    /// Whether this process is delivering this Task's callback.
    pub fn is_delivering(&self, key: &Key) -> bool {
        self.delivering.contains(key)
    }

    /// This process delivers this Task's callback from now on. Returns whether it did not already.
    pub fn begin_delivery(&mut self, key: &Key) -> bool {
        self.delivering.insert(key.clone())
    }

    /// This process is done delivering this Task's callback.
    pub fn end_delivery(&mut self, key: &Key) {
        self.delivering.remove(key);
    }

    /// The fate of work recorded on `cell` under `epoch`.
    pub fn life(&self, cell: &str, epoch: Option<i64>) -> Life {
        let epoch = epoch.unwrap_or(0);
        let gone_at = self.vanished.get(cell);
        // A registration that is newer than the read is not what the read missed.
        if !self.has_ledger(cell) && gone_at.is_some_and(|revision| epoch <= *revision) {
            return Life::Lost;
        }
        life::of(self.cells.get(cell), epoch)
    }

    /// Notes that a Cell that has no ledger has no presence either (a linearizable read said so): its object is gone,
    /// or was made anew by a rep that is gone again. `revision` is the store's at that read.
    pub fn mark_vanished(&mut self, cell: &str, revision: i64) {
        if !self.has_ledger(cell) {
            let known = self.vanished.entry(cell.to_owned()).or_default();
            *known = revision.max(*known);
        }
    }

    /// Whether the presence of the Cell must be read before anything is done about work recorded under `epoch`: it has
    /// no ledger, and no read so far says that this work is gone.
    pub fn is_unknown(&self, cell: &str, epoch: Option<i64>) -> bool {
        !self.has_ledger(cell) && self.life(cell, epoch) == Life::Unknown
    }

    /// Whether anything was ever entered into the ledger of this Cell's object.
    fn has_ledger(&self, cell: &str) -> bool {
        self.cells
            .get(cell)
            .is_some_and(|record| record.status.state.is_some())
    }

    /// Notes that a Cell has a presence, whether or not it has an object.
    pub fn mark_alive(&mut self, cell: &str) {
        self.vanished.remove(cell);
    }

    /// Starts a re-list of one kind; entries not seen until its end are gone.
    pub fn begin_relist(&mut self) -> u64 {
        self.relist += 1;
        self.relist
    }

    /// Enters a Cell. Returns whether it was news.
    pub fn put_cell(&mut self, name: &str, record: CellRecord) -> bool {
        if record.status.state.is_some() {
            self.vanished.remove(name);
        }
        match self.cells.get(name) {
            Some(known) if stale(&known.version, &record.version) => false,
            _ => {
                self.cells.insert(name.to_owned(), record);
                true
            }
        }
    }

    /// Removes a Cell.
    pub fn remove_cell(&mut self, name: &str, uid: &str) -> bool {
        let matches = self
            .cells
            .get(name)
            .is_some_and(|known| known.version.uid == uid);
        matches && self.cells.remove(name).is_some()
    }

    /// Enters a DesiredLRP. Returns whether it was news.
    pub fn put_desired(&mut self, key: &Key, record: Desired) -> bool {
        if self
            .desired
            .get(key)
            .is_some_and(|known| stale(&known.version, &record.version))
        {
            return false;
        }
        let demand_changed = self
            .desired
            .get(key)
            .is_none_or(|known| known.demand != record.demand);
        self.desired.insert(key.clone(), record);
        if demand_changed {
            self.recharge_instances(key);
        }
        true
    }

    /// Removes a DesiredLRP.
    pub fn remove_desired(&mut self, key: &Key, uid: &str) -> bool {
        let matches = self
            .desired
            .get(key)
            .is_some_and(|known| known.version.uid == uid);
        matches && self.desired.remove(key).is_some()
    }

    /// Enters an ActualLRP as it is stored. Returns whether it was news.
    pub fn put_lrp(&mut self, key: &Key, record: Lrp) -> bool {
        let seen = self.relist;
        if let Some(entry) = self.lrps.get_mut(key) {
            entry.seen = seen;
            if stale(&entry.record.version, &record.version) {
                return false;
            }
        }
        let in_flight = self.lrp_in_flight(key);
        self.enter_lrp(key, record, in_flight);
        true
    }

    /// Removes an ActualLRP.
    pub fn remove_lrp(&mut self, key: &Key, uid: &str) -> bool {
        let Some(entry) = self.lrps.get(key) else {
            return false;
        };
        // A placeholder for an object that is being created has no uid yet.
        if entry.record.version.uid != uid {
            return false;
        }
        if entry.in_flight {
            self.buried.insert((Kind::Lrp, key.clone()), uid.to_owned());
        }
        self.drop_lrp(key);
        true
    }

    /// Enters a Task as it is stored. Returns whether it was news.
    pub fn put_task(&mut self, key: &Key, record: TaskRecord) -> bool {
        let seen = self.relist;
        if let Some(entry) = self.tasks.get_mut(key) {
            entry.seen = seen;
            if stale(&entry.record.version, &record.version) {
                return false;
            }
        }
        let in_flight = self.task_in_flight(key);
        self.enter_task(key, record, in_flight);
        true
    }

    /// Removes a Task.
    pub fn remove_task(&mut self, key: &Key, uid: &str) -> bool {
        let Some(entry) = self
            .tasks
            .get(key)
            .filter(|entry| entry.record.version.uid == uid)
        else {
            return false;
        };
        if entry.in_flight {
            self.buried
                .insert((Kind::Task, key.clone()), uid.to_owned());
        }
        self.drop_task(key);
        true
    }

    /// Drops what a re-list did not show. Entries with a write under way stay: the write's answer decides.
    pub fn end_lrp_relist(&mut self, since: u64) -> Vec<(Key, Lrp)> {
        let gone: Vec<Key> = self
            .lrps
            .iter()
            .filter(|(_, entry)| entry.seen < since && !entry.in_flight)
            .map(|(key, _)| key.clone())
            .collect();
        gone.into_iter()
            .filter_map(|key| self.drop_lrp(&key).map(|record| (key, record)))
            .collect()
    }

    /// Drops what a re-list did not show.
    pub fn end_task_relist(&mut self, since: u64) -> Vec<Key> {
        let gone: Vec<Key> = self
            .tasks
            .iter()
            .filter(|(_, entry)| entry.seen < since && !entry.in_flight)
            .map(|(key, _)| key.clone())
            .collect();
        gone.iter().for_each(|key| self.drop_task(key));
        gone
    }

    /// Drops every Cell that is not in `live`. Returns their names.
    pub fn retain_cells(&mut self, live: &HashSet<String>) -> Vec<String> {
        let gone: Vec<String> = self
            .cells
            .keys()
            .filter(|name| !live.contains(*name))
            .cloned()
            .collect();
        self.cells.retain(|name, _| live.contains(name));
        gone
    }

    /// Drops every DesiredLRP that is not in `live`. Returns their keys.
    pub fn retain_desired(&mut self, live: &HashSet<Key>) -> Vec<Key> {
        let gone: Vec<Key> = self
            .desired
            .keys()
            .filter(|key| !live.contains(*key))
            .cloned()
            .collect();
        self.desired.retain(|key, _| live.contains(key));
        gone
    }

    /// Enters a planned status: the write is under way from now on.
    pub fn plan_lrp(&mut self, key: &Key, status: ActualLRPStatus) {
        if let Some(mut record) = self.lrp(key).cloned() {
            record.status = status;
            self.enter_lrp(key, record, true);
        }
    }

    /// Enters an ActualLRP that is about to be created.
    pub fn plan_new_lrp(&mut self, key: &Key, record: Lrp) {
        self.enter_lrp(key, record, true);
    }

    /// Marks a Task as being deleted.
    pub fn plan_task_removal(&mut self, key: &Key) {
        if let Some(entry) = self.tasks.get_mut(key) {
            entry.in_flight = true;
        }
    }

    /// Marks an ActualLRP as being deleted.
    pub fn plan_lrp_removal(&mut self, key: &Key) {
        if let Some(entry) = self.lrps.get_mut(key) {
            entry.in_flight = true;
        }
    }

    /// Enters a planned status: the write is under way from now on.
    pub fn plan_task(&mut self, key: &Key, status: TaskStatus) {
        if let Some(mut record) = self.task(key).cloned() {
            record.status = status;
            self.enter_task(key, record, true);
        }
    }

    /// The write on an ActualLRP has an answer: this is what is stored now (`None`: no such object).
    pub fn settle_lrp(&mut self, key: &Key, stored: Option<Lrp>) {
        let buried = self.buried.remove(&(Kind::Lrp, key.clone()));
        match stored {
            Some(record) if buried.as_ref() == Some(&record.version.uid) => {}
            // The watch may have brought a newer version while the answer was on its way.
            Some(record)
                if self
                    .lrp(key)
                    .is_some_and(|known| older(&record.version, &known.version)) =>
            {
                if let Some(entry) = self.lrps.get_mut(key) {
                    entry.in_flight = false;
                }
            }
            Some(record) => self.enter_lrp(key, record, false),
            None => {
                self.drop_lrp(key);
            }
        }
    }

    /// The write on a Task has an answer.
    pub fn settle_task(&mut self, key: &Key, stored: Option<TaskRecord>) {
        let buried = self.buried.remove(&(Kind::Task, key.clone()));
        match stored {
            Some(record) if buried.as_ref() == Some(&record.version.uid) => {}
            Some(record)
                if self
                    .task(key)
                    .is_some_and(|known| older(&record.version, &known.version)) =>
            {
                if let Some(entry) = self.tasks.get_mut(key) {
                    entry.in_flight = false;
                }
            }
            Some(record) => self.enter_task(key, record, false),
            None => self.drop_task(key),
        }
    }

    fn enter_lrp(&mut self, key: &Key, record: Lrp, in_flight: bool) {
        let was_starting = self.uncharge_lrp(key);
        let process = Key::new(&*key.namespace, &*record.process);
        let resources = self
            .desired
            .get(&process)
            .and_then(|desired| desired.demand.as_ref().ok())
            .map(|demand| demand.resources)
            .unwrap_or_default();
        let charges = lrp_charges(&record.status, resources);
        for charge in &charges {
            self.charge(charge, 1, |load| load.lrps.insert(key.clone()));
        }
        self.starts_ended += u64::from(was_starting && !is_starting(&charges));
        self.slots.entry(process).or_default().insert(record.index);
        if record.status.state == ActualLRPState::Unclaimed && record.status.cell_name.is_none() {
            self.waiting.insert(Waiting::Lrp(key.clone()));
        } else {
            self.waiting.remove(&Waiting::Lrp(key.clone()));
        }
        self.lrps.insert(
            key.clone(),
            Entry {
                record,
                charges,
                in_flight,
                seen: self.relist,
            },
        );
    }

    /// Takes an ActualLRP off the Cells it takes room on. Returns whether it was starting.
    fn uncharge_lrp(&mut self, key: &Key) -> bool {
        let Some(entry) = self.lrps.get_mut(key) else {
            return false;
        };
        let charges = std::mem::take(&mut entry.charges);
        for charge in &charges {
            self.charge(charge, -1, |load| load.lrps.remove(key));
        }
        is_starting(&charges)
    }

    /// Books `charge` on its Cell, or off it with a `sign` of -1; `member` enters or removes who is charged.
    fn charge(&mut self, charge: &Charge, sign: i32, member: impl FnOnce(&mut Load) -> bool) {
        let load = self.loads.entry(charge.cell.clone()).or_default();
        load.add(charge, sign);
        member(load);
        if load.containers == 0 && load.lrps.is_empty() && load.tasks.is_empty() {
            self.loads.remove(&charge.cell);
        }
        self.changed_loads.insert(charge.cell.clone());
    }

    fn drop_lrp(&mut self, key: &Key) -> Option<Lrp> {
        self.starts_ended += u64::from(self.uncharge_lrp(key));
        self.waiting.remove(&Waiting::Lrp(key.clone()));
        let entry = self.lrps.remove(key)?;
        let process = Key::new(&*key.namespace, &*entry.record.process);
        if let Some(slots) = self.slots.get_mut(&process) {
            slots.remove(&entry.record.index);
            if slots.is_empty() {
                self.slots.remove(&process);
            }
        }
        Some(entry.record)
    }

    fn enter_task(&mut self, key: &Key, record: TaskRecord, in_flight: bool) {
        self.drop_task(key);
        let resources = record
            .demand
            .as_ref()
            .map(|demand| demand.resources)
            .unwrap_or_default();
        let charges: Vec<Charge> = match (&record.status.cell_name, record.status.state) {
            (Some(cell), TaskState::Pending | TaskState::Running) => {
                vec![Charge {
                    cell: cell.clone(),
                    resources,
                    starting: false,
                }]
            }
            _ => Vec::new(),
        };
        for charge in &charges {
            self.charge(charge, 1, |load| load.tasks.insert(key.clone()));
        }
        if record.status.state == TaskState::Pending && record.status.cell_name.is_none() {
            self.waiting.insert(Waiting::Task(key.clone()));
        }
        self.tasks.insert(
            key.clone(),
            Entry {
                record,
                charges,
                in_flight,
                seen: self.relist,
            },
        );
    }

    fn drop_task(&mut self, key: &Key) {
        let Some(entry) = self.tasks.remove(key) else {
            return;
        };
        self.waiting.remove(&Waiting::Task(key.clone()));
        for charge in &entry.charges {
            self.charge(charge, -1, |load| load.tasks.remove(key));
        }
    }

    /// A DesiredLRP came after its ActualLRPs: now it is known what they take.
    fn recharge_instances(&mut self, desired: &Key) {
        let indices: Vec<i32> = self
            .slots
            .get(desired)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        for index in indices {
            let key = desired.instance(index);
            if let Some(entry) = self.lrps.get(&key) {
                let (record, in_flight, seen) = (entry.record.clone(), entry.in_flight, entry.seen);
                self.enter_lrp(&key, record, in_flight);
                if let Some(entry) = self.lrps.get_mut(&key) {
                    entry.seen = seen;
                }
            }
        }
    }
}

impl Load {
    fn add(&mut self, charge: &Charge, sign: i32) {
        self.resources.memory += charge.resources.memory * i64::from(sign);
        self.resources.disk += charge.resources.disk * i64::from(sign);
        self.containers += sign;
        self.starting += sign * i32::from(charge.starting);
    }
}

/// Where an ActualLRP takes room.
fn lrp_charges(status: &ActualLRPStatus, resources: Resources) -> Vec<Charge> {
    let starting = matches!(
        status.state,
        ActualLRPState::Unclaimed | ActualLRPState::Claimed
    );
    let ordinary = status.cell_name.iter().map(|cell| (cell, starting));
    let suspect = status
        .suspect
        .iter()
        .map(|instance| (&instance.cell_name, false));
    let evacuating = status
        .evacuating
        .iter()
        .map(|instance| (&instance.cell_name, false));
    ordinary
        .chain(suspect)
        .chain(evacuating)
        .map(|(cell, starting)| Charge {
            cell: cell.clone(),
            resources,
            starting,
        })
        .collect()
}

fn is_starting(charges: &[Charge]) -> bool {
    charges.iter().any(|charge| charge.starting)
}

/// Whether `next` is no news after `known`: the same object in the same or an older version.
fn stale(known: &Version, next: &Version) -> bool {
    known.uid == next.uid && next.revision <= known.revision
}

/// Whether `next` is strictly older than `known`.
fn older(next: &Version, known: &Version) -> bool {
    known.uid == next.uid && next.revision < known.revision
}
