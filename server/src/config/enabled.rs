//! Whether a server enforces: a marker beside the configuration says so. `oneknockctl enable`
//! and `confirm` set it, `disable` clears it, and nobody else does. Without it a daemon or guard
//! that starts shuts nothing.

use super::Paths;
use crate::files::{self, Existing, Owner};
use std::fs;
use std::io;

/// The marker has to be seen by the daemon, and holds no secret.
const MODE: u32 = 0o644;
const TEXT: &str = "The guard enforces: see oneknockctl(8), enable and disable.\n";

/// Whether the marker is there, whatever it is: what somebody puts in its place opens nothing.
/// Where that cannot be seen, it is.
#[must_use]
pub fn is_set(paths: &Paths) -> bool {
    let found = fs::symlink_metadata(paths.enabled());
    !found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Sets the marker; one that is there is left as it is.
pub fn set(paths: &Paths) -> io::Result<()> {
    let (path, owner) = (paths.enabled(), Owner::wanted());
    match files::write(&path, TEXT, owner, MODE, Existing::Keep) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Clears the marker.
pub fn clear(paths: &Paths) -> io::Result<()> {
    match files::remove(&paths.enabled()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_marker_is_set_once_and_cleared_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::of(dir.path());
        assert!(!is_set(&paths));
        for _ in 0..2 {
            set(&paths).unwrap();
            assert!(is_set(&paths));
        }
        for _ in 0..2 {
            clear(&paths).unwrap();
            assert!(!is_set(&paths));
        }
    }

    #[test]
    fn whatever_stands_in_the_markers_place_counts_as_the_marker() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::of(dir.path());
        symlink("/nonexistent", paths.enabled()).unwrap();
        assert!(is_set(&paths));
        set(&paths).unwrap();
        clear(&paths).unwrap();
        fs::create_dir(paths.enabled()).unwrap();
        assert!(is_set(&paths));
        set(&paths).unwrap();
        clear(&paths).unwrap_err();
    }
}
