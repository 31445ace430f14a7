//! `trace`: what happened to one object and why, in order of time.

mod draw;
mod timeline;

use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::args::Format;
use super::cluster::Cluster;
use super::failure::Failure;
use super::kind::{Kind, Object};
use super::output::{Screen, print, say};
use crate::api::{ActualLRP, Cell, Task};
use k8s_openapi::jiff::Timestamp;
use timeline::Entry;

/// Shows it, from the object's record, its conditions and its Events.
///
/// # Errors
/// When there is neither the object nor an Event of it, or the cluster can't be read.
pub async fn run(cluster: &Cluster, object: &Object, screen: &Screen) -> Result<(), Failure> {
    let Object { kind, name } = object;
    let recorded = match kind {
        Kind::Cell => {
            read(cluster, &cluster.cells(), object, |cell: &Cell| {
                timeline::of_cell(cell)
            })
            .await
        }
        Kind::ActualLRP => {
            read(cluster, &cluster.own(), object, |lrp: &ActualLRP| {
                timeline::of_lrp(lrp)
            })
            .await
        }
        Kind::Task => {
            read(cluster, &cluster.own(), object, |task: &Task| {
                timeline::of_task(task)
            })
            .await
        }
    };
    let events = match cluster.events(*kind, name).await {
        Ok(events) => events,
        // Half of the story is better than none.
        Err(failure @ Failure::NoRight(_)) => {
            say(&format!("without its Events: {failure}"));
            Vec::new()
        }
        Err(failure) => return Err(failure),
    };
    let mut entries = match recorded {
        Ok(entries) => entries,
        Err(Failure::NotFound { .. }) if !events.is_empty() => {
            say(&format!(
                "there is no {} {name} any more: this is what Events still tell",
                kind.as_str()
            ));
            Vec::new()
        }
        Err(failure) => return Err(failure),
    };
    entries.extend(events.iter().filter_map(timeline::of_event));
    entries.sort_by_key(Entry::place);
    for entry in &mut entries {
        entry.object = kind.id(name);
    }
    match screen.format {
        Format::Table | Format::Wide | Format::Short => print(&draw::draw(
            &entries,
            Timestamp::now(),
            screen.width,
            screen.headers,
            screen.paint,
        )),
        Format::Json | Format::Yaml | Format::Name => screen.show(&entries),
    }
}

async fn read<K>(
    cluster: &Cluster,
    api: &Api<K>,
    object: &Object,
    entries: impl FnOnce(&K) -> Vec<Entry>,
) -> Result<Vec<Entry>, Failure>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let found = cluster.get(api, object.kind, &object.name).await?;
    Ok(entries(&found))
}
