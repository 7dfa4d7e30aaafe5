//! A slot through which a thread hands its latest value to the daemon's loop. It holds one
//! value, so nothing grows where the loop does not take it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A slot for one value that wakes its waiter.
#[derive(Debug)]
pub struct Latest<T> {
    value: Mutex<Option<T>>,
    waiter: Notify,
}

impl<T> Latest<T> {
    /// An empty slot.
    pub fn new() -> Self {
        Self {
            value: Mutex::new(None),
            waiter: Notify::new(),
        }
    }

    /// Stores what `merge` makes of the value that was not taken yet, and wakes the waiter.
    pub fn update(&self, merge: impl FnOnce(Option<T>) -> T) {
        let mut value = self.lock();
        let merged = merge(value.take());
        *value = Some(merged);
        drop(value);
        self.waiter.notify_one();
    }

    /// Takes the value, where there is one.
    pub fn take(&self) -> Option<T> {
        self.lock().take()
    }

    /// Waits for a value and takes it. A wait that is dropped has taken nothing. There may
    /// be one waiter at a time.
    pub async fn wait(&self) -> T {
        loop {
            if let Some(value) = self.take() {
                return value;
            }
            self.waiter.notified().await;
        }
    }

    /// A panic of another holder cannot leave half a value: it is used all the same.
    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn value_put_before_the_wait_is_not_lost() {
        let latest = Latest::new();
        latest.update(|_| 1);
        latest.update(|before| before.unwrap() + 1);
        assert_eq!(latest.wait().await, 2);
        assert_eq!(latest.take(), None);
    }

    #[tokio::test]
    async fn wait_that_is_dropped_loses_nothing() {
        let latest = Latest::new();
        for _ in 0..2 {
            let wait = tokio::time::timeout(Duration::ZERO, latest.wait());
            assert!(wait.await.is_err());
        }
        latest.update(|_| 7);
        assert_eq!(latest.wait().await, 7);
    }
}
