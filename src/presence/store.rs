//! Which presence store there is, and the two sides of it that a controller uses.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::etcd::{self, EtcdConfig, EtcdStore};
use super::kubernetes::{self, KubernetesConfig, KubernetesStore};
use super::{PresenceEvent, PresenceStore, watcher};

/// The presence store, and how it is reached.
#[derive(Debug, Clone)]
pub enum StoreConfig {
    /// etcd.
    Etcd(EtcdConfig),
    /// The API server.
    Kubernetes(Box<KubernetesConfig>),
}

/// Why the store can't be used at start.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// etcd.
    #[error(transparent)]
    Etcd(#[from] etcd::ConnectError),
    /// The API server.
    #[error(transparent)]
    Kubernetes(#[from] kubernetes::ConnectError),
}

impl ConnectError {
    /// Whether another try may succeed without anybody changing anything.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Etcd(etcd::ConnectError::Config(_)) => false,
            Self::Etcd(etcd::ConnectError::Unanswered(tried)) => {
                tried.iter().any(|(_, error)| error.may_pass())
            }
            Self::Kubernetes(error) => error.error.may_pass(),
        }
    }
}

impl StoreConfig {
    /// Says what is wrong with these options, without talking to anybody.
    ///
    /// # Errors
    /// What is wrong.
    pub fn validate(&self) -> Result<(), etcd::ConfigError> {
        match self {
            Self::Etcd(config) => config.validate(),
            Self::Kubernetes(_) => Ok(()),
        }
    }

    /// Whether a rep can use the store. Once it works it waits for one that is away; one that was never there is a wrong
    /// flag.
    ///
    /// # Errors
    /// When it can't.
    pub async fn check(&self, cell: &str) -> Result<(), ConnectError> {
        match self {
            Self::Etcd(config) => EtcdStore::check(config.clone(), cell).await?,
            Self::Kubernetes(config) => KubernetesStore::check(config, cell).await?,
        }
        Ok(())
    }

    /// The addresses that nothing but presence belongs to, as URLs.
    pub fn own_addresses(&self) -> Vec<String> {
        match self {
            Self::Etcd(config) => config.endpoints.clone(),
            Self::Kubernetes(_) => Vec::new(),
        }
    }
}

/// The controller's two sides of the store.
pub struct Opened {
    /// Reads.
    pub store: Arc<dyn PresenceStore>,
    /// Changes.
    pub watcher: Watcher,
}

/// What follows the store's changes.
#[derive(Debug, Clone)]
pub enum Watcher {
    /// etcd's.
    Etcd(EtcdConfig),
    /// The API server's, which shares with the reads what it knows of time.
    Kubernetes(Arc<KubernetesStore>),
}

/// Opens the store for a controller.
///
/// # Errors
/// When it can't be reached, or the options can't work.
pub async fn open(config: StoreConfig) -> Result<Opened, ConnectError> {
    Ok(match config {
        StoreConfig::Etcd(config) => Opened {
            store: Arc::new(EtcdStore::connect(config.clone()).await?),
            watcher: Watcher::Etcd(config),
        },
        StoreConfig::Kubernetes(config) => {
            let store = KubernetesStore::connect(*config).await?;
            Opened {
                store: store.clone(),
                watcher: Watcher::Kubernetes(store),
            }
        }
    })
}

impl Watcher {
    /// Sends every change of who is alive, until `cancel` is cancelled or the receiver is dropped. Without a receiver it
    /// only does what the reads need.
    pub async fn run(self, events: Option<mpsc::Sender<PresenceEvent>>, cancel: CancellationToken) {
        match (self, events) {
            (Self::Etcd(config), Some(events)) => {
                watcher::run(watcher::etcd::EtcdFeed::new(config), events, cancel).await;
            }
            (Self::Etcd(_), None) => cancel.cancelled().await,
            (Self::Kubernetes(store), Some(events)) => {
                let feed = watcher::kubernetes::LeaseFeed::new(store.clone());
                let over = cancel.child_token();
                tokio::join!(store.try_writes(over.clone()), async {
                    watcher::run(feed, events, cancel).await;
                    over.cancel();
                });
            }
            (Self::Kubernetes(store), None) => store.try_writes(cancel).await,
        }
    }
}
