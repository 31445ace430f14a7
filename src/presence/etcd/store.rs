//! Reads of who is alive, from the store itself: each one linearizable, and bounded in time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{Client, GetOptions, GetResponse};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::super::{Presence, PresenceStore, Reading, StoreError};
use super::{ConfigError, EtcdConfig, MAX_MESSAGE, PREFIX, decode, key, within};

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
         --etcd-endpoints names it, and that --etcd-ca, --etcd-cert and --etcd-key are the right files",
        .0.iter().map(|(endpoint, error)| format!("{endpoint} ({error})")).collect::<Vec<_>>().join(", ")
    )]
    Unanswered(Vec<(String, StoreError)>),
}

/// The presence store, read over a connection that is kept and replaced when it fails.
#[derive(Debug)]
pub struct EtcdStore {
    config: EtcdConfig,
    /// Locked only to copy or replace; never across an exchange with the store.
    current: Mutex<Current>,
}

/// The connection in use. A client is a cheap handle; all its clones share the connection.
struct Current {
    /// Counts the connections, and says whose turn it is among the endpoints: a reader that failed replaces the
    /// connection only if no other reader has done so already.
    turn: usize,
    client: Option<Client>,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current")
            .field("turn", &self.turn)
            .finish_non_exhaustive()
    }
}

impl EtcdStore {
    /// The store, after one endpoint of it has answered a linearizable read.
    pub async fn connect(config: EtcdConfig) -> Result<Self, ConnectError> {
        config.validate()?;
        let first = config.first_turn();
        let store = Self {
            current: Mutex::new(Current {
                turn: first,
                client: None,
            }),
            config,
        };
        let mut tried = Vec::new();
        for turn in first..first + store.config.endpoints.len() {
            match store
                .read_once(PREFIX, GetOptions::new().with_prefix().with_count_only())
                .await
            {
                Ok(_) => return Ok(store),
                Err(error) => tried.push((store.config.endpoint(turn).to_owned(), error)),
            }
        }
        Err(ConnectError::Unanswered(tried))
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
            let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            (current.turn, current.client.clone())
        };
        let kept = client.is_some();
        let answer = within(TRY_TIMEOUT, async {
            let client = match client {
                Some(client) => client,
                None => self.config.connect(turn).await?,
            };
            let mut kv = client.kv_client().max_decoding_message_size(MAX_MESSAGE);
            let answer = kv.get(key, Some(options)).await?;
            Ok::<_, StoreError>((client, answer))
        })
        .await;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok((client, answer)) => {
                if !kept && current.turn == turn {
                    current.client = Some(client);
                }
                Ok(answer)
            }
            Err(error) => {
                if current.turn == turn {
                    *current = Current {
                        turn: turn.wrapping_add(1),
                        client: None,
                    };
                }
                Err(error)
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

    /// A key ends with its lease.
    fn forget<'a>(&'a self, _cell: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
        async { Ok(true) }.boxed()
    }
}
