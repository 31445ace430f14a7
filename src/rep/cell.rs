//! The rep's own Cell object: registered by server-side apply, so that what belongs to operators stays theirs.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::RepConfig;
use super::store::FIELD_MANAGER;
use crate::api::{Cell, CellSpec, CellState};
use crate::client::{CallError, bounded};
use crate::presence::keeper::KnownEpoch;
use crate::watching;

/// What this rep says of its machine.
fn spec(config: &RepConfig) -> CellSpec {
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

/// The Cell object of this rep: what the rep says in it, and what operators ask in it.
#[derive(Clone)]
pub struct OwnCell {
    client: Client,
    cell_id: String,
    spec: CellSpec,
    asked: Arc<watch::Sender<Asked>>,
    /// The greatest epoch that the ledger has of this Cell.
    pub known_epoch: KnownEpoch,
    /// The greatest epoch under which the Cell was judged lost or gone: whatever is said under it is said too late.
    pub dead_epoch: KnownEpoch,
}

/// What operators ask of this Cell, as last seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Asked {
    uid: String,
    generation: i64,
    evacuate: bool,
}

impl Asked {
    fn of(cell: &Cell) -> Asked {
        Asked {
            uid: cell.uid().unwrap_or_default(),
            generation: cell.metadata.generation.unwrap_or_default(),
            evacuate: cell.spec.evacuate == Some(true),
        }
    }

    /// Takes `next` on, unless it is an older state of the same object. Returns whether it was news.
    fn see(&mut self, next: Asked) -> bool {
        let stale = next.uid == self.uid && next.generation < self.generation;
        !stale && *self != next && {
            *self = next;
            true
        }
    }
}

impl OwnCell {
    /// Nothing was seen of it yet.
    pub fn new(client: Client, config: &RepConfig) -> OwnCell {
        OwnCell {
            client,
            cell_id: config.cell_id.clone(),
            spec: spec(config),
            asked: Arc::new(watch::Sender::default()),
            known_epoch: KnownEpoch::default(),
            dead_epoch: KnownEpoch::default(),
        }
    }

    /// Registers the Cell, if it is not there or says something else. Returns whether it had to be.
    ///
    /// # Errors
    /// What the API server said.
    pub async fn register(&self) -> Result<bool, CallError> {
        let api = Api::<Cell>::all(self.client.clone());
        if let Some(there) = bounded(api.get_opt(&self.cell_id)).await?
            && says_so(&there.spec, &self.spec)
        {
            self.see_object(&there);
            return Ok(false);
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let object = Patch::Apply(applied(&self.cell_id, &self.spec));
        let stored = bounded(api.patch(&self.cell_id, &params, &object)).await?;
        self.see_object(&stored);
        Ok(true)
    }

    /// Sees to it, for ever, that the object is there and says what this rep says, and hears what operators ask.
    pub async fn look_after(&self, every: Duration) {
        tokio::join!(self.keep_registered(every), self.watch());
    }

    async fn keep_registered(&self, every: Duration) {
        let mut tick = tokio::time::interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once, and that is done already.
        tick.tick().await;
        let mut failing = false;
        loop {
            tick.tick().await;
            match self.register().await {
                Ok(applied) => {
                    failing = false;
                    if applied {
                        tracing::warn!(
                            cell = self.cell_id,
                            "the Cell object was gone or changed; registered again"
                        );
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(cell = self.cell_id, %error, "the Cell object can't be read or registered; trying again");
                    }
                }
            }
        }
    }

    async fn watch(&self) {
        let own = watcher::Config::default().fields(&format!("metadata.name={}", self.cell_id));
        let mut events = watching::events(Api::<Cell>::all(self.client.clone()), own);
        let mut listed = false;
        while let Some(event) = events.next().await {
            match event {
                Event::Init => listed = false,
                Event::InitApply(cell) => {
                    listed = true;
                    self.see_object(&cell);
                }
                Event::Apply(cell) => self.see_object(&cell),
                Event::InitDone if listed => {}
                // Nobody asks anything of a Cell that is not there.
                Event::InitDone | Event::Delete(_) => self.see(Asked::default()),
            }
        }
    }

    fn see_object(&self, cell: &Cell) {
        if let Some(status) = &cell.status
            && let Some(epoch) = status.epoch
        {
            self.known_epoch.hear(epoch);
            if matches!(
                status.state,
                Some(CellState::Missing | CellState::Evacuated)
            ) {
                self.dead_epoch.hear(epoch);
            }
        }
        self.see(Asked::of(cell));
    }

    fn see(&self, next: Asked) {
        self.asked.send_if_modified(|asked| asked.see(next));
    }

    /// Waits until the Cell is to be evacuated, or not to be.
    pub async fn until_evacuate(&self, wanted: bool) {
        let mut asked = self.asked.subscribe();
        // The sender is our own: it can't be gone.
        let _ = asked.wait_for(|asked| asked.evacuate == wanted).await;
    }

    /// Whether the Cell is to be evacuated.
    pub fn is_to_evacuate(&self) -> bool {
        self.asked.borrow().evacuate
    }
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

    #[test]
    fn an_older_state_of_the_object_changes_nothing() {
        let asked = |uid: &str, generation, evacuate| Asked {
            uid: uid.into(),
            generation,
            evacuate,
        };
        let mut known = Asked::default();
        assert!(known.see(asked("1", 2, true)));
        assert!(!known.see(asked("1", 1, false)));
        assert!(known.evacuate);
        assert!(!known.see(asked("1", 2, true)), "no news");
        assert!(known.see(asked("1", 3, false)));
        // Made anew, it begins at 1 again.
        assert!(known.see(asked("2", 1, true)));
        assert!(known.see(Asked::default()), "deleted");
    }
}
