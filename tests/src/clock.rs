//! A wall clock that a test sets: `oneknockd-shifted` is the daemon by this clock. The
//! installed daemon has no such way in.

use crate::wire;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The environment's variable that names the clock's file.
pub const FILE: &str = "LAB_WALL_CLOCK";

/// A second.
pub const SECOND: i64 = 1000;
/// An hour.
pub const HOUR: i64 = 3600 * SECOND;
/// A day.
pub const DAY: i64 = 24 * HOUR;

/// A wall clock, some milliseconds off the system's.
#[derive(Debug)]
pub struct WallClock {
    file: PathBuf,
    offset: i64,
}

impl WallClock {
    /// A clock that is right for now. Its file is in `folder`.
    pub fn new(folder: &Path) -> Self {
        let mut clock = Self {
            file: folder.join("wall-clock"),
            offset: 0,
        };
        clock.set(0);
        clock
    }

    /// Makes it jump to `offset` milliseconds after the system's.
    pub fn set(&mut self, offset: i64) {
        // Renamed into place: the daemon reads it at every datagram.
        let new = self.file.with_extension("new");
        fs::write(&new, offset.to_string()).unwrap();
        fs::rename(&new, &self.file).unwrap();
        self.offset = offset;
    }

    /// Makes it jump by some milliseconds.
    pub fn jump(&mut self, by: i64) {
        self.set(self.offset + by);
    }

    /// What it says, in milliseconds since 1970.
    pub fn now(&self) -> u64 {
        wire::now().saturating_add_signed(self.offset)
    }

    /// The file's path.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }
}

/// The daemon's main, by the clock that [`FILE`] names. A clock that cannot be read ends
/// it: a test's fault is not to pass for another time.
pub fn daemon() -> ExitCode {
    oneknockd::daemon::main_with(oneknockd::clock::Clock::with_wall(shifted))
}

fn shifted() -> SystemTime {
    let file = env::var_os(FILE).expect("the clock's file is named");
    let offset = fs::read_to_string(&file).unwrap();
    let offset: i64 = offset.parse().unwrap();
    let by = Duration::from_millis(offset.unsigned_abs());
    let now = SystemTime::now();
    let shifted = if offset < 0 {
        now.checked_sub(by)
    } else {
        now.checked_add(by)
    };
    shifted.unwrap_or(UNIX_EPOCH)
}
