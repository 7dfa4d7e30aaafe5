//! Whether a daemon of a configuration folder runs, wherever its control socket is. It holds
//! a lock for as long as it lives: the configuration may say by now that state and socket are
//! elsewhere, and a socket may have been removed.
//!
//! The lock is on the folder of keys, which is there wherever there is a daemon, and which
//! nobody else may open: who holds it could only have a daemon believed to run.

use crate::files;
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

const TRIES: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(5);

/// Says that a daemon of this folder runs, until what is given back is dropped. Whoever
/// holds it for himself is not waited for.
pub fn hold(dir: &Path) -> io::Result<File> {
    let folder = File::open(files::key_folder(dir))?;
    for _ in 0..TRIES {
        match folder.try_lock_shared() {
            Ok(()) => return Ok(folder),
            Err(TryLockError::Error(error)) => return Err(error),
            // Others hold it for no longer than it takes to look.
            Err(TryLockError::WouldBlock) => std::thread::sleep(BETWEEN),
        }
    }
    Err(io::Error::other(
        "somebody else holds a lock on the folder of keys",
    ))
}

/// Whether a daemon of this folder runs; where this user cannot see it, none does.
#[must_use]
pub fn is_held(dir: &Path) -> bool {
    let folder = File::open(files::key_folder(dir));
    folder.is_ok_and(|folder| matches!(folder.try_lock(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_seen_for_as_long_as_it_holds_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_held(dir.path()));
        std::fs::create_dir(files::key_folder(dir.path())).unwrap();
        assert!(!is_held(dir.path()));
        let held = hold(dir.path()).unwrap();
        let second = hold(dir.path()).unwrap();
        assert!(is_held(dir.path()));
        drop(held);
        assert!(is_held(dir.path()));
        drop(second);
        // A process that is just being started by another test may have it a moment longer.
        let is_free = |_| {
            std::thread::sleep(BETWEEN);
            !is_held(dir.path())
        };
        assert!((0..1000).any(is_free));
    }

    #[test]
    fn whoever_holds_the_folder_for_himself_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(files::key_folder(dir.path())).unwrap();
        let other = File::open(files::key_folder(dir.path())).unwrap();
        other.lock().unwrap();
        assert!(hold(dir.path()).is_err());
    }
}
