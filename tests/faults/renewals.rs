//! When and where the rep of a Cell renews its presence, as it is seen from outside.

use std::time::{Duration, Instant};

use diego_operator::presence::etcd::key;
use diego_operator::presence::kubernetes::lease_name;
use etcd_client::Client;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;

use crate::row::Store;
use crate::stage::Stage;
use crate::support::Failure;

/// How often it is asked how long the lease lasts.
const LOOK: Duration = Duration::from_millis(20);

/// The part of the time between two renewals after which the next one is near.
const NEAR: f64 = 0.9;

/// Waits until shortly before the rep of this Cell renews, by the pace of its last two renewals: what is cut or frozen
/// then has as little time left as it ever has.
pub async fn just_before(stage: &Stage, cell: &str) -> Result<(), Failure> {
    let first = next(stage, cell).await?;
    let second = next(stage, cell).await?;
    let near = second + (second - first).mul_f64(NEAR);
    tokio::time::sleep_until(near.into()).await;
    Ok(())
}

/// Waits for a renewal.
async fn next(stage: &Stage, cell: &str) -> Result<Instant, Failure> {
    match stage.store {
        Store::Etcd => next_in_etcd(stage, cell).await,
        Store::Leases => next_in_lease(stage, cell).await,
    }
}

async fn next_in_etcd(stage: &Stage, cell: &str) -> Result<Instant, Failure> {
    let mut client = Client::connect(stage.site.etcd.endpoints(), None).await?;
    let held = client.get(key(cell), None).await?;
    let held = held.kvs().first().ok_or("the Cell holds no presence")?;
    let lease = held.lease();
    // No TTL: what is left of it.
    let mut left = i64::MAX;
    loop {
        let now = client.lease_time_to_live(lease, None).await?.ttl();
        if now < 0 {
            return Err("the lease is gone before anything was done".into());
        }
        if now > left {
            return Ok(Instant::now());
        }
        left = now;
        tokio::time::sleep(LOOK).await;
    }
}

async fn next_in_lease(stage: &Stage, cell: &str) -> Result<Instant, Failure> {
    let leases = Api::<Lease>::default_namespaced(stage.site.client.clone());
    let name = lease_name(cell);
    let first = leases.get(&name).await?.metadata.resource_version;
    while leases.get(&name).await?.metadata.resource_version == first {
        tokio::time::sleep(LOOK).await;
    }
    Ok(Instant::now())
}

/// Makes the member of the store lead at which the rep of this Cell renews. Returns which one that is.
pub async fn leads_where_renewed(stage: &Stage, cell: &str) -> Result<usize, Failure> {
    let log = std::fs::read_to_string(stage.site.rep(cell).process.log())?;
    let mut lines = log.lines().rev();
    let said = lines.find(|line| line.contains("presence registered"));
    let words = said.unwrap_or_default().split([' ', '=', '"']);
    let endpoints = stage.site.etcd.endpoints();
    let member = words
        .filter_map(|word| endpoints.iter().position(|endpoint| endpoint == word))
        .next_back()
        .ok_or_else(|| format!("{cell} does not say where it renews: {said:?}"))?;
    for endpoint in endpoints.iter().cycle().take(20 * endpoints.len()) {
        let mut status = Client::connect([&endpoints[member]], None).await?;
        let status = status.status().await?;
        let wanted = status.header().map_or(0, |header| header.member_id());
        if status.leader() == wanted {
            return Ok(member);
        }
        let mut client = Client::connect([endpoint], None).await?;
        // Only the leader can do it: the others say so.
        let _asked = client.move_leader(wanted).await;
        tokio::time::sleep(LOOK).await;
    }
    Err(format!("member {member} does not lead").into())
}
