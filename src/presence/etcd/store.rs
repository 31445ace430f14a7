//! Reads of who is alive, from the store itself: each one linearizable, and bounded in time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_client::{Client, GetOptions, GetResponse};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::task::AbortOnDropHandle;

use super::super::{Presence, PresenceStore, Reading, RollCall, StoreError};
use super::version::warn_if_unguarded;
use super::{
    ConfigError, Credentials, EtcdConfig, MAX_MESSAGE, PREFIX, cell_of, decode, key, roll, within,
};
use crate::sync::locked;

/// A try that has not been answered by then goes to another endpoint. A healthy store answers in milliseconds; a
/// leader election takes about as long as two tries.
const TRY_TIMEOUT: Duration = Duration::from_secs(1);

/// How many tries a read gets at most. With three members, one of them half-dead, two would do.
const MAX_TRIES: usize = 3;

/// Why the store can't be used at start.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The options can't work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No endpoint answered a read.
    #[error(
        "the presence store can't be read at start; tried {}. Check that etcd runs and has a leader, that \
         --etcd-endpoints names it, that --etcd-ca, --etcd-cert and --etcd-key are the right files, and that their user \
         may read the keys",
        .0.iter().map(|(endpoint, error)| format!("{endpoint} ({error})")).collect::<Vec<_>>().join(", ")
    )]
    Unanswered(Vec<(String, StoreError)>),
}

/// The presence store, read over a connection that is kept and replaced when it fails.
#[derive(Debug)]
pub struct EtcdStore {
    config: EtcdConfig,
    /// Locked only to copy or replace; never across an exchange with the store.
    current: Arc<Mutex<Current>>,
}

/// The connection in use. A client is a cheap handle; all its clones share the connection.
struct Current {
    /// Counts the connections, and says whose turn it is among the endpoints: a reader that failed replaces the
    /// connection only if no other reader has done so already.
    turn: usize,
    client: Option<Client>,
    /// Exchanges the connection for one with new certificate files.
    _renewal: Option<AbortOnDropHandle<()>>,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current")
            .field("turn", &self.turn)
            .finish_non_exhaustive()
    }
}

impl EtcdStore {
    /// The store, after one endpoint of it has answered a linearizable read of all keys.
    pub async fn connect(config: EtcdConfig) -> Result<Self, ConnectError> {
        let all = GetOptions::new().with_prefix().with_count_only();
        Self::connect_by(config, PREFIX, all).await
    }

    /// Whether the store answers one who may only read the key of this Cell.
    ///
    /// # Errors
    /// When it does not, or the options can't work.
    pub async fn check(config: EtcdConfig, cell: &str) -> Result<(), ConnectError> {
        let own = GetOptions::new().with_keys_only();
        Self::connect_by(config, &key(cell), own).await.map(drop)
    }

    async fn connect_by(
        config: EtcdConfig,
        key: &str,
        options: GetOptions,
    ) -> Result<Self, ConnectError> {
        config.validate()?;
        let first = config.first_turn();
        let store = Self {
            current: Arc::new(Mutex::new(Current {
                turn: first,
                client: None,
                _renewal: None,
            })),
            config,
        };
        let mut tried = Vec::new();
        for turn in first..first + store.config.endpoints.len() {
            match store.read_once(key, options.clone()).await {
                Ok(_) => {
                    // Without a certificate there is no role that could be got around.
                    if store.config.cert.is_some()
                        && let Some(client) = store.client()
                    {
                        warn_if_unguarded(client).await;
                    }
                    return Ok(store);
                }
                Err(error) => tried.push((store.config.endpoint(turn).to_owned(), error)),
            }
        }
        Err(ConnectError::Unanswered(tried))
    }

    fn client(&self) -> Option<Client> {
        let current = locked(&self.current);
        current.client.clone()
    }

    /// A linearizable read (etcd's default), tried on up to three endpoints, at least twice.
    async fn read(&self, key: &str, options: GetOptions) -> Result<GetResponse, StoreError> {
        let tries = self.config.endpoints.len().clamp(2, MAX_TRIES);
        let mut last = StoreError::Timeout(TRY_TIMEOUT);
        for _ in 0..tries {
            match self.read_once(key, options.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// One try; a failure leaves the next endpoint to the next try.
    async fn read_once(&self, key: &str, options: GetOptions) -> Result<GetResponse, StoreError> {
        let (turn, client) = {
            let current = locked(&self.current);
            (current.turn, current.client.clone())
        };
        let answer = within(TRY_TIMEOUT, async {
            let (client, credentials) = match client {
                Some(client) => (client, None),
                None => {
                    let credentials = Credentials::read(&self.config).await?;
                    let client = self.config.connect_with(turn, &credentials).await?;
                    (client, Some(credentials))
                }
            };
            let mut kv = client.kv_client().max_decoding_message_size(MAX_MESSAGE);
            let answer = kv.get(key, Some(options.clone())).await?;
            Ok::<_, StoreError>((client, credentials, answer))
        })
        .await;
        let mut current = locked(&self.current);
        match answer {
            Ok((client, credentials, answer)) => {
                if let Some(credentials) = credentials
                    && current.turn == turn
                    && current.client.is_none()
                {
                    current.client = Some(client);
                    let renewal = self.renewal(turn, credentials, key.to_owned(), options);
                    current._renewal = Some(AbortOnDropHandle::new(tokio::spawn(renewal)));
                }
                Ok(answer)
            }
            Err(error) => {
                if current.turn == turn {
                    *current = Current {
                        turn: turn.wrapping_add(1),
                        client: None,
                        _renewal: None,
                    };
                }
                Err(error)
            }
        }
    }

    /// Exchanges the connection of this turn whenever the certificate files change and the new ones are good for the
    /// same read.
    fn renewal(
        &self,
        turn: usize,
        mut credentials: Credentials,
        key: String,
        options: GetOptions,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (config, current) = (self.config.clone(), Arc::downgrade(&self.current));
        // Whoever may read a key may read how many there are of it.
        let options = options.with_count_only();
        async move {
            loop {
                let same_read = |client: Client| {
                    let (key, options) = (key.clone(), options.clone());
                    async move {
                        client.kv_client().get(key, Some(options)).await?;
                        Ok(client)
                    }
                    .boxed()
                };
                let (new, client) = credentials.replaced(&config, turn, same_read).await;
                credentials = new;
                let Some(current) = current.upgrade() else {
                    return;
                };
                let mut current = locked(&current);
                if current.turn != turn {
                    return;
                }
                current.client = Some(client);
            }
        }
    }
}

impl PresenceStore for EtcdStore {
    fn get<'a>(&'a self, cell: &'a str) -> BoxFuture<'a, Result<Reading, StoreError>> {
        async move {
            let answer = self.read(&key(cell), GetOptions::new()).await?;
            let header = answer
                .header()
                .ok_or_else(|| etcd_client::Error::Internal("a read without a header".into()))?;
            Ok(Reading {
                presence: answer.kvs().first().and_then(decode),
                revision: header.revision(),
            })
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Presence>, StoreError>> {
        async move {
            let answer = self.read(PREFIX, GetOptions::new().with_prefix()).await?;
            Ok(answer.kvs().iter().filter_map(decode).collect())
        }
        .boxed()
    }

    fn roll_call(&self) -> BoxFuture<'_, Result<RollCall, StoreError>> {
        async move {
            let answer = self.read(PREFIX, GetOptions::new().with_prefix()).await?;
            let cells: Vec<(String, i64)> = (answer.kvs().iter())
                .filter_map(|kv| Some((cell_of(kv.key())?.to_owned(), kv.lease())))
                .collect();
            let held = cells.iter().map(|(cell, _)| cell.clone()).collect();
            // Without a connection it can't be told who is late, which must not look as if nobody were.
            let client = self.client().ok_or(StoreError::Timeout(roll::TIMEOUT))?;
            let overdue = roll::overdue(client, cells).await?;
            Ok(RollCall { held, overdue })
        }
        .boxed()
    }

    /// A key ends with its lease.
    fn forget<'a>(&'a self, _cell: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
        async { Ok(true) }.boxed()
    }
}
