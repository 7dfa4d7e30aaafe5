//! Whether the guard is on trial: files say so. While one is there the doors are shut only
//! while a trial goes on, also for a daemon that starts anew and at the machine's next start.
//!
//! A call of `enable` may be killed before its trial has begun. On a machine whose guard goes
//! up at each start its file is in /run, which is empty after the next one: what was guarded
//! then is so still.

use crate::files::{self, Existing, Owner};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The files need to be read by the daemon, and hold no secret.
const MODE: u32 = 0o644;
const TEXT: &str = "The guard is on trial, and not confirmed: see oneknockctl(8), enable.\n";

/// How long the guard is on trial where nobody says anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Until it is confirmed, or disabled.
    Confirmed,
    /// Until the machine's next start, at the latest.
    NextStart,
}

impl Until {
    /// The file that says so; what is in it matters to nobody.
    fn file(self, dir: &Path) -> PathBuf {
        match self {
            // Another configuration's guard does not go up by itself.
            Self::NextStart if super::is_default(dir) => "/run/oneknock.on-trial".into(),
            _ => dir.join("on-trial"),
        }
    }
}

/// Whether the guard is on trial, and until when. Where that cannot be seen, it is not.
#[must_use]
pub fn read(dir: &Path) -> Option<Until> {
    let mut both = [Until::Confirmed, Until::NextStart].into_iter();
    both.find(|until| fs::symlink_metadata(until.file(dir)).is_ok())
}

/// Has the guard be on trial.
pub fn begin(dir: &Path, until: Until) -> io::Result<()> {
    let (owner, keep) = (Owner::wanted(), Existing::Replace);
    files::write(&until.file(dir), TEXT, owner, MODE, keep)
}

/// Has it be on trial no longer.
pub fn end(dir: &Path) -> io::Result<()> {
    for until in [Until::Confirmed, Until::NextStart] {
        match files::remove(&until.file(dir)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
