//! SIGINT and SIGTERM end a run early, in order: the servers are stopped, and what was measured is told.

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::support::Failure;

/// Cancelled by the first signal; the second ends the program at once. The servers end with it in any case.
pub fn listen() -> Result<CancellationToken, Failure> {
    // Cargo passes no SIGTERM on: when it ends, this ends.
    set_pdeathsig(Signal::SIGTERM)?;
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let cut = CancellationToken::new();
    let cancelled = cut.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if cancelled.is_cancelled() {
                std::process::exit(130);
            }
            eprintln!("cut off: stopping the servers; what was measured so far follows");
            cancelled.cancel();
        }
    });
    Ok(cut)
}
