//! Kills a Cell and tells what happens, as it happens, with the time since the kill.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use diego_operator::api::{ActualLRP, ActualLRPState, Cell, CellState, Task, TaskState};
use diego_operator::presence::etcd::key;
use etcd_client::EventType;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};

use crate::probe::{self, Addresses};
use crate::stage::Stage;
use crate::support::Failure;

/// What came of a kill.
pub struct Recovery {
    /// The Cell that was killed.
    pub cell: String,
    /// Instances it ran.
    pub lost_instances: usize,
    /// Tasks it ran.
    pub lost_tasks: usize,
    recovered: usize,
    failed: usize,
    /// From the kill until the last instance ran elsewhere and the last Task was failed.
    pub took: Duration,
}

impl Recovery {
    /// Whether all of it was recovered.
    pub fn complete(&self) -> bool {
        self.recovered == self.lost_instances && self.failed == self.lost_tasks
    }

    /// The one line that says it all.
    pub fn summary(&self, ttl: u64) -> String {
        format!(
            "recovered {} of {} instances and failed {} of {} tasks {:.2} s after the kill (presence TTL {ttl} s)",
            self.recovered,
            self.lost_instances,
            self.failed,
            self.lost_tasks,
            self.took.as_secs_f64(),
        )
    }
}

/// Something that was seen from outside.
enum Sight {
    PresenceGone,
    Cell(Box<Cell>),
    Instance(Box<ActualLRP>),
    Task(Box<Task>),
}

/// Everything that can be seen from outside: the presence key and the three kinds.
async fn sights(
    stage: &Stage,
    cell: &str,
) -> Result<BoxStream<'static, Result<Sight, Failure>>, Failure> {
    let mut etcd = etcd_client::Client::connect(stage.site.etcd.endpoints(), None).await?;
    let presence = etcd.watch(key(cell), None).await?;
    let presence = presence
        .map_err(Failure::from)
        .map_ok(|answer| {
            answer
                .events()
                .iter()
                .any(|event| event.event_type() == EventType::Delete)
        })
        .try_filter_map(|gone| std::future::ready(Ok(gone.then_some(Sight::PresenceGone))));
    let client = &stage.site.client;
    fn all<K>(client: &kube::Client) -> BoxStream<'static, Result<K, Failure>>
    where
        K: kube::Resource<DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + 'static,
    {
        watcher(Api::<K>::all(client.clone()), Default::default())
            .applied_objects()
            .map_err(Failure::from)
            .boxed()
    }
    Ok(futures::stream::select_all([
        presence.boxed(),
        all::<Cell>(client)
            .map_ok(|cell| Sight::Cell(Box::new(cell)))
            .boxed(),
        all::<ActualLRP>(client)
            .map_ok(|lrp| Sight::Instance(Box::new(lrp)))
            .boxed(),
        all::<Task>(client)
            .map_ok(|task| Sight::Task(Box::new(task)))
            .boxed(),
    ])
    .boxed())
}

/// What the Cell ran, and what became of it.
struct Watched {
    cell: String,
    /// Instances that have no new place yet.
    unplaced: BTreeSet<i32>,
    /// Instances that do not run elsewhere yet.
    down: BTreeSet<i32>,
    /// Tasks that are not failed yet.
    tasks: BTreeSet<String>,
    guids: BTreeMap<i32, Option<String>>,
    addresses: Addresses,
    killed: Instant,
    told_verdict: bool,
    told_write: bool,
}

impl Watched {
    fn tell(&self, what: &str) {
        println!("  +{:6.3} s  {what}", self.killed.elapsed().as_secs_f64());
    }

    fn recovered(&self) -> bool {
        self.down.is_empty() && self.tasks.is_empty()
    }

    fn see(&mut self, sight: Sight) {
        match sight {
            Sight::PresenceGone => self.tell("the presence expired"),
            Sight::Cell(cell) => self.see_cell(&cell),
            Sight::Instance(lrp) => self.see_instance(&lrp),
            Sight::Task(task) => self.see_task(&task),
        }
    }

    fn see_cell(&mut self, cell: &Cell) {
        let missing = cell
            .status
            .as_ref()
            .is_some_and(|status| status.state == Some(CellState::Missing));
        if cell.name_any() == self.cell && missing && !self.told_verdict {
            self.told_verdict = true;
            self.tell(&format!("the verdict: {} is Missing", self.cell));
        }
    }

    fn see_instance(&mut self, lrp: &ActualLRP) {
        let index = lrp.spec.index;
        let Some(old_guid) = self.guids.get(&index) else {
            return;
        };
        let Some(status) = lrp
            .status
            .as_ref()
            .filter(|status| status.instance_guid != *old_guid)
        else {
            return;
        };
        if !self.told_write {
            self.told_write = true;
            self.tell("the first instance has a new place");
        }
        if status.cell_name.is_some() && self.unplaced.remove(&index) && self.unplaced.is_empty() {
            self.tell("all instances have a new place");
        }
        if status.state == ActualLRPState::Running
            && let (Some(host), Some(port)) = (&status.address, status.ports.first())
        {
            let address = format!("{host}:{}", port.host_port);
            self.addresses
                .lock()
                .expect("nobody panics with it")
                .insert(index, address);
            if self.down.remove(&index) && self.down.is_empty() {
                self.tell("all instances run on other Cells");
            }
        }
    }

    fn see_task(&mut self, task: &Task) {
        let failed = task.status.as_ref().is_some_and(|status| {
            status.state != TaskState::Running && status.failed == Some(true)
        });
        if failed && self.tasks.remove(&task.name_any()) && self.tasks.is_empty() {
            let reason = task
                .status
                .clone()
                .unwrap_or_default()
                .failure_reason
                .unwrap_or_default();
            self.tell(&format!("the Task is failed: {reason}"));
        }
    }
}

/// Kills the Cell that runs `task`, and tells what happens until all is recovered, or `within` has passed.
pub async fn kill_and_watch(
    stage: &mut Stage,
    task: &str,
    within: Duration,
) -> Result<Recovery, Failure> {
    let doomed = stage
        .site
        .tasks()
        .get(task)
        .await?
        .status
        .unwrap_or_default()
        .cell_name
        .unwrap_or_default();
    let on_doomed = |cell: &Option<String>| cell.as_deref() == Some(doomed.as_str());
    let mut lost = stage.site.instances("web").await?;
    let addresses = Addresses::default();
    for lrp in &lrp_addresses(&lost) {
        addresses
            .lock()
            .expect("nobody panics with it")
            .insert(lrp.0, lrp.1.clone());
    }
    lost.retain(|lrp| {
        lrp.status
            .as_ref()
            .is_some_and(|status| on_doomed(&status.cell_name))
    });
    let indices: BTreeSet<i32> = lost.iter().map(|lrp| lrp.spec.index).collect();
    let all_tasks = stage.site.tasks().list(&Default::default()).await?.items;
    let tasks: BTreeSet<String> = all_tasks
        .iter()
        .filter(|task| {
            task.status
                .as_ref()
                .is_some_and(|s| s.state == TaskState::Running && on_doomed(&s.cell_name))
        })
        .map(ResourceExt::name_any)
        .collect();
    let (lost_instances, lost_tasks) = (indices.len(), tasks.len());
    let mut sights = sights(stage, &doomed).await?;
    let mut probes = probe::gaps(&addresses, indices.clone());
    // The watches are up and the probes have had answers; and no moment of the renewal cycle is preferred.
    let some = Duration::from_nanos(
        u64::from(
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)?
                .subsec_nanos(),
        ) * 5
            / 3,
    );
    tokio::time::sleep(Duration::from_secs(1) + some).await;

    println!(
        "  {doomed} runs {lost_instances} instances and {lost_tasks} Task: SIGKILL to its rep and all its processes"
    );
    let killed = Instant::now();
    stage.site.kill_cell(&doomed).await;
    let mut watched = Watched {
        cell: doomed.clone(),
        unplaced: indices.clone(),
        down: indices.clone(),
        tasks,
        guids: lost
            .iter()
            .map(|lrp| {
                (
                    lrp.spec.index,
                    lrp.status.clone().unwrap_or_default().instance_guid,
                )
            })
            .collect(),
        addresses,
        killed,
        told_verdict: false,
        told_write: false,
    };
    watched.tell("killed");
    let deadline = tokio::time::Instant::from_std(killed + within);
    while !watched.recovered() {
        match tokio::time::timeout_at(deadline, sights.next()).await {
            Err(_) => {
                watched.tell(&format!("not recovered within {within:?}"));
                break;
            }
            Ok(None) => return Err("a watch ended".into()),
            Ok(Some(sight)) => watched.see(sight?),
        }
    }
    let took = killed.elapsed();
    let mut gaps = Vec::new();
    let all = async {
        while let Some(probed) = probes.join_next().await {
            gaps.extend(probed.map(|(_, gap)| gap.as_secs_f64()));
        }
    };
    // Instances that are not back do not answer either; that was said above.
    let _ = tokio::time::timeout(Duration::from_secs(10), all).await;
    if gaps.len() == lost_instances && !gaps.is_empty() {
        let (min, max) = gaps.iter().fold((f64::MAX, 0f64), |(min, max), gap| {
            (min.min(*gap), max.max(*gap))
        });
        watched.tell(&format!(
            "an HTTP client got no answer from them for {min:.2} to {max:.2} s"
        ));
    }
    Ok(Recovery {
        cell: doomed,
        lost_instances,
        lost_tasks,
        recovered: lost_instances - watched.down.len(),
        failed: lost_tasks - watched.tasks.len(),
        took,
    })
}

/// Where the instances are.
fn lrp_addresses(instances: &[ActualLRP]) -> Vec<(i32, String)> {
    let address = |lrp: &ActualLRP| {
        let status = lrp.status.as_ref()?;
        let port = status.ports.first()?;
        Some((
            lrp.spec.index,
            format!("{}:{}", status.address.as_ref()?, port.host_port),
        ))
    };
    instances.iter().filter_map(address).collect()
}
