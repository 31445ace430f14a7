//! How locks are taken.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A poisoned lock means that a task panicked between two consistent states: the value is still whole.
pub fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
