//! Nodes, and the Pods on them, into the world: what the auction knows of Cells that are nodes.
//!
//! They are watched always: without any Cell on a node that costs next to nothing, and a Cell may join at any time.
//! Where the API server does not let the controller read them, it says so, Cells on nodes take no new work until it
//! does, and all others work as ever.

mod read;

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, ListParams};
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::client::bounded;
use crate::converge::world::{NodeNews, World};
use crate::watching;

use super::context::Context;
use super::feed::Listed;
use read::{SomeNode, SomePod, Takes};

/// What was forbidden is asked for again this often.
const FORBIDDEN_RETRY: Duration = Duration::from_secs(15);

/// Pods that have a node and take room on it.
const TAKES_ROOM: &str = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed";

/// The Nodes, for ever.
pub async fn nodes(context: Arc<Context>, client: Client, mut listed: Listed) {
    let api = Api::<SomeNode>::all(client.clone());
    until_allowed(&api, &ListParams::default(), "nodes", &mut listed).await;
    let mut events = watching::readable::<SomeNode>(client, watcher::Config::default(), |_| {});
    let mut live = HashSet::new();
    // Cells whose standing a list has changed.
    let mut heard = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Init => {
                live.clear();
                heard.clear();
            }
            Event::InitApply(node) => {
                let name = node.name_any();
                let news = context.world(|world| world.put_node(&name, read::node(&node)));
                heard.extend(news.cells);
                live.insert(name);
            }
            Event::InitDone => {
                let mut news = context.world(|world| world.end_node_list(&live));
                // What changed while nobody watched.
                live.iter().for_each(|node| context.wake_taint_of(node));
                news.cells.append(&mut heard);
                tell(&context, news);
                listed.done();
            }
            Event::Apply(node) => {
                let name = node.name_any();
                let news = context.world(|world| world.put_node(&name, read::node(&node)));
                // Its taints may be others.
                context.wake_taint_of(&name);
                tell(&context, news);
            }
            Event::Delete(node) => {
                let name = node.name_any();
                tracing::info!(node = name, "the Node was removed");
                tell(&context, context.world(|world| world.remove_node(&name)));
            }
        }
    }
}

/// All Pods that take room, for ever: no more is kept of one than its node, what it requests, and which Pods it is like;
/// and of ours whose they are.
pub async fn foreign_pods(context: Arc<Context>, client: Client, mut listed: Listed) {
    let api = Api::<SomePod>::all(client.clone());
    let params = ListParams::default().fields(TAKES_ROOM);
    until_allowed(&api, &params, "pods", &mut listed).await;
    let config = watcher::Config::default().fields(TAKES_ROOM);
    let mut events = watching::readable::<SomePod>(client, config, |_| {});
    let mut since = 0;
    while let Some(event) = events.next().await {
        match event {
            Event::Init => since = context.world(|world| world.begin_relist()),
            Event::InitApply(pod) | Event::Apply(pod) => {
                let Some(takes) = read::pod(&pod) else {
                    continue;
                };
                if context.world(|world| enter(world, takes)) {
                    context.note_room();
                }
            }
            Event::InitDone => {
                let news = context.world(|world| world.end_foreign_list(since));
                tell(&context, news);
                listed.done();
            }
            Event::Delete(pod) => {
                let uid = read::uid(&pod.metadata);
                if context.world(|world| world.remove_foreign(uid)) {
                    context.note_room();
                }
            }
        }
    }
}

fn enter(world: &mut World, takes: Takes<'_>) -> bool {
    let Takes {
        uid,
        node,
        resources,
        ours,
        strict,
        kin,
    } = takes;
    match ours {
        Some((work, guid)) => {
            let lets_in = world.put_own(uid, node, resources, work, guid, kin);
            if strict {
                world.mark_strict(uid);
            }
            lets_in
        }
        None => world.put_foreign(uid, node, resources, kin),
    }
}

/// Passes on what a change means to Cells, and to what waits for room.
fn tell(context: &Context, news: NodeNews) {
    let NodeNews { cells, room } = news;
    if room || !cells.is_empty() {
        context.note_room();
    }
    cells.iter().for_each(|cell| context.wake_cell(cell));
}

/// Waits while the API server forbids to read this kind. The first time that it does is told, and waited for by nobody
/// else: installations without Cells on nodes need no such right.
async fn until_allowed<K>(api: &Api<K>, params: &ListParams, plural: &str, listed: &mut Listed)
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let mut told = false;
    loop {
        let one = params.clone().limit(1);
        let error = match bounded(api.list(&one)).await {
            Err(error) if error.is_forbidden() => error,
            // Whatever else is wrong, the watch tells of it and tries again.
            Ok(_) | Err(_) => break,
        };
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(
                %error,
                "{plural} can't be read: Cells with executor Pods take no new work. Let this controller get, list and watch {plural}, or go on without such Cells"
            );
            listed.done();
        }
        tokio::time::sleep(FORBIDDEN_RETRY).await;
    }
    if told {
        tracing::info!("{plural} can be read now");
    }
}
