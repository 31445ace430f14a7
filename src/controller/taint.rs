//! `--node-taint`: the Node of a lost Cell is tainted at once, so that the Pods of others move in seconds, too.
//!
//! It is begun right after the verdict and never waited for. Each pass over the Nodes makes good what was missed, also
//! by a controller that is gone. How many Nodes may be tainted at once is not limited here: nobody judges a Cell lost on
//! account of the store or the network alone, and a guard against the loss of many belongs before the verdict.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::client::{CallError, bounded};
use crate::converge::node::CELL_MISSING_TAINT;
use crate::converge::node::taint::{self, Step};
use crate::converge::world::World;

use super::context::Context;
use super::events::reference;

/// Nodes that are changed at once.
const AT_ONCE: usize = 16;

/// Somebody else changes a Node's taints now and then; never so often.
const TRIES: usize = 8;

/// Wakes the lane.
pub struct Taints(Option<mpsc::UnboundedSender<String>>);

/// The Nodes to look at.
pub type Wakes = mpsc::UnboundedReceiver<String>;

impl Taints {
    /// With --node-taint or without.
    pub fn new(on: bool) -> (Taints, Option<Wakes>) {
        if !on {
            return (Taints(None), None);
        }
        let (sender, wakes) = mpsc::unbounded_channel();
        (Taints(Some(sender)), Some(wakes))
    }

    /// Looks at a Node.
    pub fn wake(&self, node: &str) {
        if let Some(sender) = &self.0 {
            // Fails only when the controller is ending.
            let _ = sender.send(node.to_owned());
        }
    }
}

impl Context {
    /// Sees to the taint of the Node that a Cell is, if it is one and there is anything to do.
    pub fn wake_taint(&self, cell: &str) {
        let node = self.world(|world| {
            let node = world.cells().get(cell)?.node.as_ref()?.name.clone();
            is_due(world, &node).then_some(node)
        });
        if let Some(node) = node {
            self.taints.wake(&node);
        }
    }

    /// Sees to the taint of a Node that has changed.
    pub fn wake_taint_of(&self, node: &str) {
        if self.world(|world| is_due(world, node)) {
            self.taints.wake(node);
        }
    }
}

/// Taints and frees Nodes, for ever.
pub async fn run(context: Arc<Context>, mut wakes: Wakes) {
    context.synced().await;
    let mut tick = tokio::time::interval(context.interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut waiting = BTreeSet::new();
    let mut busy = HashSet::new();
    let mut running = FuturesUnordered::new();
    loop {
        // One write at a time for each Node: the later decision must not be overtaken by the earlier.
        let free = AT_ONCE - busy.len();
        let next = waiting.iter().filter(|node| !busy.contains(*node));
        let next: Vec<String> = next.take(free).cloned().collect();
        for node in next {
            waiting.remove(&node);
            busy.insert(node.clone());
            running.push(settle(&context, node));
        }
        tokio::select! {
            Some(node) = running.next() => { busy.remove(&node); }
            Some(node) = wakes.recv() => { waiting.insert(node); }
            _ = tick.tick() => waiting.extend(missed(&context)),
        }
    }
}

/// What is to be done and was not.
fn missed(context: &Context) -> Vec<String> {
    if !context.leading() {
        return Vec::new();
    }
    context.world(|world| {
        let nodes = world.nodes().map(|(name, _)| name);
        nodes.filter(|name| is_due(world, name)).cloned().collect()
    })
}

/// Whether a Node, as it was last seen, has the taint and should not, or should and has it not.
fn is_due(world: &World, name: &str) -> bool {
    world.node(name).is_some_and(|node| {
        let mut taints = node.taints.iter();
        let tainted = taints.any(|one| one.key == CELL_MISSING_TAINT);
        taint::decide(world.node_is_lost(name), tainted).is_some()
    })
}

/// Brings one Node's taint in line with its Cell.
async fn settle(context: &Arc<Context>, node: String) -> String {
    for _ in 0..TRIES {
        match try_settle(context, &node).await {
            Ok(()) => break,
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
    node
}

async fn try_settle(context: &Arc<Context>, name: &str) -> Result<(), CallError> {
    if !context.leading() {
        return Ok(());
    }
    // As it is stored, whatever fields a taint has.
    let kind = ApiResource::erase::<Node>(&());
    let api = Api::<DynamicObject>::all_with(context.slow.client.clone(), &kind);
    let Some(node) = bounded(api.get_opt(name)).await? else {
        return Ok(());
    };
    let none = Vec::new();
    let taints = node.data["spec"]["taints"].as_array().unwrap_or(&none);
    let lost = context.world(|world| world.node_is_lost(name));
    let Some(step) = taint::decide(lost, taint::is_tainted(taints)) else {
        return Ok(());
    };
    let version = node
        .metadata
        .resource_version
        .as_deref()
        .unwrap_or_default();
    let Some(patch) = taint::patch(step, version, taints).and_then(json_patch) else {
        return Ok(());
    };
    bounded(api.patch(name, &PatchParams::default(), &patch)).await?;
    tell(context, name, step);
    Ok(())
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
    let cells = context.world(|world| {
        let cells = world
            .cells_of_node(node)
            .map(|(name, cell)| (name.clone(), cell.version.uid.clone()));
        cells.collect::<Vec<_>>()
    });
    for (cell, uid) in cells {
        let about = reference("Cell", None, &cell, &uid);
        context.events.normal(about, reason, "Taint", note.clone());
    }
}
