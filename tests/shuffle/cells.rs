//! The Cells: a node and a Cell object each, and a presence that the test holds and lets go.

use std::collections::BTreeMap;

use diego_operator::api::Cell;
use diego_operator::presence::etcd::key;
use etcd_client::PutOptions;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::support::Failure;

/// In seconds, as a rep says it. The leases themselves last until they are given back.
const TTL: u32 = 1;

/// See the module.
pub struct Cells {
    client: Client,
    etcd: etcd_client::Client,
    /// By name.
    pub all: BTreeMap<String, One>,
}

/// A Cell.
#[derive(Default)]
pub struct One {
    lease: Option<i64>,
    boot: u32,
    first: Option<i64>,
    /// Its machine is dead.
    pub dead: bool,
}

impl One {
    /// Whether its presence is there.
    pub fn is_held(&self) -> bool {
        self.lease.is_some()
    }
}

impl Cells {
    /// None yet.
    pub async fn new(client: Client, etcd: &[String]) -> Result<Cells, Failure> {
        Ok(Cells {
            client,
            etcd: etcd_client::Client::connect(etcd, None).await?,
            all: BTreeMap::new(),
        })
    }

    /// A new machine.
    pub async fn join(&mut self, name: &str, zone: &str) -> Result<(), Failure> {
        let nodes = Api::<Node>::all(self.client.clone());
        let node = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
        nodes.create(&PostParams::default(), &node).await?;
        let room =
            json!({ "cpu": "8", "memory": "8Gi", "ephemeral-storage": "50Gi", "pods": "110" });
        let ready = json!([{ "type": "Ready", "status": "True", "reason": "KubeletReady" }]);
        let status =
            json!({ "status": { "capacity": room, "allocatable": room, "conditions": ready } });
        let params = PatchParams::default();
        nodes
            .patch_status(name, &params, &Patch::Merge(&status))
            .await?;
        // Nodes are new with this taint.
        let untaint = json!({ "spec": { "taints": null } });
        nodes.patch(name, &params, &Patch::Merge(&untaint)).await?;
        let cells = Api::<Cell>::all(self.client.clone());
        let cell = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": {
                "zone": zone, "executor": "Pods", "nodeName": name,
                "capacity": { "memory": "8Gi", "disk": "50Gi", "containers": 110 },
            },
        }))?;
        cells.create(&PostParams::default(), &cell).await?;
        self.all.insert(name.to_owned(), One::default());
        self.boot(name).await
    }

    /// The presence comes back as another incarnation.
    pub async fn boot(&mut self, name: &str) -> Result<(), Failure> {
        let one = self.one(name);
        (one.dead, one.first) = (false, None);
        one.boot += 1;
        self.register(name).await
    }

    /// The presence comes back as what it was.
    pub async fn register(&mut self, name: &str) -> Result<(), Failure> {
        let one = self.all.get_mut(name).expect("it has joined");
        let lease = self.etcd.lease_grant(600, None).await?.id();
        let value = json!({
            "cellId": name, "incarnation": format!("{name}-boot-{}", one.boot), "ttlSeconds": TTL,
            "owner": name, "holder": name, "firstEpoch": one.first,
        });
        let options = PutOptions::new().with_lease(lease);
        let stored = self
            .etcd
            .put(key(name), value.to_string(), Some(options))
            .await?;
        let revision = stored.header().map_or(0, |header| header.revision());
        one.first.get_or_insert(revision);
        one.lease = Some(lease);
        Ok(())
    }

    /// The presence runs out.
    pub async fn expire(&mut self, name: &str) -> Result<(), Failure> {
        if let Some(lease) = self.one(name).lease.take() {
            self.etcd.lease_revoke(lease).await?;
        }
        Ok(())
    }

    /// One of them.
    pub fn one(&mut self, name: &str) -> &mut One {
        self.all.get_mut(name).expect("it has joined")
    }
}
