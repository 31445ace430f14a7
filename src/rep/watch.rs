//! The watches of this Cell's assignments: only what names this Cell in `status.cellName` is ever delivered.

use std::fmt::Debug;

use futures::{Stream, StreamExt};
use kube::runtime::watcher;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::records::{Key, Kind, Record};
use super::store::selector;
use crate::api::{ActualLRP, Task};
use crate::watching;

/// What a watch delivers.
#[derive(Debug)]
pub enum Sighting {
    /// A record names this Cell, or changed while it does.
    Seen(Record),
    /// A record, with this uid, no longer names this Cell, or is gone: the watch can't tell which.
    Left(Key, Option<String>),
    /// The list is complete: records of that kind that are not in it don't name this Cell.
    Listed(Kind, Vec<Key>),
}

/// Watches both kinds until the receiver is gone.
pub async fn run(client: Client, cell: String, out: mpsc::Sender<Sighting>) {
    let lrps = sightings::<ActualLRP>(client.clone(), &cell, Kind::Lrp);
    let tasks = sightings::<Task>(client, &cell, Kind::Task);
    let mut all = std::pin::pin!(futures::stream::select(lrps, tasks));
    while let Some(sighting) = all.next().await {
        if out.send(sighting).await.is_err() {
            return;
        }
    }
}

fn sightings<K>(client: Client, cell: &str, kind: Kind) -> impl Stream<Item = Sighting> + use<K>
where
    K: Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static
        + Into<Record>,
{
    let config = watcher::Config::default().fields(&selector(cell));
    let mut listed = Vec::new();
    watching::readable::<K>(client, config, |_| {}).filter_map(move |event| {
        std::future::ready(match event {
            watcher::Event::Apply(object) => Some(Sighting::Seen(object.into())),
            watcher::Event::Delete(object) => {
                let record = object.into();
                Some(Sighting::Left(
                    record.key(),
                    record.uid().map(ToOwned::to_owned),
                ))
            }
            watcher::Event::Init => {
                listed.clear();
                None
            }
            watcher::Event::InitApply(object) => {
                let record = object.into();
                listed.push(record.key());
                Some(Sighting::Seen(record))
            }
            watcher::Event::InitDone => Some(Sighting::Listed(kind, std::mem::take(&mut listed))),
        })
    })
}
