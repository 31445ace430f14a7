//! Deletes the objects of Cells that are gone for good.

use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Api, DeleteParams, Preconditions};

use crate::api::Cell;
use crate::client::bounded;
use crate::converge::forget::{self, Forget};

use super::context::Context;
use super::events::reference;
use super::reconcile::Error;

/// Deletes the Cell's object and what the presence store keeps of it, if it is time. Called when its presence was read
/// as gone.
///
/// # Errors
/// What the API server or the presence store said.
pub async fn forget(context: &Arc<Context>, name: &str) -> Result<(), Error> {
    let retention = SignedDuration::try_from(context.retention).unwrap_or(SignedDuration::MAX);
    let now = Timestamp::now();
    let decided = context.world(|world| {
        let cell = world.cells().get(name)?;
        let why = forget::decide(cell, world.load(name), retention, now)?;
        let node = cell.node.as_ref().map(|node| node.name.clone());
        Some((why, cell.version.clone(), node))
    });
    let Some((why, version, node)) = decided else {
        return Ok(());
    };
    // Much may have happened since: what waited on the Cell was moved meanwhile.
    if context.store.get(name).await?.presence.is_some() {
        return Ok(());
    }
    // First what nobody would look for any more. A rep that comes back makes both anew.
    if !context.store.forget(name).await? {
        return Ok(());
    }
    let params = DeleteParams::default().preconditions(Preconditions {
        uid: Some(version.uid.clone()),
        resource_version: Some(version.revision.to_string()),
    });
    let api = Api::<Cell>::all(context.slow.client.clone());
    match bounded(api.delete(name, &params)).await {
        Ok(_) => {}
        // Somebody else was faster, or it has changed: then it is looked at again.
        Err(error) if error.is_not_found() || error.is_conflict() => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    // Its Node belongs to no Cell any more, whatever the watch has told so far.
    context.world(|world| world.remove_cell(name, &version.uid));
    let note = match why {
        Forget::NodeGone => format!(
            "The Cell's Node {} was removed from the cluster: its object was deleted.",
            node.as_deref().unwrap_or_default()
        ),
        Forget::Retention => format!(
            "The Cell was gone for more than {} s: its object was deleted. Its rep makes it anew if it comes back.",
            context.retention.as_secs()
        ),
    };
    tracing::info!(cell = name, "{note}");
    let about = reference("Cell", None, name, &version.uid);
    context
        .events
        .normal(about, "CellForgotten", "Delete", note);
    if let Some(node) = node {
        context.taints.wake(&node);
    }
    Ok(())
}
