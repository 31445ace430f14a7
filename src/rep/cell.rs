//! The rep's own Cell object: registered by server-side apply, so that what belongs to operators stays theirs.

mod heard;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use heard::{Asked, Told};

use super::node::OwnNode;
use super::store::FIELD_MANAGER;
use super::{RepConfig, RepMetrics};
use crate::api::{Cell, CellSpec, CellState};
use crate::client::{CallError, bounded};
use crate::presence::keeper::{CellCount, KnownEpoch};
use crate::presence::ttl::Ttl;
use crate::sync::locked;
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
    spec: Arc<Mutex<CellSpec>>,
    /// With executor Pods: where its zone and its capacity come from, and the zone where that says none.
    node: Option<(OwnNode, String)>,
    metrics: RepMetrics,
    asked: Arc<watch::Sender<Asked>>,
    told: Arc<watch::Sender<Told>>,
    /// The greatest epoch that the ledger has of this Cell.
    pub known_epoch: KnownEpoch,
    /// The greatest epoch under which the Cell was judged lost or gone: whatever is said under it is said too late.
    pub dead_epoch: KnownEpoch,
    /// How many Cells there are, where the TTL of the presence depends on it.
    pub cells: CellCount,
    counts: bool,
}

/// How often the Cells are counted.
const COUNT: Duration = Duration::from_secs(60);

/// The counts are written within about a second; so long they must say that nothing is left.
const SETTLED: Duration = Duration::from_secs(3);

impl OwnCell {
    /// Nothing was seen of it yet.
    pub fn new(
        client: Client,
        config: &RepConfig,
        node: Option<OwnNode>,
        metrics: RepMetrics,
    ) -> OwnCell {
        OwnCell {
            client,
            cell_id: config.cell_id.clone(),
            spec: Arc::new(Mutex::new(spec(config))),
            node: node.map(|node| (node, config.zone.clone())),
            metrics,
            asked: Arc::new(watch::Sender::default()),
            told: Arc::new(watch::Sender::default()),
            known_epoch: KnownEpoch::default(),
            dead_epoch: KnownEpoch::default(),
            cells: CellCount::default(),
            counts: matches!(config.ttl, Ttl::Auto(_)),
        }
    }

    /// Registers the Cell, if it is not there or says something else. Returns whether it had to be.
    ///
    /// # Errors
    /// What the API server said.
    pub async fn register(&self) -> Result<bool, CallError> {
        let api = Api::<Cell>::all(self.client.clone());
        let spec = self.spec();
        if let Some(there) = bounded(api.get_opt(&self.cell_id)).await?
            && says_so(&there.spec, &spec)
        {
            self.see_object(&there);
            return Ok(false);
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let object = Patch::Apply(applied(&self.cell_id, &spec));
        let stored = bounded(api.patch(&self.cell_id, &params, &object)).await?;
        self.see_object(&stored);
        Ok(true)
    }

    fn spec(&self) -> CellSpec {
        locked(&self.spec).clone()
    }

    /// Takes over what has changed on the Node. Returns what is wrong with it.
    async fn follow_node(&self) -> Option<String> {
        let (node, zone) = self.node.as_ref()?;
        let facts = match node.read().await {
            Ok(facts) => facts,
            Err(error) => return Some(error.to_string()),
        };
        self.metrics.set_capacity(&facts.capacity);
        let mut spec = locked(&self.spec);
        spec.zone = facts.zone.unwrap_or_else(|| zone.clone());
        spec.capacity = facts.capacity;
        None
    }

    /// Sees to it, for ever, that the object is there and says what this rep says, and hears what operators ask.
    pub async fn look_after(&self, every: Duration) {
        tokio::join!(self.keep_registered(every), self.watch(), self.count());
    }

    /// Counts the Cells, once in a while, if anybody wants to know. Of a list that is cut short the server tells how much is
    /// left out.
    async fn count(&self) {
        if !self.counts {
            return;
        }
        let api = Api::<Cell>::all(self.client.clone());
        let mut tick = tokio::time::interval(COUNT);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            match bounded(api.list_metadata(&ListParams::default().limit(1))).await {
                Ok(list) => {
                    let more = list.metadata.remaining_item_count.unwrap_or_default();
                    let cells = i64::try_from(list.items.len()).unwrap_or_default() + more;
                    self.cells.set(u32::try_from(cells).unwrap_or(u32::MAX));
                }
                // As last counted.
                Err(error) => tracing::debug!(%error, "the Cells can't be counted"),
            }
        }
    }

    async fn keep_registered(&self, every: Duration) {
        let mut tick = tokio::time::interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once, and that is done already.
        tick.tick().await;
        let mut failing = false;
        let mut node_problem: Option<String> = None;
        loop {
            tick.tick().await;
            let problem = self.follow_node().await;
            if let Some(problem) = &problem
                && node_problem.as_ref() != Some(problem)
            {
                tracing::warn!(
                    cell = self.cell_id,
                    problem,
                    "the Cell offers what its Node last gave"
                );
            }
            node_problem = problem;
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
        let mut events = watching::readable::<Cell>(self.client.clone(), own, |_| {});
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
                Event::InitDone | Event::Delete(_) => {
                    self.told.send_replace(Told::default());
                    self.see(Asked::default());
                }
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
        self.told.send_replace(Told::of(cell));
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

    /// Waits until the controller says that nothing is left here, or until `until`. Returns whether it does.
    pub async fn until_empty(&self, until: Instant) -> bool {
        let mut told = self.told.subscribe();
        let emptied = async {
            loop {
                // The sender is our own: it can't be gone.
                let _ = told.wait_for(Told::is_empty).await;
                let filled = told.wait_for(|told| !told.is_empty());
                if tokio::time::timeout(SETTLED, filled).await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout_at(until.into(), emptied).await.is_ok()
    }

    /// Whether the ledger still counts with this Cell.
    pub fn may_have_work(&self) -> bool {
        matches!(
            self.told.borrow().state,
            Some(CellState::Present | CellState::Evacuating)
        )
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
}
