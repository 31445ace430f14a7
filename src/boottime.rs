//! The machine's clock that goes on while it sleeps: what a fence must go by. The clock of `Instant` and of all timers of
//! the runtime stands still meanwhile, so that a machine which wakes up would believe that it is still in time.

use std::io;
use std::sync::Arc;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::clock_gettime;
use tokio::sync::mpsc;

use crate::converge::fence::BootTime;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// What this clock shows now.
///
/// # Panics
/// On a kernel without CLOCK_BOOTTIME, older than any that this program runs on.
pub fn now() -> BootTime {
    let time = clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .expect("Linux has CLOCK_BOOTTIME since 2.6.39");
    let (seconds, nanos) = (time.tv_sec().unsigned_abs(), time.tv_nsec().unsigned_abs());
    BootTime::from_nanos(seconds.saturating_mul(SECOND).saturating_add(nanos))
}

/// Goes off at a time of this clock; right after a sleep in which that time passed. The runtime's own timers can't.
pub struct Alarm {
    timer: Arc<TimerFd>,
    rang: mpsc::Receiver<()>,
}

impl Alarm {
    /// One that does not go off until it is set. Its thread ends with the process: make few.
    ///
    /// # Errors
    /// Where there is no file descriptor, or no thread, left.
    pub fn new() -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC)?;
        let (ring, rang) = mpsc::channel(1);
        let alarm = Self {
            timer: Arc::new(timer),
            rang,
        };
        let timer = alarm.timer.clone();
        let wait = move || {
            while timer.wait().is_ok() && !ring.is_closed() {
                // One that was not heard yet is enough.
                let _ = ring.try_send(());
            }
        };
        std::thread::Builder::new()
            .name("alarm".into())
            .stack_size(STACK)
            .spawn(wait)?;
        Ok(alarm)
    }

    /// Sets it, in place of any earlier time.
    ///
    /// # Errors
    /// None that is known.
    pub fn set(&self, at: BootTime) -> io::Result<()> {
        // Zero would put it out.
        let nanos = at.as_nanos().max(1);
        let seconds = i64::try_from(nanos / SECOND).unwrap_or(i64::MAX);
        let rest = i64::try_from(nanos % SECOND).unwrap_or(0);
        let at = TimeSpec::new(seconds.min(LATEST), rest);
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME;
        Ok(self.timer.set(Expiration::OneShot(at), flags)?)
    }

    /// Waits until it goes off. That may have been for an earlier time: whoever is woken looks at the clock.
    pub async fn rings(&mut self) {
        if self.rang.recv().await.is_none() {
            std::future::pending().await
        }
    }
}

/// In seconds: the kernel takes no later time, and no machine runs for 200 years.
const LATEST: i64 = 200 * 365 * 86_400;

/// A thread that only waits needs no more.
const STACK: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[tokio::test]
    async fn an_alarm_goes_off_at_its_time_and_at_once_when_it_is_past() {
        let began = Instant::now();
        let at = now().after(Duration::from_millis(60));
        let mut alarm = Alarm::new().expect("a timer");
        alarm.set(at).expect("set");
        alarm.rings().await;
        assert!(now() >= at && began.elapsed() >= Duration::from_millis(60));
        for past in [at, BootTime::from_nanos(0)] {
            alarm.set(past).expect("set");
            let rang = tokio::time::timeout(Duration::from_secs(10), alarm.rings()).await;
            assert_eq!(rang, Ok(()), "{past}");
        }
        alarm.set(BootTime::from_nanos(u64::MAX)).expect("set");
        let early = tokio::time::timeout(Duration::from_millis(50), alarm.rings()).await;
        assert!(early.is_err(), "set for the end of all days");
    }
}
