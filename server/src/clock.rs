//! The one place where the server reads its clocks.

use crate::engine::Now;
use crate::program;
use nix::time::ClockId;
use oneknock_shared::knock::Timestamp;
use std::io;
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall: fn() -> SystemTime,
}

impl Clock {
    /// The system's clocks.
    #[must_use]
    pub fn start() -> Self {
        Self::with_wall(SystemTime::now)
    }

    /// As [`Clock::start`], with another wall clock: how tests make it jump. No program
    /// that is installed calls it.
    #[must_use]
    pub fn with_wall(wall: fn() -> SystemTime) -> Self {
        Self { wall }
    }

    /// What the clocks say. A wall clock before 1970 reads as 1970. The other runs since
    /// the machine's start and stands still while it sleeps, as the kernel's timeouts do.
    #[must_use]
    pub fn now(&self) -> Now {
        let since = (self.wall)().duration_since(UNIX_EPOCH).unwrap_or_default();
        // There is always such a clock; were there none, every grant would have ended.
        let mono = ClockId::CLOCK_MONOTONIC.now();
        Now {
            wall: Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            mono: mono.map_or(Duration::MAX, Duration::from),
        }
    }
}

/// A date in UTC, to the second. Where a clock was beyond all calendars, the seconds since
/// 1970.
#[must_use]
pub fn date(at: Timestamp) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(at.0));
    let last = Duration::from_secs(253_402_300_799);
    match time.filter(|_| Duration::from_millis(at.0) <= last) {
        Some(time) => humantime::format_rfc3339_seconds(time).to_string(),
        None => (at.0 / 1000).to_string(),
    }
}

/// Waits for the wall clock to be synchronised, by a thread of its own: whoever is asked
/// may take his time, as early after the machine's start.
#[derive(Debug)]
pub struct Synchronised(Receiver<io::Result<()>>, bool);

impl Synchronised {
    /// Begins to wait.
    #[must_use]
    pub fn wait() -> Self {
        let (tell, told) = sync_channel(1);
        std::thread::spawn(move || {
            let mut said = false;
            loop {
                let told = match is_synchronised() {
                    Ok(true) => tell.send(Ok(())),
                    Err(error) if !said => {
                        said = true;
                        tell.send(Err(error))
                    }
                    _ => Ok(()),
                };
                if told.is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        Self(told, false)
    }

    /// Why nobody can be asked; once.
    pub fn trouble(&mut self) -> Option<io::Error> {
        match self.0.try_recv() {
            Ok(Ok(())) => {
                self.1 = true;
                None
            }
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        }
    }

    /// Whether it is.
    pub fn is_done(&mut self) -> bool {
        self.1 = self.1 || matches!(self.0.try_recv(), Ok(Ok(())));
        self.1
    }
}

/// Asks systemd, which asks the kernel: the kernel itself answers only a system call that
/// no safe library wraps.
pub fn is_synchronised() -> io::Result<bool> {
    let mut ask = Command::new("timedatectl");
    ask.args(["show", "--property=NTPSynchronized", "--value"]);
    let output = program::output(&mut ask, b"", program::ANSWER)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(io::Error::other(said));
    }
    Ok(output.stdout.trim_ascii() == b"yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_also_at_the_ends_of_time() {
        assert_eq!(date(Timestamp(0)), "1970-01-01T00:00:00Z");
        assert_eq!(date(Timestamp(1_800_000_000_999)), "2027-01-15T08:00:00Z");
        assert_eq!(date(Timestamp(u64::MAX)), "18446744073709551");
    }

    #[test]
    fn a_wall_clock_before_1970_reads_as_1970() {
        let clock = Clock::with_wall(|| UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(clock.now().wall, Timestamp(0));
        let clock = Clock::with_wall(|| UNIX_EPOCH + Duration::from_millis(1500));
        assert_eq!(clock.now().wall, Timestamp(1500));
    }
}
