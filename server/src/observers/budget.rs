//! How many lines may be written of what others can cause without end.

use std::time::Duration;

/// So long a budget lasts.
const MINUTE: Duration = Duration::from_secs(60);

/// Lines that may be written within a minute; those beyond are counted.
#[derive(Debug, Default)]
pub struct Budget {
    since: Option<Duration>,
    lines: u32,
    suppressed: u64,
}

impl Budget {
    /// Whether one more line may be written now, of at most `most` within a minute.
    pub fn take(&mut self, now: Duration, most: u32) -> bool {
        if self
            .since
            .is_none_or(|since| now.saturating_sub(since) >= MINUTE)
        {
            (self.since, self.lines) = (Some(now), 0);
        }
        let may = self.lines < most;
        if may {
            self.lines += 1;
        } else {
            self.suppressed = self.suppressed.saturating_add(1);
        }
        may
    }

    /// How many lines were suppressed, once the minute is over.
    pub fn take_suppressed(&mut self, now: Duration) -> Option<u64> {
        let is_over = self
            .since
            .is_none_or(|since| now.saturating_sub(since) >= MINUTE);
        let suppressed = self.suppressed;
        if !is_over || suppressed == 0 {
            return None;
        }
        self.suppressed = 0;
        Some(suppressed)
    }

    /// Whether it can be forgotten: nothing was written for a minute, nothing is suppressed.
    #[must_use]
    pub fn is_idle(&self, now: Duration) -> bool {
        let is_over = self
            .since
            .is_none_or(|since| now.saturating_sub(since) >= MINUTE);
        is_over && self.suppressed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_budget_are_counted_and_told_when_it_is_over() {
        let mut budget = Budget::default();
        let start = Duration::from_secs(5);
        let written = (0..1000).filter(|_| budget.take(start, 30)).count();
        assert_eq!(written, 30);
        assert_eq!(budget.take_suppressed(start), None);
        let later = start + MINUTE;
        assert_eq!(budget.take_suppressed(later), Some(970));
        assert_eq!(budget.take_suppressed(later), None);
        assert!(budget.is_idle(later) && budget.take(later, 30));
        assert!(!budget.is_idle(later));
    }
}
