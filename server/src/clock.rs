//! The one place where the server reads its clocks.

use crate::gate::Now;
use nix::time::ClockId;
use oneknock_shared::knock::Timestamp;
use std::io;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Both clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock;

impl Clock {
    /// What the clocks say. A wall clock before 1970 reads as 1970. The other runs since
    /// the machine's start and stands still while it sleeps, as the kernel's timeouts do.
    #[must_use]
    pub fn now(&self) -> Now {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        // There is always such a clock; were there none, every grant would have ended.
        let mono = ClockId::CLOCK_MONOTONIC.now();
        Now {
            wall: Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            mono: mono.map_or(Duration::MAX, Duration::from),
        }
    }
}

/// Waits for the wall clock to be synchronised, without holding anything up.
#[derive(Debug)]
pub struct Synchronised(Arc<AtomicBool>);

impl Synchronised {
    /// Begins to wait. Fails where nobody can be asked.
    pub fn wait() -> io::Result<Self> {
        let done = Arc::new(AtomicBool::new(is_synchronised()?));
        let seen = Arc::clone(&done);
        std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) && Arc::strong_count(&seen) > 1 {
                std::thread::sleep(Duration::from_secs(1));
                seen.store(is_synchronised().unwrap_or(false), Ordering::Relaxed);
            }
        });
        Ok(Self(done))
    }

    /// Whether it is.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Asks systemd, which asks the kernel: the kernel itself answers only a system call that
/// no safe library wraps.
fn is_synchronised() -> io::Result<bool> {
    let output = Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .output()?;
    Ok(output.stdout.trim_ascii() == b"yes")
}
