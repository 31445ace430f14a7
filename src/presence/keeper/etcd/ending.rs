//! Ending what hangs on a lease, and the lease.

use etcd_client::{Client, Compare, CompareOp, DeleteOptions, PutOptions, Txn, TxnOp};

use super::super::super::etcd::within;
use super::super::super::{PresencePhase, PresenceValue, StoreError};
use super::super::backend::Failure;
use super::lane::is_not_found;
use super::{Seen, TIMEOUT};

/// Ends our own former life, so that it is seen to have ended on purpose; `false` when the key changed meanwhile.
pub(super) async fn end_former_life(
    client: &Client,
    key: &str,
    seen: &Seen,
) -> Result<bool, Failure> {
    let Some(former) = &seen.found.value else {
        return Ok(false);
    };
    let value = json(&PresenceValue {
        phase: PresencePhase::Restarting,
        ..former.clone()
    });
    let unchanged = Compare::mod_revision(key, CompareOp::Equal, seen.mod_revision);
    let put = TxnOp::put(key, value, Some(PutOptions::new().with_ignore_lease()));
    let txn = Txn::new().when([unchanged]).and_then([put]);
    if !within(TIMEOUT, client.kv_client().txn(txn))
        .await?
        .succeeded()
    {
        return Ok(false);
    }
    if seen.lease != 0 {
        revoke(client, seen.lease).await?;
    } else {
        // A key without a lease would stay for ever.
        let same = Compare::create_revision(key, CompareOp::Equal, seen.found.count);
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
pub(in crate::presence) async fn revoke(client: &Client, lease: i64) -> Result<(), StoreError> {
    match within(TIMEOUT, client.lease_client().revoke(lease)).await {
        Err(StoreError::Etcd(error)) if is_not_found(&error) => Ok(()),
        other => other.map(drop),
    }
}

pub(super) fn json(value: &PresenceValue) -> Vec<u8> {
    // A struct of strings and numbers always has a JSON form.
    serde_json::to_vec(value).unwrap_or_default()
}
