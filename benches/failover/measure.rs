//! One kill, seen from outside: by watches of the API server, and by requests to the Services from a node that lives.

use crate::{installed::Installed, support::Failure};
use diego_operator::api::{ActualLRP, ActualLRPState, Cell, CellState, Task, TaskState};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    runtime::watcher::{self, Event, watcher},
};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Kubernetes alone takes 40 to 50 s to notice and 300 s to act.
const PATIENCE: Duration = Duration::from_secs(480);
/// A request that is not answered within these seconds has failed.
const ANSWER: &str = "1";
/// The Service is well again after so many answers in a row: a quarter of its Pods are dead until then.
const WELL: usize = 30;

/// What is waited for.
pub struct Until {
    /// The Pods of the LRP, and those of the Deployment.
    pub pods: usize,
}

/// Seconds from the kill.
#[derive(Debug, Default, Clone)]
pub struct Times {
    /// The Cell is Missing.
    pub verdict: f64,
    /// The Task is Completed, and failed.
    pub task: f64,
    /// The Pods of the DesiredLRP.
    pub lrp: Away,
    /// Those of the Deployment.
    pub plain: Away,
}

/// How long some Pods were away, in seconds from the kill.
#[derive(Debug, Default, Clone)]
pub struct Away {
    /// All have a node that lives.
    pub placed: f64,
    /// All are ready there.
    pub ready: f64,
    /// The last request to their Service that failed before it was well again, if any did.
    pub last_failure: Option<f64>,
}

enum Sight {
    Cell(Box<Cell>),
    Task(Box<Task>),
    Instance(Box<ActualLRP>),
    Pod(Box<Event<Pod>>),
}

/// What was seen last: of the instances the Cell and whether they run, of the Deployment's Pods the same.
#[derive(Default)]
struct Seen {
    instances: HashMap<String, (String, bool)>,
    pods: HashMap<String, (String, bool)>,
    listing: HashMap<String, (String, bool)>,
}

/// Kills a node and waits until all its work is well elsewhere.
pub async fn kill(site: &Installed, dies: &str, until: Until) -> Result<Times, Failure> {
    let kubeconfig = kube::config::Kubeconfig::read_from(site.nodes.cluster().kubeconfig())?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    let client = Client::try_from(config)?;
    let labelled = watcher::Config::default().labels("app=plain");
    let mut sights = stream::select_all([
        applied(Api::all(client.clone()), |cell| Sight::Cell(Box::new(cell))),
        applied(Api::default_namespaced(client.clone()), |task| {
            Sight::Task(Box::new(task))
        }),
        applied(Api::default_namespaced(client.clone()), |lrp| {
            Sight::Instance(Box::new(lrp))
        }),
        watcher(Api::<Pod>::default_namespaced(client.clone()), labelled)
            .map_ok(|event| Sight::Pod(Box::new(event)))
            .map_err(Failure::from)
            .boxed(),
    ]);
    let mut seen = Seen::default();
    // Up once everything is seen where it was.
    while seen.instances.len() < until.pods || seen.pods.len() < until.pods {
        let sight = tokio::time::timeout(PATIENCE, sights.next()).await?;
        seen.see(&sight.ok_or("a watch ended")??);
    }
    let asker = site.nodes.iter().find(|node| node.name() != dies);
    let asker = asker.ok_or("no other node")?.name().to_owned();
    let killed = Instant::now();
    let watching = async {
        site.node(dies)?.kill().await?;
        follow(&mut sights, &mut seen, dies, &until, killed).await
    };
    let (times, web, plain) = tokio::join!(
        watching,
        outage(site, &asker, "web", killed),
        outage(site, &asker, "plain", killed),
    );
    let mut times = times?;
    times.lrp.last_failure = web?;
    times.plain.last_failure = plain?;
    Ok(times)
}

fn applied<K>(
    api: Api<K>,
    sight: fn(K) -> Sight,
) -> stream::BoxStream<'static, Result<Sight, Failure>>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    use kube::runtime::WatchStreamExt;
    watcher(api, watcher::Config::default())
        .applied_objects()
        .map_ok(sight)
        .map_err(Failure::from)
        .boxed()
}

async fn follow(
    sights: &mut (impl futures::Stream<Item = Result<Sight, Failure>> + Unpin),
    seen: &mut Seen,
    dies: &str,
    until: &Until,
    killed: Instant,
) -> Result<Times, Failure> {
    let (mut verdict, mut task) = (None, None);
    let (mut lrp, mut plain) = ((None, None), (None, None));
    loop {
        let sight = tokio::time::timeout(PATIENCE, sights.next()).await?;
        let sight = sight.ok_or("a watch ended")??;
        let now = killed.elapsed().as_secs_f64();
        match &sight {
            Sight::Cell(cell) => {
                let state = cell.status.as_ref().and_then(|status| status.state);
                if cell.name_any() == dies && state == Some(CellState::Missing) {
                    verdict.get_or_insert(now);
                }
            }
            Sight::Task(one) => {
                let done = |status: &diego_operator::api::TaskStatus| {
                    status.state != TaskState::Pending && status.state != TaskState::Running
                };
                if one.status.as_ref().is_some_and(done) {
                    task.get_or_insert(now);
                }
            }
            Sight::Instance(_) | Sight::Pod(_) => {}
        }
        seen.see(&sight);
        note(&seen.instances, dies, until.pods, now, &mut lrp);
        note(&seen.pods, dies, until.pods, now, &mut plain);
        if let (Some(verdict), Some(task), (Some(placed), Some(ready)), (Some(p), Some(r))) =
            (verdict, task, lrp, plain)
        {
            let away = |placed, ready| Away {
                placed,
                ready,
                last_failure: None,
            };
            return Ok(Times {
                verdict,
                task,
                lrp: away(placed, ready),
                plain: away(p, r),
            });
        }
    }
}

/// Notes when all were placed, and ready, for the first time.
fn note(
    all: &HashMap<String, (String, bool)>,
    dies: &str,
    count: usize,
    now: f64,
    (placed, ready): &mut (Option<f64>, Option<f64>),
) {
    let elsewhere: Vec<bool> = all
        .values()
        .filter(|(node, _)| node != dies && !node.is_empty())
        .map(|(_, ready)| *ready)
        .collect();
    if elsewhere.len() >= count {
        placed.get_or_insert(now);
        if elsewhere.iter().filter(|ready| **ready).count() >= count {
            ready.get_or_insert(now);
        }
    }
}

impl Seen {
    fn see(&mut self, sight: &Sight) {
        match sight {
            Sight::Cell(_) | Sight::Task(_) => {}
            Sight::Instance(lrp) => {
                let status = lrp.status.clone().unwrap_or_default();
                let runs = status.state == ActualLRPState::Running;
                let cell = status.cell_name.unwrap_or_default();
                self.instances.insert(lrp.name_any(), (cell, runs));
            }
            Sight::Pod(event) => match event.as_ref() {
                Event::Init => self.listing.clear(),
                Event::InitApply(pod) => {
                    if let Some(entry) = entry(pod) {
                        self.listing.insert(pod.name_any(), entry);
                    }
                }
                Event::InitDone => self.pods = std::mem::take(&mut self.listing),
                Event::Apply(pod) => {
                    match entry(pod) {
                        Some(entry) => self.pods.insert(pod.name_any(), entry),
                        None => self.pods.remove(&pod.name_any()),
                    };
                }
                Event::Delete(pod) => {
                    self.pods.remove(&pod.name_any());
                }
            },
        }
    }
}

/// A Pod's node, and whether it is ready there; nothing for one that is being deleted.
fn entry(pod: &Pod) -> Option<(String, bool)> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let conditions = pod.status.as_ref().and_then(|it| it.conditions.as_ref());
    let ready = conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    Some((node.unwrap_or_default(), ready))
}

/// Asks a Service from a node, again and again until it is well, and tells when a request failed last.
async fn outage(
    site: &Installed,
    asker: &str,
    service: &str,
    killed: Instant,
) -> Result<Option<f64>, Failure> {
    let ask = format!("get service {service} -o jsonpath={{.spec.clusterIP}}");
    let url = format!("http://{}/", site.kubectl(&ask).await?);
    let node = site.node(asker)?;
    let quiet = [
        "curl",
        "-sS",
        "--output",
        "/dev/null",
        "--max-time",
        ANSWER,
        &url,
    ];
    let (mut last, mut answers) = (None, 0);
    while answers < WELL {
        match node.exec(&quiet).await {
            Ok(_) => answers += 1,
            Err(_) => {
                answers = 0;
                last = Some(killed.elapsed().as_secs_f64());
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(last)
}
