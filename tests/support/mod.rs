//! A whole installation on one machine: API server, presence etcd, controller and reps as real processes.
//!
//! Used by the system tests, the demo and the benchmarks, each of which uses a part of it.
#![allow(dead_code)]

pub mod certs;
pub mod http;
pub mod objects;
pub mod proxy;
pub mod site;
pub mod tree;

use std::time::{Duration, Instant};

use diego_operator::api::{ActualLRP, ActualLRPState};
use kube::ResourceExt;

/// Any failure of a test's surroundings.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What keeps an instance from being at rest: it does not run, or is not alone in its slot.
pub fn unrest(lrp: &ActualLRP) -> Option<String> {
    let status = lrp.status.clone().unwrap_or_default();
    let alone = status.suspect.is_none() && status.evacuating.is_none();
    let rests = status.state == ActualLRPState::Running && alone;
    (!rests).then(|| format!("{} is {status:?}", lrp.name_any()))
}

/// Waits until `probe` gives a value, at most `within`. `what` is told when it does not.
pub async fn eventually<T, F>(
    what: &str,
    within: Duration,
    mut probe: impl FnMut() -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Option<T>>,
{
    let began = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return Ok(value);
        }
        if began.elapsed() > within {
            return Err(format!("not within {within:?}: {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
