//! `--node-taint`: the Node of a lost Cell is tainted at once, so that the Pods of others move in seconds, too.
//!
//! It is begun right after the verdict and never waited for. Each pass over the Nodes makes good what was missed, also
//! by a controller that is gone. At most a third of the Nodes that Cells are is tainted at once, or one: more are held
//! back until others are free again, and that is told.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::client::{CallError, bounded};
use crate::converge::node::taint::{self, Step};
use crate::converge::node::{CELL_MISSING_TAINT, Taint};
use crate::converge::world::World;
use crate::sync::locked;

use super::context::Context;
use super::events::reference;

/// Nodes that are changed at once.
const AT_ONCE: usize = 16;

/// Somebody else changes a Node's taints now and then; never so often.
const TRIES: usize = 8;

/// Wakes the lane.
pub struct Taints {
    sender: Option<mpsc::UnboundedSender<String>>,
    /// Nodes that this process has tainted, whether the watch has told of it or not.
    added: Mutex<HashSet<String>>,
    /// Nodes wait until others are free again.
    holding: AtomicBool,
}

/// The Nodes to look at.
pub type Wakes = mpsc::UnboundedReceiver<String>;

impl Taints {
    /// With --node-taint or without.
    pub fn new(on: bool) -> (Taints, Option<Wakes>) {
        let (sender, wakes) = on.then(mpsc::unbounded_channel).unzip();
        let taints = Taints {
            sender,
            added: Mutex::default(),
            holding: AtomicBool::new(false),
        };
        (taints, wakes)
    }

    /// Looks at a Node.
    pub fn wake(&self, node: &str) {
        if let Some(sender) = &self.sender {
            // Fails only when the controller is ending.
            let _ = sender.send(node.to_owned());
        }
    }

    /// Counts a Node among the tainted ones, if there may be one more.
    fn reserve(&self, world: &World, node: &str) -> bool {
        let mut added = locked(&self.added);
        if added.contains(node) {
            return true;
        }
        let free = free(world, &added) > 0;
        free && added.insert(node.to_owned())
    }
}

/// How many more Nodes may be tainted now. `added` are those that this process has tainted; the world may not show it
/// yet, or somebody else may have freed them since.
fn free(world: &World, added: &HashSet<String>) -> usize {
    let nodes = world.nodes_of_cells();
    let limit = taint::limit(nodes.len());
    let tainted = nodes.filter(|node| {
        is_tainted(world, node) || added.contains(*node) && world.node_is_lost(node)
    });
    limit.saturating_sub(tainted.count())
}

impl Context {
    /// Sees to the taint of the Node that a Cell is, if it is one and there is anything to do.
    pub fn wake_taint(&self, cell: &str) {
        let node = self.world(|world| {
            let node = world.cells().get(cell)?.node.as_ref()?.name.clone();
            due(world, &node).map(|_| node)
        });
        if let Some(node) = node {
            self.taints.wake(&node);
        }
    }

    /// Sees to the taint of a Node that has changed.
    pub fn wake_taint_of(&self, node: &str) {
        let holding = self.taints.holding.load(Ordering::Relaxed);
        if holding || self.world(|world| due(world, node).is_some()) {
            self.taints.wake(node);
        }
    }
}

/// Taints and frees Nodes, for ever.
pub async fn run(context: Arc<Context>, mut wakes: Wakes) {
    context.synced().await;
    let mut tick = tokio::time::interval(context.interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut queue = Queue::default();
    let mut busy = HashSet::new();
    let mut running = FuturesUnordered::new();
    loop {
        // One write at a time for each Node: the later decision must not be overtaken by the earlier.
        let free = AT_ONCE - busy.len();
        let next = queue.waiting.iter().filter(|node| !busy.contains(*node));
        let next: Vec<String> = next.take(free).cloned().collect();
        for node in next {
            queue.waiting.remove(&node);
            busy.insert(node.clone());
            running.push(settle(&context, node));
        }
        tokio::select! {
            Some((node, end)) = running.next() => {
                busy.remove(&node);
                match end {
                    End::Settled => {}
                    End::HeldBack => queue.hold(&context, node),
                }
            }
            Some(node) = wakes.recv() => queue.enter(&context, node),
            _ = tick.tick() => {
                missed(&context).into_iter().for_each(|node| queue.enter(&context, node));
                queue.retry(&context);
            }
        }
        let holding = !queue.held.is_empty();
        context.taints.holding.store(holding, Ordering::Relaxed);
    }
}

/// What is still to be done.
#[derive(Default)]
struct Queue {
    /// At once.
    waiting: BTreeSet<String>,
    /// When others are free again: they would be too many.
    held: BTreeSet<String>,
}

impl Queue {
    fn enter(&mut self, context: &Context, node: String) {
        let step = context.world(|world| due(world, &node));
        match step {
            Some(Step::Add) if !self.held.is_empty() => self.hold(context, node),
            Some(_) => {
                self.waiting.insert(node);
            }
            // It may be one less, or its Cell be back.
            None => self.retry(context),
        }
    }

    fn hold(&mut self, context: &Context, node: String) {
        if self.held.is_empty() {
            tracing::warn!(
                node,
                "Nodes of lost Cells are not tainted: more than a third of the Nodes that Cells are would be"
            );
        }
        if self.held.insert(node.clone()) {
            tell_of_holding(context, &node);
        }
    }

    /// Lets go of those that may be tainted now, or need not be.
    fn retry(&mut self, context: &Context) {
        if self.held.is_empty() {
            return;
        }
        let free = context.world(|world| {
            self.held.retain(|node| due(world, node) == Some(Step::Add));
            free(world, &locked(&context.taints.added))
        });
        let next: Vec<String> = self.held.iter().take(free).cloned().collect();
        for node in next {
            self.held.remove(&node);
            self.waiting.insert(node);
        }
    }
}

/// How it ended for a Node.
#[derive(Clone, Copy)]
enum End {
    /// Nothing is to be done, or it is tried again with the next pass.
    Settled,
    /// It is to be tainted, and would be one too many.
    HeldBack,
}

/// What is to be done and was not.
fn missed(context: &Context) -> Vec<String> {
    if !context.leading() {
        return Vec::new();
    }
    context.world(|world| {
        let nodes = world.nodes().map(|(name, _)| name);
        nodes
            .filter(|name| due(world, name).is_some())
            .cloned()
            .collect()
    })
}

/// What is to be done to a Node, as it was last seen.
fn due(world: &World, name: &str) -> Option<Step> {
    world.node(name)?;
    taint::decide(world.node_is_lost(name), is_tainted(world, name))
}

/// Whether a Node, as it was last seen, has the taint.
fn is_tainted(world: &World, name: &str) -> bool {
    world
        .node(name)
        .is_some_and(|node| node.taints.iter().any(Taint::is_ours))
}

/// Brings one Node's taint in line with its Cell.
async fn settle(context: &Arc<Context>, node: String) -> (String, End) {
    for _ in 0..TRIES {
        match try_settle(context, &node).await {
            Ok(end) => return (node, end),
            // Its taints were changed meanwhile.
            Err(error) if error.is_conflict() || error.is_invalid() => {}
            Err(error) if error.is_forbidden() => {
                tracing::warn!(node, %error, "the Node's taint can't be changed; let this controller get and patch nodes, or go on without --node-taint");
                break;
            }
            Err(error) => {
                tracing::warn!(node, %error, "the Node's taint was not changed; trying again with the next pass");
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (node, End::Settled)
}

async fn try_settle(context: &Arc<Context>, name: &str) -> Result<End, CallError> {
    if !context.leading() {
        return Ok(End::Settled);
    }
    let own = &context.taints;
    let too_many =
        context.world(|world| due(world, name) == Some(Step::Add) && !own.reserve(world, name));
    if too_many {
        return Ok(End::HeldBack);
    }
    // As it is stored, whatever fields a taint has.
    let kind = ApiResource::erase::<Node>(&());
    let api = Api::<DynamicObject>::all_with(context.slow.client.clone(), &kind);
    let Some(node) = bounded(api.get_opt(name)).await? else {
        locked(&own.added).remove(name);
        return Ok(End::Settled);
    };
    let none = Vec::new();
    let taints = node.data["spec"]["taints"].as_array().unwrap_or(&none);
    let lost = context.world(|world| world.node_is_lost(name));
    let Some(step) = taint::decide(lost, taint::is_tainted(taints)) else {
        return Ok(End::Settled);
    };
    // The Cell may have been lost only just now.
    if step == Step::Add && !context.world(|world| own.reserve(world, name)) {
        return Ok(End::HeldBack);
    }
    let version = node
        .metadata
        .resource_version
        .as_deref()
        .unwrap_or_default();
    let Some(patch) = taint::patch(step, version, taints).and_then(json_patch) else {
        return Ok(End::Settled);
    };
    bounded(api.patch(name, &PatchParams::default(), &patch)).await?;
    if step == Step::Remove {
        locked(&own.added).remove(name);
    }
    tell(context, name, step);
    Ok(End::Settled)
}

fn json_patch(patch: Value) -> Option<Patch<DynamicObject>> {
    serde_json::from_value(patch).ok().map(Patch::Json)
}

fn tell(context: &Context, node: &str, step: Step) {
    let (reason, note) = match step {
        Step::Add => (
            "CellNodeTainted",
            format!(
                "The Cell is lost: its Node {node} was given the taint {CELL_MISSING_TAINT}:NoExecute, so that all Pods leave it."
            ),
        ),
        Step::Remove => (
            "CellNodeTaintRemoved",
            format!(
                "The Cell is not lost any more: the taint {CELL_MISSING_TAINT}:NoExecute was taken from its Node {node}."
            ),
        ),
    };
    tracing::info!(node, "{note}");
    for about in cells(context, node) {
        context.events.normal(about, reason, "Taint", note.clone());
    }
}

fn tell_of_holding(context: &Context, node: &str) {
    let note = format!(
        "The Cell is lost, but its Node {node} is not given the taint {CELL_MISSING_TAINT}:NoExecute now: more than a third of the Nodes that Cells are would have it. It gets it when enough others have lost it. If this Node is dead, taint it by hand."
    );
    for about in cells(context, node) {
        let reason = "CellNodeTaintHeldBack";
        context.events.warning(about, reason, "Taint", note.clone());
    }
}

/// The Cells that are a Node.
fn cells(context: &Context, node: &str) -> Vec<ObjectReference> {
    context.world(|world| {
        let cells = world.cells_of_node(node);
        let cells = cells.map(|(name, cell)| reference("Cell", None, name, &cell.version.uid));
        cells.collect()
    })
}
