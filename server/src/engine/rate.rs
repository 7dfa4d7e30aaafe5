//! A generation's rate: a bucket that fills with time and empties by use.

use std::time::Duration;

/// A token bucket that holds a minute's worth.
#[derive(Debug)]
pub(super) struct TokenBucket {
    per_minute: u32,
    /// Millionths of a token.
    level: u64,
    filled_at: Duration,
}

const TOKEN: u64 = 1_000_000;

impl TokenBucket {
    /// A full one.
    pub(super) fn new(per_minute: u32, now: Duration) -> Self {
        Self {
            per_minute,
            level: u64::from(per_minute) * TOKEN,
            filled_at: now,
        }
    }

    /// Sets the rate; what was used stays used.
    pub(super) fn set_rate(&mut self, per_minute: u32, now: Duration) {
        self.fill(now);
        self.per_minute = per_minute;
        self.level = self.level.min(u64::from(per_minute) * TOKEN);
    }

    /// Takes one token; false where there is none.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        self.fill(now);
        match self.level.checked_sub(TOKEN) {
            Some(rest) => {
                self.level = rest;
                true
            }
            None => false,
        }
    }

    fn fill(&mut self, now: Duration) {
        let passed = now
            .saturating_sub(self.filled_at)
            .min(Duration::from_secs(60));
        let micros = u64::try_from(passed.as_micros()).unwrap_or(0);
        let rate = u64::from(self.per_minute);
        self.level = (self.level + rate * micros / 60).min(rate * TOKEN);
        self.filled_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_gives_a_minutes_worth_at_once_then_the_rate() {
        let mut bucket = TokenBucket::new(60, Duration::ZERO);
        assert_eq!((0..100).filter(|_| bucket.take(Duration::ZERO)).count(), 60);
        assert!(!bucket.take(Duration::from_millis(900)));
        assert!(bucket.take(Duration::from_secs(1)));
        assert!(!bucket.take(Duration::from_secs(1)));
        let later = Duration::from_secs(100_000);
        assert_eq!((0..100).filter(|_| bucket.take(later)).count(), 60);
    }

    #[test]
    fn same_rate_set_again_gives_nothing_back() {
        let mut bucket = TokenBucket::new(2, Duration::ZERO);
        assert!(bucket.take(Duration::ZERO) && bucket.take(Duration::ZERO));
        bucket.set_rate(2, Duration::ZERO);
        assert!(!bucket.take(Duration::ZERO));
    }
}
