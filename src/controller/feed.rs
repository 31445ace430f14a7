//! From the watches into the world, and on to whoever has to look at the change.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, reflector};
use kube::{Client, Resource, ResourceExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api::{ActualLRP, ActualLRPState, Cell, DesiredLRP, Task, TaskState};
use crate::converge::plan::Scope;
use crate::converge::world::{Key, Lrp};
use crate::metrics::{WATCHED, WatchLabel};
use crate::sync::locked;
use crate::watching;

use super::context::Context;
use super::convert::{self, key};
use super::execute::{converge, tell};

/// Dirty sets are looked at this often: changes that only counts depend on.
const FLUSH: Duration = Duration::from_millis(200);

/// What changed and is looked at with the next flush.
#[derive(Default)]
pub struct Dirty {
    desired: Mutex<HashSet<Key>>,
}

/// Passes collected changes on, for ever.
pub async fn flush(context: Arc<Context>, dirty: Arc<Dirty>) {
    let mut tick = tokio::time::interval(FLUSH);
    let mut starts_ended = 0;
    let mut placing: Option<JoinHandle<()>> = None;
    loop {
        tick.tick().await;
        // Where starts are limited, the end of one lets another begin.
        if context.rules.auction.starting_container_count_maximum > 0 {
            let ended = context.world(|world| world.starts_ended());
            if std::mem::replace(&mut starts_ended, ended) != ended {
                context.note_room();
            }
        }
        let desired = std::mem::take(&mut *locked(&dirty.desired));
        for key in desired {
            context.wake_desired(&key);
        }
        let free = placing.as_ref().is_none_or(JoinHandle::is_finished);
        if free && context.take_room() {
            placing = Some(tokio::spawn(place_waiting(context.clone())));
        }
    }
}

/// One batch, so that every process gets its first instance before any gets its second.
async fn place_waiting(context: Arc<Context>) {
    context.synced().await;
    let (tally, _) = converge(&context, &context.slow, &Scope::Waiting, None).await;
    if tally.unfinished > 0 {
        // Each has its own way to try again.
        context.wake_waiting();
    }
}

/// What is listed before anything is decided: Cell, DesiredLRP, ActualLRP, Task; Nodes, our Pods and those of others.
const KINDS: usize = 7;

/// Which kinds were listed. Each has a clone of its own.
#[derive(Clone)]
pub struct Listed {
    kinds: Arc<watch::Sender<usize>>,
    done: bool,
}

impl Listed {
    /// Nothing was listed yet.
    pub fn new() -> Self {
        Listed {
            kinds: Arc::new(watch::Sender::new(0)),
            done: false,
        }
    }

    /// This kind was listed, or can't be and is not waited for.
    pub fn done(&mut self) {
        if !std::mem::replace(&mut self.done, true) {
            self.kinds.send_modify(|kinds| *kinds += 1);
        }
    }

    /// Waits until all kinds were listed once.
    pub async fn all(&self) {
        let mut kinds = self.kinds.subscribe();
        let _ = kinds.wait_for(|kinds| *kinds >= KINDS).await;
    }
}

impl Default for Listed {
    fn default() -> Self {
        Self::new()
    }
}

/// All that happens to one kind, without the managed fields, which only cost memory.
fn watch_kind<K>(
    context: &Context,
    client: &Client,
    listed: &Listed,
) -> BoxStream<'static, Event<K>>
where
    K: Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    let mut listed = listed.clone();
    let restarts = context.metrics.watch_restarts.clone();
    let kind = K::kind(&()).into_owned();
    let kind = WATCHED.into_iter().find(|watched| *watched == kind);
    let tell = move |reason| {
        if let Some(kind) = kind {
            let label = WatchLabel { kind, reason };
            restarts.get_or_create(&label).inc();
        }
    };
    watching::readable::<K>(client.clone(), watcher::Config::default(), tell)
        .map(move |event| {
            if matches!(event, Event::InitDone) {
                listed.done();
            }
            event.modify(|object| object.managed_fields_mut().clear())
        })
        .boxed()
}

/// What a Controller of one kind works on: the objects as they are, and those that change.
pub type Objects<K> = (
    reflector::Store<K>,
    BoxStream<'static, Result<K, watcher::Error>>,
);

/// A stream for a Controller: what was applied, after the store and the world have it.
fn reflected<K>(
    items: impl Stream<Item = Event<K>> + Send + 'static,
    writer: Writer<K>,
) -> BoxStream<'static, Result<K, watcher::Error>>
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    items.map(Ok).reflect(writer).applied_objects().boxed()
}

/// The Cells.
pub fn cells(context: &Arc<Context>, client: &Client, listed: &Listed) -> Objects<Cell> {
    let (reader, writer) = reflector::store();
    let context = context.clone();
    let mut live = HashSet::new();
    let items = watch_kind::<Cell>(&context, client, listed).inspect(move |event| match event {
        Event::Init => live.clear(),
        Event::InitApply(cell) => {
            live.insert(cell.name_any());
            context.world(|world| world.put_cell(&cell.name_any(), convert::cell(cell)));
        }
        Event::InitDone => {
            let gone = context.world(|world| world.retain_cells(&live));
            gone.iter()
                .for_each(|name| cell_object_gone(&context, name));
        }
        Event::Apply(cell) => {
            context.world(|world| world.put_cell(&cell.name_any(), convert::cell(cell)));
        }
        Event::Delete(cell) => {
            let uid = cell.uid().unwrap_or_default();
            if context.world(|world| world.remove_cell(&cell.name_any(), &uid)) {
                cell_object_gone(&context, &cell.name_any());
            }
        }
    });
    // What only the controller itself writes needs no look.
    let stream = reflected(items, writer)
        .predicate_filter(kube::runtime::predicates::generation, Default::default())
        .boxed();
    (reader, stream)
}

/// Somebody deleted the Cell's object: its work is looked at, which asks for its presence first.
fn cell_object_gone(context: &Context, name: &str) {
    tracing::info!(cell = name, "the Cell's object is gone");
    let (processes, tasks) = context.world(|world| {
        let load = world.load(name).cloned().unwrap_or_default();
        let process = |key: &Key| {
            world
                .lrp(key)
                .map(|lrp| Key::new(&*key.namespace, &*lrp.process))
        };
        (
            load.lrps.iter().filter_map(process).collect::<HashSet<_>>(),
            load.tasks,
        )
    });
    processes.iter().for_each(|key| context.wake_desired(key));
    tasks.iter().for_each(|key| context.wake_task(key));
}

/// A DesiredLRP is gone: the garbage collector takes its instances, unless they were orphaned on purpose.
pub fn orphaned(context: &Arc<Context>, key: &Key) {
    let (context, scope) = (context.clone(), Scope::Desired(key.clone()));
    tokio::spawn(async move {
        context.synced().await;
        converge(&context, &context.slow, &scope, None).await;
    });
}

/// Orphans of DesiredLRPs that were gone before this controller began.
pub async fn sweep_orphans(context: Arc<Context>) {
    context.synced().await;
    let orphans = context.world(|world| world.slots_without_desired());
    orphans.iter().for_each(|key| orphaned(&context, key));
}

/// The DesiredLRPs.
pub fn desired(context: &Arc<Context>, client: &Client, listed: &Listed) -> Objects<DesiredLRP> {
    let (reader, writer) = reflector::store();
    let context = context.clone();
    let mut live = HashSet::new();
    let put = {
        let context = context.clone();
        move |object: &DesiredLRP| {
            context.world(|world| {
                let record = convert::desired(object, world);
                world.put_desired(&key(object), record)
            });
        }
    };
    let items = watch_kind::<DesiredLRP>(&context, client, listed);
    let items = items.inspect(move |event| match event {
        Event::Init => live.clear(),
        Event::InitApply(object) => {
            live.insert(key(object));
            put(object);
        }
        Event::InitDone => {
            let gone = context.world(|world| world.retain_desired(&live));
            gone.iter().for_each(|key| orphaned(&context, key));
        }
        Event::Apply(object) => put(object),
        Event::Delete(object) => {
            let uid = object.uid().unwrap_or_default();
            if context.world(|world| world.remove_desired(&key(object), &uid)) {
                orphaned(&context, &key(object));
            }
        }
    });
    let stream = reflected(items, writer)
        .predicate_filter(kube::runtime::predicates::generation, Default::default())
        .boxed();
    (reader, stream)
}

/// The Tasks.
pub fn tasks(context: &Arc<Context>, client: &Client, listed: &Listed) -> Objects<Task> {
    let (reader, writer) = reflector::store();
    let context = context.clone();
    let mut since = 0;
    let put = {
        let context = context.clone();
        move |object: &Task| {
            context.world(|world| {
                let record = convert::task(object, world);
                world.put_task(&key(object), record);
            });
            if object
                .status
                .as_ref()
                .is_some_and(|status| status.state == TaskState::Completed)
            {
                context.note_room();
            }
        }
    };
    let items = watch_kind::<Task>(&context, client, listed).inspect(move |event| match event {
        Event::Init => since = context.world(|world| world.begin_relist()),
        Event::InitApply(object) | Event::Apply(object) => put(object),
        Event::InitDone => {
            if !context
                .world(|world| world.end_task_relist(since))
                .is_empty()
            {
                context.note_room();
            }
        }
        Event::Delete(object) => {
            let uid = object.uid().unwrap_or_default();
            context.world(|world| world.remove_task(&key(object), &uid));
            context.note_room();
        }
    });
    (reader, reflected(items, writer))
}

/// The ActualLRPs: there may be very many, so only the trimmed records in the world are kept.
pub async fn actual_lrps(context: Arc<Context>, dirty: Arc<Dirty>, client: Client, listed: Listed) {
    let mut items = watch_kind::<ActualLRP>(&context, &client, &listed);
    let mut since = 0;
    while let Some(event) = items.next().await {
        match event {
            Event::Init => since = context.world(|world| world.begin_relist()),
            Event::InitApply(object) | Event::Apply(object) => put_lrp(&context, &dirty, &object),
            Event::InitDone => {
                let gone = context.world(|world| world.end_lrp_relist(since));
                gone.iter()
                    .for_each(|(key, lrp)| lrp_gone(&context, key, lrp));
            }
            Event::Delete(object) => {
                let (key, uid) = (key(&object), object.uid().unwrap_or_default());
                context.world(|world| world.remove_lrp(&key, &uid));
                lrp_gone(&context, &key, &convert::lrp(&object));
            }
        }
    }
}

fn put_lrp(context: &Context, dirty: &Dirty, object: &ActualLRP) {
    let key = key(object);
    let record = convert::lrp(object);
    let process = Key::new(&*key.namespace, &*record.process);
    let (state, cell) = (record.status.state, record.status.cell_name.clone());
    let (crashed, freed) = context.world(|world| {
        let known = world.lrp(&key);
        let crash = known.is_some_and(|known| tell::is_crash(known, &record));
        let crashed = crash.then(|| record.clone());
        let freed = known.is_some_and(|known| known.status.cell_name.is_some() && cell.is_none());
        match world.put_lrp(&key, record) {
            true => (crashed, freed),
            false => (None, false),
        }
    });
    if let Some(crashed) = crashed {
        tell::crash(context, &key, &crashed);
    }
    if freed {
        context.note_room();
    }
    if state == ActualLRPState::Running
        && let Some(cell) = &cell
        && let Some(down) = context.note_up(&key, cell)
    {
        context.metrics.downtime.observe(down.as_secs_f64());
    }
    match state {
        // Something is to be done about it now.
        ActualLRPState::Crashed => context.wake_desired(&process),
        ActualLRPState::Unclaimed if cell.is_none() => context.wake_desired(&process),
        // Only the counts change.
        ActualLRPState::Unclaimed | ActualLRPState::Claimed | ActualLRPState::Running => {
            locked(&dirty.desired).insert(process);
        }
    }
}

fn lrp_gone(context: &Context, key: &Key, lrp: &Lrp) {
    context.note_gone(key);
    context.note_room();
    context.wake_desired(&Key::new(&*key.namespace, &*lrp.process));
}
