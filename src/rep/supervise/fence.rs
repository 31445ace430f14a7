//! A supervisor's deadline: after it nothing of the command may run.

use std::io;

use crate::boottime::{self, Alarm};
use crate::converge::fence::BootTime;

/// The deadline, and what goes off at it. `None` until the rep gives one: then it never passes.
pub(super) struct Fence(Option<(BootTime, Alarm)>);

impl Fence {
    pub(super) fn new(deadline: Option<BootTime>) -> io::Result<Self> {
        let set = |deadline| {
            let alarm = Alarm::new()?;
            alarm.set(deadline)?;
            Ok((deadline, alarm))
        };
        deadline.map(set).transpose().map(Self)
    }

    /// Moves the deadline on, never back.
    pub(super) fn move_to(&mut self, next: BootTime) -> io::Result<()> {
        match &mut self.0 {
            Some((deadline, alarm)) if next > *deadline => {
                alarm.set(next)?;
                *deadline = next;
                Ok(())
            }
            Some(_) => Ok(()),
            None => Self::new(Some(next)).map(|fence| *self = fence),
        }
    }

    /// For how many milliseconds the deadline has been over, if it is.
    pub(super) fn passed(&self) -> Option<u64> {
        let (deadline, _) = self.0.as_ref()?;
        let now = boottime::now();
        let late = now.since(*deadline).as_millis();
        (now >= *deadline).then(|| u64::try_from(late).unwrap_or(u64::MAX))
    }

    /// Waits until the deadline is over, however often it is moved on meanwhile.
    pub(super) async fn passes(&mut self) -> u64 {
        loop {
            if self.passed().is_some() {
                // A supervisor that was stopped itself may have newer deadlines in its socket, and not have looked yet.
                tokio::task::yield_now().await;
                if let Some(late) = self.passed() {
                    return late;
                }
            }
            match &mut self.0 {
                Some((_, alarm)) => alarm.rings().await,
                None => std::future::pending().await,
            }
        }
    }
}
