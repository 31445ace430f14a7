//! A keeper's key in etcd, under a lease that runs out by itself.

mod ending;
mod lane;
mod moving;

use std::time::{Duration, Instant};

use etcd_client::{Client, Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::task::AbortOnDropHandle;

use super::super::etcd::{EtcdConfig, decode_value, key, within};
use super::super::ttl::Ttl;
use super::super::{PresencePhase, PresenceValue, StoreError};
use super::backend::{Answer, Ask, Attempt, Backend, Changed, Epochs, Failure, Held};
use super::decide::{Found, Step, decide, epoch_base};
use super::pace::Grain;
use super::{KeeperError, LossReason, RETRY_MIN, Sent};
use ending::{end_former_life, json};
use lane::{Lane, Renewal};
use moving::Moving;

pub(in crate::presence) use ending::revoke;

/// One exchange while registering. These write to the store's disks, so they get more time than a renewal.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How many of its leases a keeper remembers. Each failed try may leave one that expires by itself within the TTL, and
/// tries are at most a third of the TTL apart in the long run, so older ones are long gone.
const MAX_LEASES: usize = 16;

/// The keeper's side of etcd.
pub(super) struct EtcdBackend {
    config: EtcdConfig,
    key: String,
    /// Whose turn it is among the endpoints.
    turn: usize,
    /// Leases granted to this keeper, newest last.
    leases: Vec<i64>,
    /// The key's create revision, while it is held.
    created: i64,
    /// Carries the renewals.
    lane: Option<Lane>,
    /// Opens the lane that takes its place when the certificate files change, beside it: the lease must not wait.
    next: Option<AbortOnDropHandle<Lane>>,
    /// The key may have been moved to another lease: the answer was lost.
    moving: Option<Moving>,
}

/// The key, and what a compare-and-swap of it is bound to.
struct Seen {
    found: Found,
    /// 0 for none.
    lease: i64,
    mod_revision: i64,
}

impl EtcdBackend {
    pub(super) fn new(config: EtcdConfig, cell: &str) -> Self {
        Self {
            turn: config.first_turn(),
            key: key(cell),
            config,
            leases: Vec::new(),
            created: 0,
            lane: None,
            next: None,
            moving: None,
        }
    }

    /// Changes over to the lane with new certificate files, once that has renewed the lease.
    async fn change_over(&mut self, lease: i64) {
        if let Some(next) = self.next.take_if(|next| next.is_finished())
            && let Ok(lane) = next.await
            && lane.carries(lease)
        {
            self.lane = Some(lane);
        }
    }

    /// Looks after the files of a lane that has begun to carry renewals.
    fn look_after_files(&mut self) {
        if self.next.is_none()
            && self.config.ca.is_some()
            && let Some(lane) = &self.lane
        {
            let next = lane.replaced(self.config.clone(), self.turn);
            self.next = Some(AbortOnDropHandle::new(tokio::spawn(next)));
        }
    }

    /// The key, and the store's revision.
    async fn read(&self) -> Result<(Client, Option<Seen>, i64), StoreError> {
        let client = within(TIMEOUT, self.config.connect(self.turn)).await?;
        let answer = within(TIMEOUT, client.kv_client().get(self.key.as_str(), None)).await?;
        let seen = answer.kvs().first().map(|kv| self.seen(kv));
        let revision = answer.header().map_or(0, |header| header.revision());
        Ok((client, seen, revision))
    }

    fn seen(&self, kv: &KeyValue) -> Seen {
        Seen {
            found: Found {
                value: decode_value(kv.value()),
                count: kv.create_revision(),
                own: self.leases.contains(&kv.lease()),
                over: false,
                silent: Duration::ZERO,
            },
            lease: kv.lease(),
            mod_revision: kv.mod_revision(),
        }
    }

    async fn create(
        &mut self,
        client: &Client,
        ask: &Ask<'_>,
        epochs: Epochs,
    ) -> Result<Attempt, Failure> {
        let (lease, ttl, sent) = self.grant(client, ask).await?;
        let absent = Compare::create_revision(self.key.as_str(), CompareOp::Equal, 0);
        let value = ask.value(ttl, epochs, None);
        match self.put(client, absent, lease, &value).await? {
            // A key's create revision is that of the transaction that created it.
            Some(created) => Ok(Attempt::Held(
                self.held(value, created, lease, ttl, sent, false),
            )),
            None => Ok(Attempt::Again),
        }
    }

    async fn take_over(
        &mut self,
        client: &Client,
        ask: &Ask<'_>,
        seen: Seen,
    ) -> Result<Attempt, Failure> {
        let (lease, ttl, sent) = self.grant(client, ask).await?;
        let key = self.key.as_str();
        let unchanged = Compare::mod_revision(key, CompareOp::Equal, seen.mod_revision);
        let value = ask.value(ttl, seen.found.epochs(ask.epochs), None);
        if self.put(client, unchanged, lease, &value).await?.is_none() {
            return Ok(Attempt::Again);
        }
        // The key hangs on the new lease now. If this fails, the old lease ends by itself.
        if seen.lease != 0
            && let Err(error) = revoke(client, seen.lease).await
        {
            tracing::debug!(%error, "the former lease could not be revoked; it will expire");
        }
        // Only our own try, whose answer got lost? Then nobody's life goes on.
        let took_over = !seen.found.own;
        Ok(Attempt::Held(self.held(
            value,
            seen.found.count,
            lease,
            ttl,
            sent,
            took_over,
        )))
    }

    fn held(
        &mut self,
        value: PresenceValue,
        created: i64,
        lease: i64,
        ttl: Duration,
        sent: Sent,
        took_over: bool,
    ) -> Held {
        self.created = created;
        self.leases = vec![lease];
        self.lane = None;
        self.next = None;
        self.moving = None;
        Held {
            epoch: value.epoch_base.saturating_add(created),
            value,
            lease,
            ttl,
            sent,
            took_over,
        }
    }

    /// A lease of exactly the TTL asked for, and the moment before it was asked for.
    async fn grant(
        &mut self,
        client: &Client,
        ask: &Ask<'_>,
    ) -> Result<(i64, Duration, Sent), Failure> {
        let asked = ask.ttl.as_secs();
        let (lease, ttl, sent) = lease_of(client, ask.ttl).await?;
        // One that chooses takes what there is.
        if ttl > ask.ttl && matches!(ask.registration.ttl, Ttl::Fixed(_)) {
            // Nothing hangs on it yet; if this fails, it expires unused.
            let _unused = revoke(client, lease).await;
            let minimum = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
            return Err(Failure::Fatal(KeeperError::TtlBelowMinimum {
                asked,
                minimum,
            }));
        }
        self.note_lease(lease);
        Ok((lease, ttl, sent))
    }

    fn note_lease(&mut self, lease: i64) {
        if self.leases.len() >= MAX_LEASES {
            self.leases.remove(0);
        }
        self.leases.push(lease);
    }

    /// Puts our value under `lease` if `condition` holds; gives the revision at which that was done.
    async fn put(
        &self,
        client: &Client,
        condition: Compare,
        lease: i64,
        value: &PresenceValue,
    ) -> Result<Option<i64>, Failure> {
        let options = Some(PutOptions::new().with_lease(lease));
        let put = TxnOp::put(self.key.as_str(), json(value), options);
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

/// A lease of this TTL, or of the shortest that the store does, and the moment before it was asked for.
async fn lease_of(client: &Client, ttl: Duration) -> Result<(i64, Duration, Sent), StoreError> {
    let asked = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
    let sent = Sent::now();
    let granted = within(TIMEOUT, client.lease_client().grant(asked, None)).await?;
    let ttl = Duration::from_secs(granted.ttl().unsigned_abs());
    Ok((granted.id(), ttl, sent))
}

impl Backend for EtcdBackend {
    fn endpoints(&self) -> usize {
        self.config.endpoints.len()
    }

    fn endpoint(&self) -> String {
        self.config.endpoint(self.turn).to_owned()
    }

    /// A member may answer and be of no use: the next one may do.
    fn failed(&mut self, _error: &StoreError) {
        self.turn = self.turn.wrapping_add(1);
        // It is of the lane that failed; the next one reads the files anew.
        self.next = None;
    }

    async fn attempt(&mut self, ask: &Ask<'_>) -> Result<Attempt, Failure> {
        let (client, seen, revision) = self.read().await?;
        let epochs = Epochs {
            base: epoch_base(ask.epochs.base, ask.last_epoch, revision),
            first: ask.epochs.first,
        };
        let step = decide(seen.as_ref().map(|seen| &seen.found), ask.claim());
        match (step, seen) {
            (Step::Wait, Some(seen)) => Ok(Attempt::Refused(seen.found)),
            (Step::TakeOver, Some(seen)) => self.take_over(&client, ask, seen).await,
            (Step::Replace, Some(seen)) => {
                if !end_former_life(&client, &self.key, &seen).await? {
                    return Ok(Attempt::Again);
                }
                self.create(&client, ask, epochs).await
            }
            (_, _) => self.create(&client, ask, epochs).await,
        }
    }

    /// What 1,000 Cells ask for with a TTL of 1.5 s: half a core.
    fn grain(&self) -> Grain {
        Grain {
            whole: true,
            renewals: 2000,
        }
    }

    async fn renew(&mut self, held: &mut Held, limit: Duration) -> Result<Answer, StoreError> {
        self.settle(held, limit).await?;
        self.change_over(held.lease).await;
        let renewal = Lane::renew(&mut self.lane, &self.config, self.turn, held.lease, limit);
        Ok(match renewal.await? {
            Renewal::Renewed => {
                self.look_after_files();
                Answer::Renewed
            }
            Renewal::Gone => Answer::Gone(LossReason::LeaseGone),
        })
    }

    async fn change_ttl(
        &mut self,
        held: &mut Held,
        ttl: Duration,
        limit: Duration,
    ) -> Result<Changed, StoreError> {
        self.settle(held, limit).await?;
        within(limit, self.try_move(held, ttl)).await
    }

    async fn settle(&mut self, held: &mut Held, limit: Duration) -> Result<(), StoreError> {
        match self.moving {
            Some(_) => within(limit, self.try_settle(held)).await,
            None => Ok(()),
        }
    }

    /// A lease outlives its key if somebody deletes that by hand.
    async fn is_there(&mut self, held: &Held, limit: Duration) -> Option<bool> {
        if self.moving.is_some() {
            return None;
        }
        let lane = self.lane.as_ref()?;
        let holds = lane.holds(&self.key, self.created, held.lease, limit);
        holds.await.ok()
    }

    fn write_phase(
        &self,
        held: &Held,
        phase: PresencePhase,
        until: Instant,
    ) -> BoxFuture<'static, Result<(), KeeperError>> {
        let config = self.config.clone();
        let mut turn = self.turn;
        let value = |phase| {
            json(&PresenceValue {
                phase,
                ..held.value.clone()
            })
        };
        let mut still = lane::ours(&self.key, self.created, held.lease);
        if phase != PresencePhase::Released {
            // One that arrives late must not hide that the presence was given back: its end would be a loss.
            let released = value(PresencePhase::Released);
            let key = self.key.as_str();
            still.push(Compare::value(key, CompareOp::NotEqual, released));
        }
        let options = Some(PutOptions::new().with_ignore_lease());
        let put = TxnOp::put(self.key.as_str(), value(phase), options);
        let txn = Txn::new().when(still).and_then([put]);
        async move {
            loop {
                let answer = within(TIMEOUT, async {
                    let client = config.connect(turn).await?;
                    Ok::<_, StoreError>(client.kv_client().txn(txn.clone()).await?)
                });
                match answer.await {
                    Ok(answer) if answer.succeeded() => return Ok(()),
                    Ok(_) => return Err(KeeperError::NotHeld),
                    Err(error) if Instant::now() >= until => {
                        return Err(KeeperError::NotWritten(error.to_string()));
                    }
                    Err(_) => {
                        turn = turn.wrapping_add(1);
                        tokio::time::sleep(RETRY_MIN).await;
                    }
                }
            }
        }
        .boxed()
    }

    /// Revokes every lease granted to this keeper.
    async fn end(&mut self, _ask: &Ask<'_>, until: Instant) -> bool {
        while let Some(lease) = self.leases.last().copied() {
            let revoked = match self.config.connect(self.turn).await {
                Ok(client) => revoke(&client, lease).await,
                Err(error) => Err(error),
            };
            match revoked {
                Ok(()) => {
                    self.leases.pop();
                }
                Err(_) if Instant::now() >= until => return false,
                Err(error) => {
                    self.failed(&error);
                    tokio::time::sleep(RETRY_MIN).await;
                }
            }
        }
        true
    }
}
