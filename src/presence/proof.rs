//! The proof that a rep and all that it ran are dead, published in its name by whoever can know: its witness, on the same
//! machine (see `docs/decisions/0014-proof-of-death.md`). Nothing else writes it, and no silence is ever taken for it.
//!
//! It is said only of what that very rep registered: the token of its keeper is in the value, and the store tests that
//! nobody wrote since it was read. A successor has another token.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::PostParams;

use super::etcd::{EtcdConfig, decode_value, key, within};
use super::keeper::revoke;
use super::kubernetes::{Said, Sighting, is_cells, lease_name, with_value};
use super::store::StoreConfig;
use super::{PresencePhase, PresenceValue, StoreError};

/// One exchange with the store.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The store has it.
    Told,
    /// Nothing that this rep holds is there: it gave that back, it expired, or another has it by now.
    NothingHeld,
}

/// Publishes that the rep whose keeper had this token is dead. `turn` chooses among the store's endpoints.
///
/// # Errors
/// When the store did not do it; another try may.
pub async fn publish(
    store: &StoreConfig,
    turn: usize,
    cell: &str,
    holder: &str,
) -> Result<Published, StoreError> {
    match store {
        StoreConfig::Etcd(config) => in_etcd(config, turn, cell, holder).await,
        StoreConfig::Kubernetes(config) => in_lease(&config.leases()?, cell, holder).await,
    }
}

/// Whether this value is of that keeper, and says nothing yet of its end.
fn is_open(value: &PresenceValue, holder: &str) -> bool {
    let open = match value.phase {
        PresencePhase::Held | PresencePhase::Draining | PresencePhase::Dead => true,
        // Given back; or a successor is about to register.
        PresencePhase::Released | PresencePhase::Restarting => false,
    };
    open && !holder.is_empty() && value.holder == holder
}

fn dead(value: &PresenceValue) -> PresenceValue {
    PresenceValue {
        phase: PresencePhase::Dead,
        ..value.clone()
    }
}

/// The value first, then the lease: the end of the key then has this as its last word. Revoking the lease of a dead rep
/// can't hurt a successor, whose key hangs on another one.
async fn in_etcd(
    config: &EtcdConfig,
    turn: usize,
    cell: &str,
    holder: &str,
) -> Result<Published, StoreError> {
    let client = within(TIMEOUT, config.connect(turn)).await?;
    let key = key(cell);
    loop {
        let answer = within(TIMEOUT, client.kv_client().get(key.as_str(), None)).await?;
        let Some(kv) = answer.kvs().first() else {
            return Ok(Published::NothingHeld);
        };
        let Some(value) = decode_value(kv.value()).filter(|value| is_open(value, holder)) else {
            return Ok(Published::NothingHeld);
        };
        if value.phase != PresencePhase::Dead {
            let unchanged = [
                Compare::mod_revision(key.as_str(), CompareOp::Equal, kv.mod_revision()),
                Compare::lease(key.as_str(), CompareOp::Equal, kv.lease()),
            ];
            // A struct of strings and numbers always has a JSON form.
            let value = serde_json::to_vec(&dead(&value)).unwrap_or_default();
            let options = Some(PutOptions::new().with_ignore_lease());
            let put = TxnOp::put(key.as_str(), value, options);
            let txn = Txn::new().when(unchanged).and_then([put]);
            if !within(TIMEOUT, client.kv_client().txn(txn))
                .await?
                .succeeded()
            {
                continue;
            }
        }
        if kv.lease() != 0 {
            revoke(&client, kv.lease()).await?;
        }
        return Ok(Published::Told);
    }
}

/// A write of the whole Lease as it was read: its version is the test.
async fn in_lease(leases: &Api<Lease>, cell: &str, holder: &str) -> Result<Published, StoreError> {
    let name = lease_name(cell);
    loop {
        let lease = within(TIMEOUT, leases.get_opt(&name)).await?;
        let Some(lease) = lease.filter(is_cells) else {
            return Ok(Published::NothingHeld);
        };
        let value = match Sighting::of(&lease).map(|seen| seen.said) {
            Some(Said::Value(value, _)) if is_open(&value, holder) => value,
            Some(_) | None => return Ok(Published::NothingHeld),
        };
        if value.phase == PresencePhase::Dead {
            return Ok(Published::Told);
        }
        let (params, next) = (PostParams::default(), with_value(&lease, &dead(&value)));
        match within(TIMEOUT, leases.replace(&name, &params, &next)).await {
            Ok(_) => return Ok(Published::Told),
            Err(StoreError::Kubernetes(kube::Error::Api(status)))
                if status.is_conflict() || status.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_of_what_that_keeper_holds_and_of_nothing_else() {
        let value = |holder: &str, phase| PresenceValue {
            cell_id: "a".into(),
            incarnation: "i".into(),
            ttl: Duration::from_secs(5),
            phase,
            owner: "o".into(),
            holder: holder.into(),
            first_epoch: None,
            epoch_base: 0,
            epoch: None,
            fence: true,
        };
        for (phase, open) in [
            (PresencePhase::Held, true),
            (PresencePhase::Draining, true),
            // Written, and its answer lost.
            (PresencePhase::Dead, true),
            (PresencePhase::Released, false),
            (PresencePhase::Restarting, false),
        ] {
            assert_eq!(is_open(&value("h", phase), "h"), open, "{phase:?}");
            assert!(!is_open(&value("successor", phase), "h"), "{phase:?}");
            assert!(!is_open(&value("", phase), ""), "{phase:?}");
        }
        let dead = dead(&value("h", PresencePhase::Draining));
        assert_eq!((dead.phase, dead.fence), (PresencePhase::Dead, true));
    }
}
