//! The clients of the lanes: a connection for each, and one gate before all of them.

use std::time::Duration;

use kube::{Client, Config};

use crate::client::gate::Gate;
use crate::client::{self, ConnectError};
use crate::metrics::ClientMetrics;

/// The clients that the controller's lanes write with, all behind the same gate.
pub struct Clients {
    /// For lost Cells alone.
    pub fast: Client,
    /// For everything else.
    pub slow: Client,
    /// For Pods, and for what is said about them.
    pub pods: Client,
}

impl Clients {
    /// Makes them.
    ///
    /// # Errors
    /// When the configuration can't be turned into a client.
    pub fn new(
        config: &Config,
        metrics: &ClientMetrics,
        gate: &Gate,
    ) -> Result<Self, ConnectError> {
        let client = || client::build_gated(config, metrics, gate);
        Ok(Clients {
            fast: client()?,
            slow: client()?,
            pods: client()?,
        })
    }
}

/// How often each connection is used.
const USE: Duration = Duration::from_secs(10);

/// Sees to it, for ever, that the connection of each client is open: the first call of a recovery must wait neither for a
/// name to be looked up nor for a handshake.
pub async fn keep_open(clients: [Client; 3]) {
    loop {
        for client in &clients {
            // One that can't be opened is tried again.
            drop(client::bounded(client.apiserver_version()).await);
        }
        tokio::time::sleep(USE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
    use prometheus_client::registry::Registry;

    use crate::client::bounded;

    /// Whether a write, and a read, of this client are sent. Nobody answers either.
    async fn sends(client: &Client) -> (bool, bool) {
        let api = Api::<ConfigMap>::namespaced(client.clone(), "default");
        let patch = Patch::Merge(serde_json::json!({}));
        let object = ConfigMap::default();
        let params = DeleteParams::default();
        let writes = [
            bounded(api.patch("a", &PatchParams::default(), &patch))
                .await
                .err(),
            bounded(api.create(&PostParams::default(), &object))
                .await
                .err(),
            bounded(api.delete("a", &params)).await.err(),
        ];
        let sent = writes.map(|error| !error.expect("nobody answers").is_not_sent());
        assert!(sent.iter().all(|one| *one == sent[0]), "{sent:?}");
        let read = bounded(api.get("a")).await.expect_err("nobody answers");
        (sent[0], !read.is_not_sent())
    }

    #[tokio::test]
    async fn every_lane_writes_only_while_the_gate_is_open() {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port that nobody listens on")
            .port();
        let url = format!("http://127.0.0.1:{port}").parse().expect("a URL");
        let gate = Gate::new_shut();
        let metrics = ClientMetrics::new(&mut Registry::default());
        let clients = Clients::new(&Config::new(url), &metrics, &gate).expect("clients");
        for client in [&clients.fast, &clients.slow, &clients.pods] {
            assert_eq!(sends(client).await, (false, true), "shut");
        }
        gate.open_until(Instant::now() + Duration::from_secs(60));
        for client in [&clients.fast, &clients.slow, &clients.pods] {
            assert_eq!(sends(client).await, (true, true), "open");
        }
        gate.shut();
        for client in [&clients.fast, &clients.slow, &clients.pods] {
            assert_eq!(sends(client).await, (false, true), "shut again");
        }
    }
}
