//! Room for so much at once, of which nobody gets more than a share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::sync::locked;

/// So many slots, and how many of them one name may have. Whoever waits for its name's share holds no slot.
#[derive(Debug, Clone)]
pub struct Slots(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    all: Arc<Semaphore>,
    count: usize,
    share: usize,
    /// The shares of the names that have or want a slot now.
    shares: Mutex<HashMap<String, Arc<Semaphore>>>,
    /// Who has or wants a slot.
    present: AtomicUsize,
}

/// A slot; it is free again with the end of the value.
#[derive(Debug)]
pub struct Slot {
    // In this order: the seat looks whether anybody else still uses the share.
    _slot: OwnedSemaphorePermit,
    _share: OwnedSemaphorePermit,
    _seat: Seat,
}

/// How many have a slot and how many wait for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Who has one.
    pub taken: usize,
    /// Who waits.
    pub waiting: usize,
}

impl Slots {
    /// `count` slots, of which each name gets at most `share`.
    pub fn new(count: usize, share: usize) -> Self {
        Slots(Arc::new(Inner {
            all: Arc::new(Semaphore::new(count)),
            count,
            share,
            shares: Mutex::default(),
            present: AtomicUsize::new(0),
        }))
    }

    /// Waits for a slot for `name`; first come, first served among those of one name. `None` never comes: slots are
    /// not closed.
    pub async fn acquire(&self, name: &str) -> Option<Slot> {
        let seat = Seat::new(self.0.clone(), name);
        let share = seat.share.clone()?.acquire_owned().await.ok()?;
        let slot = self.0.all.clone().acquire_owned().await.ok()?;
        Some(Slot {
            _slot: slot,
            _share: share,
            _seat: seat,
        })
    }

    /// How many have a slot and how many wait for one.
    pub fn counts(&self) -> Counts {
        let taken = self.0.count - self.0.all.available_permits();
        let present = self.0.present.load(Ordering::Relaxed);
        Counts {
            taken,
            waiting: present.saturating_sub(taken),
        }
    }
}

/// Somebody's use of a name's share, which is forgotten with the last of them.
#[derive(Debug)]
struct Seat {
    inner: Arc<Inner>,
    name: String,
    share: Option<Arc<Semaphore>>,
}

impl Seat {
    fn new(inner: Arc<Inner>, name: &str) -> Self {
        inner.present.fetch_add(1, Ordering::Relaxed);
        let share = inner
            .shares()
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(Semaphore::new(inner.share)))
            .clone();
        Seat {
            inner,
            name: name.to_owned(),
            share: Some(share),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.inner.present.fetch_sub(1, Ordering::Relaxed);
        let mut shares = self.inner.shares();
        // Under the lock, so that of two that end at once one sees that it is the last.
        self.share = None;
        if shares
            .get(&self.name)
            .is_some_and(|share| Arc::strong_count(share) == 1)
        {
            shares.remove(&self.name);
        }
    }
}

impl Inner {
    fn shares(&self) -> MutexGuard<'_, HashMap<String, Arc<Semaphore>>> {
        locked(&self.shares)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn counts(taken: usize, waiting: usize) -> Counts {
        Counts { taken, waiting }
    }

    #[tokio::test]
    async fn one_name_never_has_more_than_its_share() {
        let slots = Slots::new(4, 2);
        let first = slots.acquire("a").await;
        let second = slots.acquire("a").await;
        let mut third = Box::pin(slots.acquire("a"));
        assert!(third.as_mut().now_or_never().is_none(), "its share is used");
        assert_eq!(slots.counts(), counts(2, 1));
        let other = slots.acquire("b").now_or_never().flatten();
        assert!(other.is_some(), "who waits for a share holds no slot");
        drop(first);
        assert!(third.await.is_some());
        drop((second, other));
        assert_eq!(slots.counts(), counts(0, 0));
        assert!(slots.0.shares().is_empty(), "nothing is left of the names");
    }

    #[tokio::test]
    async fn all_names_together_never_have_more_than_all_slots() {
        let slots = Slots::new(2, 1);
        let first = slots.acquire("a").await;
        let second = slots.acquire("b").await;
        let mut third = Box::pin(slots.acquire("c"));
        assert!(third.as_mut().now_or_never().is_none());
        // Whoever gives up waiting leaves nothing behind.
        drop(third);
        assert_eq!(slots.counts(), counts(2, 0));
        drop((first, second));
        assert!(slots.acquire("c").now_or_never().flatten().is_some());
        assert!(slots.0.shares().is_empty());
    }
}
