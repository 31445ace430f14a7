//! What an outside observer sees: each change of an instance at the API server, and each presence that ends in etcd.

use std::time::Instant;

use diego_operator::api::{ActualLRP, ActualLRPState};
use diego_operator::presence::etcd::{PREFIX, cell_of};
use etcd_client::{EventType, WatchOptions};
use futures::TryStreamExt;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::plan::{Plan, Store};
use crate::support::{Failure, site::Site};

/// A watch is begun again after so many seconds; the API server takes no more than 295 from kube.
const WATCH_SECONDS: u32 = 280;

/// What was seen.
pub enum Sight {
    /// A presence is gone from etcd.
    Gone(String),
    /// An instance has changed.
    Instance {
        /// Its record.
        record: String,
        /// How far it is.
        state: ActualLRPState,
        /// Where.
        cell: Option<String>,
        /// Which run of it.
        guid: Option<String>,
    },
}

type Seen = Result<(Instant, Sight), Failure>;

/// Sees everything from its start on.
pub struct Observer {
    seen: mpsc::UnboundedReceiver<Seen>,
    _watches: JoinSet<()>,
}

impl Observer {
    /// Begins to watch.
    pub async fn start(client: Client, site: &Site, plan: &Plan) -> Result<Observer, Failure> {
        let (out, seen) = mpsc::unbounded_channel();
        let mut watches = JoinSet::new();
        let api = Api::<ActualLRP>::all(client);
        // Only where the list stands: the objects themselves are of no interest.
        let list = api.list_metadata(&ListParams::default().limit(1)).await?;
        let version = list.metadata.resource_version.unwrap_or_default();
        let instances = out.clone();
        watches.spawn(async move {
            if let Err(failure) = instances_of(api, version, &instances).await {
                let _nobody_looks_any_more = instances.send(Err(failure));
            }
        });
        if plan.store == Store::Etcd {
            let mut etcd = etcd_client::Client::connect(site.etcd.endpoints(), None).await?;
            let options = WatchOptions::new().with_prefix();
            let watch = etcd.watch(PREFIX, Some(options)).await?;
            watches.spawn(async move {
                if let Err(failure) = presences(watch, &out).await {
                    let _nobody_looks_any_more = out.send(Err(failure));
                }
            });
        }
        Ok(Observer {
            seen,
            _watches: watches,
        })
    }

    /// The next one, and when it came.
    pub async fn next(&mut self) -> Seen {
        self.seen.recv().await.ok_or("the watches have ended")?
    }

    /// Forgets what nobody asked for.
    pub fn skip(&mut self) {
        while self.seen.try_recv().is_ok() {}
    }
}

async fn presences(
    mut watch: etcd_client::WatchStream,
    out: &mpsc::UnboundedSender<Seen>,
) -> Result<(), Failure> {
    while let Some(answer) = watch.message().await? {
        let at = Instant::now();
        for event in answer.events() {
            let cell = event.kv().and_then(|kv| cell_of(kv.key()));
            if event.event_type() == EventType::Delete
                && let Some(cell) = cell
            {
                let _nobody_looks_any_more = out.send(Ok((at, Sight::Gone(cell.to_owned()))));
            }
        }
    }
    Err("the watch of the presences has ended".into())
}

async fn instances_of(
    api: Api<ActualLRP>,
    mut version: String,
    out: &mpsc::UnboundedSender<Seen>,
) -> Result<(), Failure> {
    let params = WatchParams::default().timeout(WATCH_SECONDS);
    loop {
        let mut watch = std::pin::pin!(api.watch(&params, &version).await?);
        while let Some(event) = watch.try_next().await? {
            let at = Instant::now();
            match event {
                WatchEvent::Added(lrp) | WatchEvent::Modified(lrp) => {
                    version = lrp.resource_version().unwrap_or_default();
                    let record = lrp.name_any();
                    let status = lrp.status.unwrap_or_default();
                    let sight = Sight::Instance {
                        record,
                        state: status.state,
                        cell: status.cell_name,
                        guid: status.instance_guid,
                    };
                    let _nobody_looks_any_more = out.send(Ok((at, sight)));
                }
                WatchEvent::Deleted(lrp) => version = lrp.resource_version().unwrap_or_default(),
                WatchEvent::Bookmark(mark) => version = mark.metadata.resource_version,
                WatchEvent::Error(status) => return Err(status.message.into()),
            }
        }
    }
}
