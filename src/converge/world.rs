//! The world as the controller knows it: trimmed records, indexed by Cell and by DesiredLRP.
//!
//! It is a plain synchronous value. Watches feed it, writes are entered before they are sent (so that no two
//! plans decide the same thing twice) and settled by the answer; an older version never replaces a newer one.

mod charging;
mod kin;
mod nodes;
mod own_pods;
mod planned;
mod remains;
mod stored;
mod touched;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::{
    ActualLRPStatus, CellState, CellStatus, DesiredLRPStatus, ExecutorKind, MissingCellPolicy,
    TaskStatus, template::Resources,
};

use super::demand::Demand;
use super::fence::{self, Remains};
use super::life::{self, Life};
use super::node::CellNode;

pub use kin::Asking;
pub use nodes::{Foreign, ForeignPod, NodeNews};
pub use touched::Touched;

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
    /// The node that it is, with executor Pods.
    pub node: Option<CellNode>,
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
    /// An operator confirms that it is lost.
    pub loss_confirmed: bool,
    /// The ledger.
    pub status: CellStatus,
}

impl CellRecord {
    /// Whether the ledger has it as a Cell that is there, and so may be lost.
    pub fn is_there(&self) -> bool {
        match self.status.state {
            Some(CellState::Present | CellState::Evacuating) => true,
            None | Some(CellState::Missing | CellState::Evacuated) => false,
        }
    }
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
    /// Host and port of whom its outcome is to be told to.
    pub callback: Option<String>,
    /// When this controller first saw it finished, by its own clock.
    pub seen_finished: Option<Timestamp>,
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
    /// Cells without a ledger whose presence was read as gone, and up to which epoch their work is lost by that.
    vanished: HashMap<String, i64>,
    /// Cells whose presence was noticed to be gone and not seen since.
    gone: HashSet<String>,
    /// Losses of Cells are held back.
    losses_held: bool,
    /// What Cells with executor Pods stand on.
    nodes: nodes::Nodes,
    /// DesiredLRPs and Tasks that look at the Pods near them.
    minders: kin::Minders,
    relist: u64,
    /// What Pods follow.
    touched: Touched,
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
        if !self.has_ledger(cell) && gone_at.is_some_and(|recorded| epoch <= *recorded) {
            return Life::Lost;
        }
        life::of(self.cells.get(cell), epoch)
    }

    /// What may still run of the work of this Cell, if it is lost.
    pub fn remains(&self, cell: &str) -> Remains {
        let record = self.cells.get(cell).filter(|_| self.has_ledger(cell));
        let node = record.and_then(|record| self.node(&record.node.as_ref()?.name));
        fence::remains(record, node)
    }

    /// Notes that a Cell that has no ledger has no presence either (a linearizable read said so): its object is gone,
    /// or was made anew by a rep that is gone again. `recorded` is what [`World::recorded_epoch`] said before that
    /// read: records are read before presences, so work of a later registration is none of its business.
    pub fn mark_vanished(&mut self, cell: &str, recorded: i64) {
        if !self.has_ledger(cell) {
            let known = self.vanished.entry(cell.to_owned()).or_default();
            *known = recorded.max(*known);
            self.touch_cell(cell);
        }
    }

    /// The greatest epoch, at most `up_to`, under which any work is recorded on a Cell; 0 for none.
    pub fn recorded_epoch(&self, cell: &str, up_to: i64) -> i64 {
        let Some(load) = self.load(cell) else {
            return 0;
        };
        let lrps = load.lrps.iter().filter_map(|key| self.lrp(key));
        let of_lrps = lrps.flat_map(|lrp| {
            let named = lrp.status.named().filter(|one| one.cell == cell);
            named.filter_map(|one| one.epoch)
        });
        let of_tasks = load.tasks.iter().filter_map(|key| {
            let status = &self.task(key)?.status;
            status
                .cell_epoch
                .filter(|_| status.cell_name.as_deref() == Some(cell))
        });
        let epochs = of_lrps.chain(of_tasks);
        epochs.filter(|epoch| *epoch <= up_to).max().unwrap_or(0)
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

    /// Says whether losses of Cells are held back.
    pub fn hold_losses(&mut self, held: bool) {
        self.losses_held = held;
    }

    /// Whether a Task must not be failed now though its Cell is lost: that can't be undone, and losses are held back. One
    /// that an operator confirmed is certain.
    pub fn keeps_tasks_of(&self, cell: &str) -> bool {
        let last = |cell: &CellRecord| cell.status.last_recovery.as_ref()?.confirmed;
        let confirmed = self.cells.get(cell).and_then(last);
        self.losses_held && confirmed != Some(true)
    }

    /// Notes that the presence of a Cell seems to be gone: until there is a verdict nothing is moved, but the Cell takes no
    /// new work, which would only have to be moved on.
    pub fn mark_gone(&mut self, cell: &str) {
        if !self.gone.contains(cell) {
            self.gone.insert(cell.to_owned());
        }
    }

    /// Whether the presence of a Cell seems to be gone.
    pub fn seems_gone(&self, cell: &str) -> bool {
        self.gone.contains(cell)
    }

    /// Notes that a Cell has a presence, whether or not it has an object.
    pub fn mark_alive(&mut self, cell: &str) {
        self.vanished.remove(cell);
        self.gone.remove(cell);
    }
}

/// Whether `next` is no news after `known`: the same object in the same or an older version.
fn stale(known: &Version, next: &Version) -> bool {
    known.uid == next.uid && next.revision <= known.revision
}

/// Whether `next` is strictly older than `known`.
fn older(next: &Version, known: &Version) -> bool {
    known.uid == next.uid && next.revision < known.revision
}
