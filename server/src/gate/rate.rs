//! How many knocks a minute: a bucket that fills with time and empties by use.

use std::time::Duration;

/// A token bucket that holds a minute's worth. A new one is full.
#[derive(Debug, Default)]
pub struct Bucket {
    per_minute: u32,
    /// Millionths of a token.
    level: u64,
    at: Duration,
    started: bool,
}

const TOKEN: u64 = 1_000_000;

impl Bucket {
    /// Sets the rate, keeping what was used.
    pub fn set_rate(&mut self, per_minute: u32, now: Duration) {
        self.fill(now);
        self.per_minute = per_minute;
        let full = u64::from(per_minute) * TOKEN;
        self.level = if self.started {
            self.level.min(full)
        } else {
            full
        };
        self.started = true;
    }

    /// Takes one token; false where there is none.
    pub fn take(&mut self, now: Duration) -> bool {
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
        let passed = now.saturating_sub(self.at).min(Duration::from_secs(60));
        let micros = u64::try_from(passed.as_micros()).unwrap_or(0);
        let rate = u64::from(self.per_minute);
        self.level = (self.level + rate * micros / 60).min(rate * TOKEN);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minutes_worth_at_once_and_then_at_the_rate() {
        let mut bucket = Bucket::default();
        bucket.set_rate(60, Duration::ZERO);
        assert_eq!((0..100).filter(|_| bucket.take(Duration::ZERO)).count(), 60);
        assert!(!bucket.take(Duration::from_millis(900)));
        assert!(bucket.take(Duration::from_secs(1)));
        assert!(!bucket.take(Duration::from_secs(1)));
        let later = Duration::from_secs(100_000);
        assert_eq!((0..100).filter(|_| bucket.take(later)).count(), 60);
    }

    #[test]
    fn setting_the_same_rate_again_gives_nothing_back() {
        let mut bucket = Bucket::default();
        bucket.set_rate(2, Duration::ZERO);
        assert!(bucket.take(Duration::ZERO) && bucket.take(Duration::ZERO));
        bucket.set_rate(2, Duration::ZERO);
        assert!(!bucket.take(Duration::ZERO));
    }
}
