//! Writing the ledger (Cell.status): a compare-and-swap that is decided anew when somebody was faster.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::{Api, Patch, PatchParams};

use crate::api::{Cell, CellStatus};
use crate::client::{CallError, bounded};
use crate::converge::world::{CellRecord, World};

use super::context::Context;
use super::convert;
use super::execute::{MANAGER, status_patch};

/// Writes what `decide` makes of the Cell's record, until it has taken effect or `decide` wants nothing.
///
/// Retries for ever while the API server can't be reached (the verdict on a lost Cell must be written before
/// anything else), each time deciding on what is stored. Returns `decide`'s remark with the record written.
pub async fn write<T: Clone>(
    context: &Arc<Context>,
    client: &Client,
    name: &str,
    mut decide: impl FnMut(&World, &CellRecord) -> Option<(CellStatus, T)>,
) -> Option<(CellRecord, T)> {
    let api = Api::<Cell>::all(client.clone());
    let params = PatchParams {
        field_manager: Some(MANAGER.into()),
        ..Default::default()
    };
    let mut pause = Duration::from_millis(20);
    let mut warned = false;
    loop {
        let decided = context.world(|world| {
            let record = world.cells().get(name)?;
            let (status, remark) = decide(world, record)?;
            Some((
                record.version.clone(),
                record.status.clone(),
                status,
                remark,
            ))
        });
        let (version, from, to, remark) = decided?;
        let patch = status_patch(&version, &from, &to);
        let result = bounded(api.patch_status(name, &params, &Patch::Merge(&patch))).await;
        match result {
            Ok(stored) => {
                let record = convert::cell(&stored);
                context.world(|world| world.put_cell(name, record.clone()));
                return Some((record, remark));
            }
            Err(error) if error.is_not_found() => {
                context.world(|world| world.remove_cell(name, &version.uid));
                return None;
            }
            Err(error) => {
                if !error.is_conflict() && !warned {
                    tracing::warn!(cell = name, %error, "the Cell's status could not be written; trying again");
                    warned = true;
                }
                refresh(context, &api, name).await.unwrap_or_else(|error| {
                    tracing::debug!(cell = name, %error, "the Cell could not be read");
                });
                if !error.is_conflict() {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
            }
        }
    }
}

async fn refresh(context: &Arc<Context>, api: &Api<Cell>, name: &str) -> Result<(), CallError> {
    let stored = bounded(api.get_opt(name)).await?;
    context.world(|world| match &stored {
        Some(cell) => {
            world.put_cell(name, convert::cell(cell));
        }
        None => {
            let uid = world
                .cells()
                .get(name)
                .map(|record| record.version.uid.clone())
                .unwrap_or_default();
            world.remove_cell(name, &uid);
        }
    });
    Ok(())
}
