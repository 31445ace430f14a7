//! One try to register a Cell: look, decide, and do it in one compare-and-swap.

use std::time::{Duration, Instant};

use etcd_client::{Client, Compare, CompareOp, DeleteOptions, KeyValue, PutOptions, Txn, TxnOp};

use super::super::etcd::{EtcdConfig, decode_value, key, within};
use super::super::{PresencePhase, PresenceValue, StoreError};
use super::decide::{Claim, Found, Step, decide, epoch_base};
use super::{KeeperError, Registration};

/// One exchange while registering. These write to the store's disks, so they get more time than a renewal.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How many of its leases a keeper remembers. Each failed try may leave one that expires by itself within the TTL, and
/// tries are at most a third of the TTL apart in the long run, so older ones are long gone.
const MAX_LEASES: usize = 16;

/// A registration that the store confirmed.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub lease: i64,
    /// The store's revision at which the key was created.
    pub created: i64,
    pub ttl: Duration,
    /// Before the lease was asked for.
    pub sent: Instant,
    pub took_over: bool,
    /// As published.
    pub epochs: Epochs,
}

impl Held {
    /// The epoch held.
    pub(super) fn epoch(&self) -> i64 {
        self.epochs.base.saturating_add(self.created)
    }
}

/// What a registration says of those before it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Epochs {
    /// What the store's revisions are counted on from.
    pub base: i64,
    /// The incarnation's first registration, where that is an earlier one.
    pub first: Option<i64>,
}

/// What a try came to.
#[derive(Debug)]
pub(super) enum Attempt {
    Held(Held),
    /// Another holds the key.
    Refused(Found),
    /// The key changed between look and swap.
    Again,
}

/// Why a try failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The store did not do its part; the next try may work.
    Store(StoreError),
    /// No try will work.
    Fatal(KeeperError),
}

impl<E> From<E> for Failure
where
    StoreError: From<E>,
{
    fn from(error: E) -> Self {
        Self::Store(error.into())
    }
}

/// What a try needs to know.
pub(super) struct Try<'a> {
    pub registration: &'a Registration,
    pub owner: &'a str,
    pub phase: PresencePhase,
    /// Of this keeper's registrations so far.
    pub epochs: Epochs,
    /// The greatest epoch that is known of this Cell.
    pub last_epoch: i64,
    /// Whether `owner` proves that the key is ours.
    pub proof: bool,
    /// The leases this keeper was granted; a new one is added as soon as it is known.
    pub leases: &'a mut Vec<i64>,
}

impl Try<'_> {
    pub(super) async fn run(
        mut self,
        config: &EtcdConfig,
        turn: usize,
    ) -> Result<Attempt, Failure> {
        let client = within(TIMEOUT, config.connect(turn)).await?;
        let key = key(&self.registration.cell_id);
        let answer = within(TIMEOUT, client.kv_client().get(key.as_str(), None)).await?;
        let found = answer.kvs().first().map(found);
        let revision = answer.header().map_or(0, |header| header.revision());
        self.epochs.base = epoch_base(self.epochs.base, self.last_epoch, revision);
        let claim = Claim {
            incarnation: &self.registration.incarnation,
            proof: self.proof.then_some(self.owner),
            leases: self.leases,
        };
        let step = decide(found.as_ref(), claim);
        match (step, found) {
            (Step::Wait, Some(found)) => Ok(Attempt::Refused(found)),
            (Step::TakeOver, Some(found)) if found.epoch() >= self.last_epoch => {
                self.take_over(&client, &key, found).await
            }
            // A key of a store that was restored from an older state must not take the Cell's epochs back.
            (Step::Replace | Step::TakeOver, Some(found)) => {
                if !end_former_life(&client, &key, &found).await? {
                    return Ok(Attempt::Again);
                }
                self.create(&client, &key).await
            }
            (_, _) => self.create(&client, &key).await,
        }
    }

    async fn create(&mut self, client: &Client, key: &str) -> Result<Attempt, Failure> {
        let (lease, ttl, sent) = self.grant(client).await?;
        let absent = Compare::create_revision(key, CompareOp::Equal, 0);
        let epochs = self.epochs;
        match self.put(client, key, absent, lease, ttl, epochs).await? {
            // A key's create revision is that of the transaction that created it.
            Some(created) => Ok(Attempt::Held(Held {
                lease,
                created,
                ttl,
                sent,
                took_over: false,
                epochs,
            })),
            None => Ok(Attempt::Again),
        }
    }

    async fn take_over(
        &mut self,
        client: &Client,
        key: &str,
        found: Found,
    ) -> Result<Attempt, Failure> {
        // Only our own try, whose answer got lost? Then nobody's life goes on.
        let took_over = !self.leases.contains(&found.lease);
        let (lease, ttl, sent) = self.grant(client).await?;
        let unchanged = Compare::mod_revision(key, CompareOp::Equal, found.mod_revision);
        // The registration goes on, and so does what it said of the ones before it.
        let epochs = Epochs {
            base: found.base(),
            first: match &found.value {
                Some(value) => value.first_epoch,
                None => self.epochs.first,
            },
        };
        let put = self.put(client, key, unchanged, lease, ttl, epochs);
        if put.await?.is_none() {
            return Ok(Attempt::Again);
        }
        // The key hangs on the new lease now. If this fails, the old lease ends by itself.
        if found.lease != 0
            && let Err(error) = revoke(client, found.lease).await
        {
            tracing::debug!(%error, "the former lease could not be revoked; it will expire");
        }
        Ok(Attempt::Held(Held {
            lease,
            created: found.created,
            ttl,
            sent,
            took_over,
            epochs,
        }))
    }

    /// A lease of exactly the TTL asked for, and the instant before it was asked for.
    async fn grant(&mut self, client: &Client) -> Result<(i64, Duration, Instant), Failure> {
        let asked = self.registration.ttl_seconds;
        let sent = Instant::now();
        let granted = within(TIMEOUT, client.lease_client().grant(asked.into(), None)).await?;
        if granted.ttl() > i64::from(asked) {
            // Nothing hangs on it yet; if this fails, it expires unused.
            let _unused = revoke(client, granted.id()).await;
            let minimum = granted.ttl();
            return Err(Failure::Fatal(KeeperError::TtlBelowMinimum {
                asked,
                minimum,
            }));
        }
        if self.leases.len() >= MAX_LEASES {
            self.leases.remove(0);
        }
        self.leases.push(granted.id());
        Ok((
            granted.id(),
            Duration::from_secs(granted.ttl().unsigned_abs()),
            sent,
        ))
    }

    /// Puts our value under `lease` if `condition` holds; gives the revision at which that was done.
    async fn put(
        &mut self,
        client: &Client,
        key: &str,
        condition: Compare,
        lease: i64,
        ttl: Duration,
        epochs: Epochs,
    ) -> Result<Option<i64>, Failure> {
        let value = value(self.registration, self.owner, self.phase, ttl, epochs);
        let put = TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)));
        let txn = Txn::new().when([condition]).and_then([put]);
        let answer = within(TIMEOUT, client.kv_client().txn(txn)).await?;
        if !answer.succeeded() {
            // Nothing hangs on the new lease; if this fails, it expires unused.
            let _unused = revoke(client, lease).await;
            return Ok(None);
        }
        let header = answer.header().ok_or_else(|| {
            StoreError::from(etcd_client::Error::Internal(
                "an answer without a header".into(),
            ))
        })?;
        Ok(Some(header.revision()))
    }
}

/// Ends our own former life, so that it is seen to have ended on purpose; `false` when the key changed meanwhile.
async fn end_former_life(client: &Client, key: &str, found: &Found) -> Result<bool, Failure> {
    let Some(former) = &found.value else {
        return Ok(false);
    };
    let value = json(&PresenceValue {
        phase: PresencePhase::Restarting,
        ..former.clone()
    });
    let unchanged = Compare::mod_revision(key, CompareOp::Equal, found.mod_revision);
    let put = TxnOp::put(key, value, Some(PutOptions::new().with_ignore_lease()));
    let txn = Txn::new().when([unchanged]).and_then([put]);
    if !within(TIMEOUT, client.kv_client().txn(txn))
        .await?
        .succeeded()
    {
        return Ok(false);
    }
    if found.lease != 0 {
        revoke(client, found.lease).await?;
    } else {
        // A key without a lease would stay for ever.
        let same = Compare::create_revision(key, CompareOp::Equal, found.created);
        let delete = TxnOp::delete(key, Some(DeleteOptions::new()));
        within(
            TIMEOUT,
            client
                .kv_client()
                .txn(Txn::new().when([same]).and_then([delete])),
        )
        .await?;
    }
    Ok(true)
}

/// Ends a lease, and whatever hangs on it; one that is gone already is as good.
pub(super) async fn revoke(client: &Client, lease: i64) -> Result<(), StoreError> {
    match within(TIMEOUT, client.lease_client().revoke(lease)).await {
        Err(StoreError::Etcd(error)) if super::lane::is_not_found(&error) => Ok(()),
        other => other.map(drop),
    }
}

fn found(kv: &KeyValue) -> Found {
    Found {
        value: decode_value(kv.value()),
        lease: kv.lease(),
        created: kv.create_revision(),
        mod_revision: kv.mod_revision(),
    }
}

/// The value to publish.
pub(super) fn value(
    registration: &Registration,
    owner: &str,
    phase: PresencePhase,
    ttl: Duration,
    epochs: Epochs,
) -> Vec<u8> {
    json(&PresenceValue {
        cell_id: registration.cell_id.clone(),
        incarnation: registration.incarnation.clone(),
        ttl_seconds: u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX),
        phase,
        owner: owner.to_owned(),
        first_epoch: epochs.first,
        epoch_base: epochs.base,
    })
}

fn json(value: &PresenceValue) -> Vec<u8> {
    // A struct of strings and numbers always has a JSON form.
    serde_json::to_vec(value).unwrap_or_default()
}
