//! What kubelets do, as far as the API server sees it: a bound Pod becomes ready, and a deleted one goes.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::Failure;

/// How often the Pods are looked at.
const TICK: Duration = Duration::from_millis(50);

/// The kubelets of all nodes.
pub struct Kubelets {
    client: Client,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    dead: HashSet<String>,
    left_alone: HashSet<String>,
}

impl Drop for Kubelets {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Kubelets {
    /// Plays them until it is dropped.
    pub fn start(client: Client) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let (api, shared) = (Api::<Pod>::all(client.clone()), state.clone());
        let own = client.clone();
        let task = tokio::spawn(async move {
            loop {
                if let Ok(pods) = api.list(&ListParams::default()).await {
                    for pod in pods {
                        look(&own, &shared, &pod).await;
                    }
                }
                tokio::time::sleep(TICK).await;
            }
        });
        Kubelets {
            client,
            state,
            task,
        }
    }

    /// The kubelet of a node does nothing any more.
    pub fn die(&self, node: &str) {
        self.state.lock().expect("whole").dead.insert(node.into());
    }

    /// Pods whose name begins so become what the test says; deleted, they go as others do.
    pub fn leave_alone(&self, prefix: &str) {
        let mut state = self.state.lock().expect("whole");
        state.left_alone.insert(prefix.into());
    }

    /// Writes the status of a Pod.
    pub async fn set(&self, pod: &Pod, status: Value) -> Result<(), Failure> {
        set(&self.client, pod, status).await
    }
}

async fn look(client: &Client, state: &Mutex<State>, pod: &Pod) {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let (dead, left_alone) = {
        let state = state.lock().expect("whole");
        let alone = |prefix: &String| pod.name_any().starts_with(prefix.as_str());
        let dead = node.is_none_or(|node| state.dead.contains(&node));
        (dead, state.left_alone.iter().any(alone))
    };
    if dead {
        return;
    }
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if pod.metadata.deletion_timestamp.is_some() {
        let api = Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        let now = DeleteParams::default().grace_period(0);
        // Somebody else may have been faster.
        let _ = api.delete(&pod.name_any(), &now).await;
    } else if phase == Some("Pending") && !left_alone {
        let _ = set(client, pod, ready()).await;
    }
}

async fn set(client: &Client, pod: &Pod, status: Value) -> Result<(), Failure> {
    let api = Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let uid = pod.uid();
    let patch = Patch::Merge(json!({ "metadata": { "uid": uid }, "status": status }));
    api.patch_status(&pod.name_any(), &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

/// The status of a Pod that is ready for traffic.
pub fn ready() -> Value {
    json!({
        "phase": "Running", "podIP": "10.11.12.13", "podIPs": [{ "ip": "10.11.12.13" }],
        "conditions": [{ "type": "Ready", "status": "True" }],
        "containerStatuses": [container(json!({ "running": { "startedAt": "2026-01-01T00:00:00Z" } }), true)],
    })
}

/// The status of a Pod whose container has ended so.
pub fn ended(phase: &str, terminated: Value) -> Value {
    json!({
        "phase": phase,
        "conditions": [{ "type": "Ready", "status": "False" }],
        "containerStatuses": [container(json!({ "terminated": terminated }), false)],
    })
}

/// The status of a Pod whose container can't start.
pub fn waiting(reason: &str, message: &str) -> Value {
    let state = json!({ "waiting": { "reason": reason, "message": message } });
    json!({ "phase": "Pending", "containerStatuses": [container(state, false)] })
}

fn container(state: Value, ready: bool) -> Value {
    json!({ "name": "main", "ready": ready, "restartCount": 0, "image": "x", "imageID": "x", "state": state })
}
