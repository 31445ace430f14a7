//! `cordon` and `uncordon`: whether Cells are given new work.

use std::time::Duration;

use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::cell_row;
use super::cluster::Cluster;
use super::done::Done;
use super::failure::Failure;
use super::kind::Kind;
use super::output::{Screen, say};
use crate::api::conditions::{self, READY};
use crate::api::{Cell, CellState};

/// So long the controller may take to answer a wish that was taken back.
const ANSWER: Duration = Duration::from_secs(2);

/// It is looked for this often.
const LOOK: Duration = Duration::from_millis(100);

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
        let (cell, result) = match closed || emptied {
            true => {
                let wish = json!({ "unschedulable": false, "evacuate": false });
                let cell = ask(cluster, &name, wish).await?;
                (answered(cluster, cell).await, "uncordoned")
            }
            false => (cell, "already uncordoned"),
        };
        if let Some(words) = still_closed(&cell, &cluster.flags) {
            say(&words);
        }
        Done::new(Kind::Cell, None, &name, result).show(screen)?;
    }
    Ok(())
}

/// The Cell when the controller has answered that wishes were taken back, or when that takes too long: before, the wish
/// hides what else keeps work away.
async fn answered(cluster: &Cluster, mut cell: Cell) -> Cell {
    let until = Instant::now() + ANSWER;
    while hides_the_rest(&cell) && Instant::now() < until {
        tokio::time::sleep(LOOK).await;
        match cluster
            .get(&cluster.cells(), Kind::Cell, &cell.name_any())
            .await
        {
            Ok(now) => cell = now,
            // What was asked for is done; only the words about the rest are missing.
            Err(_) => break,
        }
    }
    cell
}

/// Whether the Cell's condition still tells of a wish alone.
fn hides_the_rest(cell: &Cell) -> bool {
    let Some(status) = &cell.status else {
        return false;
    };
    let reason = conditions::get(&status.conditions, READY).map(|ready| &*ready.reason);
    status.state == Some(CellState::Present)
        && matches!(reason, Some("Unschedulable" | "Evacuating"))
}

/// What else keeps work away from a Cell, which taking a wish back does not end.
fn still_closed(cell: &Cell, flags: &str) -> Option<String> {
    let name = cell.name_any();
    let state = cell_row::state(cell);
    let status = cell.status.as_ref()?;
    if status.state == Some(CellState::Evacuating) {
        return Some(format!(
            "{name} is being emptied: that goes on to its end, and then it registers again and takes work"
        ));
    }
    let reason = conditions::get(&status.conditions, READY)?;
    match (&*reason.reason, &*state) {
        ("NodeUnschedulable", _) => {
            let node = cell.spec.node_name.as_deref().unwrap_or(&name);
            Some(format!(
                "{name}: its Node is cordoned, too: kubectl{flags} uncordon {node}"
            ))
        }
        (_, "Ready" | "Cordoned" | "Evacuating" | "Evacuated") => None,
        (_, state) => Some(format!(
            "{name} is {state} and takes no work yet: kubectl diego{flags} trace cell/{name} shows why"
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
    use crate::plugin::fixtures::{cell, cell_in};

    #[test]
    fn what_else_keeps_work_away_is_told() {
        let of = |ready, reason| still_closed(&cell("a", "z1", ready, reason), " --context x");
        assert_eq!(of("True", "Unschedulable"), None);
        let node = of("True", "NodeUnschedulable").unwrap();
        assert!(node.contains("kubectl --context x uncordon a"), "{node}");
        let held = of("False", "HeldDown").unwrap();
        assert!(
            held.contains("is HeldDown") && held.contains("kubectl diego --context x trace cell/a"),
            "{held}"
        );
    }

    #[test]
    fn an_evacuation_that_has_begun_goes_on_to_its_end() {
        let draining = cell_in("a", CellState::Evacuating, false);
        let words = still_closed(&draining, "").unwrap();
        assert_eq!(
            words,
            "a is being emptied: that goes on to its end, and then it registers again and takes work"
        );
        assert!(!hides_the_rest(&draining));
        assert_eq!(
            still_closed(&cell_in("a", CellState::Evacuated, false), ""),
            None
        );
    }

    #[test]
    fn a_wish_hides_the_rest_until_the_controller_has_answered() {
        for (reason, hides) in [
            ("Unschedulable", true),
            ("Evacuating", true),
            ("NodeUnschedulable", false),
            ("PresenceHeld", false),
        ] {
            assert_eq!(hides_the_rest(&cell("a", "z1", "True", reason)), hides);
        }
    }
}
