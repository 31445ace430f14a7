//! One store of either kind, and what a test does to it without a rep.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use diego_operator::metrics::ClientMetrics;
use diego_operator::presence::etcd::key;
use diego_operator::presence::kubernetes::{CELL, KubernetesConfig, MARK, lease_name};
use diego_operator::presence::store::StoreConfig;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, PostParams};
use local_cluster::{Etcd, EtcdOptions, LocalCluster, Options};
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::sync::OnceCell;

use crate::support::{self, Registered, Watch, client};

/// A store.
pub enum Site {
    Etcd(Etcd),
    Kubernetes {
        config: Box<KubernetesConfig>,
        /// Of a test that breaks it; else it is shared.
        own: Option<Box<LocalCluster>>,
    },
}

/// A cluster for a test alone.
pub async fn cluster() -> LocalCluster {
    LocalCluster::start(Options {
        garbage_collection: false,
        ..Options::default()
    })
    .await
    .expect("a cluster starts")
}

/// How a cluster is reached, in a namespace that nobody else has.
pub async fn in_new_namespace(cluster: &LocalCluster) -> KubernetesConfig {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let namespace = format!("presence-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let kubeconfig = kube::config::Kubeconfig::read_from(cluster.kubeconfig()).expect("written");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default())
        .await
        .expect("a configuration");
    let client = kube::Client::try_from(config.clone()).expect("a client");
    let object = json!({ "metadata": { "name": namespace } });
    let object: Namespace = serde_json::from_value(object).expect("a Namespace");
    let namespaces = Api::<Namespace>::all(client);
    let made = namespaces.create(&PostParams::default(), &object).await;
    made.expect("a namespace");
    KubernetesConfig {
        config,
        namespace,
        metrics: ClientMetrics::new(&mut Registry::default()),
    }
}

/// The Leases, by a client of the test's own.
pub fn leases(config: &KubernetesConfig) -> Api<Lease> {
    let client = kube::Client::try_from(config.config.clone()).expect("a client");
    Api::namespaced(client, &config.namespace)
}

impl Site {
    pub async fn etcd() -> Site {
        Site::Etcd(support::etcd(1).await)
    }

    /// A namespace in the API server that all of these tests share.
    pub async fn kubernetes() -> Site {
        static SHARED: OnceCell<LocalCluster> = OnceCell::const_new();
        let cluster = SHARED.get_or_init(cluster).await;
        Site::Kubernetes {
            config: Box::new(in_new_namespace(cluster).await),
            own: None,
        }
    }

    /// The same, to be broken.
    pub async fn alone(self) -> Site {
        match self {
            Site::Etcd(_) => {
                let options = EtcdOptions {
                    election_timeout: Duration::from_millis(500),
                    ..EtcdOptions::default()
                };
                Site::Etcd(Etcd::start(options).await.expect("etcd starts"))
            }
            Site::Kubernetes { .. } => {
                let cluster = cluster().await;
                Site::Kubernetes {
                    config: Box::new(in_new_namespace(&cluster).await),
                    own: Some(Box::new(cluster)),
                }
            }
        }
    }

    pub fn config(&self) -> StoreConfig {
        match self {
            Site::Etcd(etcd) => support::config(etcd.endpoints()),
            Site::Kubernetes { config, .. } => StoreConfig::Kubernetes(config.clone()),
        }
    }

    pub fn is_etcd(&self) -> bool {
        matches!(self, Site::Etcd(_))
    }

    /// A watcher that has listed.
    pub async fn watch(&self) -> Watch {
        Watch::synced(self.config()).await
    }

    /// Writes a Cell's presence without a rep; gives its epoch.
    pub async fn put(&self, cell: &str, value: &str) -> i64 {
        match self {
            Site::Etcd(etcd) => {
                support::put(&client(&etcd.endpoints()[0]).await, cell, value).await
            }
            Site::Kubernetes { config, .. } => {
                let leases = leases(config);
                let name = lease_name(cell);
                let labels = json!({ MARK: CELL });
                let lease = json!({ "metadata": { "name": name, "labels": labels }, "spec": {} });
                let lease: Lease = serde_json::from_value(lease).expect("a Lease");
                let params = PostParams::default();
                let mut lease = leases.create(&params, &lease).await.expect("made");
                let version = lease.metadata.resource_version.clone().expect("a version");
                let value = value.replace('}', &format!(r#","epoch":{version}}}"#));
                lease.metadata.annotations = Some([(MARK.to_owned(), value)].into());
                let lease = leases.replace(&name, &params, &lease).await;
                let lease = lease.expect("written");
                // A damaged one has no epoch but the version it is first seen at.
                match lease.metadata.annotations.expect("there")[MARK].starts_with("{damaged") {
                    true => lease.metadata.resource_version.expect("a version"),
                    false => version,
                }
                .parse()
                .expect("a number")
            }
        }
    }

    /// Takes a Cell's presence away.
    pub async fn delete(&self, cell: &str) {
        match self {
            Site::Etcd(etcd) => support::delete(&client(&etcd.endpoints()[0]).await, cell).await,
            Site::Kubernetes { config, .. } => {
                leases(config)
                    .delete(&lease_name(cell), &DeleteParams::default())
                    .await
                    .expect("deleted");
            }
        }
    }

    /// Takes a rep's presence away so that it notices with its next renewal.
    pub async fn take_away(&self, registered: Registered, cell: &str) {
        match self {
            Site::Etcd(etcd) => {
                support::revoke(&client(&etcd.endpoints()[0]).await, registered.lease).await;
            }
            Site::Kubernetes { .. } => self.delete(cell).await,
        }
    }

    /// Makes the watch hear everything that the store did before now: changes come in order.
    pub async fn catch_up(&self, watch: &mut Watch) {
        // Of what was given back the end is told at once, in either store.
        let value = support::value("mark").replace('}', r#","phase":"released"}"#);
        let epoch = self.put("mark", &value).await;
        while watch.until_held("mark").await.epoch != epoch {}
        self.delete("mark").await;
        while watch.until_gone("mark").await.last.epoch != epoch {}
    }

    /// Whether there is anything of a Cell in the store.
    pub async fn is_there(&self, cell: &str) -> bool {
        match self {
            Site::Etcd(etcd) => {
                let client = client(&etcd.endpoints()[0]).await;
                let answer = client.kv_client().get(key(cell), None).await;
                !answer.expect("read").kvs().is_empty()
            }
            Site::Kubernetes { config, .. } => {
                let lease = leases(config).get_opt(&lease_name(cell)).await;
                lease.expect("read").is_some()
            }
        }
    }

    /// Ends the store: etcd itself, or the API server.
    pub async fn kill(&self) {
        match self {
            Site::Etcd(etcd) => {
                etcd.member(0).kill();
                etcd.member(0).wait().await;
            }
            Site::Kubernetes { own, .. } => {
                own.as_ref().expect("its own").stop_apiserver().await;
            }
        }
    }

    /// Starts it again.
    pub async fn restart(&mut self) {
        match self {
            Site::Etcd(etcd) => etcd.restart_member(0).await.expect("restarted"),
            Site::Kubernetes { own, .. } => {
                let own = own.as_mut().expect("its own");
                own.restart_apiserver().await.expect("restarted");
            }
        }
    }
}
