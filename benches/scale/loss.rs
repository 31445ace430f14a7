//! One loss: Cells are killed in one moment, and an observer times how their work comes back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use diego_operator::api::{ActualLRPState, DesiredLRP};
use kube::api::{Api, PostParams};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::executor::lock;
use super::fleet::{Dead, Fleet};
use super::loader;
use super::plan::{Plan, Store};
use super::sights::{Observer, Sight};
use crate::support::{Failure, site::Site};

/// How often somebody else wants an instance meanwhile.
const BYSTANDER_EVERY: Duration = Duration::from_millis(250);

/// What was seen of a loss; all times in seconds from the kill.
pub struct Seen {
    /// For each Cell: its presence ended, its first instance and all of them got a new place, all of them run.
    pub cells: Vec<[f64; 4]>,
    /// When each instance got its new place, in order, and whether it has index 0.
    pub placed: Vec<(f64, bool)>,
    /// From the wish of somebody else to its place.
    pub bystanders: Vec<f64>,
}

/// A Cell that was lost, and what is left to see of it.
struct Lost {
    expiry: Option<Instant>,
    first: Option<Instant>,
    placed: Option<Instant>,
    running: Option<Instant>,
    unplaced: usize,
    down: usize,
}

/// An instance of it.
struct Slot {
    cell: String,
    guid: String,
    placed: bool,
    runs: bool,
}

/// Kills these Cells, and looks on until all of their work runs elsewhere. With `bystanders`, others go on wanting
/// things meanwhile; `turn` tells those of one loss from those of another.
pub async fn kill(
    (site, plan): (&Site, &Plan),
    fleet: &mut Fleet,
    observer: &mut Observer,
    cells: &[usize],
    bystanders: Option<usize>,
) -> Result<Seen, Failure> {
    observer.skip();
    let wishes = Wishes::default();
    let enough = CancellationToken::new();
    let _asking = bystanders.map(|turn| wishes.ask(site, turn, enough.clone()));
    let dead = fleet.kill(cells);
    follow(plan, dead, observer, (&wishes, &enough)).await
}

/// Looks on until all work of the dead Cells runs elsewhere.
pub async fn follow(
    plan: &Plan,
    dead: Vec<Dead>,
    observer: &mut Observer,
    (wishes, enough): (&Wishes, &CancellationToken),
) -> Result<Seen, Failure> {
    let died = dead.len();
    let killed = dead.first().ok_or("there is no Cell to kill")?.at;
    let (mut lost, mut slots) = (BTreeMap::new(), BTreeMap::new());
    for one in dead {
        let expiry = (plan.store == Store::Kubernetes).then_some(one.expires);
        let left = Lost {
            expiry,
            first: None,
            placed: None,
            running: None,
            unplaced: one.instances.len(),
            down: one.instances.len(),
        };
        // One without work has nothing to be timed.
        if left.down > 0 {
            lost.insert(one.cell.clone(), left);
        }
        for (record, guid) in one.instances {
            let cell = one.cell.clone();
            let slot = Slot {
                cell,
                guid,
                placed: false,
                runs: false,
            };
            slots.insert(record, slot);
        }
    }
    let deadline = tokio::time::Instant::now() + plan.patience();
    let mut placed = Vec::new();
    let (mut unplaced, mut down) = (slots.len(), slots.len());
    while down > 0 || wishes.open() {
        let next = tokio::time::timeout_at(deadline, observer.next()).await;
        let Ok(next) = next else {
            let all = slots.len();
            return Err(format!("not within {:?} of the loss of {} Cells: of {all} instances {unplaced} have no new place and {down} do not run", plan.patience(), died).into());
        };
        let (at, sight) = next?;
        let (record, state, cell, guid) = match sight {
            Sight::Gone(cell) => {
                if let Some(lost) = lost.get_mut(&cell) {
                    lost.expiry.get_or_insert(at);
                }
                continue;
            }
            Sight::Instance {
                record,
                state,
                cell,
                guid,
            } => (record, state, cell, guid),
        };
        if cell.is_none() {
            continue;
        }
        wishes.placed(&record, at);
        let Some(slot) = slots.get_mut(&record) else {
            continue;
        };
        let Some(lost) = lost.get_mut(&slot.cell) else {
            continue;
        };
        if guid.as_deref() == Some(&slot.guid) {
            continue;
        }
        if !std::mem::replace(&mut slot.placed, true) {
            unplaced -= 1;
            lost.unplaced -= 1;
            lost.first.get_or_insert(at);
            if lost.unplaced == 0 {
                lost.placed = Some(at);
            }
            placed.push((since(killed, at), record.ends_with("-0")));
            if unplaced == 0 {
                // Nobody else asks any more; those who did get their answer.
                enough.cancel();
            }
        }
        if state == ActualLRPState::Running && !std::mem::replace(&mut slot.runs, true) {
            down -= 1;
            lost.down -= 1;
            if lost.down == 0 {
                lost.running = Some(at);
            }
        }
    }
    let times = lost.values().map(|lost| {
        let times = [lost.expiry?, lost.first?, lost.placed?, lost.running?];
        Some(times.map(|at| since(killed, at)))
    });
    let cells = times.collect::<Option<Vec<_>>>();
    Ok(Seen {
        cells: cells.ok_or("an end of a presence was not seen")?,
        placed,
        bystanders: wishes.waited(),
    })
}

fn since(killed: Instant, at: Instant) -> f64 {
    // A Lease may have been about to run out.
    at.saturating_duration_since(killed).as_secs_f64()
}

/// What others want meanwhile, by the name of the record.
#[derive(Clone, Default)]
pub struct Wishes(Arc<Mutex<BTreeMap<String, Wish>>>);

/// When it was asked for, and how long it took.
type Wish = (Instant, Option<Duration>);

impl Wishes {
    /// Somebody creates one DesiredLRP after the other until `enough`.
    fn ask(&self, site: &Site, turn: usize, enough: CancellationToken) -> AbortOnDropHandle<()> {
        let (wishes, client) = (self.clone(), site.client.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            let api = Api::<DesiredLRP>::namespaced(client, "default");
            for n in 0.. {
                if enough.is_cancelled() {
                    return;
                }
                let name = format!("by-{turn}-{n}");
                let wanted = loader::desired(&name, 1);
                let record = format!("{name}-0");
                lock(&wishes.0).insert(record.clone(), (Instant::now(), None));
                if api.create(&PostParams::default(), &wanted).await.is_err() {
                    lock(&wishes.0).remove(&record);
                }
                tokio::time::sleep(BYSTANDER_EVERY).await;
            }
        }))
    }

    /// An instance has a place; perhaps one of these.
    fn placed(&self, record: &str, at: Instant) {
        if let Some((asked, waited)) = lock(&self.0).get_mut(record) {
            waited.get_or_insert(at.saturating_duration_since(*asked));
        }
    }

    /// Whether somebody waits for a place.
    fn open(&self) -> bool {
        lock(&self.0).values().any(|(_, waited)| waited.is_none())
    }

    fn waited(&self) -> Vec<f64> {
        let all = lock(&self.0);
        let waited = all.values().filter_map(|(_, waited)| *waited);
        waited.map(|waited| waited.as_secs_f64()).collect()
    }
}
