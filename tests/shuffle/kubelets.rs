//! What kubelets do, as far as the API server sees it, at once and by a client that passes no shuffler.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diego_operator::api::{LABEL_DESIRED_LRP, LABEL_INDEX};
use diego_operator::converge::pods::{LABEL_GUID, LABEL_TASK};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::observer::Log;
use crate::observer::facts::{Fact, Run, now};

/// The kubelets of all nodes, until dropped.
pub struct Kubelets {
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

struct Shared {
    client: Client,
    log: Log,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    dead: BTreeSet<String>,
    /// By uid, as they were last seen.
    pods: BTreeMap<String, Pod>,
    /// What runs, by uid.
    runs: BTreeMap<String, Run>,
    started: u32,
}

impl Kubelets {
    /// Plays them.
    pub fn start(client: Client, log: Log) -> Self {
        let shared = Arc::new(Shared {
            client: client.clone(),
            log,
            state: Mutex::default(),
        });
        let mut task = JoinSet::new();
        let follower = Arc::clone(&shared);
        task.spawn(async move {
            let config = watcher::Config::default().labels(LABEL_GUID);
            let mut events = watcher(Api::<Pod>::all(client), config).boxed();
            while let Some(event) = events.next().await {
                match event {
                    Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                        follower.seen(pod).await;
                    }
                    Ok(watcher::Event::Delete(pod)) => follower.gone(&pod),
                    Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        Kubelets {
            shared,
            _task: task,
        }
    }

    /// A machine dies with all that it runs.
    pub fn die(&self, node: &str) {
        let mut state = self.shared.state();
        state.dead.insert(node.to_owned());
        state.runs.retain(|_, run| {
            let ends = run.cell == node;
            if ends {
                self.shared.ended(run);
            }
            !ends
        });
    }

    /// It boots: what it ran before has ended, and what it had not begun begins.
    pub async fn boot(&self, node: &str) {
        let pods: Vec<Pod> = {
            let mut state = self.shared.state();
            state.dead.remove(node);
            let here = state.pods.values().filter(|pod| node_of(pod) == node);
            here.cloned().collect()
        };
        for pod in pods {
            match phase(&pod) {
                "Running" => self.shared.end(&pod, "Failed", 137).await,
                _ => self.shared.act(&pod).await,
            }
        }
    }

    /// What runs here, Tasks or instances, ends by itself: all Tasks, or the first instance.
    pub async fn end(&self, tasks: bool) -> bool {
        let pods: Vec<Pod> = {
            let state = self.shared.state();
            let these = state
                .runs
                .iter()
                .filter(|(_, run)| run.index.is_none() == tasks);
            let pods = these.filter_map(|(uid, _)| state.pods.get(uid).cloned());
            pods.take(if tasks { usize::MAX } else { 1 }).collect()
        };
        for pod in &pods {
            match tasks {
                true => self.shared.end(pod, "Succeeded", 0).await,
                false => self.shared.end(pod, "Failed", 1).await,
            }
        }
        !pods.is_empty()
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    fn ended(&self, run: &Run) {
        self.log.add(Fact::Ended {
            guid: run.guid.clone(),
            pid: run.pid,
            alive: now(),
        });
    }

    async fn seen(&self, pod: Pod) {
        let uid = pod.uid().unwrap_or_default();
        self.state().pods.insert(uid, pod.clone());
        self.act(&pod).await;
    }

    fn gone(&self, pod: &Pod) {
        let uid = pod.uid().unwrap_or_default();
        let mut state = self.state();
        state.pods.remove(&uid);
        if let Some(run) = state.runs.remove(&uid) {
            self.ended(&run);
        }
    }

    async fn act(&self, pod: &Pod) {
        let uid = pod.uid().unwrap_or_default();
        if self.state().dead.contains(node_of(pod)) {
            return;
        }
        if pod.metadata.deletion_timestamp.is_some() {
            self.gone(pod);
            let api = self.api(pod);
            let mut now = DeleteParams::default().grace_period(0);
            now.preconditions = Some(Preconditions {
                uid: Some(uid),
                resource_version: None,
            });
            // Somebody else may have been faster.
            let _ = api.delete(&pod.name_any(), &now).await;
        } else if phase(pod) == "Pending" && self.begin(&uid, pod) {
            let running = json!({ "running": { "startedAt": "2026-01-01T00:00:00Z" } });
            self.set(pod, status("Running", true, running)).await;
        }
    }

    /// Whether it is begun now.
    fn begin(&self, uid: &str, pod: &Pod) -> bool {
        let label = |name: &str| pod.labels().get(name).cloned();
        let mut state = self.state();
        if state.runs.contains_key(uid) {
            return false;
        }
        state.started += 1;
        let run = Run {
            process: label(LABEL_DESIRED_LRP)
                .or(label(LABEL_TASK))
                .unwrap_or_default(),
            index: label(LABEL_INDEX).and_then(|index| index.parse().ok()),
            guid: label(LABEL_GUID).unwrap_or_default(),
            pid: state.started,
            cell: node_of(pod).to_owned(),
        };
        self.log.add(Fact::Started(run.clone()));
        state.runs.insert(uid.to_owned(), run);
        true
    }

    async fn end(&self, pod: &Pod, phase: &str, code: i32) {
        let run = self.state().runs.remove(&pod.uid().unwrap_or_default());
        if let Some(run) = run {
            self.ended(&run);
        }
        let ended = json!({ "terminated": { "exitCode": code, "reason": "Error" } });
        self.set(pod, status(phase, false, ended)).await;
    }

    fn api(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default())
    }

    async fn set(&self, pod: &Pod, status: Value) {
        let patch = Patch::Merge(json!({ "metadata": { "uid": pod.uid() }, "status": status }));
        let params = PatchParams::default();
        // It may be gone.
        let _ = self
            .api(pod)
            .patch_status(&pod.name_any(), &params, &patch)
            .await;
    }
}

fn node_of(pod: &Pod) -> &str {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.node_name.as_deref())
        .unwrap_or_default()
}

fn phase(pod: &Pod) -> &str {
    let status = pod.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

fn status(phase: &str, ready: bool, state: Value) -> Value {
    let container = json!({ "name": "main", "ready": ready, "restartCount": 0, "image": "x", "imageID": "x", "state": state });
    json!({
        "phase": phase, "podIP": "10.11.12.13", "podIPs": [{ "ip": "10.11.12.13" }],
        "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
        "containerStatuses": [container],
    })
}
