//! Rest: all is as desired, and nothing is written any more.

use std::collections::BTreeSet;

use diego_operator::api::{CellState, TaskState};
use diego_operator::converge::cell::is_held;
use diego_operator::converge::pods::{LABEL_GUID, LABEL_TASK};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use crate::cells::Cells;
use crate::observer::Log;
use crate::support::site::Site;
use crate::support::{Failure, unrest};

/// What is not as it should be.
pub async fn difference(
    site: &Site,
    cells: &Cells,
    wanted: Option<(&str, i32)>,
    log: &Log,
) -> Result<Option<String>, Failure> {
    let all = ListParams::default();
    for cell in site.cells().list(&all).await?.items {
        let name = cell.name_any();
        let held = cells.all.get(&name).is_some_and(|one| one.is_held());
        let status = cell.status.unwrap_or_default();
        if is_held(&status) {
            return Ok(Some(format!("the loss of Cell {name} is still held back")));
        }
        let state = status.state;
        let as_it_is = match held {
            true => state == Some(CellState::Present),
            // One that went before any controller saw it was never there.
            false => matches!(state, Some(CellState::Missing) | None),
        };
        if !as_it_is {
            return Ok(Some(format!(
                "Cell {name} is {state:?}, its presence: {held}"
            )));
        }
    }
    let mut guids = BTreeSet::new();
    let records = site.actual().list(&all).await?.items;
    let slots: BTreeSet<(String, i32)> = records
        .iter()
        .map(|record| (record.spec.desired_lrp_name.clone(), record.spec.index))
        .collect();
    let (process, instances) = wanted.unwrap_or_default();
    let expected: BTreeSet<_> = (0..instances)
        .map(|index| (process.to_owned(), index))
        .collect();
    if slots != expected || records.len() != expected.len() {
        return Ok(Some(format!(
            "the records are {slots:?}, wanted are {expected:?}"
        )));
    }
    for record in records {
        if let Some(why) = unrest(&record) {
            return Ok(Some(why));
        }
        guids.extend(record.status.and_then(|status| status.instance_guid));
    }
    for task in site.tasks().list(&all).await?.items {
        let status = task.status.clone().unwrap_or_default();
        if !matches!(status.state, TaskState::Completed | TaskState::Resolving) {
            return Ok(Some(format!("{} is {status:?}", task.name_any())));
        }
    }
    let living = log.living();
    if living != guids {
        let strangers: Vec<_> = living.difference(&guids).collect();
        let lost: Vec<_> = guids.difference(&living).collect();
        return Ok(Some(format!(
            "it runs without a record: {strangers:?}; a record says so, and it does not run: {lost:?}"
        )));
    }
    let pods = Api::<Pod>::namespaced(site.client.clone(), "default");
    for pod in pods.list(&all.labels(LABEL_GUID)).await?.items {
        let guid = pod.labels().get(LABEL_GUID).cloned().unwrap_or_default();
        // Of a slot's crashes the last stays, for its logs.
        let status = pod.status.clone().unwrap_or_default();
        let is_over = status.phase.as_deref() == Some("Failed");
        let of_task = pod.labels().contains_key(LABEL_TASK);
        if !of_task && !is_over && !guids.contains(&guid) {
            return Ok(Some(format!(
                "nobody has a record of Pod {}",
                pod.name_any()
            )));
        }
    }
    Ok(None)
}
