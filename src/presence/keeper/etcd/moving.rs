//! Moving the key to another lease: a lease's TTL is fixed when it is granted.
//!
//! The key stays as it was created, so its epoch does, and there is no moment without it. If the answer is lost, the key
//! hangs on either lease; whichever is not renewed ends. So before the next renewal the move is either seen to have been
//! made, or made impossible.

use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse};

use super::super::super::{PresenceValue, StoreError};
use super::super::backend::{Changed, Held};
use super::EtcdBackend;
use super::ending::{json, revoke};
use super::lease_of;

/// A move that was sent and not answered.
#[derive(Debug, Clone)]
pub(super) struct Moving {
    /// The lease that the key may hang on now.
    lease: i64,
    ttl: Duration,
    /// The key's last change before it: the move is bound to it.
    mod_revision: i64,
    /// The value before it.
    before: Vec<u8>,
}

impl EtcdBackend {
    /// One try to move the key to a lease of another TTL.
    pub(super) async fn try_move(
        &mut self,
        held: &mut Held,
        ttl: Duration,
    ) -> Result<Changed, StoreError> {
        let client = match &self.lane {
            Some(lane) => lane.client(),
            None => self.config.connect(self.turn).await?,
        };
        let mut kv = client.kv_client();
        let read = async { Ok(kv.get(self.key.clone(), None).await?) };
        let (read, granted) = tokio::try_join!(read, lease_of(&client, ttl))?;
        let (lease, granted, sent) = granted;
        let seen = read.kvs().first().map(|kv| self.seen(kv));
        let ours = seen
            .filter(|seen| (seen.found.count, seen.lease) == (self.created, held.lease))
            .and_then(|seen| Some((seen.found.value?, seen.mod_revision)));
        let Some((value, mod_revision)) = ours else {
            // Whatever that is, renewals find it out.
            drop_lease(&client, lease);
            return Ok(Changed::No(None));
        };
        if granted == held.ttl {
            drop_lease(&client, lease);
            return Ok(Changed::No(Some(granted)));
        }
        let moving = Moving {
            lease,
            ttl: granted,
            mod_revision,
            before: json(&value),
        };
        let moved = PresenceValue {
            ttl: granted,
            ..value
        };
        let options = Some(PutOptions::new().with_lease(lease));
        let put = TxnOp::put(self.key.as_str(), json(&moved), options);
        let txn = Txn::new()
            .when([self.unchanged(mod_revision)])
            .and_then([put]);
        let former = held.lease;
        self.note_lease(lease);
        // From here on until its answer it is in doubt, whatever becomes of this future.
        self.moving = Some(moving.clone());
        let answer = client.kv_client().txn(txn).await?;
        self.moving = None;
        if !answer.succeeded() {
            drop_lease(&client, lease);
            return Ok(Changed::No(None));
        }
        self.moved(held, &moving);
        drop_lease(&client, former);
        Ok(Changed::Done(sent))
    }

    /// Finds out what became of a move; one that was not made so far can't be made any more.
    pub(super) async fn try_settle(&mut self, held: &mut Held) -> Result<(), StoreError> {
        let Some(moving) = self.moving.clone() else {
            return Ok(());
        };
        let client = self.config.connect(self.turn).await?;
        let key = self.key.as_str();
        let options = Some(PutOptions::new().with_ignore_lease());
        let txn = Txn::new()
            .when([self.unchanged(moving.mod_revision)])
            .and_then([TxnOp::put(key, moving.before.clone(), options)])
            .or_else([TxnOp::get(key, None)]);
        let answer = client.kv_client().txn(txn).await?;
        let mut lease = None;
        if !answer.succeeded() {
            for response in answer.op_responses() {
                if let TxnOpResponse::Get(found) = response {
                    let ours = found.kvs().first();
                    let ours = ours.filter(|kv| kv.create_revision() == self.created);
                    lease = ours.map(|kv| kv.lease());
                }
            }
        }
        self.moving = None;
        let former = held.lease;
        if lease == Some(moving.lease) {
            self.moved(held, &moving);
            drop_lease(&client, former);
        } else {
            drop_lease(&client, moving.lease);
        }
        Ok(())
    }

    fn unchanged(&self, mod_revision: i64) -> Compare {
        Compare::mod_revision(self.key.as_str(), CompareOp::Equal, mod_revision)
    }

    fn moved(&mut self, held: &mut Held, moving: &Moving) {
        (held.lease, held.ttl) = (moving.lease, moving.ttl);
        held.value.ttl = moving.ttl;
        // They carry the renewals of the former lease.
        (self.lane, self.next) = (None, None);
    }
}

/// Ends a lease that nothing of ours hangs on any more, beside the renewals. If this fails, it expires by itself.
fn drop_lease(client: &Client, lease: i64) {
    let client = client.clone();
    tokio::spawn(async move {
        if let Err(error) = revoke(&client, lease).await {
            tracing::debug!(%error, "a lease could not be revoked; it will expire");
        }
    });
}
