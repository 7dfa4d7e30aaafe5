//! The one place where the server reads its clocks.

use crate::gate::Now;
use oneknock_shared::knock::Timestamp;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    wall: fn() -> SystemTime,
}

impl Clock {
    /// The system's clocks; the monotonic side starts now.
    #[must_use]
    pub fn start() -> Self {
        Self::with_wall(SystemTime::now)
    }

    /// As [`Clock::start`], with another wall clock: how tests make it jump. No program
    /// that is installed calls it.
    #[must_use]
    pub fn with_wall(wall: fn() -> SystemTime) -> Self {
        Self {
            start: Instant::now(),
            wall,
        }
    }

    /// What the clocks say. A wall clock before 1970 reads as 1970.
    #[must_use]
    pub fn now(&self) -> Now {
        let since = (self.wall)().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            wall: Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            mono: self.start.elapsed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_wall_clock_before_1970_reads_as_1970() {
        let clock = Clock::with_wall(|| UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(clock.now().wall, Timestamp(0));
        let clock = Clock::with_wall(|| UNIX_EPOCH + Duration::from_millis(1500));
        assert_eq!(clock.now().wall, Timestamp(1500));
    }
}
