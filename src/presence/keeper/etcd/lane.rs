//! One connection that carries a lease's renewals, one after the other.

use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, Error, LeaseKeepAliveStream, LeaseKeeper, Txn};
use futures::FutureExt;

use super::super::super::StoreError;
use super::super::super::etcd::{Credentials, EtcdConfig, within};

/// gRPC's code for "not found".
const NOT_FOUND: i32 = 5;

/// An open renewal stream. After a failure it is dropped, with its connection: an answer that comes late could
/// otherwise be taken for that of a later renewal.
pub(super) struct Lane {
    lease: i64,
    credentials: Credentials,
    client: Client,
    requests: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

/// What a renewal came to.
pub(super) enum Renewal {
    /// The lease runs again from about now.
    Renewed,
    /// The store knows no such lease.
    Gone,
}

impl Lane {
    /// Renews the lease over the kept stream, or over a new one to the endpoint whose turn it is. The deadline covers
    /// connecting too.
    pub(super) async fn renew(
        kept: &mut Option<Self>,
        config: &EtcdConfig,
        turn: usize,
        lease: i64,
        deadline: Duration,
    ) -> Result<Renewal, StoreError> {
        let lane = kept.take();
        let exchange = within(deadline, async {
            match lane {
                Some(lane) => lane.again().await,
                None => Self::open(config, turn, lease).await,
            }
        });
        match exchange.await? {
            Some(lane) => {
                *kept = Some(lane);
                Ok(Renewal::Renewed)
            }
            None => Ok(Renewal::Gone),
        }
    }

    /// `None` when the lease is gone. Opening a stream renews, too.
    async fn open(
        config: &EtcdConfig,
        turn: usize,
        lease: i64,
    ) -> Result<Option<Self>, StoreError> {
        let credentials = Credentials::read(config).await?;
        let client = config.connect_with(turn, &credentials).await?;
        Self::open_over(client, credentials, lease).await
    }

    async fn open_over(
        client: Client,
        credentials: Credentials,
        lease: i64,
    ) -> Result<Option<Self>, StoreError> {
        match client.lease_client().keep_alive(lease).await {
            Ok((requests, answers)) => Ok(Some(Self {
                lease,
                credentials,
                client,
                requests,
                answers,
            })),
            // The client library has this error for a lease that is gone, and for its own troubles: ask the store.
            Err(error @ Error::LeaseKeepAliveError(_)) => {
                let left = client.lease_client().time_to_live(lease, None).await?.ttl();
                // -1 says "no such lease"; 0 may be the rounded last half second.
                if left < 0 {
                    Ok(None)
                } else {
                    Err(error.into())
                }
            }
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Its connection.
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Whether it carries the renewals of this lease.
    pub(super) fn carries(&self, lease: i64) -> bool {
        self.lease == lease
    }

    /// Waits until the certificate files are others; gives a lane with the new ones, over which the lease was renewed.
    pub(super) fn replaced(
        &self,
        config: EtcdConfig,
        turn: usize,
    ) -> impl Future<Output = Self> + Send + 'static {
        let (credentials, lease) = (self.credentials.clone(), self.lease);
        async move {
            let old = credentials.clone();
            let open = |client| {
                let credentials = old.clone();
                async move {
                    let renewed = Self::open_over(client, credentials, lease).await?;
                    renewed.ok_or_else(|| Error::LeaseKeepAliveError("no such lease".into()).into())
                }
                .boxed()
            };
            let (credentials, lane) = credentials.replaced(&config, turn, open).await;
            Self {
                credentials,
                ..lane
            }
        }
    }

    async fn again(mut self) -> Result<Option<Self>, StoreError> {
        // Only queued here: the answer is what counts.
        self.requests.keep_alive().await?;
        match self.answers.message().await {
            // The store answers a renewal of an unknown lease with 0, not with an error.
            Ok(Some(answer)) => Ok((answer.ttl() > 0).then_some(self)),
            Ok(None) => Err(Error::LeaseKeepAliveError("the store ended the stream".into()).into()),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the key still has this epoch and hangs on this lease.
    pub(super) async fn holds(
        &self,
        key: &str,
        created: i64,
        lease: i64,
        deadline: Duration,
    ) -> Result<bool, StoreError> {
        let mut kv = self.client.kv_client();
        Ok(
            within(deadline, kv.txn(Txn::new().when(ours(key, created, lease))))
                .await?
                .succeeded(),
        )
    }
}

/// The comparisons that say: this key is the one we registered.
pub(super) fn ours(key: &str, created: i64, lease: i64) -> Vec<Compare> {
    vec![
        Compare::create_revision(key, CompareOp::Equal, created),
        Compare::lease(key, CompareOp::Equal, lease),
    ]
}

/// Whether the store says that there is no such thing.
pub(super) fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.code() as i32 == NOT_FOUND)
}
