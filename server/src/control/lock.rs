//! The lock that says that a daemon is alive: held for as long as its process lives, and
//! looked at without being taken.
//!
//! It lies beside the control socket, in a directory that no other user can write to. An open
//! file description lock (fcntl(2)) can be asked for; one that excludes others can be taken
//! only by who may write the file.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The lock, held until it is dropped.
#[derive(Debug)]
pub struct RunLock(#[expect(dead_code, reason = "the open file holds the lock")] File);

/// The whole file.
#[expect(
    clippy::cast_possible_truncation,
    reason = "both constants are one digit"
)]
fn region() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

impl RunLock {
    /// Takes the lock; `None` where another process holds it. The file is made where it is
    /// not there.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.mode(0o644).custom_flags(flags.bits()).open(path)?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&region())) {
            Ok(_) => Ok(Some(Self(file))),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a process holds it. Where this user cannot see it, none does.
    #[must_use]
    pub fn is_held(path: &Path) -> bool {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let mut options = OpenOptions::new();
        let Ok(file) = options.read(true).custom_flags(flags.bits()).open(path) else {
            return false;
        };
        let mut found = region();
        let asked = fcntl(&file, FcntlArg::F_OFD_GETLK(&mut found));
        asked.is_ok() && i32::from(found.l_type) != libc::F_UNLCK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_is_seen_while_it_is_held_and_looking_takes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.lock");
        assert!(!RunLock::is_held(&path));
        let held = RunLock::take(&path).unwrap().unwrap();
        assert!(RunLock::is_held(&path));
        assert!(RunLock::take(&path).unwrap().is_none());
        drop(held);
        assert!(!RunLock::is_held(&path));
        assert!(RunLock::take(&path).unwrap().is_some());
    }
}
