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

/// Any failure of a test's surroundings.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

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
