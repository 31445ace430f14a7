//! `cordon` and `uncordon`: whether Cells are given new work.

use kube::ResourceExt;
use serde_json::{Value, json};

use super::cell_row;
use super::cluster::Cluster;
use super::done::Done;
use super::failure::Failure;
use super::kind::Kind;
use super::output::{Screen, say};
use crate::api::Cell;

/// Keeps new work away from Cells.
///
/// # Errors
/// When one is not there, or the API server does not want it.
pub async fn cordon(cluster: &Cluster, names: &[String], screen: &Screen) -> Result<(), Failure> {
    for cell in cluster.cells_named(names).await? {
        let name = cell.name_any();
        let result = match cell.spec.unschedulable {
            Some(true) => "already cordoned",
            Some(false) | None => {
                ask(cluster, &name, json!({ "unschedulable": true })).await?;
                "cordoned"
            }
        };
        Done::new(Kind::Cell, None, &name, result).show(screen)?;
    }
    Ok(())
}

/// Lets Cells take work again.
///
/// # Errors
/// When one is not there, or the API server does not want it.
pub async fn uncordon(cluster: &Cluster, names: &[String], screen: &Screen) -> Result<(), Failure> {
    for cell in cluster.cells_named(names).await? {
        let name = cell.name_any();
        let closed = cell.spec.unschedulable.unwrap_or(false);
        let emptied = cell.spec.evacuate.unwrap_or(false);
        let result = match closed || emptied {
            true => {
                let wish = json!({ "unschedulable": false, "evacuate": false });
                ask(cluster, &name, wish).await?;
                "uncordoned"
            }
            false => "already uncordoned",
        };
        if let Some(words) = still_closed(&cell) {
            say(&words);
        }
        Done::new(Kind::Cell, None, &name, result).show(screen)?;
    }
    Ok(())
}

/// What else keeps work away from a Cell, which taking a wish back does not end.
fn still_closed(cell: &Cell) -> Option<String> {
    let name = cell.name_any();
    let state = cell_row::state(cell);
    let reason = crate::api::conditions::get(&cell.status.as_ref()?.conditions, "Ready")?;
    match (&*reason.reason, &*state) {
        ("NodeUnschedulable", _) => {
            let node = cell.spec.node_name.as_deref().unwrap_or(&name);
            Some(format!(
                "{name}: its Node is cordoned, too: kubectl uncordon {node}"
            ))
        }
        (_, "Ready" | "Cordoned" | "Evacuating" | "Evacuated") => None,
        (_, state) => Some(format!(
            "{name} is {state} and takes no work yet: kubectl diego trace cell/{name} shows why"
        )),
    }
}

/// Patches the spec of a Cell.
///
/// # Errors
/// As above.
pub async fn ask(cluster: &Cluster, name: &str, spec: Value) -> Result<Cell, Failure> {
    let patch = json!({ "spec": spec });
    cluster
        .patch(&cluster.cells(), Kind::Cell, name, patch)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixtures::cell;

    #[test]
    fn what_else_keeps_work_away_is_told() {
        assert_eq!(
            still_closed(&cell("a", "z1", "True", "Unschedulable")),
            None
        );
        let node = still_closed(&cell("a", "z1", "True", "NodeUnschedulable")).unwrap();
        assert!(node.contains("kubectl uncordon a"), "{node}");
        let held = still_closed(&cell("a", "z1", "False", "HeldDown")).unwrap();
        assert!(held.contains("is HeldDown"), "{held}");
    }
}
