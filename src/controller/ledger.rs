//! Writing the ledger (Cell.status): a compare-and-swap that is decided anew when somebody was faster.

use std::sync::Arc;

use kube::Client;
use kube::api::{Api, Patch};

use crate::api::{Cell, CellStatus};
use crate::client::{CallError, bounded};
use crate::converge::world::{CellRecord, World};

use super::context::Context;
use super::convert;
use super::execute::params;
use crate::patch::status_patch;

/// Writes what `decide` makes of the Cell's record, and decides anew on what is stored when somebody else wrote
/// first. Returns `decide`'s remark with the record written; `None` when `decide` wants nothing, or when there is
/// no such Cell.
///
/// # Errors
/// When the API server can't be reached or refuses: whoever observed something must look again before it writes.
pub async fn write<T: Clone>(
    context: &Arc<Context>,
    client: &Client,
    name: &str,
    mut decide: impl FnMut(&World, &CellRecord) -> Option<(CellStatus, T)>,
) -> Result<Option<(CellRecord, T)>, CallError> {
    let api = Api::<Cell>::all(client.clone());
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
        let Some((version, from, to, remark)) = decided else {
            return Ok(None);
        };
        let patch = status_patch(&version, &from, &to);
        match bounded(api.patch_status(name, &params(), &Patch::Merge(&patch))).await {
            Ok(stored) => {
                let record = convert::cell(&stored);
                context.world(|world| world.put_cell(name, record.clone()));
                return Ok(Some((record, remark)));
            }
            Err(error) if error.is_not_found() => {
                context.world(|world| world.remove_cell(name, &version.uid));
                return Ok(None);
            }
            Err(error) if error.is_conflict() => refresh(context, &api, name).await?,
            Err(error) => {
                // It may have taken effect all the same.
                let _ = refresh(context, &api, name).await;
                return Err(error);
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
