//! A generation's rate.

use std::time::Duration;

/// A time in whole milliseconds.
pub fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

const MINUTE: u64 = 60_000;

/// A minute's worth of knocks, in 60,000ths: a rate of one a minute gives one of them in a
/// millisecond.
pub struct Rate {
    per_minute: u64,
    level: u64,
    at: Duration,
    /// How often another's count of it may have been rounded down, by a millionth each.
    rounded: u64,
}

impl Rate {
    pub fn full(per_minute: u64, now: Duration) -> Self {
        Self {
            per_minute,
            level: per_minute * MINUTE,
            at: now,
            rounded: 0,
        }
    }

    /// Another rate, keeping what was used.
    pub fn set(&mut self, per_minute: u64, now: Duration) {
        self.fill(now);
        self.per_minute = per_minute;
        self.level = self.level.min(per_minute * MINUTE);
    }

    pub fn fill(&mut self, now: Duration) {
        let passed = ms(now.saturating_sub(self.at)).min(MINUTE);
        let full = self.per_minute * MINUTE;
        let sum = self.level + passed * self.per_minute;
        let is_surely_full = sum >= full + self.slack();
        self.rounded = if is_surely_full { 0 } else { self.rounded + 1 };
        (self.level, self.at) = (sum.min(full), now);
    }

    fn slack(&self) -> u64 {
        self.rounded * 6 / 100 + 1
    }

    /// Whether there is a knock left: surely, surely not, or perhaps (`None`).
    pub fn has_one(&self) -> Option<bool> {
        match self.level {
            level if level < MINUTE => Some(false),
            level if level < MINUTE + self.slack() => None,
            _ => Some(true),
        }
    }

    pub fn take(&mut self) {
        self.level = self.level.saturating_sub(MINUTE);
    }
}
