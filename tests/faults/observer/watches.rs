//! Watches of the records and of the presences, by clients that the programs under test know nothing of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use diego_operator::presence::etcd::{PREFIX, cell_of};
use diego_operator::presence::{Presence, PresenceValue};
use etcd_client::{EventType, GetOptions, KeyValue, WatchOptions};
use futures::StreamExt;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};

use super::Log;
use super::facts::Fact;
use crate::support::Failure;

/// Between two tries to reach a server.
const PAUSE: Duration = Duration::from_millis(200);

/// Tells of every write of a kind.
pub async fn records<K>(client: Client, log: Log, fact: fn(&K) -> Fact)
where
    K: Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    let mut events = watcher(Api::<K>::all(client), watcher::Config::default()).boxed();
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut listed: BTreeSet<String> = BTreeSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(object)) => {
                known.extend(object.uid());
                log.add(fact(&object));
            }
            Ok(watcher::Event::Delete(object)) => {
                let uid = object.uid().unwrap_or_default();
                known.remove(&uid);
                log.add(Fact::Deleted { uid });
            }
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(object)) => {
                listed.extend(object.uid());
                log.add(fact(&object));
            }
            Ok(watcher::Event::InitDone) => {
                for uid in known.difference(&listed) {
                    log.add(Fact::Deleted { uid: uid.clone() });
                }
                known.clone_from(&listed);
            }
            // The API server is away, or gone with the row.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Tells of every presence that one member of the store sees come and go, for as long as it is polled.
pub async fn presences(endpoint: String, log: Log) {
    let mut held: BTreeMap<String, i64> = BTreeMap::new();
    loop {
        // Only the way it ended could be told.
        let _ = follow(endpoint.clone(), &log, &mut held).await;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow(
    endpoint: String,
    log: &Log,
    held: &mut BTreeMap<String, i64>,
) -> Result<(), Failure> {
    let options = etcd_client::ConnectOptions::new()
        .with_connect_timeout(Duration::from_millis(500))
        .with_require_leader(true);
    let mut client = etcd_client::Client::connect([endpoint], Some(options)).await?;
    let list = client.get(PREFIX, Some(GetOptions::new().with_prefix()));
    let list = tokio::time::timeout(Duration::from_secs(2), list).await??;
    let revision = list.header().map_or(0, |header| header.revision());
    let mut found: BTreeMap<String, i64> = BTreeMap::new();
    found.extend(list.kvs().iter().filter_map(registration));
    for (cell, epoch) in held.iter() {
        if found.get(cell) != Some(epoch) {
            log.add(Fact::Gone {
                cell: cell.clone(),
                epoch: *epoch,
            });
        }
    }
    for (cell, epoch) in &found {
        if held.get(cell) != Some(epoch) {
            log.add(Fact::Registered {
                cell: cell.clone(),
                epoch: *epoch,
            });
        }
    }
    *held = found;
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(revision + 1);
    let mut stream = client.watch(PREFIX, Some(options)).await?;
    loop {
        let next = tokio::time::timeout(Duration::from_secs(1), stream.message());
        let Ok(message) = next.await else {
            // Is anybody there? A store that hangs must not hide another that goes on.
            stream.request_progress().await?;
            let answer = tokio::time::timeout(Duration::from_secs(1), stream.message()).await??;
            take(answer.ok_or("the watch ended")?, log, held)?;
            continue;
        };
        take(message?.ok_or("the watch ended")?, log, held)?;
    }
}

fn take(
    answer: etcd_client::WatchResponse,
    log: &Log,
    held: &mut BTreeMap<String, i64>,
) -> Result<(), Failure> {
    if answer.canceled() {
        return Err("the watch was cancelled".into());
    }
    for event in answer.events() {
        let Some(kv) = event.kv() else { continue };
        let Some(cell) = cell_of(kv.key()).map(str::to_owned) else {
            continue;
        };
        let now = match event.event_type() {
            EventType::Put => registration(kv).map(|(_, epoch)| epoch),
            EventType::Delete => None,
        };
        let before = held.get(&cell).copied();
        if before == now {
            continue;
        }
        if let Some(epoch) = before {
            held.remove(&cell);
            log.add(Fact::Gone {
                cell: cell.clone(),
                epoch,
            });
        }
        if let Some(epoch) = now {
            held.insert(cell.clone(), epoch);
            log.add(Fact::Registered { cell, epoch });
        }
    }
    Ok(())
}

/// The Cell and the epoch of a key.
fn registration(kv: &KeyValue) -> Option<(String, i64)> {
    let cell = cell_of(kv.key())?.to_owned();
    let value: Option<PresenceValue> = serde_json::from_slice(kv.value()).ok();
    let presence = Presence::created_at(cell.clone(), kv.create_revision(), value);
    Some((cell, presence.epoch))
}
