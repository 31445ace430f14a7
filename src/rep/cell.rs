//! The rep's own Cell object: registered by server-side apply, so that what belongs to operators stays theirs.

use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource};
use serde_json::{Value, json};

use super::RepConfig;
use super::store::FIELD_MANAGER;
use crate::api::{Cell, CellSpec};
use crate::client::{CallError, bounded};

/// What this rep says of its machine.
pub fn spec(config: &RepConfig) -> CellSpec {
    CellSpec {
        zone: config.zone.clone(),
        executor: config.executor,
        node_name: config.node_name.clone(),
        capacity: config.capacity.clone(),
        placement_tags: config.placement_tags.clone(),
        optional_placement_tags: config.optional_placement_tags.clone(),
        // An operator's: never applied by a rep, or it would undo what was asked of it.
        unschedulable: None,
        evacuate: None,
    }
}

/// The object to apply.
fn applied(cell_id: &str, spec: &CellSpec) -> Value {
    json!({
        "apiVersion": Cell::api_version(&()),
        "kind": Cell::kind(&()),
        "metadata": { "name": cell_id },
        "spec": spec,
    })
}

/// Whether what is there says all that this rep says; what operators added does not count.
fn says_so(there: &CellSpec, spec: &CellSpec) -> bool {
    let theirs = CellSpec {
        unschedulable: None,
        evacuate: None,
        ..there.clone()
    };
    theirs == *spec
}

/// Registers the Cell, if it is not there or says something else. Returns whether it had to be.
///
/// # Errors
/// What the API server said.
pub async fn register(client: &Client, cell_id: &str, spec: &CellSpec) -> Result<bool, CallError> {
    let api = Api::<Cell>::all(client.clone());
    if bounded(api.get_opt(cell_id))
        .await?
        .is_some_and(|cell| says_so(&cell.spec, spec))
    {
        return Ok(false);
    }
    let params = PatchParams::apply(FIELD_MANAGER).force();
    bounded(api.patch(cell_id, &params, &Patch::Apply(applied(cell_id, spec)))).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Capacity, ExecutorKind};

    fn spec() -> CellSpec {
        CellSpec {
            zone: "z1".into(),
            executor: ExecutorKind::Process,
            capacity: Capacity {
                memory: "1Gi".into(),
                disk: "1Gi".into(),
                containers: 10,
            },
            ..CellSpec::default()
        }
    }

    #[test]
    fn what_operators_asked_for_is_left_alone() {
        let cordoned = CellSpec {
            unschedulable: Some(true),
            evacuate: Some(false),
            ..spec()
        };
        assert!(says_so(&cordoned, &spec()));
        let object = applied("a", &spec());
        assert!(
            object["spec"].get("unschedulable").is_none()
                && object["spec"].get("evacuate").is_none()
        );
        assert_eq!(object["metadata"]["name"], "a");
    }

    #[test]
    fn a_change_is_seen() {
        assert!(!says_so(
            &CellSpec {
                zone: "z2".into(),
                ..spec()
            },
            &spec()
        ));
    }
}
