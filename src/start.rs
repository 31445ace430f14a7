//! The start of a program that runs for long: what it needs may come up later than itself.
//!
//! After a power cut everything starts at once, the API server too. A program that ended then would be started again after
//! pauses that grow to minutes, and its Cell would be lost for that long.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::backoff::{Backoff, chance};
use crate::client;
use crate::presence::store;

/// The pauses between tries: short beside a TTL of 5 s.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

/// In a pod, whoever starts us again does it slowly; by hand, a wrong address shall be told at once.
const IN_A_POD: Duration = Duration::from_secs(60);

/// What can't be used at the start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The API server.
    #[error(transparent)]
    Kubernetes(#[from] client::ConnectError),
    /// The presence store.
    #[error(transparent)]
    Presence(#[from] store::ConnectError),
}

impl StartError {
    /// Whether another try may succeed without anybody changing anything.
    fn may_pass(&self) -> bool {
        match self {
            Self::Kubernetes(error) => match error {
                client::ConnectError::Unreachable { .. } => true,
                client::ConnectError::Config(_)
                | client::ConnectError::Refused { .. }
                | client::ConnectError::NoCrds { .. }
                | client::ConnectError::TooOld { .. }
                | client::ConnectError::OldCrd { .. } => false,
            },
            Self::Presence(error) => error.may_pass(),
        }
    }
}

/// How long to wait: `seconds` where that is given.
pub fn patience(seconds: Option<u32>) -> Duration {
    let in_a_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    match seconds {
        Some(seconds) => Duration::from_secs(seconds.into()),
        None if in_a_pod => IN_A_POD,
        None => Duration::ZERO,
    }
}

/// Tries until it succeeds, for as long as `patience`, and at least once. `None` when `stop` came first.
///
/// # Errors
/// The last try's, or one that no further try would change.
pub async fn until_reached<T>(
    patience: Duration,
    stop: &CancellationToken,
    attempt: impl AsyncFn() -> Result<T, StartError>,
) -> Result<Option<T>, StartError> {
    let began = Instant::now();
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    let mut warned = false;
    loop {
        let Some(tried) = stop.run_until_cancelled(attempt()).await else {
            return Ok(None);
        };
        match tried {
            Ok(reached) => {
                if warned {
                    tracing::info!(seconds = began.elapsed().as_secs(), "reached; going on");
                }
                return Ok(Some(reached));
            }
            Err(error) if !error.may_pass() || began.elapsed() >= patience => return Err(error),
            Err(error) => {
                if !std::mem::replace(&mut warned, true) {
                    let seconds = patience.as_secs();
                    tracing::warn!(%error, seconds, "not ready to start; trying for so long");
                }
            }
        }
        let pause = tokio::time::sleep(backoff.pause(chance()));
        if stop.run_until_cancelled(pause).await.is_none() {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn unreachable() -> StartError {
        let error = client::ConnectError::Unreachable {
            server: "https://a".into(),
            problem: "refused".into(),
        };
        error.into()
    }

    /// Counts the tries; the third one succeeds, if the error before may pass.
    async fn tries(patience: u64, error: fn() -> StartError) -> (u32, bool) {
        let (stop, count) = (CancellationToken::new(), Cell::new(0));
        let patience = Duration::from_secs(patience);
        let reached = until_reached(patience, &stop, async || {
            count.set(count.get() + 1);
            match count.get() {
                3 => Ok(()),
                _ => Err(error()),
            }
        });
        let reached = matches!(reached.await, Ok(Some(())));
        (count.get(), reached)
    }

    #[tokio::test]
    async fn what_may_come_up_is_waited_for_and_a_clear_answer_is_not() {
        assert_eq!(tries(60, unreachable).await, (3, true));
        assert_eq!(tries(0, unreachable).await, (1, false));
        let refused = || {
            let error = client::ConnectError::Refused {
                server: "https://a".into(),
                problem: "forbidden".into(),
            };
            error.into()
        };
        assert_eq!(tries(60, refused).await, (1, false));
    }

    #[tokio::test]
    async fn a_stop_ends_the_wait() {
        let stop = CancellationToken::new();
        let waits = until_reached(Duration::from_secs(60), &stop, async || {
            stop.cancel();
            Err::<(), _>(unreachable())
        });
        assert!(matches!(waits.await, Ok(None)));
    }
}
